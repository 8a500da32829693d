"""The fixed states that probes measure on. Invariant: a state set is a function of a reference run, a number and a seed alone,
so every checkpoint is measured on the same states; a smaller number gives some of those of a larger.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cotbench.envs.registry import env_entry
from cotbench.errors import UsageError
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.query import derive_seed
from cotbench.runs.episode import Episode
from cotbench.runs.journal import read_episodes
from cotbench.runs.manifest import read_manifest

StateKey = tuple[str, int]
"""Names a state within its set: task, and how many actions were executed before it."""


@dataclass(frozen=True, slots=True)
class ProbeState:
    """One state of a reference episode.

    Attributes:
        task: the task id.
        step: how many actions were executed before this state.
        goal: the task's sentence, as the environment tells it.
        dialogue: the episode so far.
        action: the reference action, canonical.
        trace: the reasoning that the reference gave for it; None where it gave none.
    """

    task: str
    task_type: str
    step: int
    goal: str
    dialogue: Dialogue
    action: str
    trace: str | None

    @property
    def key(self) -> StateKey:
        """Names the state within its set."""
        return self.task, self.step


@dataclass(frozen=True, slots=True)
class StateSet:
    """States of one split, and whose they are.

    Attributes:
        reference: the spec of the agent that played.
        seed: drew the states.
        episodes: successful reference episodes that there were to draw from.
        states: task by task, in the order of the run; within a task in the order of steps.
    """

    env: str
    scheme: str
    split: str
    reference: str
    seed: int
    episodes: int
    states: tuple[ProbeState, ...]

    @property
    def sha256(self) -> str:
        """Over everything that a measurement can depend on."""
        whole = hashlib.sha256()
        for state in self.states:
            whole.update(repr((state.key, state.goal, state.dialogue, state.action, state.trace)).encode())
        return whole.hexdigest()

    @property
    def tasks(self) -> int:
        """How many tasks the states are of: the units over which intervals are taken."""
        return len({state.task for state in self.states})


def read_states(run: Path, limit: int | None = None, seed: int = 0) -> StateSet:
    """Draw states from the successful CoT episodes of a reference's run.

    They are spread over the tasks as evenly as can be: the interval of a number is over tasks.

    Args:
        run: the folder of the run.
        limit: how many; all when None.
        seed: draws them.

    Raises:
        RunFolderError: not a run folder, or damaged.
        UsageError: there is no successful CoT episode in it.
    """
    manifest = read_manifest(run)
    config = manifest.config
    episodes = [one for one in read_episodes(run) if one.mode == "cot" and one.error is None and one.success]
    if not episodes:
        raise UsageError(f"{run} has no successful episode in CoT mode: play a reference that wins")
    order = {task: place for place, task in enumerate(manifest.task_list)}
    episodes.sort(key=lambda episode: order.get(episode.task, len(order)))
    found = [state for episode in episodes for state in _states(episode, config.env)]
    kept = set(_drawn([state.key for state in found], seed)[:limit])
    states = tuple(state for state in found if state.key in kept)
    return StateSet(config.env, config.scheme, config.split, config.agent, seed, len(episodes), states)


def _states(episode: Episode, env: str) -> list[ProbeState]:
    dialogue = Dialogue(env_entry(env).instructions(), (episode.first_observation,), functions=episode.functions)
    states = []
    for number, step in enumerate(episode.trajectory):
        trace = (step.decision.trace or "").strip() or None
        states.append(ProbeState(episode.task, episode.task_type, number, episode.goal, dialogue, step.action, trace))
        dialogue = dialogue.extended(step.action, trace, step.observation)
    return states


def _drawn(keys: Sequence[StateKey], seed: int) -> list[StateKey]:
    """All keys, in the order in which they are drawn: one of each task, then a second of each, and so on."""
    by_task: dict[str, list[StateKey]] = {}
    for key in keys:
        by_task.setdefault(key[0], []).append(key)
    ranked = []
    for task, some in by_task.items():
        some.sort(key=lambda key: derive_seed(seed, *key, "state"))
        ranked += [(turn, derive_seed(seed, task, "task"), key) for turn, key in enumerate(some)]
    return [key for _, _, key in sorted(ranked)]


@dataclass(frozen=True, slots=True)
class StateAnswer:
    """An agent's prompt action and CoT action at one state.

    Attributes:
        prompt_action: canonical; `cot_action` likewise.
        trace: the agent's own reasoning as it stood between the tags: given back, it leads to the same action.
        trace_truncated: the harness closed the trace.
    """

    prompt_action: str
    cot_action: str
    trace: str
    trace_truncated: bool = False
    error: str | None = None
