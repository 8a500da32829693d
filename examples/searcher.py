"""Agent `searcher`: a player of ALFWorld with a few rules instead of a model.

In CoT mode it recalls where it has been, and says so in its trace; in prompt mode it only sees where it is. So the trace
changes what it does. `python searcher.py` plays 20 games in both modes; from the command line:
`cotbench run --import searcher.py --agent searcher`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import cotbench

TOOLS = {"clean": "sinkbasin", "heat": "microwave", "hot": "microwave", "cool": "fridge", "cold": "fridge", "look": "desklamp"}
USES = ("clean ", "heat ", "cool ", "use ")


@cotbench.register_agent("searcher")
class Searcher:
    """Looks for the thing that the task names, and brings it to where the task wants it."""

    name = "searcher"
    needs = frozenset({"admissible_actions"})

    def decide(self, queries: Sequence[cotbench.Query]) -> list[cotbench.Decision]:
        """Return a decision for each query."""
        return [self._decide(query) for query in queries]

    def _decide(self, query: cotbench.Query) -> cotbench.Decision:
        task = query.dialogue.observations[0].rsplit("Your task is to: ", 1)[-1]
        words = set(re.findall(r"[a-z]+", task.replace("examine", "look")))
        done = query.dialogue.actions
        recalled = done if query.mode == "cot" else ()  # Without a trace it recalls nothing.
        action = choose(list(query.admissible_actions or ()), words, done, recalled)
        trace = f"I looked in {len(recalled)} places. Next: {action}." if query.mode == "cot" else None
        return cotbench.Decision(action, trace)

    def close(self) -> None:
        """Free nothing."""


def choose(admissible: list[str], words: set[str], done: Sequence[str], recalled: Sequence[str]) -> str:
    """Return the next action.

    Args:
        admissible: the actions that do something here.
        words: of the task's sentence.
        done: the actions so far.
        recalled: those of them that count as tried.
    """
    tool = next((TOOLS[word] for word in sorted(words) if word in TOOLS), "")
    ready = not tool or any(action.startswith(USES) for action in done)
    holding = any(action.startswith("move ") for action in admissible)
    for action in admissible:
        verb, thing, *rest = *action.split(), "", ""
        if (verb == "take" and thing in words and not words & set(rest)) or (action.startswith(USES) and holding and not ready):
            return action
        if verb == "move" and ready and words & set(rest):
            return action
    aim = ({tool} if not ready else words) if holding else set()
    places = [action for action in admissible if action.startswith(("open ", "go to "))]
    places.sort(key=lambda action: (not aim & set(action.split()), action.startswith("go to ")))
    return next((action for action in places if action not in recalled), "look")


if __name__ == "__main__":
    played = cotbench.run(cotbench.RunConfig(agent="searcher", env="alfworld-gen", episodes=20, max_steps=25), agent=Searcher())
    for mode, numbers in played.summary.modes.items():
        print(f"{mode}: success {numbers.success.mean:.2f} of {numbers.success.n} games")
    if played.summary.gap is not None:
        gap = played.summary.gap.success
        print(f"gap: {gap.mean:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]")
