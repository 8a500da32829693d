"""How many steps an action leaves to go. Invariant: it is counted only where the recorded actions, executed again, gave the
recorded texts; where something is not known nothing is returned, and nothing is guessed.

Who takes over after an action depends on the environment. ALFWorld has an expert that knows the whole task and finishes from
anywhere (`TextEnv.remaining_steps`). Elsewhere the experts follow one path and are silent once it is left, so that the
demonstration's own path is gone on with: without the action that was replaced (the other one did its work), without the next
few as well (where an action is a list of calls: it did several steps at once), without a later one that is the same (it was
done earlier), or whole (a step was lost). The shortest of these that wins counts. Where none wins, nothing is known: another
way may still lead there. An action has cost the task only where the environment says so at once: it ended the episode, or a
turn of it, without success.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cotbench.baselines.data.demonstration import Demonstration
from cotbench.errors import CotbenchError

if TYPE_CHECKING:
    from cotbench.envs.base import TextEnv

Place = tuple[int, int]
"""Number of a demonstration, and a step of it."""

Steps = dict[Place, dict[str, int | None]]
"""For each place its actions, where something is known: the number of steps to go; None: the action loses the task."""

_STEPS_AT_ONCE = 4
"""The most steps of a path that one action is taken to do, where actions are composed as lists of calls are; each of them costs
an episode. Of the turns of BFCL's training tasks 97 % have no more calls."""

Takeover = Literal["expert", "path"]
"""Who takes over: an expert that finishes from anywhere, or the demonstration's own path."""


def takeover_of(env: str) -> Takeover:
    """Return who takes over in an environment.

    Args:
        env: its name.
    """
    from cotbench.envs.base import TextEnv
    from cotbench.envs.registry import env_entry

    return "path" if env_entry(env).loaded_class().remaining_steps is TextEnv.remaining_steps else "expert"


def steps_to_go(demonstrations: Sequence[Demonstration], actions: Mapping[Place, Sequence[str]]) -> Steps:
    """Return how many steps each action leaves to go, if somebody takes over after it and finishes.

    Args:
        demonstrations: played episodes of one environment, each of another task.
        actions: the actions at their states, canonical.
    """
    found: Steps = {place: {} for place in actions}
    if not actions:
        return found
    count = _by_expert if takeover_of(demonstrations[0].env) == "expert" else by_path
    try:
        count(demonstrations, actions, found)
    except CotbenchError:  # The environment cannot be made, or is lost: what is known by now is right.
        return found
    return found


def _by_expert(demonstrations: Sequence[Demonstration], actions: Mapping[Place, Sequence[str]], found: Steps) -> None:
    from cotbench.probes.probe import ProbeSetting
    from cotbench.probes.replay import replayed
    from cotbench.probes.states import ProbeState, StateSet
    from cotbench.prompting.elicitation import Elicitation

    numbers = {one.task: number for number, one in enumerate(demonstrations)}
    states = tuple(
        ProbeState(one.task, "", step, "", one.dialogue(step), one.actions[step], None)
        for one, step in ((demonstrations[number], step) for number, step in sorted(actions))
    )
    whole = StateSet(demonstrations[0].env, "paper", "train", "", 0, len(demonstrations), states)
    for state, env in replayed(ProbeSetting(whole, Elicitation(), str), states):
        if isinstance(env, str):
            continue
        place = numbers[state.task], state.step
        for action in dict.fromkeys(actions[place]):
            steps = env.remaining_steps(action)
            if steps is not None:
                found[place][action] = steps


def by_path(demonstrations: Sequence[Demonstration], actions: Mapping[Place, Sequence[str]], found: Steps) -> None:
    """Count by the demonstrations' own paths; each action costs up to three episodes, or up to six where actions are composed.

    Args:
        demonstrations, actions: as `steps_to_go` takes them.
        found: what is known, which is added to.

    Raises:
        CotbenchError: the environment cannot be made, or is lost.
    """
    from cotbench.envs.registry import env_entry

    entry = env_entry(demonstrations[0].env)
    canonical = entry.canonical()
    # Where an environment can list all of its actions, each does one thing.
    at_once = 1 if entry.lists_all_admissible else _STEPS_AT_ONCE
    longest = max(len(one.actions) for one in demonstrations)
    with closing(entry.make(scheme="paper", split="train", max_steps=longest + 1)) as env:
        for (number, step), some in sorted(actions.items()):
            one = demonstrations[number]
            path = [canonical(action) for action in one.actions]
            for action in dict.fromkeys(some):
                if action == path[step]:
                    found[number, step][action] = len(path) - step - 1  # It won when it was recorded.
                    continue
                for rest in _continuations(path, step, action, at_once):
                    ending = _played(env, one, step, [action, *rest])
                    if ending is None:
                        break  # The state was not reached.
                    if ending.won or (ending.lost and ending.executed == 1):
                        found[number, step][action] = ending.executed - 1 if ending.won else None
                        break


def _continuations(path: Sequence[str], step: int, action: str, at_once: int) -> list[list[str]]:
    """Return how a path may go on after another action at one of its steps, the shortest first.

    Args:
        path: the actions of the path.
        step: which of them was replaced.
        action: by what.
        at_once: how many steps of the path an action can do.
    """
    found = [list(path[step + done :]) for done in range(min(at_once, len(path) - step), -1, -1)]
    if action in path[step + 1 :]:
        later = path.index(action, step + 1)
        found.append([*path[step:later], *path[later + 1 :]])
    return sorted(found, key=len)


@dataclass(frozen=True, slots=True)
class _Ending:
    """What came of actions that were played.

    Attributes:
        executed: number of actions that were executed.
        won: whether the task was won.
        lost: whether it can no longer be won, by the environment's own verdict.
    """

    executed: int
    won: bool = False
    lost: bool = False


def _played(env: TextEnv, one: Demonstration, step: int, actions: Sequence[str]) -> _Ending | None:
    """Play actions from a state of a demonstration until the task is won or lost; None where the state is not reached again."""
    text, _ = env.reset(options={"task": one.task})
    for place in range(step):
        if text != one.observations[place]:
            return None
        env.expect(one.observations[place + 1])
        text, _, terminated, truncated, _ = env.step(one.actions[place])
        if terminated or truncated:
            return None
    if text != one.observations[step]:
        return None
    for executed, action in enumerate(actions, 1):
        _, _, terminated, truncated, info = env.step(action)
        won = bool(info["success"])
        # A conversation is won only where each of its turns has passed.
        lost = not won and (terminated or False in info.get("turns_passed", ()))
        if won or lost or truncated:
            return _Ending(executed, won, lost)
    return _Ending(len(actions))
