"""The `human` agent: a person at the terminal. Invariant: nothing is shown that a model would not be shown, except on
request ("?").
"""

from __future__ import annotations

from collections.abc import Sequence

from cotbench.agents.decisions import tagged_decision
from cotbench.errors import AgentError
from cotbench.printable import printable
from cotbench.prompting.query import Decision, Query


class HumanAgent:
    """Prints the observation and reads the action; in CoT mode reads a trace first."""

    name = "human"
    needs = frozenset({"admissible_actions"})

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """Ask for each query in turn."""
        return [self._ask(query) for query in queries]

    def _ask(self, query: Query) -> Decision:
        if query.step == 0:
            text, examples = query.dialogue.instructions
            print(printable("\n".join((f"\n== {query.task} ({query.mode})", text, *examples, ""))))
        print(printable(query.dialogue.observations[-1]))
        trace = None
        if query.mode == "cot":
            trace = query.given_trace if query.given_trace is not None else _read("think> ")
        while True:
            action = _read("action> ")
            if action != "?":
                return tagged_decision(query, action, trace)
            print(printable("\n".join(query.admissible_actions or ("(no list of admissible actions)",))))

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


def _read(prompt: str) -> str:
    try:
        return input(prompt).strip()
    except EOFError as error:
        raise AgentError("the input ended: no more actions from the terminal") from error
