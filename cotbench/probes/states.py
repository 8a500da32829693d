"""The fixed states that probes measure on. Invariant: a state set is a function of a run, a number and a seed alone, so every
checkpoint is measured on the same states; a smaller number gives a subset of the states of a larger one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cotbench.envs.registry import EnvEntry
from cotbench.errors import UsageError
from cotbench.failure import ErrorKind
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.query import derive_seed
from cotbench.runs.episode import Episode, Step, read_episodes
from cotbench.runs.episode_row import EpisodeRow
from cotbench.runs.manifest import MANIFEST, SUITE, Manifest, read_manifest
from cotbench.runs.records import Records

StateKey = tuple[str, int]
"""Task and number of actions executed before a state, unique within its set."""


@dataclass(frozen=True, slots=True)
class ProbeState:
    """One state of a reference episode.

    Attributes:
        task: the task id.
        task_type: the environment's type of the task.
        step: number of actions executed before this state.
        goal: the task's sentence, as the environment words it.
        dialogue: the episode so far.
        action: the reference action, canonical; empty where a recorded run holds none.
        trace: the reference's reasoning before it; None where it gave none.
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
        """Task and step, unique within a set of states."""
        return self.task, self.step


@dataclass(frozen=True, slots=True)
class AdmissibleActions:
    """The actions that do something at a state.

    Attributes:
        actions: without duplicates; None where they are not known.
        reason: why they are not.
    """

    actions: tuple[str, ...] | None
    reason: str | None = None

    def allows(self, action: str) -> bool | None:
        """Return whether a canonical action is listed as admissible, so that it can be executed; None where no list is known.

        An environment in which a thing has several names may execute actions that it does not list.

        Args:
            action: as `ProbeSetting.canonical` has it, like those of the list.
        """
        return None if self.actions is None else action in self.actions


