"""`cotbench run`: play episodes and print the table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cotbench.cli.flags import Debug, DryRun, Import, Resume, Typed, Verbose, with_options
from cotbench.cli.terminal import echo, echo_json, print_tables
from cotbench.cli.trust import Trust, confirm
from cotbench.flags import OUTPUT
from cotbench.runs.resources import Resources
from cotbench.runs.suite_config import SuiteConfig


@with_options(SuiteConfig, Resources)
def run(
    typed: Typed,
    *,
    out: Annotated[
        Path | None, typer.Option(help="Run folder", show_default="a new one under runs/", rich_help_panel=OUTPUT)
    ] = None,
    resume: Resume = None,
    import_: Import = None,
    trust: Trust = False,
    dry_run: DryRun = False,
    debug: Debug = False,
    verbose: Verbose = False,
    json_: Annotated[bool, typer.Option("--json", help="Print summary.json instead", rich_help_panel=OUTPUT)] = False,
) -> int:
    """Play every task in each mode, and compare the modes on the same tasks."""
    from cotbench.agents.registry import resolve
    from cotbench.cli.agent_cache import open_agent
    from cotbench.cli.options import model_of, new_config
    from cotbench.cli.playing import play_run, print_plans, recorded_configs, suite_removed_if_unplayed
    from cotbench.cli.resume import print_interrupted, resume_command, resume_folder
    from cotbench.errors import UsageError
    from cotbench.runs import runner, suite
    from cotbench.runs.folder import open_folder
    from cotbench.runs.manifest import RUN_FOLDER
    from cotbench.runs.plan import make_plan
    from cotbench.runs.tracker import require_trackers

    given = typed[SuiteConfig]
    resources = model_of(Resources, typed[Resources])
    data = resources.data
    folder = resume_folder(resume, out)
    env = given.get("env", SuiteConfig.model_fields["env"].default)
    if folder is not None:
        configs = recorded_configs(folder, given)
        confirm([config.model_dump(mode="json") for config in configs], folder, typed=given, trust=trust)
    elif "agent" not in given:
        raise UsageError("--agent is missing: try --agent hf:smollm2, or --agent random (cotbench list agents)")
    else:
        configs = [new_config({**given, "env": name}) for name in suite.resolve_env_names(env, data)]
    several = suite.is_suite(folder) if folder is not None else len(configs) > 1
    if several and "tasks" in given:
        raise UsageError("--task names tasks of one environment: give --env one name")
    build = resolve(configs[0].agent, resources.agent_options())
    plans = [make_plan(config, suite.data_for(config, data) if several else data) for config in configs]
    if dry_run:
        print_plans(plans, json_)
        return 0
    for plan in plans:
        plan.entry.require()
    require_trackers(resources.report_to)
    target = folder or out or runner.new_folder(configs[0].model_copy(update={"env": env} if several else {}))
    again = resume_command("run", target, import_ or [], data, config=[config.model_dump(mode="json") for config in configs])
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
                outcomes = [
                    play_run(
                        plan,
                        target / plan.config.env if several else opened,
                        json_,
                        player,
                        resources.model_copy(update={"data": suite.data_for(plan.config, data)}),
                        debug=debug,
                    )
                    for plan in plans
                ]
            summary = suite.summarize_suite([outcome.summary for outcome in outcomes]) if several else None
            if summary is not None:
                suite.write_suite_summary(opened, summary)
    except KeyboardInterrupt:
        return print_interrupted("played episodes are kept", again, target / kind.manifest)
    if summary is None:
        return _print_outcome(outcomes[0], json_, again, verbose=verbose)
    return _print_suite(target, outcomes, summary, json_, again, verbose=verbose)


def _print_outcome(outcome: Any, as_json: bool, again: str, *, verbose: bool) -> int:
    from cotbench.cli.playing import print_errors
    from cotbench.runs.tables import run_table

    if as_json:
        echo_json(outcome.summary.model_dump_json(indent=2))
    else:
        print_tables(run_table(outcome.summary, verbose=verbose))
        echo(f"run folder: {outcome.folder}")
    return print_errors([outcome.episodes], again)


def _print_suite(folder: Path, outcomes: list[Any], summary: Any, as_json: bool, again: str, *, verbose: bool) -> int:
    from cotbench.cli.playing import print_errors
    from cotbench.runs.dataset_card import write_suite_card
    from cotbench.runs.tables import suite_table

    write_suite_card(folder, [outcome.manifest for outcome in outcomes])
    if as_json:
        echo_json(summary.model_dump_json(indent=2))
    else:
        print_tables(suite_table(summary, verbose=verbose))
        echo(f"run folders: {folder}/{{{','.join(summary.runs)}}}")
    return print_errors([outcome.episodes for outcome in outcomes], again)
