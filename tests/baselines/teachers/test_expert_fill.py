"""The expert's actions with a model's traces: what the model is asked, and what of it is refused."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cotbench.agents import registry
from cotbench.agents.base import StreamingAgent
from cotbench.baselines.data.demonstration import from_episode
from cotbench.baselines.teachers.expert_fill import NOTE, ExpertFill, StreamingExpertFill, expert_fill, filled
from cotbench.envs.registry import Instructions
from cotbench.errors import AgentError, UnknownNameError
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision, Query
from cotbench.runs.manifest import RunConfig
from cotbench.runs.runner import run

NOTED = "\n\n" + NOTE.format(action="open fridge 1")


class Writer:
    """Writes what it is told to, and another action than the expert's."""

    name = "writer"
    needs = frozenset({"admissible_actions"})

    def __init__(self, *, trace: str = "The egg must be cold, so I open the fridge.", factor: int = 1) -> None:
        self.trace, self.factor = trace, factor
        self.seen: list[list[Query]] = []
        self.closed = False

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        self.seen.append(list(queries))
        return [Decision("look", self.trace, "raw", trace_tokens=7 * self.factor, action_tokens=2) for _ in queries]

    def require(self, elicitation: Elicitation) -> None:
        if elicitation.style == "template":
            raise AgentError("not this way")

    def describe(self) -> dict[str, Any]:
        return {"revision": "abc", "device": "cpu"}

    def close(self) -> None:
        self.closed = True


class StreamingWriter(Writer):
    batch = 5

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[Hashable, Query]] = []
        self.waits: list[float] = []

    def submit(self, key: Hashable, query: Query) -> None:
        self.open.append((key, query))

    def collect(self, wait: float) -> list[tuple[Hashable, Decision]]:
        self.waits.append(wait)
        done, self.open = self.open[::-1], []
        return [(key, decision) for key, query in done for decision in self.decide([query])]


@pytest.fixture(autouse=True)
def _writers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        registry._registry, "_registered", {**registry._registry._registered, "writer": Writer, "stream": StreamingWriter}
    )


def _query(**changes: Any) -> Query:
    query = Query("e", "", "alfworld/gen/cool/9", 1, "cot", _dialogue(), Elicitation(), expert_action="open fridge 1")
    return replace(query, **changes)


def _dialogue() -> Dialogue:
    return Dialogue(Instructions("i"), ("task", "You see a fridge 1."), ("go to fridge 1",), (None,))


def test_the_writer_sees_the_note_and_only_at_the_last_observation() -> None:
    writer = Writer()
    teacher = ExpertFill(writer)
    decisions = teacher.decide([_query(), _query(mode="prompt"), _query(given_trace="mine"), _query(task="other")])
    ((first, second),) = writer.seen
    assert first == _query(dialogue=replace(_dialogue(), observations=("task", "You see a fridge 1." + NOTED)))
    assert second.task == "other"
    assert [decision.action for decision in decisions] == ["open fridge 1"] * 4
    assert [decision.trace for decision in decisions] == [writer.trace, None, "mine", writer.trace]
    assert decisions[0].raw == f"<think>{writer.trace}</think>\n<action>open fridge 1</action>"
    assert (decisions[0].trace_tokens, decisions[0].format_ok, decisions[1].trace_tokens) == (7, True, 0)


def test_where_the_expert_is_silent_that_is_an_error_and_the_writer_is_not_asked() -> None:
    writer = Writer()
    (decision,) = ExpertFill(writer).decide([_query(expert_action=None)])
    assert decision.error == "the expert has no action at step 1 of alfworld/gen/cool/9"
    assert writer.seen == []
    (decision,) = ExpertFill(writer).decide([_query(expert_action=None, mode="prompt")])
    assert decision.error is not None


@pytest.mark.parametrize(
    "trace",
    [
        None,
        "",
        " \n",
        "The note says that I should open the fridge.",
        "The BEST next action is: open fridge 1",
        "I was told to open it.",
        "As instructed, I open it.",
        "The suggested action makes sense.",
        "So it is <action>look",
    ],
)
def test_a_trace_that_betrays_the_note_is_refused(trace: str | None) -> None:
    decision = filled(_query(), Decision("look", trace, "raw", trace_tokens=3))
    assert (decision.action, decision.trace, decision.format_ok, decision.error) == ("open fridge 1", "", False, None)
    assert (decision.trace_tokens, decision.raw) == (3, "raw"), "what was spent and written is still told"


