"""What was admissible at the states of demonstrations, for prompts that list it. Invariant: a list stands only where the
recorded actions, executed again in the environment, gave the recorded texts; an example's prompt is then that of a run.
"""

from __future__ import annotations

from collections.abc import Sequence

from cotbench.baselines.data.demonstration import Demonstration
from cotbench.errors import UsageError
from cotbench.prompting.elicitation import Elicitation

Lists = tuple[tuple[str, ...], ...]
"""The admissible actions before each action of an episode."""


def admissible_of(demonstrations: Sequence[Demonstration]) -> list[Lists]:
    """Return the actions that the environment lists at each state of each demonstration.

    Args:
        demonstrations: played episodes; each is played again.

    Raises:
        UsageError: a demonstration whose states cannot be reached again.
    """
    takes: dict[tuple[str, str], int] = {}
    rounds: dict[tuple[str, int], list[int]] = {}
    for place, one in enumerate(demonstrations):
        take = takes[one.env, one.task] = takes.get((one.env, one.task), -1) + 1
        rounds.setdefault((one.env, take), []).append(place)  # One demonstration of a task at a time.
    found: dict[int, Lists] = {}
    for (env, _), places in rounds.items():
        found |= zip(places, _listed(env, [demonstrations[place] for place in places]), strict=True)
    return [found[place] for place in range(len(demonstrations))]


def _listed(env: str, demonstrations: Sequence[Demonstration]) -> list[Lists]:
    """Return the lists of demonstrations of different tasks of one environment."""
    from cotbench.probes.probe import ProbeSetting
    from cotbench.probes.replay import listed_at
    from cotbench.probes.states import ProbeState, StateSet

    if not env:
        raise UsageError("the data name no environment, so the admissible actions cannot be listed: omit show_admissible")
    states = tuple(
        ProbeState(one.task, "", step, "", one.dialogue(step), action, None)
        for one in demonstrations
        for step, action in enumerate(one.actions)
    )
    whole = StateSet(env, "paper", "train", "", 0, len(demonstrations), states)
    listed = listed_at(ProbeSetting(whole, Elicitation(), str), states)
    for (task, step), known in listed.items():
        if known.actions is None:
            raise UsageError(
                f"what was admissible at step {step} of {task} is not known ({known.reason}): omit show_admissible"
            )
    return [tuple(listed[one.task, step].actions or () for step in range(len(one.actions))) for one in demonstrations]
