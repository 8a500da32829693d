"""`cotbench run`: play episodes and print the table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cotbench.cli.flags import ASKED, WRITTEN, Import, ObservationChars, Style, Temperature, TraceTokens

RESUME_OUT = "@out"
"""Stands for "the folder of --out" where `--resume` was given without a value."""

_PLAYED = "What is played"


def run(
    agent: Annotated[
        str | None,
        typer.Option(help="Who plays: hf:MODEL, random, expert, ... (cotbench list agents).", rich_help_panel=_PLAYED),
    ] = None,
    env: Annotated[
        str | None,
        typer.Option(
            help="The environment (cotbench list envs), several with commas, or all.",
            show_default="alfworld-gen",
            rich_help_panel=_PLAYED,
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the scheme: id, ood, train, ...", show_default="id", rich_help_panel=_PLAYED)
    ] = None,
    scheme: Annotated[
        str | None, typer.Option(help="Family of splits: paper or official.", show_default="paper", rich_help_panel=_PLAYED)
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="prompt, cot, or both.", show_default="both", rich_help_panel=_PLAYED)
    ] = None,
    episodes: Annotated[
        int | None,
        typer.Option(
            "--episodes", "--limit", "-n", min=1, help="Tasks, drawn by the seed.", show_default="all", rich_help_panel=_PLAYED
        ),
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Play this task id; may be repeated.", rich_help_panel=_PLAYED)] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Chooses tasks, seeds sampling.", show_default="0", rich_help_panel=_PLAYED),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Step budget.", show_default="the environment's", rich_help_panel=_PLAYED),
    ] = None,
    elicitation: Style = None,
    trace_tokens: TraceTokens = None,
    action_tokens: Annotated[
        int | None, typer.Option(min=1, help="Token budget of an action.", show_default="32; bfcl 512", rich_help_panel=ASKED)
    ] = None,
    temperature: Temperature = None,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Nucleus of the sampling.", show_default="1", rich_help_panel=ASKED)
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(help="What of the past is shown: actions or traces.", show_default="actions", rich_help_panel=ASKED),
    ] = None,
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
    resume: Annotated[
        str | None,
        typer.Option(metavar="[DIR]", help="Go on with the run in DIR, or in --out.", rich_help_panel=WRITTEN),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            "-b",
            min=1,
            help="Episodes played side by side.",
            show_default="what keeps the agent busy",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            "-w",
            min=0,
            help="Processes for the environments.",
            show_default="1 beside a model, else none",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    cache_gb: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Memory for a model's keys and values.",
            show_default="a quarter of what is free, 80 % of a GPU",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Where the games are.", show_default="$ALFWORLD_DATA", rich_help_panel=WRITTEN)
    ] = None,
    available_only: Annotated[
        bool | None,
        typer.Option("--available-only", help="Play an incomplete split; marked partial.", rich_help_panel=WRITTEN),
    ] = None,
    import_: Import = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.", rich_help_panel=WRITTEN)] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print summary.json instead.", rich_help_panel=WRITTEN)] = False,
) -> int:
    """Play every task in each mode, and compare the modes on the same tasks."""
    import sys

    from cotbench import runner, suite
    from cotbench.agents.registry import resolve
    from cotbench.cli.options import emptied, import_plugins, new_config, only_given
    from cotbench.errors import UsageError
    from cotbench.manifest import RunConfig

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
    import_plugins(import_ or [])
    folder = _resumed(resume, out)
    if folder is not None:
        configs = _recorded(folder, given, asked)
    elif agent is None:
        raise UsageError("--agent is missing: try --agent hf:smollm2, or --agent random (cotbench list agents)")
    else:
        names = suite.environments(env or RunConfig.model_fields["env"].default, data)
        configs = [new_config({**given, "env": name}, asked) for name in names]
    several = suite.is_suite(folder) if folder is not None else len(configs) > 1
    if several and task:
        raise UsageError("--task names tasks of one environment: give --env one name")
    build = resolve(configs[0].agent, {"cache_gb": str(cache_gb)} if cache_gb is not None else {})
    plans = [runner.make_plan(config, suite.data_for(config, data) if several else data) for config in configs]
    if dry_run:
        _print_plans(plans, json_)
        return 0
    for plan in plans:
        plan.entry.require()
    target = folder or out or runner.new_folder(configs[0].model_copy(update={"env": env} if several else {}))
    if folder is None:
        runner.new_run_folder(target)  # Before the model is loaded: that can take minutes.
        if several:
            suite.begin(target, plans, data)
    again = f"cotbench run --resume {target}" + "".join(f" --import {name}" for name in import_ or [])
    again += f" --data {data}" if data is not None else ""
    print(f"loading {configs[0].agent}", file=sys.stderr)
    with emptied(target):
        player = build()
    try:
        outcomes = [
            _played(
                plan,
                target / plan.config.env if several else target,
                json_,
                {"agent": player, "resources": runner.Resources(batch, workers, suite.data_for(plan.config, data))},
            )
            for plan in plans
        ]
    except KeyboardInterrupt:
        print(f"interrupted; what was played is kept: {again}", file=sys.stderr)
        return 130
    finally:
        player.close()
    return _print_suite(target, outcomes, json_, again) if several else _print_outcome(outcomes[0], json_, again)


def _recorded(folder: Path, given: dict[str, Any], asked: dict[str, Any]) -> list[Any]:
    """The configs of a folder to go on with; what was typed must not contradict them."""
    from cotbench import suite
    from cotbench.runner import check_same

    configs = suite.read_configs(folder)
    typed = given | asked
    if suite.is_suite(folder):
        typed.pop("env", None)
    for config in configs:
        before = config.model_dump()
        before |= before["elicitation"]
        check_same(folder, {name: before[name] for name in typed}, typed)
    return configs


def _played(plan: Any, folder: Path, quiet: bool, rest: dict[str, Any]) -> Any:
    """Play a run, or go on with it where it was begun."""
    import sys

    from cotbench import runner
    from cotbench.cli.progress import progress
    from cotbench.manifest import MANIFEST

    with progress(plan, folder, quiet=quiet and not sys.stderr.isatty()) as observer:
        if (folder / MANIFEST).is_file():
            return runner.resume(folder, observer=observer, **rest)
        return runner.start(plan, folder, observer=observer, **rest)


def _resumed(resume: str | None, out: Path | None) -> Path | None:
    from cotbench.errors import UsageError

    if resume is None:
        return None
    if resume == RESUME_OUT:
        if out is None:
            raise UsageError("--resume needs a run folder: --resume DIR, or --out DIR --resume")
        return out
    if out is not None and out != Path(resume):
        raise UsageError(f"--resume {resume} and --out {out} name two folders: leave --out away")
    return Path(resume)


def _print_plans(plans: list[Any], as_json: bool) -> None:
    import json

    if as_json:
        described = [_described(plan) for plan in plans]
        typer.echo(json.dumps(described[0] if len(described) == 1 else described, indent=2))
        return
    for plan in plans:
        _print_plan(plan)


def _described(plan: Any) -> dict[str, Any]:
    from cotbench.envs.splits import digest

    return {
        "config": plan.config.model_dump(mode="json"),
        "elicitation_fingerprint": plan.config.elicitation.fingerprint,
        "task_list": plan.tasks,
        "task_list_sha256": digest(plan.tasks),
        "partial": plan.partial,
        "episodes": len(plan.units),
    }


def _print_plan(plan: Any) -> None:
    from collections import Counter

    steps = plan.config.max_steps or plan.entry.max_steps()
    types = Counter(unit.task_type for unit in plan.units)
    modes = Counter(unit.mode for unit in plan.units)
    config = plan.config
    typer.echo(f"{config.agent} on {config.env} {config.scheme}/{config.split}, seed {config.seed}")
    typer.echo(f"tasks: {len(plan.tasks)} of {plan.split_tasks}{' (PARTIAL: games are missing)' if plan.partial else ''}")
    typer.echo("episodes: " + ", ".join(f"{count} {mode}" for mode, count in modes.items()))
    typer.echo("task types: " + ", ".join(f"{name} {count // len(modes)}" for name, count in sorted(types.items())))
    typer.echo(f"at most {steps * len(plan.units)} steps; elicitation {config.elicitation.fingerprint}")
    for task in plan.tasks[:5]:
        typer.echo(f"  {task}")
    if len(plan.tasks) > 5:
        typer.echo(f"  ... and {len(plan.tasks) - 5} more")


def _print_outcome(outcome: Any, as_json: bool, again: str) -> int:
    from cotbench.cli.options import console
    from cotbench.table import run_table

    if as_json:
        typer.echo(outcome.summary.model_dump_json(indent=2))
    else:
        screen = console()
        screen.print(run_table(outcome.summary))
        screen.print(f"run folder: {outcome.folder}", soft_wrap=True, highlight=False)
    return _print_errors(outcome.episodes, again)


def _print_suite(folder: Path, outcomes: list[Any], as_json: bool, again: str) -> int:
    from cotbench.cli.options import console
    from cotbench.suite import summarize_suite, write_suite_summary
    from cotbench.table import suite_table

    summary = summarize_suite([outcome.summary for outcome in outcomes])
    write_suite_summary(folder, summary)
    if as_json:
        typer.echo(summary.model_dump_json(indent=2))
    else:
        screen = console()
        screen.print(suite_table(summary))
        screen.print(f"run folders: {folder}/{{{','.join(summary.runs)}}}", soft_wrap=True, highlight=False)
    return _print_errors([episode for outcome in outcomes for episode in outcome.episodes], again)


def _print_errors(episodes: list[Any], again: str) -> int:
    """The exit code: 1 where episodes failed."""
    import sys

    failed = [episode for episode in episodes if episode.error is not None]
    if failed:
        first = failed[0]
        print(
            f"error: {len(failed)} of {len(episodes)} episodes failed, the first is {first.key}: {first.error}; "
            f"play them again with: {again}",
            file=sys.stderr,
        )
        return 1
    return 0
