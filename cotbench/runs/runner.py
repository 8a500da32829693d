"""A run: episodes of one agent over one split, in a folder. Invariant: killed at any moment and resumed, a run ends with the
same episodes as one that was never killed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from cotbench.agents.base import (
    Agent,
    StreamingAgent,
    check_elicitation,
    close_agent,
    describe_agent,
    needs_of,
    scores_actions,
    uses_elicitation,
)
from cotbench.agents.face import check_agent
from cotbench.agents.registry import make_agent
from cotbench.envs.registry import env_entry
from cotbench.envs.splits import digest
from cotbench.errors import UsageError
from cotbench.failure import AGENT_BUG, failure_in
from cotbench.runs.dataset_card import write_run_card
from cotbench.runs.env_workers import open_envs
from cotbench.runs.episode import EPISODES, Episode, Journal, Step, read_episodes, row_of
from cotbench.runs.episode_row import EpisodeRow
from cotbench.runs.folder import WritableFolder, check_identity, file_name, make_folder, open_folder
from cotbench.runs.limits import Budget, Limits
from cotbench.runs.manifest import MANIFEST, RUN_FOLDER, SUITE, Manifest, RunConfig, provenance, read_manifest
from cotbench.runs.plan import RunPlan, make_plan
from cotbench.runs.resources import Resources
from cotbench.runs.results import Run
from cotbench.runs.rollout import Observer, RolloutSpec, StepObserver, play
from cotbench.runs.status import RunStatus
from cotbench.runs.summary import SUMMARY, summarize
from cotbench.runs.tracker import RunTracker, require_trackers
from cotbench.status_line import StatusLine, in_notebook


@runtime_checkable
class ResumeObserver(Observer, Protocol):
    """Receive what was played before, too."""

    def resumed(self, played: Sequence[EpisodeRow]) -> None:
        """Handle the episodes that are not played again; called once, before anything is played."""


def start_run(
    plan: RunPlan,
    folder: Path | WritableFolder,
    *,
    agent: Agent,
    resources: Resources,
    observer: Observer,
    stop_at_failures: bool = False,
    budget: Budget | None = None,
) -> Run:
    """Play a new run into an empty or new folder.

    Args:
        plan: the tasks and the settings.
        folder: the run folder; an open one where the caller has locked it already, before the agent was built.
        agent: the agent that plays.
        resources: the resources of the run.
        observer: receives the progress.
        stop_at_failures: end the run at the first episode that a bug or another exception ends.
        budget: what may be spent; where it is, the run stays unfinished, as one that was interrupted.

    Raises:
        MissingExtraError: the environment's engine is not installed.
        RunFolderError: the folder holds something already.
        UsageError: the agent is no agent; actions are to be ranked where the environment does not list all.
        AgentError: the agent does not support this elicitation.
        BugError: see `_Recorder`.
        CotbenchError: the environment cannot be made. As after every error but an interrupt, nothing is left in the folder
            where no action was executed.
    """
    plan.entry.require()
    check_agent(agent)
    check_elicitation(agent, plan.config.elicitation)
    ranked = plan.config.elicitation.prompt_action == "ranked" and scores_actions(agent)
    if ranked and not plan.entry.lists_all_admissible:
        raise UsageError(
            f"{plan.entry.name} does not list all of its admissible actions, so they cannot be ranked: "
            "--prompt-elicitation bare or empty"
        )
    require_trackers(resources.report_to)
    with _opened(folder, new_run_folder) as opened:
        manifest = _manifest(plan, agent, resources.data)
        path, before = opened.path, set(opened.path.iterdir())
        opened.begin(manifest.model_dump_json(indent=2))
        try:
            return _play(opened, manifest, plan, agent, resources, observer, stop_at_failures, budget)
        except Exception:
            if not (path / EPISODES).is_file() or not any(row.steps for row in read_episodes(path).rows):
                _remove(set(path.iterdir()) - before)
            raise


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir():  # A tracker's.
            shutil.rmtree(path)
        else:
            path.unlink()


def new_run_folder(folder: Path) -> None:
    """Make the folder of a new run; refuse one that is not empty.

    Raises:
        RunFolderError: it is not empty, it is a file, or it cannot be made.
    """
    begun = any((folder / name).is_file() for name in (MANIFEST, SUITE))
    make_folder(
        folder, f"resume with: cotbench run --resume {folder}" if begun else f"choose another --out, not {folder}", "run folder"
    )


def resume_run(
    folder: Path | WritableFolder,
    *,
    agent: Agent,
    resources: Resources,
    observer: Observer,
    stop_at_failures: bool = False,
    budget: Budget | None = None,
) -> Run:
    """Continue a run: play the missing episodes, and play those again that ended in an error.

    Args:
        folder: the run folder, or an open one.
        agent: the agent of the run.
        resources: the resources of the run.
        observer: receives the progress.
        stop_at_failures, budget: as for `start_run`; what was played before counts.

    Raises:
        RunFolderError: not a run folder, or the tasks, the data or the elicitation have changed since.
        BugError: see `_Recorder`.
    """
    before = read_manifest(folder if isinstance(folder, Path) else folder.path)
    env_entry(before.config.env).require()
    plan = make_plan(before.config.model_copy(update={"tasks": before.task_list, "episodes": None}), resources.data)
    plan = RunPlan(before.config, plan.entry, plan.tasks, before.split_tasks, before.partial)
    check_agent(agent)
    check_elicitation(agent, before.config.elicitation)
    require_trackers(resources.report_to)
    with _opened(folder) as opened:
        opened.check_identity(before.identity(), _manifest(plan, agent, resources.data).identity())
        return _play(opened, before, plan, agent, resources, observer, stop_at_failures, budget)


def _opened(
    folder: Path | WritableFolder, check: Callable[[Path], None] | None = None
) -> AbstractContextManager[WritableFolder]:
    return open_folder(folder, RUN_FOLDER, check) if isinstance(folder, Path) else nullcontext(folder)


def _manifest(plan: RunPlan, agent: Agent, data: Path | None) -> Manifest:
    dialect = plan.entry.dialect_of(plan.tasks, data)
    instructions = plan.entry.in_dialect(dialect).instructions()
    return Manifest(
        config=plan.config,
        elicitation_fingerprint=plan.config.elicitation.fingerprint,
        instructions_sha256=hashlib.sha256(json.dumps(instructions).encode()).hexdigest(),
        task_list=plan.tasks,
        task_list_sha256=digest(plan.tasks),
        split_tasks=plan.split_tasks,
        partial=plan.partial,
        data=plan.entry.source().data_version(plan.tasks, data),
        dialect=dialect,
        expert=_expert(plan, agent),
        agent=describe_agent(agent),
        uses_elicitation=uses_elicitation(agent),
        **provenance(),
    )


def _wants_expert(plan: RunPlan, agent: Agent) -> bool:
    """Tell whether the expert's actions are needed: by the agent, or because the run records them."""
    config = plan.config
    recorded = config.expert_actions if config.expert_actions is not None else plan.entry.expert_at_hand
    return recorded or config.expert is not None or "expert_action" in needs_of(agent)


