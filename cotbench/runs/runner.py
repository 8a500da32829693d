"""A run: episodes of one agent over one split, in a folder. Invariant: killed at any moment and resumed, a run ends with the
same episodes as one that was never killed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from cotbench.agents.base import Agent, StreamingAgent, check_elicitation, describe_agent, needs_of
from cotbench.agents.registry import make_agent
from cotbench.envs.registry import env_entry
from cotbench.envs.splits import digest
from cotbench.runs.dataset_card import write_run_card
from cotbench.runs.env_workers import EnvSettings, open_envs
from cotbench.runs.episode import Episode, Journal
from cotbench.runs.folder import WritableFolder, file_name, make_folder, open_folder
from cotbench.runs.manifest import MANIFEST, RUN_FOLDER, SUITE, Manifest, RunConfig, provenance, read_manifest
from cotbench.runs.plan import RunPlan, make_plan
from cotbench.runs.resources import Resources
from cotbench.runs.rollout import Observer, RolloutRules, RolloutSpec, play
from cotbench.runs.summary import SUMMARY, Summary, summarize
from cotbench.runs.tracker import RunTracker, require_trackers


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """A finished run: its folder, its numbers, its episodes."""

    folder: Path
    manifest: Manifest
    summary: Summary
    episodes: list[Episode]


def start_run(
    plan: RunPlan, folder: Path | WritableFolder, *, agent: Agent, resources: Resources, observer: Observer
) -> RunOutcome:
    """Play a new run into an empty or new folder.

    Args:
        plan: the tasks and the settings.
        folder: the run folder; an open one where the caller has locked it already, before the agent was built.
        agent: the agent that plays.
        resources: the resources of the run.
        observer: receives the progress.

    Raises:
        MissingExtraError: the environment's engine is not installed.
        RunFolderError: the folder holds something already.
        AgentError: the agent does not support this elicitation.
    """
    plan.entry.require()
    check_elicitation(agent, plan.config.elicitation)
    require_trackers(resources.report_to)
    with _opened(folder, new_run_folder) as opened:
        manifest = _manifest(plan, agent, resources.data)
        opened.begin(manifest.model_dump_json(indent=2))
        return _play(opened, manifest, plan, agent=agent, resources=resources, observer=observer)


def new_run_folder(folder: Path) -> None:
    """Make the folder of a new run; refuse one that is not empty.

    Raises:
        RunFolderError: it is not empty, it is a file, or it cannot be made.
    """
    begun = any((folder / name).is_file() for name in (MANIFEST, SUITE))
    make_folder(
        folder, f"go on with: cotbench run --resume {folder}" if begun else f"choose another --out, not {folder}", "run folder"
    )


def resume_run(folder: Path | WritableFolder, *, agent: Agent, resources: Resources, observer: Observer) -> RunOutcome:
    """Continue a run: play the missing episodes, and play those again that ended in an error.

    Args:
        folder: the run folder, or an open one.
        agent: the agent of the run.
        resources: the resources of the run.
        observer: receives the progress.

    Raises:
        RunFolderError: not a run folder, or the tasks, the data or the elicitation have changed since.
    """
    before = read_manifest(folder if isinstance(folder, Path) else folder.path)
    env_entry(before.config.env).require()
    plan = make_plan(before.config.model_copy(update={"tasks": before.task_list, "episodes": None}), resources.data)
    plan = RunPlan(before.config, plan.entry, plan.tasks, before.split_tasks, before.partial)
    check_elicitation(agent, before.config.elicitation)
    require_trackers(resources.report_to)
    with _opened(folder) as opened:
        opened.check_identity(before.identity(), _manifest(plan, agent, resources.data).identity())
        return _play(opened, before, plan, agent=agent, resources=resources, observer=observer)


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
        **provenance(),
    )


def _wants_expert(plan: RunPlan, agent: Agent) -> bool:
    """Tell whether the expert's actions are needed: by the agent, or because the run records them."""
    recorded = plan.config.expert_actions if plan.config.expert_actions is not None else plan.entry.expert_at_hand
    return recorded or "expert_action" in needs_of(agent)


