"""`cotbench run`: play episodes and print the table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cotbench.cli.flags import ConfigFile, Debug, DryRun, Import, Resume, Typed, Verbose, with_options
from cotbench.cli.terminal import echo, echo_json, print_tables
from cotbench.cli.trust import Trust, confirm
from cotbench.flags import OUTPUT
from cotbench.runs.limits import Limits
from cotbench.runs.manifest import RunConfig
from cotbench.runs.resources import Resources
from cotbench.runs.suite_config import SuiteConfig


@with_options(SuiteConfig, Resources, Limits)
def run(
    typed: Typed,
    *,
    out: Annotated[
        Path | None, typer.Option(help="Run folder", show_default="a new one under runs/", rich_help_panel=OUTPUT)
    ] = None,
    resume: Resume = None,
    config: ConfigFile = None,
    import_: Import = None,
    trust: Trust = False,
    dry_run: DryRun = False,
    show_prompt: Annotated[
        bool,
        typer.Option(
            "--show-prompt",
            help="Print what the model is sent at the first state, in each mode, and stop",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    debug: Debug = False,
    verbose: Verbose = False,
    json_: Annotated[bool, typer.Option("--json", help="Print summary.json instead", rich_help_panel=OUTPUT)] = False,
) -> int:
    """Play every task in each mode, and compare the modes on the same tasks."""
    from cotbench.agents.registry import resolve
    from cotbench.cli.agent_cache import open_agent
    from cotbench.cli.config_file import with_config_file
    from cotbench.cli.options import model_of
    from cotbench.cli.playing import (
        play_runs,
        print_errors,
        print_plans,
        print_stopped,
        suite_removed_if_unplayed,
        warn_of_samples,
    )
    from cotbench.cli.prompts import print_prompts
    from cotbench.cli.resume import print_interrupted, resume_command, resume_folder
    from cotbench.errors import UsageError
    from cotbench.runs import runner, suite
    from cotbench.runs.folder import open_folder
    from cotbench.runs.limits import Budget
    from cotbench.runs.manifest import RUN_FOLDER
    from cotbench.runs.plan import make_plan
    from cotbench.runs.tracker import require_trackers

    typed = with_config_file(typed, config)
    given = typed[SuiteConfig]
    resources = model_of(Resources, typed[Resources])
    data = resources.data
    folder = resume_folder(resume, out)
    env = given.get("env", SuiteConfig.model_fields["env"].default)
    configs = _configs(given, env, folder, data, trust)
    several = suite.is_suite(folder) if folder is not None else len(configs) > 1
    if several and "tasks" in given:
        raise UsageError("--task names tasks of one environment: give --env one name")
    build = resolve(configs[0].agent, resources.agent_options())
    budget = Budget(model_of(Limits, typed[Limits]), configs[0].agent)
    plans = [make_plan(one, suite.data_for(one, data) if several else data) for one in configs]
    if dry_run:
        print_plans(plans, json_)
        return 0
    if show_prompt:
        return print_prompts([(plan, suite.data_for(plan.config, data)) for plan in plans], json_)
    warn_of_samples([plan.config for plan in plans])
    for plan in plans:
        plan.entry.require()
    require_trackers(resources.report_to)
    target = folder or out or runner.new_folder(configs[0].model_copy(update={"env": env} if several else {}))
    again = resume_command("run", target, import_ or [], data, config=[one.model_dump(mode="json") for one in configs])
    kind = suite.SUITE_FOLDER if several else RUN_FOLDER
    try:
        # Locked before the model is loaded, which can take minutes: a second start is refused at once.
        with (
            open_folder(target, kind, runner.new_run_folder if folder is None else None) as opened,
            suite_removed_if_unplayed(target, new=folder is None),
        ):
            if several and folder is None:
                suite.write_suite(opened, plans, data)
            with open_agent(configs[0].agent, build) as player:
                places = [target / plan.config.env if several else opened for plan in plans]
                outcomes = play_runs(plans, places, json_, player, resources, debug=debug, budget=budget)
            summary = suite.summarize_suite([outcome.summary for outcome in outcomes]) if several else None
            if summary is not None and not budget.stopped:
                suite.write_suite_summary(opened, summary)
    except KeyboardInterrupt:
        return print_interrupted("played episodes are kept", again, target / kind.manifest)
    _print(target, outcomes, summary, json_, verbose=verbose)
    print_stopped(budget, outcomes, plans[len(outcomes) :], again)
    return print_errors([outcome.records for outcome in outcomes], again)


def _configs(given: dict[str, Any], env: str, folder: Path | None, data: Path | None, trust: bool) -> list[RunConfig]:
    """Return the config of each run: from the options, or of the folder to resume.

    Raises:
        UsageError: no agent is named, or a value does not fit.
        RunFolderError: what was typed contradicts the folder.
    """
    from cotbench.cli.options import new_config
    from cotbench.cli.playing import recorded_configs
    from cotbench.errors import UsageError
    from cotbench.runs.suite import resolve_env_names

    if folder is not None:
        configs = recorded_configs(folder, given)
        confirm([config.model_dump(mode="json") for config in configs], folder, typed=given, trust=trust)
        return configs
    if "agent" not in given:
        raise UsageError("--agent is missing: try --agent hf:smollm2, or --agent random (cotbench list agents)")
    return [new_config({**given, "env": name}) for name in resolve_env_names(env, data)]


def _print(folder: Path, outcomes: list[Any], summary: Any, as_json: bool, *, verbose: bool) -> None:
    """Print the table of a run, or of a suite, whose summary is given then."""
    from cotbench.runs.dataset_card import write_suite_card
    from cotbench.runs.tables import run_table, suite_table

    if summary is not None:
        write_suite_card(folder, [outcome.manifest for outcome in outcomes])
    one = outcomes[0].summary
    if as_json:
        echo_json((one if summary is None else summary).model_dump_json(indent=2))
        return
    print_tables(run_table(one, verbose=verbose) if summary is None else suite_table(summary, verbose=verbose))
    echo(f"run folder: {folder}" if summary is None else f"run folders: {folder}/{{{','.join(summary.runs)}}}")