def _expert(plan: RunPlan, agent: Agent) -> str:
    """Return the name of the expert: the one that the config names, else one that wins where the agent takes its actions, else
    one that steps in anywhere.
    """
    experts = plan.entry.experts
    if experts is None or not _wants_expert(plan, agent):
        return ""
    if plan.config.expert is not None:
        return plan.config.expert
    return experts.followed if "expert_action" in needs_of(agent) else experts.recorded


def _play(
    folder: WritableFolder,
    manifest: Manifest,
    plan: RunPlan,
    agent: Agent,
    resources: Resources,
    observer: Observer,
    stop_at_failures: bool,
    budget: Budget | None,
) -> Run:
    budget = budget or Budget(Limits(), plan.config.agent)
    request = set(needs_of(agent))
    if _wants_expert(plan, agent):
        request.add("expert_action")
    if plan.config.elicitation.needs_admissible:
        request.add("admissible_actions")
    settings = plan.env_settings(request, resources.data, dialect=manifest.dialect, expert=manifest.expert)
    rules = plan.rules(manifest.dialect)
    trackers = require_trackers(resources.report_to)
    with folder.journal(Journal) as journal:
        done = {row.key: row for row in journal.rows if row.error is None}
        for row in journal.rows:
            budget.add(row)
        units = [unit for unit in plan.rollouts if unit.key not in done]
        if isinstance(observer, ResumeObserver):
            observer.resumed(list(done.values()))
        batch = agent.batch if isinstance(agent, StreamingAgent) else None
        envs = open_envs(settings, *resources.layout(len(units), batch))
        with RunTracker(trackers, folder.path, manifest, done.values()) as tracker:
            try:
                recorder = _Recorder(journal, observer, tracker, budget, len(envs), stop_at_failures)
                play(units, agent, envs, rules, recorder, budget.has_room)
            finally:
                for env in envs:
                    env.close()
            recorded = {row.key for row in journal.rows}
            if any(unit.key not in recorded for unit in units):  # The budget is spent: the folder is as after an interrupt.
                played = read_episodes(folder.path)
                return Run(folder.path, manifest, summarize(played, manifest, budget.price), played, finished=False)
            episodes = journal.finalize([unit.key for unit in plan.rollouts])
            summary = summarize(episodes, manifest, budget.price)
            write_run_card(folder.path, manifest)
            folder.finalize(SUMMARY, summary.model_dump_json(indent=2))
            tracker.summarized(summary)
    return Run(folder.path, manifest, summary, episodes)


