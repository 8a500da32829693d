"""The environment at a probe's states: recorded actions are played again. Invariant: an environment is handed out only where it
returned the recorded texts up to there; what cannot be played again is a reason, never an error.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cotbench.envs.base import TextEnv
from cotbench.envs.registry import EnvEntry, env_entry
from cotbench.errors import CotbenchError, EngineError
from cotbench.probes.probe import ProbeSetting
from cotbench.probes.states import ProbeState, StateKey
from cotbench.runs.env_workers import EnvSettings, LocalEnv


@dataclass(frozen=True, slots=True)
class ReplayedState:
    """A state with its environment.

    Attributes:
        state: the state.
        env: the running environment in that state, until the next state is taken: whoever acts in it, copies it first. None
            where the episode cannot be played again.
        info: what `reset` or `step` returned, with the requested entries.
        failure: why there is no environment.
    """

    state: ProbeState
    env: TextEnv | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class AdmissibleActions:
    """The admissible actions at a state.

    Attributes:
        actions: canonical, sorted, without duplicates; empty where they are not known.
        unknown: why they are not known.
    """

    actions: tuple[str, ...] = ()
    unknown: str | None = None

    def allows(self, action: str) -> bool | None:
        """Return whether a canonical action is listed as admissible, so that it can be executed; None where no list is known.

        An environment in which a thing has several names may execute actions that it does not list.
        """
        return None if self.unknown is not None else action in self.actions


def replay(
    states: Sequence[ProbeState], setting: ProbeSetting, request: Collection[str] = ("admissible_actions",), **kwargs: Any
) -> Iterator[ReplayedState]:
    """Yield the states with their environments, task by task; each task is played once, up to its last state.

    Args:
        states: any states of the setting's set.
        setting: the environment, its dialect and the folder of its data.
        request: entries that are added to `info`.
        kwargs: further arguments of the environment's class.
    """
    by_task: dict[str, list[ProbeState]] = {}
    for state in sorted(states, key=lambda state: state.step):
        by_task.setdefault(state.task, []).append(state)
    if not by_task:
        return
    whole = setting.states
    try:
        data = {"data": setting.data} if entry_of(setting).takes_data else {}
        arguments = {"split": whole.split, "scheme": whole.scheme, "request": sorted(request), **data, **kwargs}
        game = LocalEnv(EnvSettings(whole.env, arguments, dialect=whole.dialect))
    except (CotbenchError, OSError) as error:
        yield from (ReplayedState(state, failure=str(error)) for some in by_task.values() for state in some)
        return
    try:
        for some in by_task.values():
            yield from _replay_task(game, some)
    finally:
        game.close()


def _replay_task(game: LocalEnv, states: Sequence[ProbeState]) -> Iterator[ReplayedState]:
    """Yield the states of one task, in the order of their steps."""
    left = list(states)
    dialogue = left[-1].dialogue
    failure = "played again, the episode went another way"
    for step, recorded in enumerate(dialogue.observations):
        if step == 0:
            game.ask_reset(left[0].task)
        else:
            game.expect(recorded)
            game.ask_step(dialogue.actions[step - 1])
        try:
            reply = game.read()
        except EngineError as error:
            failure = str(error)
            break
        if reply.observation != recorded:
            break
        while left and left[0].step == step:
            yield ReplayedState(left.pop(0), game.env, reply.info)
    yield from (ReplayedState(state, failure=failure) for state in left)


def entry_of(setting: ProbeSetting) -> EnvEntry:
    """Return the environment of a setting, in the dialect of its states.

    Raises:
        UnknownNameError: there is none of that name.
    """
    return env_entry(setting.states.env).in_dialect(setting.states.dialect)


_SETS = 8
_listed: dict[object, dict[StateKey, AdmissibleActions]] = {}
"""The lists of the last sets of states: in a study, a process measures many checkpoints on the same states."""


def admissible_actions(states: Sequence[ProbeState], setting: ProbeSetting) -> dict[StateKey, AdmissibleActions]:
    """Return the admissible actions at states, by their keys; recorded episodes are played again to learn them.

    Args:
        states: any states of the setting's set.
        setting: the environment, its dialect and the folder of its data.
    """
    if not entry_of(setting).lists_all_actions:
        reason = f"{setting.states.env} lists examples of admissible actions, not all"
        return {state.key: AdmissibleActions(unknown=reason) for state in states}
    whole = setting.states
    key = (whole.env, whole.scheme, whole.split, whole.dialect, setting.data, tuple(states))
    if key in _listed:
        return _listed[key]
    found = {replayed.state.key: _admissible(replayed, setting) for replayed in replay(states, setting)}
    if all(one.unknown is None for one in found.values()):
        _listed[key] = found
        while len(_listed) > _SETS:
            del _listed[next(iter(_listed))]
    return found


def _admissible(replayed: ReplayedState, setting: ProbeSetting) -> AdmissibleActions:
    actions = replayed.info.get("admissible_actions")
    if replayed.failure is not None or actions is None:
        return AdmissibleActions(unknown=replayed.failure or "the environment lists none")
    return AdmissibleActions(tuple(sorted({setting.canonical(action) for action in actions})))
