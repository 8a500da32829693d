"""The observations and actions of one episode so far, as a model is shown them. Invariant: a dialogue only grows at its end, so
the KV cache of its prefix stays valid; shortening it for a small context follows one fixed rule and is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from cotbench.envs.registry import Instructions
from cotbench.errors import ContextOverflowError

ELIDED = "..."
"""Text in place of an observation that was dropped."""

DROP_BLOCK = 8
"""Observations are dropped in blocks, so that the shortened prefix stays the same for several turns."""

CUT_RULE = "the middle of any observation but the first; the first and last halves of what may be shown are kept"
"""The rule for shortening a single long observation, in words; part of the elicitation's fingerprint."""

DROP_RULE = "oldest observations first, in blocks of 8; never the system text, the first or the last observation"
"""The rule for dropping observations, in words; part of the elicitation's fingerprint."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Instructions, then observations and actions in turn.

    Attributes:
        instructions: the environment's instructions, the same for every task.
        functions: the functions that can be called from the first turn on, as JSON schemas, one a line; empty where there are
            none.
        observations: T + 1 texts; the first holds the task.
        actions: the T executed actions.
        traces: the T traces before them; None where there was none.
    """

    instructions: Instructions
    observations: tuple[str, ...]
    actions: tuple[str, ...] = ()
    traces: tuple[str | None, ...] = ()
    functions: str = ""

    def __post_init__(self) -> None:
        if not len(self.observations) - 1 == len(self.actions) == len(self.traces):
            raise ValueError("a dialogue has one observation more than actions, and a trace (or None) for each action")

    def extended(self, action: str, trace: str | None, observation: str) -> Dialogue:
        """Return the dialogue one turn later.

        Args:
            action: the executed action.
            trace: the trace before it; None where there was none.
            observation: the environment's next observation.
        """
        return replace(
            self,
            observations=(*self.observations, observation),
            actions=(*self.actions, action),
            traces=(*self.traces, trace),
        )

    def without_oldest(self, count: int) -> Dialogue:
        """Return the dialogue with `count` observations elided, from the second on."""
        observations = self.observations
        return replace(self, observations=(observations[0], *([ELIDED] * count), *observations[1 + count :]))

    @property
    def droppable(self) -> int:
        """The number of observations that the rule allows to drop."""
        return max(0, len(self.observations) - 2)


def truncate_middle(text: str, limit: int) -> str:
    """Return a text shortened by `CUT_RULE`, with a line that says how many characters are left out.

    Args:
        text: the text.
        limit: characters of it to keep at most.
    """
    if len(text) <= limit:
        return text
    head = limit - limit // 2
    return f"{text[:head]}\n[{len(text) - limit} characters are left out here]\n{text[len(text) - limit // 2 :]}"


def fit_context(dialogue: Dialogue, length: Callable[[Dialogue], int], limit: int) -> tuple[Dialogue, int]:
    """Return the dialogue, shortened by `DROP_RULE` until it fits.

    Args:
        dialogue: the whole dialogue.
        length: the length of the model's prompt for a dialogue, in tokens.
        limit: the longest prompt allowed, in tokens.

    Returns:
        The dialogue to show, and the number of dropped observations.

    Raises:
        ContextOverflowError: the prompt is too long even with all observations dropped that may be.
    """
    needed = length(dialogue)
    if needed <= limit:
        return dialogue, 0
    total = dialogue.droppable
    counts = [*range(DROP_BLOCK, total, DROP_BLOCK), total] if total else []
    low, high, fitting = 0, len(counts), None
    while low < high:  # The length falls as more is dropped: halve the range.
        middle = (low + high) // 2
        shorter = dialogue.without_oldest(counts[middle])
        needed = length(shorter)
        if needed <= limit:
            fitting, high = (shorter, counts[middle]), middle
        else:
            low = middle + 1
    if fitting is None:
        raise ContextOverflowError(
            f"the prompt has {needed} tokens after {total} dropped observations, the model takes {limit}: "
            "use a model with a longer context, fewer steps (--max-steps), or a smaller --trace-tokens"
        )
    return fitting
