"""Episodes whose answers come from elsewhere are the episodes of `cotbench run`."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("anyio", reason="anyio is not installed: pip install 'cotbench[inspect]'")

from cotbench.bridges.hosted_run import HostedRun, Reply, hosted_config
from cotbench.envs.alfworld.env import ALFWorldEnv
from cotbench.errors import EngineError, UsageError
from cotbench.prompting.elicitation import Elicitation, Message
from cotbench.prompting.generation import GenerationRequest, answer_program
from cotbench.prompting.query import Decision, Query
from cotbench.runs.episode import Episode
from cotbench.runs.runner import run
from tests.cotbench.bridges.expert_model import ExpertModel

_UNLIKE = {"seconds"}


class _AsAgent:
    """The same model as an agent of cotbench."""

    name = "expert-model"

    def __init__(self, model: ExpertModel) -> None:
        self._model = model

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        return [self._decide(query) for query in queries]

    def _decide(self, query: Query) -> Decision:
        program = answer_program(query)
        request = next(program)
        text = self._model.answer(query.elicitation.messages(query.dialogue, query.mode))
        try:
            program.send(Reply(text).generation(request))
        except StopIteration as answered:
            return answered.value  # type: ignore[no-any-return]
        raise AssertionError

    def close(self) -> None:
        pass


def _hosted(**options: Any) -> HostedRun:
    return HostedRun.of(hosted_config("test", "alfworld-gen", episodes=1, **options))


def _played(hosted: HostedRun, model: Any) -> list[Episode]:
    async def generate(chat: Sequence[Message], request: GenerationRequest) -> Reply:
        found = model(chat, request)
        return found if isinstance(found, Reply) else Reply(found)

    async def play() -> list[Episode]:
        return [await hosted.play(one, generate) for one in hosted.episodes]

    return asyncio.run(play())


def test_episodes_are_those_of_a_run(tmp_path: Path) -> None:
    hosted = _hosted(mode="both")
    model = ExpertModel(hosted.plan)
    mine = _played(hosted, lambda chat, request: model.answer(chat))
    asked = list(model.chats)
    model.chats.clear()
    theirs = run(hosted.plan.config, out=tmp_path / "run", agent=_AsAgent(model), num_envs=1)
    recorded = list(getattr(theirs, "records", None) or theirs.episodes)
    assert [one.model_dump(exclude=_UNLIKE) for one in mine] == [one.model_dump(exclude=_UNLIKE) for one in recorded]
    assert asked == model.chats
    assert [(one.mode, one.success, one.score) for one in mine] == [("prompt", True, 1.0), ("cot", True, 1.0)]
    assert all(step.expert_action is not None for one in mine for step in one.trajectory)
    assert all(step.prompt_action == step.action for step in mine[1].trajectory)


def test_a_failure_is_raised_and_the_environment_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    def broken(self: Any, action: str) -> Any:
        raise EngineError("the engine is gone")

    def close(self: Any) -> None:
        closed.append(threading.current_thread().name)

    monkeypatch.setattr(ALFWorldEnv, "_act", broken)
    monkeypatch.setattr(ALFWorldEnv, "close", close)
    with pytest.raises(EngineError, match="the engine is gone"):
        _played(_hosted(mode="cot"), lambda chat, request: "<action>look</action>")
    for thread in threading.enumerate():
        if thread.name.startswith("cotbench-episode"):
            thread.join(10)
    # On starting a task the environment closes what it held before; the last time is the end.
    assert closed and closed[-1].startswith("cotbench-episode")


def test_what_the_model_raises_is_raised() -> None:
    class LimitError(BaseException):
        pass

    def limited(chat: Any, request: Any) -> str:
        raise LimitError

    with pytest.raises(LimitError):
        _played(_hosted(mode="cot"), limited)


def test_a_reply_is_read_as_a_run_reads_it() -> None:
    cot = GenerationRequest((), 100, ("</action>",), False, 0)
    assert Reply("<think>x</think>\n<action>look</action> and more", tokens=9).generation(cot).text == (
        "<think>x</think>\n<action>look"
    )
    assert Reply("<action>lo", truncated=True).generation(cot).stop == "budget"
    assert Reply("look").generation(cot).stop == "eos"
    assert Reply("<action>look</action>", reasoning="x").generation(cot).text == "<think>x</think>\n<action>look"
    assert Reply("", reasoning="x", truncated=True).generation(cot).text == "<think>x"


def test_a_prompt_action_after_hidden_reasoning_is_seen() -> None:
    (episode,) = _played(
        _hosted(mode="prompt", max_steps=1), lambda chat, request: Reply("<action>look</action>", reasoning="hm")
    )
    (step,) = episode.trajectory
    assert (step.action, step.decision.trace, step.decision.format_ok) == ("look", None, False)
    assert step.decision.raw == "<think>hm</think>\n<action>look</action>"


def test_the_elicitation_is_the_run_s() -> None:
    config = hosted_config("test", "alfworld-gen", {"trace_tokens": 64})
    assert config.elicitation == Elicitation.for_env("alfworld-gen", style="template", trace_tokens=64)
    for other in ({"style": "prefill"}, {"prompt_action": "empty"}):
        with pytest.raises(UsageError, match="whole chats"):
            hosted_config("test", "alfworld-gen", other)
