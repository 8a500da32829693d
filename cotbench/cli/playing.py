"""Functions shared by the commands that play episodes: configs of a folder to resume, playing with a progress bar, the plan,
errors.

Invariant: a folder is resumed with its own config; options typed beside `--resume` are checked against it, never mixed in.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cotbench.agents.base import Agent
from cotbench.agents.registry import may_use_elicitation
from cotbench.cli.failures import print_failures
from cotbench.cli.progress import progress
from cotbench.cli.terminal import echo, echo_error, echo_json
from cotbench.envs.splits import digest
from cotbench.runs import runner, suite
from cotbench.runs.episode import Episode, rows_of
from cotbench.runs.folder import WritableFolder, check_identity
from cotbench.runs.limits import Budget
from cotbench.runs.manifest import MANIFEST, SUITE, RunConfig
from cotbench.runs.plan import RunPlan
from cotbench.runs.resources import Resources
from cotbench.runs.results import Run
from cotbench.runs.tables import NO_ELICITATION


def recorded_configs(folder: Path, given: dict[str, Any]) -> list[RunConfig]:
    """Return the configs of a folder to resume; typed values must not contradict them.

    Args:
        folder: of a run, or of runs on several environments.
        given: typed values, by the fields of `RunConfig`.

    Raises:
        RunFolderError: they do, or there is no run.
    """
    configs = suite.read_configs(folder)
    typed = {name: value for name, value in given.items() if name != "elicitation"} | given.get("elicitation", {})
    if suite.is_suite(folder):
        typed.pop("env", None)
    for config in configs:
        before = {**dict(config), **dict(config.elicitation)}
        check_identity(folder, {name: before[name] for name in typed}, typed)
    return configs


def play_run(
    plan: RunPlan,
    folder: Path | WritableFolder,
    quiet: bool,
    agent: Agent,
    resources: Resources,
    *,
    debug: bool = False,
    budget: Budget | None = None,
) -> Run:
    """Play a run, or resume it where it was begun.

    Args:
        plan: the plan of the run.
        folder: the run folder, or an open one.
        quiet: show no progress where standard error is no terminal.
        agent: the agent.
        resources: data folder and limits of this process.
        debug: end the run at the first episode that a bug or another exception ends.
        budget: what may be spent.
    """
    how: Any = {"agent": agent, "resources": resources, "stop_at_failures": debug, "budget": budget}
    path = folder if isinstance(folder, Path) else folder.path
    with progress(plan, quiet=quiet and not sys.stderr.isatty(), agent=agent) as observer:
        if (path / MANIFEST).is_file():
            return runner.resume_run(folder, observer=observer, **how)
        return runner.start_run(plan, folder, observer=observer, **how)


def play_runs(
    plans: Sequence[RunPlan],
    places: Sequence[Path | WritableFolder],
    quiet: bool,
    agent: Agent,
    resources: Resources,
    *,
    debug: bool,
    budget: Budget,
) -> list[Run]:
    """Play runs one after the other, until what they may spend is spent; return those that were begun.

    Args:
        plans: the plan of each run.
        places: the folder of each.
        quiet, agent, debug: as for `play_run`.
        resources: of all; the data folder goes to those that read one.
        budget: what they may spend together.
    """
    outcomes: list[Run] = []
    for plan, place in zip(plans, places, strict=True):
        here = resources.model_copy(update={"data": suite.data_for(plan.config, resources.data)})
        outcomes.append(play_run(plan, place, quiet, agent, here, debug=debug, budget=budget))
        if budget.stopped:
            break
    return outcomes


@contextmanager
def suite_removed_if_unplayed(folder: Path, *, new: bool) -> Iterator[None]:
    """Remove the record of new runs on several environments where nothing is played when the block fails.

    Their folder, which is empty then, is removed by `open_folder`. An interrupt leaves the record: the runs can be resumed.

    Args:
        folder: the folder.
        new: whether this command has made it.
    """
    try:
        yield
    except Exception:
        if new and not any(path.is_dir() for path in folder.iterdir()):
            (folder / SUITE).unlink(missing_ok=True)
        raise


def warn_of_samples(configs: Sequence[RunConfig]) -> None:
    """Print a warning where the samples of a task will be alike: a model that decodes greedily answers the same each time."""
    for config in configs:
        if config.samples > 1 and not config.elicitation.temperature and may_use_elicitation(config.agent):
            echo_error(
                f"warning: --samples {config.samples} at temperature 0 plays the same episode {config.samples} times where the "
                "agent decodes greedily: try --temperature 0.7"
            )
            return


def print_plans(plans: list[RunPlan], as_json: bool) -> None:
    """Print the plans of runs, as text or as JSON."""
    if as_json:
        plan_fields = [_plan_fields(plan) for plan in plans]
        echo_json(json.dumps(plan_fields[0] if len(plan_fields) == 1 else plan_fields, indent=2))
        return
    for plan in plans:
        _print_plan(plan)


def _plan_fields(plan: RunPlan) -> dict[str, Any]:
    return {
        "config": plan.config.model_dump(mode="json"),
        "elicitation_fingerprint": plan.config.elicitation.fingerprint,
        "task_list": plan.tasks,
        "task_list_sha256": digest(plan.tasks),
        "partial": plan.partial,
        "episodes": len(plan.rollouts),
    }


def _print_plan(plan: RunPlan) -> None:
    steps = plan.config.max_steps or plan.entry.max_steps()
    types = Counter(unit.task_type for unit in plan.rollouts)
    modes = Counter(unit.mode for unit in plan.rollouts)
    config = plan.config
    echo(f"{config.agent} on {config.env} {config.scheme}/{config.split}, seed {config.seed}")
    echo(f"tasks: {len(plan.tasks)} of {plan.split_tasks}{' (PARTIAL: games are missing)' if plan.partial else ''}")
    echo("episodes: " + ", ".join(f"{count} {mode}" for mode, count in modes.items()))
    echo(
        "task types: " + ", ".join(f"{name} {count // (len(modes) * config.samples)}" for name, count in sorted(types.items()))
    )
    elicitation = f"elicitation {config.elicitation.fingerprint}" if may_use_elicitation(config.agent) else NO_ELICITATION
    echo(f"at most {steps * len(plan.rollouts)} steps; {elicitation}")
    for task in plan.tasks[:5]:
        echo(f"  {task}")
    if len(plan.tasks) > 5:
        echo(f"  ... and {len(plan.tasks) - 5} more")


def print_stopped(budget: Budget, outcomes: Sequence[Run], left: Sequence[RunPlan], again: str) -> None:
    """Print that a limit ended runs before their ends, and how to go on; nothing where none did.

    Args:
        budget: what they could spend.
        outcomes: of the runs that were begun.
        left: the plans of those that were not.
        again: the command line that resumes the folder.
    """
    if not budget.stopped:
        return
    unplayed = sum(outcome.summary.unplayed for outcome in outcomes) + sum(len(plan.rollouts) for plan in left)
    planned = sum(len(outcome.records) for outcome in outcomes) + unplayed
    echo_error(
        f"stopped at the limit, after {budget.spent}: {unplayed} of {planned} episodes were not played; resume with a "
        f"higher limit: {again}"
    )


def print_errors(runs: Sequence[Sequence[Episode]], again: str) -> int:
    """Print the number of failed episodes and the most frequent error, and return the exit code: 1 where episodes failed.

    Args:
        runs: the episodes of each run.
        again: the command line that plays the failed ones again.
    """
    named = [(row.key, row) for episodes in runs for row in rows_of(episodes)]
    return print_failures(named, f"of {len(named)} episodes failed", f"retry with: {again}")
