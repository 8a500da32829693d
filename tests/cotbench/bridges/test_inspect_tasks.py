"""inspect_ai plays a run's episodes: with the official verdict as score, and an error for whatever else failed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "inspect_ai", reason="inspect_ai is not installed: pip install 'cotbench[inspect]', in an environment of its own"
)

from inspect_ai import eval as evaluate
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    ContentReasoning,
    ContentText,
    ModelOutput,
    ModelUsage,
    get_model,
)

from cotbench.bridges.hosted_run import HostedRun, hosted_config
from cotbench.bridges.inspect_tasks import episode_of, inspect_task
from cotbench.envs.alfworld.env import ALFWorldEnv
from cotbench.errors import EngineError
from cotbench.prompting.elicitation import Message
from tests.cotbench.bridges.examples import example
from tests.cotbench.bridges.expert_model import ExpertModel

EPISODES = {"episodes": 1, "max_steps": 30}


def _mock(answer: Callable[[list[Message]], str | ModelOutput]) -> Any:
    def output(messages: Any, *_: Any) -> ModelOutput:
        found = answer([Message(message.role, message.text) for message in messages])
        made = found if isinstance(found, ModelOutput) else ModelOutput.from_content("mockllm", found)
        return made.model_copy(update={"usage": ModelUsage(input_tokens=10, output_tokens=5)})  # Else it fetches a tokenizer.

    return get_model("mockllm/model", custom_outputs=output, memoize=False)


def _expert() -> ExpertModel:
    return ExpertModel(HostedRun.of(hosted_config("test", "alfworld-gen", **EPISODES)).plan)


def _evaluated(model: Any, folder: Path, **options: Any) -> Any:
    task = inspect_task("alfworld-gen", **{**EPISODES, **options})
    (log,) = evaluate(task, model=model, display="none", log_dir=str(folder), log_level="error")
    return log


def test_the_score_is_the_verdict(tmp_path: Path) -> None:
    log = _evaluated(_mock(_expert().answer), tmp_path)
    assert log.status == "success", log.error
    assert {sample.id.rpartition("#")[2]: sample.scores["verdict"].value for sample in log.samples} == {
        "prompt": 1.0,
        "cot": 1.0,
    }
    metrics = {metric.name: metric.value for metric in log.results.scores[0].metrics.values()}
    assert metrics["prompt"] == metrics["cot"] == 1.0
    cot = next(episode_of(sample.store) for sample in log.samples if sample.id.endswith("#cot"))
    assert cot.success and cot.trajectory[0].decision.trace == "It is next."
    assert cot.trajectory[0].prompt_action == cot.trajectory[0].action
    assert log.eval.metadata["elicitation_fingerprint"] == hosted_config("x", "alfworld-gen").elicitation.fingerprint


def test_what_is_lost_is_a_zero(tmp_path: Path) -> None:
    log = _evaluated(_mock(lambda chat: "<action>look</action>"), tmp_path, max_steps=2, mode="prompt")
    (sample,) = log.samples
    assert (sample.error, sample.scores["verdict"].value, sample.scores["verdict"].metadata["steps"]) == (None, 0.0, 2)


def test_a_lost_engine_is_an_error_and_no_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, action: str) -> Any:
        raise EngineError("the engine is gone")

    monkeypatch.setattr(ALFWorldEnv, "_act", broken)
    log = _evaluated(_mock(lambda chat: "<action>look</action>"), tmp_path, mode="cot")
    assert log.status == "error"
    (sample,) = log.samples
    assert "the engine is gone" in sample.error.message
    assert not sample.scores


def test_a_refusal_is_an_error_and_no_score(tmp_path: Path) -> None:
    refused = ModelOutput.from_content("mockllm", "", stop_reason="content_filter")
    (sample,) = _evaluated(_mock(lambda chat: refused), tmp_path, mode="cot").samples
    assert "gave no answer (content_filter)" in sample.error.message
    assert not sample.scores


def test_hidden_reasoning_is_the_trace(tmp_path: Path) -> None:
    content = [ContentReasoning(reasoning="hm"), ContentText(text="<action>look</action>")]
    reasoned = ModelOutput(
        model="mockllm", choices=[ChatCompletionChoice(message=ChatMessageAssistant(content=content), stop_reason="stop")]
    )
    log = _evaluated(_mock(lambda chat: reasoned), tmp_path, mode="cot", max_steps=1)
    (step,) = episode_of(log.samples[0].store).trajectory
    assert (step.decision.trace, step.decision.action, step.decision.format_ok) == ("hm", "look", True)


def test_the_example_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--episodes", "1", "--max-steps", "30", "--logs", str(tmp_path)]
    log = example("bridge_inspect").main(words, _mock(_expert().answer))
    assert log.status == "success", log.error
    out = capsys.readouterr().out
    assert "cot: 1.00" in out and "the trace changed 0 of" in out


def test_inspect_finds_the_task_by_its_name() -> None:
    from importlib.metadata import entry_points

    (entry,) = (one for one in entry_points(group="inspect_ai") if one.name == "cotbench")
    assert entry.load().cotbench(episodes=1).dataset[0].metadata["mode"] == "prompt"