@dataclass(slots=True)
class _Recorder:
    """An observer that writes each episode to disk before it passes it on, and ends a run that only a bug would fill.

    An agent whose code fails at the beginning of as many episodes as are played side by side, before any action was executed,
    will fail in all of them. Later a bug costs its episodes alone: one odd query must not cost a long run.

    Attributes:
        journal: the file of the episodes.
        observer: receives the progress; `tracker` and `budget` too.
        side_by_side: how many episodes are played at the same time.
        stop_at_failures: end the run at the first episode that a bug or another exception ends.
        begun: whether an action was executed.
        bugs: how many episodes a bug of the agent has ended before that.
    """

    journal: Journal
    observer: Observer
    tracker: RunTracker
    budget: Budget
    side_by_side: int
    stop_at_failures: bool
    begun: bool = False
    bugs: int = 0

    def executed(self, unit: RolloutSpec, step: Step) -> None:
        if isinstance(self.observer, StepObserver):
            self.observer.executed(unit, step)

    def stepped(self, unit: RolloutSpec, step: int) -> None:
        self.begun = True
        self.observer.stepped(unit, step)

    def finished(self, episode: Episode) -> None:
        self.journal.append(episode)
        self.budget.add(row_of(episode))
        failure = failure_in(episode)
        if failure is not None:
            self.bugs += not self.begun and failure.error_kind == AGENT_BUG
            hopeless = not self.begun and self.bugs >= self.side_by_side
            if hopeless or (self.stop_at_failures and failure.can_be_traced):
                raise failure.exception
        self.observer.finished(episode)
        self.tracker.finished(episode)


def new_folder(config: RunConfig, root: Path = Path("runs")) -> Path:
    """Return a folder name that describes the run and is not taken.

    Args:
        config: the settings of the run.
        root: the folder in which it will lie.
    """
    words = (config.agent, config.env, config.split, config.mode, f"seed{config.seed}")
    name = "_".join(map(file_name, words))
    folder, count = root / name, 1
    while folder.exists():
        count += 1
        folder = root / f"{name}_{count}"
    return folder


def run(
    config: RunConfig,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    num_envs: int | None = None,
    workers: int | None = None,
    data: Path | None = None,
    report_to: Sequence[str] = (),
    limit_tokens: int | None = None,
    limit_cost: float | None = None,
    prices: Path | None = None,
    agent: Agent | None = None,
    observer: Observer | None = None,
    progress: bool = True,
) -> Run:
    """Play a run from Python: the same as `cotbench run`.

    Args:
        config: the settings of the run.
        out: the run folder; a new one under `runs/` when left out.
        resume: continue the run in `out` where one was begun; what is played already is not played again.
        num_envs: episodes played side by side; this and the next three as in `Resources`.
        workers: processes that the environments live in.
        data: folder of the environment's data.
        report_to: trackers.
        limit_tokens: begin no episode beyond this number of computed tokens; this and the next two as in `Limits`.
        limit_cost: begin no episode beyond this many dollars.
        prices: TOML file of what models cost.
        agent: an agent object, instead of the one that `config.agent` names.
        observer: receives the progress, instead of what a notebook shows.
        progress: in a notebook, show how far the run is.

    Returns:
        The run; not finished where a limit ended it.

    Raises:
        RunFolderError: the folder holds another run, or one that is not to be resumed.
        UsageError: prices that cannot be used, or a limit of dollars without them.
        CotbenchError: as `make_plan`, `start_run` and `resume_run`.
    """
    plan = make_plan(config, data)
    resources = Resources(num_envs=num_envs, workers=workers, data=data, report_to=tuple(report_to))
    budget = Budget(Limits(limit_tokens=limit_tokens, limit_cost=limit_cost, prices=prices), config.agent)
    folder = Path(out) if out is not None else new_folder(config)
    begun = resume and (folder / MANIFEST).is_file()
    if begun:
        check_identity(folder, read_manifest(folder).config.model_dump(), config.model_dump())
    if observer is None:
        observer = RunStatus(StatusLine(), len(plan.rollouts)) if progress and in_notebook() else SilentObserver()
    # Locked before a model is loaded: that can take minutes.
    with open_folder(folder, RUN_FOLDER, None if begun else new_run_folder) as opened:
        player = agent if agent is not None else make_agent(config.agent)
        try:
            if begun:
                return resume_run(opened, agent=player, resources=resources, observer=observer, budget=budget)
            return start_run(plan, opened, agent=player, resources=resources, observer=observer, budget=budget)
        finally:
            if agent is None:
                close_agent(player)


class SilentObserver:
    """An observer that does nothing."""

    def stepped(self, unit: RolloutSpec, step: int) -> None:
        """Do nothing."""

    def finished(self, episode: Episode) -> None:
        """Do nothing."""
