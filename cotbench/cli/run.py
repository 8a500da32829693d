"""`cotbench run`: play episodes and print the table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cotbench.cli.flags import (
    ASKED,
    PLAYED,
    WRITTEN,
    ActionTokens,
    AvailableOnly,
    Batch,
    Data,
    DryRun,
    Episodes,
    History,
    Import,
    MaxSteps,
    ObservationChars,
    Resume,
    Scheme,
    Seed,
    Style,
    Task,
    Temperature,
    TopP,
    TraceTokens,
    Workers,
)


def run(
    agent: Annotated[
        str | None,
        typer.Option(help="Who plays: hf:MODEL, random, expert, ... (cotbench list agents).", rich_help_panel=PLAYED),
    ] = None,
    env: Annotated[
        str | None,
        typer.Option(
            help="The environment (cotbench list envs), several with commas, or all.",
            show_default="alfworld-gen",
            rich_help_panel=PLAYED,
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the scheme: id, ood, train, ...", show_default="id", rich_help_panel=PLAYED)
    ] = None,
    scheme: Scheme = None,
    mode: Annotated[str | None, typer.Option(help="prompt, cot, or both.", show_default="both", rich_help_panel=PLAYED)] = None,
    episodes: Episodes = None,
    task: Task = None,
    seed: Seed = None,
    max_steps: MaxSteps = None,
    elicitation: Style = None,
    trace_tokens: TraceTokens = None,
    action_tokens: ActionTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    history: History = None,
    show_admissible: Annotated[
        bool | None,
        typer.Option("--show-admissible", help="List the admissible actions of the current state.", rich_help_panel=ASKED),
    ] = None,
    observation_chars: ObservationChars = None,
    expert_actions: Annotated[
        bool | None,
        typer.Option(
            "--expert-actions/--no-expert-actions",
            help="Record the expert's action at every state.",
            show_default="where that costs nothing",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder.", show_default="a new one under runs/", rich_help_panel=WRITTEN)
    ] = None,
    resume: Resume = None,
    batch: Batch = None,
    workers: Workers = None,
    cache_gb: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Memory for a model's keys and values.",
            show_default="a quarter of what is free, 80 % of a GPU",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    data: Data = None,
    available_only: AvailableOnly = None,
    import_: Import = None,
    dry_run: DryRun = False,
    json_: Annotated[bool, typer.Option("--json", help="Print summary.json instead.", rich_help_panel=WRITTEN)] = False,
) -> int:
    """Play every task in each mode, and compare the modes on the same tasks."""
    import sys

    from cotbench.agents.registry import resolve
    from cotbench.cli.agent_cache import open_agent
    from cotbench.cli.options import new_config, only_given
    from cotbench.cli.playing import play_run, print_plans, recorded_configs, resume_command, resume_folder
    from cotbench.errors import UsageError
    from cotbench.plugins import load_plugins
    from cotbench.runs import runner, suite
    from cotbench.runs.manifest import RunConfig
    from cotbench.runs.plan import make_plan

    asked = only_given(
        {
            "style": elicitation,
            "trace_tokens": trace_tokens,
            "action_tokens": action_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "history": history,
            "show_admissible": show_admissible,
            "observation_chars": observation_chars,
        }
    )
    given = only_given(
        {
            "agent": agent,
            "env": env,
            "split": split,
            "scheme": scheme,
            "mode": mode,
            "episodes": episodes,
            "tasks": tuple(task) if task else None,
            "seed": seed,
            "max_steps": max_steps,
            "available_only": available_only,
            "expert_actions": expert_actions,
        }
    )
    load_plugins(import_ or [])
    folder = resume_folder(resume, out)
    if folder is not None:
        configs = recorded_configs(folder, given, asked)
    elif agent is None:
        raise UsageError("--agent is missing: try --agent hf:smollm2, or --agent random (cotbench list agents)")
    else:
        names = suite.resolve_env_names(env or RunConfig.model_fields["env"].default, data)
        configs = [new_config({**given, "env": name}, asked) for name in names]
    several = suite.is_suite(folder) if folder is not None else len(configs) > 1
    if several and task:
        raise UsageError("--task names tasks of one environment: give --env one name")
    build = resolve(configs[0].agent, {"cache_gb": str(cache_gb)} if cache_gb is not None else {})
    plans = [make_plan(config, suite.data_for(config, data) if several else data) for config in configs]
    if dry_run:
        print_plans(plans, json_)
        return 0
    for plan in plans:
        plan.entry.require()
    target = folder or out or runner.new_folder(configs[0].model_copy(update={"env": env} if several else {}))
    if folder is None:
        runner.new_run_folder(target)  # Before the model is loaded: that can take minutes.
        if several:
            suite.write_suite(target, plans, data)
    again = resume_command("run", target, import_ or [], data)
    try:
        with open_agent(configs[0].agent, build, target) as player:
            outcomes = [
                play_run(
                    plan,
                    target / plan.config.env if several else target,
                    json_,
                    player,
                    runner.Resources(batch, workers, suite.data_for(plan.config, data)),
                )
                for plan in plans
            ]
    except KeyboardInterrupt:
        print(f"interrupted; what was played is kept: {again}", file=sys.stderr)
        return 130
    return _print_suite(target, outcomes, json_, again) if several else _print_outcome(outcomes[0], json_, again)


def _print_outcome(outcome: Any, as_json: bool, again: str) -> int:
    from cotbench.cli.options import console
    from cotbench.cli.playing import print_errors
    from cotbench.runs.tables import run_table

    if as_json:
        typer.echo(outcome.summary.model_dump_json(indent=2))
    else:
        screen = console()
        screen.print(run_table(outcome.summary))
        screen.print(f"run folder: {outcome.folder}", soft_wrap=True, highlight=False)
    return print_errors(outcome.episodes, again)


def _print_suite(folder: Path, outcomes: list[Any], as_json: bool, again: str) -> int:
    from cotbench.cli.options import console
    from cotbench.cli.playing import print_errors
    from cotbench.runs.suite import summarize_suite, write_suite_summary
    from cotbench.runs.tables import suite_table

    summary = summarize_suite([outcome.summary for outcome in outcomes])
    write_suite_summary(folder, summary)
    if as_json:
        typer.echo(summary.model_dump_json(indent=2))
    else:
        screen = console()
        screen.print(suite_table(summary))
        screen.print(f"run folders: {folder}/{{{','.join(summary.runs)}}}", soft_wrap=True, highlight=False)
    return print_errors([episode for outcome in outcomes for episode in outcome.episodes], again)
