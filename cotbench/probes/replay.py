"""What an environment knows at the states of a set: admissible actions, and which actions shorten the rest of the task.
Invariant: it is asked at a state only where the recorded actions, executed again, gave the recorded texts; where something is
not known, the reason is named and nothing is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from cotbench.envs.registry import EnvEntry, env_entry
from cotbench.errors import CotbenchError, EngineError, EnvBugError
from cotbench.failure import exception_line, registered_code
from cotbench.probes.probe import ProbeSetting
from cotbench.probes.states import AdmissibleActions, ProbeState, StateKey

if TYPE_CHECKING:
    from cotbench.envs.base import TextEnv

_T = TypeVar("_T")
ANOTHER_WAY = "repeated, the recorded actions led to another text"
"""The reason for which a state is not reached that is no failure: it is the same whenever it is tried."""


def admissible_at(setting: ProbeSetting, wanted: Sequence[ProbeState]) -> dict[StateKey, AdmissibleActions]:
    """Return all admissible actions at each state, canonical, by its key.

    Each task is played once, as far as its last state. An environment that does not list all of its actions, is not installed,
    or goes another way when it is played again gives a reason instead of actions.

    Args:
        setting: says which environment, in which dialect, with which data.
        wanted: states of its set.
    """
    entry = _entry(setting)
    if not entry.lists_all_admissible:
        unknown = AdmissibleActions(None, f"{entry.name} does not list all of its admissible actions")
        return {state.key: unknown for state in wanted}
    return {
        key: listed
        if listed.actions is None
        else AdmissibleActions(tuple(sorted({setting.canonical(action) for action in listed.actions})))
        for key, listed in listed_at(setting, wanted).items()
    }


def listed_at(setting: ProbeSetting, wanted: Sequence[ProbeState]) -> dict[StateKey, AdmissibleActions]:
    """Return the actions that the environment lists at each state, as a run's queries have them; they need not be all.

    What was listed is remembered in `setting`.

    Args:
        setting: says which environment, in which dialect, with which data.
        wanted: states of its set.
    """
    own = {state.key: state for state in setting.states.states}
    known = _remembered.get(_set_of(setting), {})
    # A state with the key of one of the set may have another history.
    setting.listed.update({one.key: known[one.key] for one in wanted if one.key in known and own.get(one.key) == one})
    missing = [state for state in wanted if state.key not in setting.listed]
    try:
        for state, env in replayed(setting, missing):
            found = env if isinstance(env, str) else query_env(env, _listed)
            setting.listed[state.key] = AdmissibleActions(None, found) if isinstance(found, str) else AdmissibleActions(found)
    except CotbenchError as error:  # The environment cannot be made at all.
        setting.listed.update({state.key: AdmissibleActions(None, str(error)) for state in missing})
    if any(own.get(state.key) == state for state in missing):
        _remember(setting, own)
    return {state.key: setting.listed[state.key] for state in wanted}


_SETS = 8
_remembered: dict[object, dict[StateKey, AdmissibleActions]] = {}
"""The lists of the last sets of states: in a study, a process measures many checkpoints on the same states."""


def _set_of(setting: ProbeSetting) -> object:
    whole = setting.states
    return whole.env, whole.scheme, whole.split, whole.dialect, setting.data, whole.states


def _remember(setting: ProbeSetting, own: Mapping[StateKey, ProbeState]) -> None:
    """Keep what is known of a set of states for later measurements on it; a reason is not kept, it may go away.

    Args:
        setting: with what was listed.
        own: the states of the set.
    """
    known = {key: listed for key, listed in setting.listed.items() if key in own and listed.actions is not None}
    _remembered[_set_of(setting)] = known
    while len(_remembered) > _SETS:
        del _remembered[next(iter(_remembered))]


def shown_actions(setting: ProbeSetting, state: ProbeState, needed: bool = False) -> tuple[str, ...] | None:
    """Return the actions that a query of a state lists; None where neither elicitation nor agent needs them.

    Args:
        setting: says how answers are asked for.
        state: a state of its set.
        needed: whether the agent needs them; it is left without where they are not known.

    Raises:
        EngineError: the elicitation needs them, and they are not known.
    """
    if not needed and not setting.elicitation.needs_admissible:
        return None
    if state.key not in setting.listed:
        listed_at(setting, setting.states.states)  # Of all states at once: each task is played again a single time.
    known = listed_at(setting, [state])[state.key]
    if known.actions is None and setting.elicitation.needs_admissible:
        raise EngineError(
            f"what is admissible at step {state.step} of {state.task} is not known ({known.reason}): measure without "
            "--show-admissible, and with --prompt-elicitation bare or empty"
        )
    return known.actions


def shortening_at(
    setting: ProbeSetting, cases: Mapping[StateKey, Sequence[str]], states: Sequence[ProbeState]
) -> dict[StateKey, dict[str, bool]]:
    """Return which actions shorten the rest of the task, state by state.

    An action shortens it where an expert that knows the whole task has fewer steps left after it than before it
    (`TextEnv.remaining_steps`), so any action that makes progress counts, not the reference's alone.

    Args:
        setting: says which environment, in which dialect, with which data.
        cases: the actions at each state.
        states: the states.

    Returns:
        For each state its actions, where that is known; a state of an environment without such an expert has none.
    """
    from cotbench.envs.base import TextEnv

    found: dict[StateKey, dict[str, bool]] = {state.key: {} for state in states}
    entry = _entry(setting)
    if entry.loaded_class().remaining_steps is TextEnv.remaining_steps:
        return found
    try:
        for state, env in replayed(setting, [state for state in states if cases.get(state.key)]):
            if not isinstance(env, str):
                known = query_env(env, partial(_shortening, actions=tuple(dict.fromkeys(cases[state.key]))))
                found[state.key] = {} if isinstance(known, str) else known
    except CotbenchError:
        return found
    return found


def _listed(env: TextEnv) -> tuple[str, ...]:
    return tuple(env.admissible_actions())


def _shortening(env: TextEnv, actions: Sequence[str]) -> dict[str, bool]:
    before = env.remaining_steps()
    if before is None:
        return {}
    after = {action: env.remaining_steps(action) for action in actions}
    return {action: steps < before for action, steps in after.items() if steps is not None}


def _entry(setting: ProbeSetting) -> EnvEntry:
    return env_entry(setting.states.env).in_dialect(setting.states.dialect)


def replayed(setting: ProbeSetting, wanted: Sequence[ProbeState]) -> Iterator[tuple[ProbeState, TextEnv | str]]:
    """Yield each state with the environment in that very state; where it cannot be reached, with the reason.

    The environment is the same one throughout: what it is asked has to leave its state alone.

    Args:
        setting: says which environment, in which dialect, with which data.
        wanted: states of its set, in any order; yielded task by task, in the order of steps.

    Raises:
        CotbenchError: the environment cannot be made.
    """
    if not wanted:
        return
    entry = _entry(setting)
    entry.require()
    by_task: dict[str, list[ProbeState]] = {}
    for state in wanted:
        by_task.setdefault(state.task, []).append(state)
    longest = max(state.step for state in wanted)
    arguments = {"scheme": setting.states.scheme, "split": setting.states.split, "max_steps": longest + 1}
    with registered_code(f"environment {entry.name}", entry.loaded_class(), EnvBugError):
        env = entry.make(**arguments, **({"data": setting.data} if entry.takes_data else {}))
    with closing(env):
        for task, states in by_task.items():
            yield from _task_replayed(env, task, sorted(states, key=lambda state: state.step))


def _task_replayed(env: TextEnv, task: str, states: Sequence[ProbeState]) -> Iterator[tuple[ProbeState, TextEnv | str]]:
    step, text = -1, ""
    reason: str | None = None
    for state in states:
        if reason is None:
            reached = query_env(env, partial(_played_on, state=state, step=step, text=text))
            if isinstance(reached, str):
                reason = reached
            else:
                step, text = reached
                reason = None if text == state.dialogue.observations[step] else ANOTHER_WAY
        yield state, env if reason is None else reason


def _played_on(env: TextEnv, state: ProbeState, step: int, text: str) -> tuple[int, str]:
    """Play on to a state, or to the first text that is not the recorded one.

    Args:
        env: the environment.
        state: the state.
        step: actions executed so far; -1 before the task was started.
        text: the last observation.

    Returns:
        The same two, afterwards.
    """
    dialogue = state.dialogue
    if step < 0:
        text, _ = env.reset(options={"task": state.task})
        step = 0
    while text == dialogue.observations[step] and step < state.step:
        env.expect(dialogue.observations[step + 1])
        text, *_ = env.step(dialogue.actions[step])
        step += 1
    return step, text


def query_env(env: TextEnv, ask: Callable[[TextEnv], _T]) -> _T | str:
    """Return what an environment answers; where it fails, why.

    Args:
        env: the environment.
        ask: asks it.
    """
    try:
        with registered_code("environment", type(env), EnvBugError):
            return ask(env)
    except CotbenchError as error:
        return str(error)
    except OSError as error:
        return exception_line(error)
