"""What an environment lists at the states of a set. Invariant: a list belongs to a state only where the recorded actions,
executed again, gave the recorded texts; where it is not known, the reason is named and nothing is raised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from cotbench.envs.base import TextEnv
from cotbench.envs.registry import EnvEntry, env_entry
from cotbench.errors import CotbenchError, EnvBugError
from cotbench.failure import exception_line, registered_code
from cotbench.probes.probe import ProbeSetting
from cotbench.probes.states import ProbeState, StateKey

_ANOTHER_WAY = "repeated, the recorded actions led to another text"


@dataclass(frozen=True, slots=True)
class AdmissibleActions:
    """The actions that do something at a state.

    Attributes:
        actions: canonical, sorted, without duplicates; None where they are not known.
        reason: why they are not.
    """

    actions: tuple[str, ...] | None
    reason: str | None = None


def admissible_at(setting: ProbeSetting, wanted: Sequence[ProbeState]) -> dict[StateKey, AdmissibleActions]:
    """Return the admissible actions at each state, by its key.

    Each task is played once, as far as its last state. An environment that does not list all of its actions, is not installed,
    or goes another way when it is played again gives a reason instead of actions.

    Args:
        setting: says which environment, in which dialect, with which data.
        wanted: states of its set.
    """
    entry = env_entry(setting.states.env).in_dialect(setting.states.dialect)
    if not entry.lists_all_admissible:
        unknown = AdmissibleActions(None, f"{entry.name} does not list all of its admissible actions")
        return {state.key: unknown for state in wanted}
    found: dict[StateKey, AdmissibleActions] = {}
    try:
        for state, env in replayed(setting, wanted, entry):
            listed = env if isinstance(env, str) else _listed(env, setting, entry)
            found[state.key] = AdmissibleActions(None, listed) if isinstance(listed, str) else AdmissibleActions(listed)
    except CotbenchError as error:  # The environment cannot be made at all.
        unknown = AdmissibleActions(None, str(error))
        return {state.key: unknown for state in wanted}
    return found


def replayed(
    setting: ProbeSetting, wanted: Sequence[ProbeState], entry: EnvEntry | None = None
) -> Iterator[tuple[ProbeState, TextEnv | str]]:
    """Yield each state with the environment in that very state; where it cannot be reached, with the reason.

    The environment is the same one throughout: what it is asked has to leave its state alone.

    Args:
        setting: says which environment, in which dialect, with which data.
        wanted: states of its set, in any order; yielded task by task, in the order of steps.
        entry: the environment, where the caller has it.

    Raises:
        CotbenchError: the environment cannot be made.
    """
    entry = entry or env_entry(setting.states.env).in_dialect(setting.states.dialect)
    entry.require()
    by_task: dict[str, list[ProbeState]] = {}
    for state in wanted:
        by_task.setdefault(state.task, []).append(state)
    longest = max((state.step for state in wanted), default=0)
    arguments = {"scheme": setting.states.scheme, "split": setting.states.split, "max_steps": longest + 1}
    with registered_code(f"environment {entry.name}", entry.loaded_class(), EnvBugError):
        env = entry.make(**arguments, **({"data": setting.data} if entry.takes_data else {}))
    with closing(env):
        for task, states in by_task.items():
            yield from _task_replayed(env, entry, task, sorted(states, key=lambda state: state.step))


def _task_replayed(
    env: TextEnv, entry: EnvEntry, task: str, states: Sequence[ProbeState]
) -> Iterator[tuple[ProbeState, TextEnv | str]]:
    step, reason = 0, None
    text = ""
    for number, state in enumerate(states):
        dialogue = state.dialogue
        try:
            if reason is None:
                with registered_code(f"environment {entry.name}", type(env), EnvBugError):
                    if number == 0:
                        text, _ = env.reset(options={"task": task})
                    while text == dialogue.observations[step] and step < state.step:
                        env.expect(dialogue.observations[step + 1])
                        text, *_ = env.step(dialogue.actions[step])
                        step += 1
                reason = None if text == dialogue.observations[step] else _ANOTHER_WAY
        except CotbenchError as error:
            reason = str(error)
        except OSError as error:
            reason = exception_line(error)
        yield state, env if reason is None else reason


def _listed(env: TextEnv, setting: ProbeSetting, entry: EnvEntry) -> tuple[str, ...] | str:
    """Return the canonical admissible actions of an environment in its state, or why they are not known."""
    try:
        with registered_code(f"environment {entry.name}", type(env), EnvBugError):
            actions = env.admissible_actions()
    except CotbenchError as error:
        return str(error)
    return tuple(sorted({setting.canonical(action) for action in actions}))