class RecordedRun(BaseModel):
    """A run whose own states and recorded answers are measured, so that its agent is not queried.

    Attributes:
        run: fingerprint of the run's identity; `instructions` is that of its agent's instructions.
        partial: whether games of its split were missing.
        tasks: tasks of the run; `episodes` of their CoT episodes were played to their end.
        compared: states of these with both actions recorded; at `revised` of them the two differ.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    instructions: str
    partial: bool
    tasks: int
    episodes: int
    compared: int
    revised: int


@dataclass(frozen=True, slots=True)
class StateSet:
    """States of one split.

    Attributes:
        reference: the spec of the agent that played.
        seed: draws the states.
        episodes: number of successful reference episodes to draw from; of a recorded run, of all that were played.
        states: task by task, in the order of the run; within a task in the order of steps.
        recorded: the run, where its own answers are measured.
        dialect: how the environment's data spell actions; empty: the environment's own (see `Manifest`).
    """

    env: str
    scheme: str
    split: str
    reference: str
    seed: int
    episodes: int
    states: tuple[ProbeState, ...]
    recorded: RecordedRun | None = None
    dialect: str = ""

    @property
    def sha256(self) -> str:
        """A digest of everything that a measurement can depend on."""
        digest = hashlib.sha256()
        for state in self.states:
            digest.update(repr((state.key, state.goal, state.dialogue, state.action, state.trace)).encode())
        return digest.hexdigest()

    @property
    def tasks(self) -> int:
        """The number of tasks, the units over which intervals are taken."""
        return len({state.task for state in self.states})


def read_states(run: Path, limit: int | None = None, seed: int = 0) -> StateSet:
    """Draw states from the successful CoT episodes of a reference's run.

    They are spread over the tasks as evenly as possible: the interval of a number is over tasks.

    Args:
        run: the folder of the run.
        limit: number of states; all when None.
        seed: draws them.

    Raises:
        RunFolderError: not a run folder, or damaged.
        UsageError: there is no successful CoT episode in it.
    """
    manifest = read_manifest(run)
    config = manifest.config
    recorded = read_episodes(run)
    places = [place for place in _cot_places(recorded, manifest) if recorded.rows[place].success]
    if not places:
        errors = [row.error for row in recorded.rows if row.mode == "cot" and row.error is not None]
        why = f" ({len(errors)} ended in errors, the first: {errors[0]})" if errors else ""
        raise UsageError(f"{run} has no successful episode in CoT mode{why}: use a reference that wins")
    keys = {place: [(recorded.rows[place].task, step) for step in range(recorded.rows[place].steps)] for place in places}
    drawn = set(_drawn([key for some in keys.values() for key in some], seed)[:limit])
    # Only the episodes that states are drawn from are read: a reference may have thousands.
    chosen = [recorded[place] for place in places if not drawn.isdisjoint(keys[place])]
    states = tuple(state for episode in chosen for state, _ in _states(episode, manifest.entry) if state.key in drawn)
    return StateSet(config.env, config.scheme, config.split, config.agent, seed, len(places), states, dialect=manifest.dialect)


def recorded_states(run: Path) -> tuple[StateSet, dict[StateKey, StateAnswer]]:
    """Read the states of a run at which both actions are recorded, and these actions.

    Args:
        run: the folder of a run in mode both, finished or not.

    Returns:
        The states of all CoT episodes that were played to their end, won or not, with the recorded expert's action as the
        reference where it is known; and the answers at these states.

    Raises:
        RunFolderError: not a run folder, or damaged.
        UsageError: several runs, or one that was played in one mode.
    """
    if (run / SUITE).is_file() and not (run / MANIFEST).is_file():
        raise UsageError(f"{run} holds several runs: judge each by itself, as in cotbench judge {run}/ENV")
    manifest = read_manifest(run)
    config = manifest.config
    if config.mode != "both":
        raise UsageError(
            f"{run} was played in mode {config.mode} only, so no state has two actions to compare: play a run with --mode both"
        )
    played = read_episodes(run)
    places = _cot_places(played, manifest)
    states: list[ProbeState] = []
    answers: dict[StateKey, StateAnswer] = {}
    for place in places:
        for state, step in _states(played[place], manifest.entry):
            if step.prompt_action is not None:
                states.append(replace(state, action=step.expert_action or ""))
                answers[state.key] = StateAnswer(
                    step.prompt_action, step.action, step.decision.trace or "", step.decision.trace_truncated
                )
    recorded = RecordedRun(
        run=_digest(manifest.identity()),
        instructions=_digest(manifest.entry.instructions()),
        partial=manifest.partial,
        tasks=len(manifest.task_list),
        episodes=len(places),
        compared=len(states),
        revised=sum(answer.revised for answer in answers.values()),
    )
    fields = (config.env, config.scheme, config.split, config.agent, config.seed, len(places), tuple(states), recorded)
    return StateSet(*fields, dialect=manifest.dialect), answers


def _cot_places(episodes: Records[Episode, EpisodeRow], manifest: Manifest) -> list[int]:
    """Return the places of the CoT episodes that were played to their end, in the order of the run.

    Of several samples of a task the first alone, so that a state is named by its task and step.
    """
    order = {task: place for place, task in enumerate(manifest.task_list)}
    rows = episodes.rows
    places = [place for place, row in enumerate(rows) if row.mode == "cot" and not row.rollout and row.error is None]
    return sorted(places, key=lambda place: order.get(rows[place].task, len(order)))


def _digest(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def _states(episode: Episode, entry: EnvEntry) -> list[tuple[ProbeState, Step]]:
    """Return the states of an episode, and the step that was taken at each."""
    dialogue = Dialogue(entry.instructions(), (episode.first_observation,), functions=episode.functions)
    states = []
    for number, step in enumerate(episode.trajectory):
        trace = (step.decision.trace or "").strip() or None
        state = ProbeState(episode.task, episode.task_type, number, episode.goal, dialogue, step.action, trace)
        states.append((state, step))
        dialogue = dialogue.extended(step.action, trace, step.observation)
    return states


def _drawn(keys: Sequence[StateKey], seed: int) -> list[StateKey]:
    """Return all keys in the order in which they are drawn: one of each task, then a second of each, and so on."""
    by_task: dict[str, list[StateKey]] = {}
    for key in keys:
        by_task.setdefault(key[0], []).append(key)
    ranked = []
    for task, some in by_task.items():
        some.sort(key=lambda key: derive_seed(seed, *key, "state"))
        ranked += [(turn, derive_seed(seed, task, "task"), key) for turn, key in enumerate(some)]
    return [key for _, _, key in sorted(ranked)]


def choose_donor(
    state: ProbeState,
    others: Iterable[ProbeState],
    seed: int,
    fits: Callable[[ProbeState], bool],
    distance: Callable[[ProbeState], int] = lambda other: 0,
) -> ProbeState | None:
    """Return the state whose trace or observation is given to another one.

    The pairing is a function of the seed, the keys, `fits` and `distance`; neither the order of the states nor earlier
    measurements change it.

    Args:
        state: the state that receives.
        others: the candidates.
        seed: pairs them.
        fits: whether a candidate can be the donor.
        distance: of the fitting ones, those with the smallest are taken.

    Returns:
        A fitting state of another task where there is one, else of the same task; None where none fits.
    """

    def rank(other: ProbeState) -> tuple[bool, int, int]:
        return other.task == state.task, distance(other), derive_seed(seed, *state.key, *other.key, "donor")

    return min((other for other in others if other.key != state.key and fits(other)), key=rank, default=None)


@dataclass(frozen=True, slots=True)
class StateAnswer:
    """An agent's prompt action and CoT action at one state.

    Attributes:
        prompt_action: canonical; `cot_action` likewise.
        trace: the agent's own trace as it stood between the tags: given back, it leads to the same action.
        trace_truncated: whether the token budget ended the trace, so that the harness closed it.
        error: why there is no answer; `error_kind` and `traceback` as in `cotbench.failure.Failure`.
    """

    prompt_action: str
    cot_action: str
    trace: str
    trace_truncated: bool = False
    error: str | None = None
    error_kind: ErrorKind | None = None
    traceback: str | None = None

    @property
    def revised(self) -> bool:
        """True where the trace changed the action."""
        return self.error is None and self.prompt_action != self.cot_action