@pytest.mark.parametrize("trace", ["The notebook is not here, so I open the fridge.", "My best option is the fridge."])
def test_an_innocent_trace_is_kept(trace: str) -> None:
    assert filled(_query(), Decision("look", f" {trace}\n")).trace == trace


def test_a_truncated_trace_is_refused_and_an_error_stays_one() -> None:
    assert filled(_query(), Decision("look", "I thought that", trace_truncated=True)).trace == ""
    assert filled(_query(), Decision("", error="503")).error == "503"


def test_a_writer_that_miscounts_answers_nothing() -> None:
    writer = Writer()
    writer.decide = lambda queries: []  # type: ignore[method-assign]
    with pytest.raises(AgentError, match="answered 0 of 1 queries"):
        ExpertFill(writer).decide([_query()])


def test_a_spec_passes_options_on() -> None:
    teacher = expert_fill("writer", inner="trace=a b%2C c,factor=3")
    assert isinstance(teacher, ExpertFill) and not isinstance(teacher, StreamingAgent)
    (decision,) = teacher.decide([_query()])
    assert (decision.trace, decision.trace_tokens) == ("a b, c", 21)
    with pytest.raises(UnknownNameError, match="unknown agent 'writerr'; did you mean 'writer'"):
        expert_fill("writerr")
    with pytest.raises(UnknownNameError, match="unknown option 'faktor' of agent 'writer'"):
        expert_fill("writer", inner="faktor=3")


def test_the_spec_as_it_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._registry._registered, "filling", expert_fill)
    built = registry.make_agent("filling:writer?inner=factor=2,trace=x")
    assert built.decide([_query()])[0].trace_tokens == 14
    with pytest.raises(UnknownNameError, match="unknown option 'factor' of agent 'filling'; known: inner"):
        registry.make_agent("filling:writer?factor=2")
    with pytest.raises(Exception, match="needs its agent: --agent filling:AGENT"):
        registry.make_agent("filling")


def test_it_stands_for_its_writer() -> None:
    writer = Writer()
    teacher = ExpertFill(writer)
    assert teacher.needs == {"expert_action", "admissible_actions"}
    assert teacher.describe() == {"revision": "abc", "device": "cpu", "note": NOTE}
    with pytest.raises(AgentError, match="not this way"):
        teacher.require(Elicitation(style="template"))
    teacher.close()
    assert writer.closed


def test_around_a_streaming_writer_it_streams() -> None:
    teacher = expert_fill("stream")
    assert isinstance(teacher, StreamingExpertFill) and isinstance(teacher, StreamingAgent) and teacher.batch == 5
    queries = [_query(), _query(mode="prompt"), _query(task="other", expert_action="wait"), _query(expert_action=None)]
    for key, query in enumerate(queries):
        teacher.submit(key, query)
    got = dict(teacher.collect(9.0))
    assert [got[key] for key in range(4)] == ExpertFill(Writer()).decide(queries)
    assert teacher.collect(9.0) == []
    assert teacher._streaming.waits == [0.0, 9.0], "who has something to tell does not wait"  # type: ignore[attr-defined]


@pytest.mark.parametrize("spec", ["writer", "stream"])
def test_a_run_teaches_the_experts_actions_and_never_shows_the_note(spec: str, tmp_path: Path) -> None:
    config = RunConfig(agent=f"expert-fill:{spec}", split="train", mode="cot", tasks=("alfworld/gen/heat/1008",))
    outcome = run(config, out=tmp_path / "run", agent=expert_fill(spec))
    (episode,) = outcome.records
    assert episode.success
    one = from_episode(episode, "alfworld-gen", config.agent)
    assert list(one.actions) == [step.expert_action for step in episode.trajectory]
    assert set(one.traces) == {Writer().trace}
    assert "next action" not in one.model_dump_json()