def _expert(plan: RunPlan, agent: Agent) -> str:
    """Return the name of the expert: one that wins where the agent takes its actions, else one that steps in anywhere."""
    experts = plan.entry.experts
    if experts is None or not _wants_expert(plan, agent):
        return ""
    return experts.followed if "expert_action" in needs_of(agent) else experts.recorded


def _play(
    folder: WritableFolder, manifest: Manifest, plan: RunPlan, *, agent: Agent, resources: Resources, observer: Observer
) -> RunOutcome:
    config, entry = plan.config, manifest.entry
    request = set(needs_of(agent))
    if _wants_expert(plan, agent):
        request.add("expert_action")
    if config.elicitation.show_admissible:
        request.add("admissible_actions")
    settings = EnvSettings(
        config.env,
        {
            "split": config.split,
            "scheme": config.scheme,
            "max_steps": config.max_steps,
            "request": sorted(request),
            **({"expert": manifest.expert} if manifest.expert else {}),
            **({"data": resources.data} if entry.takes_data else {}),
        },
        dialect=manifest.dialect,
    )
    rules = RolloutRules(
        env=config.env,
        instructions=entry.instructions(),
        elicitation=config.elicitation,
        seed=config.seed,
        both=config.mode == "both",
        canonical=entry.canonical(),
    )
    trackers = require_trackers(resources.report_to)
    with folder.journal(Journal) as journal:
        done = {episode.key: episode for episode in journal.records if episode.error is None}
        units = [unit for unit in plan.rollouts if unit.key not in done]
        batch = agent.batch if isinstance(agent, StreamingAgent) else None
        envs = open_envs(settings, *resources.layout(len(units), batch))
        with RunTracker(trackers, folder.path, manifest, done.values()) as tracker:
            try:
                play(units, agent, envs, rules, _Recorder(journal, observer, tracker))
            finally:
                for env in envs:
                    env.close()
            episodes = journal.finalize([unit.key for unit in plan.rollouts])
            summary = summarize(episodes, manifest)
            write_run_card(folder.path, manifest)
            folder.finalize(SUMMARY, summary.model_dump_json(indent=2))
            tracker.summarized(summary)
    return RunOutcome(folder.path, manifest, summary, episodes)


@dataclass(frozen=True, slots=True)
class _Recorder:
    """An observer that writes each episode to disk before it passes it on."""

    journal: Journal
    observer: Observer
    tracker: RunTracker

    def stepped(self, unit: RolloutSpec, step: int) -> None:
        self.observer.stepped(unit, step)

    def finished(self, episode: Episode) -> None:
        self.journal.append(episode)
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
    out: Path | None = None,
    num_envs: int | None = None,
    workers: int | None = None,
    data: Path | None = None,
    report_to: Sequence[str] = (),
    agent: Agent | None = None,
    observer: Observer | None = None,
) -> RunOutcome:
    """Play a run from Python: the same as `cotbench run`.

    Args:
        config: the settings of the run.
        out: the run folder; a new one under `runs/` when left out.
        num_envs, workers, data, report_to: see `Resources`.
        agent: an agent object, instead of the one that `config.agent` names.
        observer: receives the progress.

    Returns:
        The finished run.

    Raises:
        CotbenchError: as `make_plan` and `start_run`.
    """
    plan = make_plan(config, data)
    resources = Resources(num_envs=num_envs, workers=workers, data=data, report_to=tuple(report_to))
    # Locked before a model is loaded: that can take minutes.
    with open_folder(out or new_folder(config), RUN_FOLDER, new_run_folder) as opened:
        player = agent if agent is not None else make_agent(config.agent)
        try:
            return start_run(plan, opened, agent=player, resources=resources, observer=observer or SilentObserver())
        finally:
            if agent is None:
                player.close()


class SilentObserver:
    """An observer that does nothing."""

    def stepped(self, unit: RolloutSpec, step: int) -> None:
        """Do nothing."""

    def finished(self, episode: Episode) -> None:
        """Do nothing."""
