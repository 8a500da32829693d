"""How many steps an action leaves to go. Invariant: it is counted only where the recorded actions, executed again, gave the
recorded texts; where something is not known nothing is returned, and nothing is guessed; a failure of the environment is told
from that.

Who takes over after an action depends on the environment. ALFWorld has an expert that knows the whole task and finishes from
anywhere (`TextEnv.remaining_steps`). Elsewhere the experts follow one path and are silent once it is left, so that the
demonstration's own path is gone on with: without the action that was replaced (the other one did its work), without the next
few as well (where an action is a list of calls: it did several steps at once), without a later one that is the same (it was
done earlier), or whole (a step was lost). The shortest of these that wins counts. Where none wins, nothing is known: another
way may still lead there. An action has cost the task only where the environment says so at once: it ended the episode, or a
turn of it, without success.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from cotbench.baselines.data.demonstration import Demonstration
from cotbench.errors import CotbenchError, EnvBugError
from cotbench.failure import registered_code

if TYPE_CHECKING:
    from cotbench.envs.base import TextEnv

Place = tuple[int, int]
"""Number of a demonstration, and a step of it."""

Steps = Mapping[Place, Mapping[str, int | None]]
"""For each place its actions, where something is known: the number of steps to go; None: the action loses the task."""

Known = dict[str, int | None] | str
"""What is known of the actions at a place, or why the environment failed there."""

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


@dataclass(frozen=True, slots=True)
class CountedSteps:
    """What was counted.

    Attributes:
        steps: for each place, what is known of its actions.
        failures: place -> why nothing was counted there, though it could be another time: the environment failed.
    """

    steps: Steps
    failures: Mapping[Place, str]


def steps_to_go(demonstrations: Sequence[Demonstration], actions: Mapping[Place, Sequence[str]]) -> CountedSteps:
    """Return how many steps each action leaves to go, if somebody takes over after it and finishes.

    Args:
        demonstrations: played episodes of one environment, each of another task.
        actions: the actions at their states, canonical.
    """
    steps: dict[Place, Mapping[str, int | None]] = {}
    failures: dict[Place, str] = {}
    if actions:
        count = _by_expert if takeover_of(demonstrations[0].env) == "expert" else by_path
        try:
            for place, known in count(demonstrations, actions):
                if isinstance(known, str):
                    failures[place] = known
                else:
                    steps[place] = known
        except CotbenchError as error:  # The environment cannot be made.
            failures |= {place: str(error) for place in actions if place not in steps and place not in failures}
    return CountedSteps({place: steps.get(place, {}) for place in actions}, failures)


def _by_expert(
    demonstrations: Sequence[Demonstration], actions: Mapping[Place, Sequence[str]]
) -> Iterator[tuple[Place, Known]]:
    """Yield each place with what is known, or why the environment failed there."""
    from cotbench.probes.probe import ProbeSetting
    from cotbench.probes.replay import ANOTHER_WAY, query_env, replayed
    from cotbench.probes.states import ProbeState, StateSet
    from cotbench.prompting.elicitation import Elicitation

    numbers = {one.task: number for number, one in enumerate(demonstrations)}
    states = tuple(
        ProbeState(one.task, "", step, "", one.dialogue(step), one.actions[step], None)
        for one, step in ((demonstrations[number], step) for number, step in sorted(actions))
    )
    whole = StateSet(demonstrations[0].env, "paper", "train", "", 0, len(demonstrations), states)
    for state, env in replayed(ProbeSetting(whole, Elicitation(), str), states):
        place = numbers[state.task], state.step
        if isinstance(env, str):
            yield place, {} if env == ANOTHER_WAY else env
        else:
            yield place, query_env(env, partial(_remaining, actions=tuple(dict.fromkeys(actions[place]))))


def _remaining(env: TextEnv, actions: Sequence[str]) -> dict[str, int | None]:
    counted = {action: env.remaining_steps(action) for action in actions}
    return {action: steps for action, steps in counted.items() if steps is not None}


def by_path(demonstrations: Sequence[Demonstration], actions: Mapping[Place, Sequence[str]]) -> Iterator[tuple[Place, Known]]:
    """Count by the demonstrations' own paths; each action costs up to three episodes, or up to six where actions are composed.

    Args:
        demonstrations, actions: as `steps_to_go` takes them.

    Yields:
        Each place with what is known of its actions, or why the environment failed there.

    Raises:
        CotbenchError: the environment cannot be made.
    """
    from cotbench.envs.registry import env_entry
    from cotbench.probes.replay import query_env

    entry = env_entry(demonstrations[0].env)
    entry.require()
    canonical = entry.canonical()
    # Where an environment can list all of its actions, each does one thing.
    at_once = 1 if entry.lists_all_admissible else _STEPS_AT_ONCE
    longest = max(len(one.actions) for one in demonstrations)
    with registered_code(f"environment {entry.name}", entry.loaded_class(), EnvBugError):
        environment = entry.make(scheme="paper", split="train", max_steps=longest + 1)
    with closing(environment) as env:
        for (number, step), some in sorted(actions.items()):
            one = demonstrations[number]
            path = [canonical(action) for action in one.actions]
            wanted = tuple(dict.fromkeys(some))
            yield (
                (number, step),
                query_env(env, partial(_along, one=one, path=path, step=step, actions=wanted, at_once=at_once)),
            )


def _along(
    env: TextEnv, one: Demonstration, path: Sequence[str], step: int, actions: Sequence[str], at_once: int
) -> dict[str, int | None]:
    """Return what is known of actions at a step of a demonstration, whose path is gone on with."""
    found: dict[str, int | None] = {}
    for action in actions:
        if action == path[step]:
            found[action] = len(path) - step - 1  # It won when it was recorded.
            continue
        for rest in _continuations(path, step, action, at_once):
            ending = _played(env, one, step, [action, *rest])
            if ending is None:
                break  # The state was not reached.
            if ending.won or (ending.lost and ending.executed == 1):
                found[action] = ending.executed - 1 if ending.won else None
                break
    return found


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
