"""What can be executed at a probe's states, for the choice of donors. Invariant: an action counts as executable where the
environment lists it as admissible, and where no complete list is known, the reason is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cotbench.probes.probe import ProbeSetting
from cotbench.probes.replay import admissible_at
from cotbench.probes.states import ProbeState, StateKey

_SETS = 8
_known: dict[object, dict[StateKey, ExecutableActions]] = {}
"""The lists of the last sets of states: in a study, a process measures many checkpoints on the same states."""


@dataclass(frozen=True, slots=True)
class ExecutableActions:
    """The executable actions at a state.

    Attributes:
        listed: canonical; empty where they are not known.
        unknown: why they are not known.
    """

    listed: frozenset[str] = frozenset()
    unknown: str | None = None

    def allows(self, action: str) -> bool | None:
        """Return whether a canonical action is listed as admissible, so that it can be executed; None where no list is known.

        An environment in which a thing has several names may execute actions that it does not list.
        """
        return None if self.unknown is not None else action in self.listed


def executable_actions(states: Sequence[ProbeState], setting: ProbeSetting) -> dict[StateKey, ExecutableActions]:
    """Return the executable actions at states, by their keys; recorded episodes are played again to learn them.

    Args:
        states: any states of the setting's set.
        setting: the environment, its dialect and the folder of its data.
    """
    whole = setting.states
    key = (whole.env, whole.scheme, whole.split, whole.dialect, setting.data, tuple(states))
    if key not in _known:
        found = {
            place: ExecutableActions(unknown=admissible.reason or "not known")
            if admissible.actions is None
            else ExecutableActions(frozenset(admissible.actions))
            for place, admissible in admissible_at(setting, states).items()
        }
        if any(one.unknown is not None for one in found.values()):
            return found  # The next time, its engine may be there.
        _known[key] = found
        while len(_known) > _SETS:
            del _known[next(iter(_known))]
    return _known[key]
