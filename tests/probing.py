"""States made by rule, and agents whose right numbers are known in advance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cotbench.envs import Instructions
from cotbench.probes.numbers import ProbeNumbers
from cotbench.probes.probe import ProbeSetting, probe_named
from cotbench.probes.states import ProbeState, StateKey, StateSet
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision, Query


def state(task: int, step: int, **more: Any) -> ProbeState:
    """Step `step` of task `task`; every text in it is found nowhere else."""
    goal = f"find mug {task}."
    dialogue = Dialogue(Instructions("You act."), (f"You are in room {task}. Your task is to: {goal}",))
    for turn in range(step):
        dialogue = dialogue.extended(f"go to desk {turn}", None, f"You see desk {turn + 1} of room {task}.")
    made = ProbeState(f"t/{task}", f"type {task % 2}", step, goal, dialogue, f"take mug {task} from desk {step}", None)
    return replace(made, **more)


def states(tasks: int = 3, steps: int = 3) -> list[ProbeState]:
    return [state(task, step) for task in range(tasks) for step in range(steps)]


def setting(some: Sequence[ProbeState], **more: Any) -> ProbeSetting:
    whole = StateSet("alfworld-gen", "paper", "id", "made", 0, len({one.task for one in some}), tuple(some))
    return ProbeSetting(whole, more.pop("elicitation", Elicitation()), str.strip, **more)


@dataclass
class Scripted:
    """Acts by rule.

    Attributes:
        act: (query, trace) -> action; the trace is None in prompt mode.
        think: query -> trace, where none is given.
        score: (query, trace) -> log-probability of a given action; None: the agent heeds no given action.
        failing: keys of states that it cannot answer.
        asked: every query, in order.
    """

    act: Callable[[Query, str | None], str]
    think: Callable[[Query], str] = lambda query: f" I will {query.step}.\n"
    score: Callable[[Query, str | None], float | None] | None = None
    failing: Iterable[StateKey] = ()
    asked: list[Query] = field(default_factory=list)
    name: str = "scripted-test"

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        self.asked += queries
        return [self._decide(query) for query in queries]

    def _decide(self, query: Query) -> Decision:
        if (query.task, query.step) in self.failing:
            return Decision("", error="503 from the server")
        trace = None
        if query.mode == "cot":
            trace = self.think(query) if query.given_trace is None else query.given_trace
        raw = "" if trace is None else f"<think>{trace}</think>\n"
        told = trace if trace is None else trace.strip()
        if query.given_action is not None and self.score is not None:
            return Decision(query.given_action, told, action_logprob=self.score(query, trace))
        action = self.act(query, trace)
        return Decision(action, told, f"{raw}<action>{action}</action>", trace_tokens=7, action_tokens=2, action_logprob=-0.5)

    def close(self) -> None: ...


def measured(
    name: str, agent: Any, some: Sequence[ProbeState], within: ProbeSetting | None = None, **options: Any
) -> list[Any]:
    """The rows of a probe; each is read back from what would be written down."""
    probe = probe_named(name)
    rows = probe.measure(agent, some, within or setting(some), probe.options(**options))
    return [probe.row.model_validate_json(row.model_dump_json()) for row in rows]


def numbers(name: str, rows: Sequence[Any], **options: Any) -> ProbeNumbers:
    probe = probe_named(name)
    return probe.summarize(rows, probe.options(**options))


def means(found: ProbeNumbers) -> dict[str, float | None]:
    return {name: estimate.mean for name, estimate in found.estimates.items()}
