"""Whose trace or observation a state is given. Invariant: the pairing is a function of the seed, the keys and who may be
chosen; neither the order of the states nor what was measured before matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cotbench.probes.states import ProbeState
from cotbench.prompting.query import derive_seed


def choose_donor(
    state: ProbeState, others: Iterable[ProbeState], seed: int, fits: Callable[[ProbeState], bool]
) -> ProbeState | None:
    """The state that gives something to this one: of another task where there is one that fits; None where none does."""

    def rank(other: ProbeState) -> tuple[bool, int]:
        return other.task == state.task, derive_seed(seed, *state.key, *other.key, "donor")

    return min((other for other in others if other.key != state.key and fits(other)), key=rank, default=None)
