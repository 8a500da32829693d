"""`cotbench run`: play episodes and print the table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

RESUME_OUT = "@out"
"""Stands for "the folder of --out" where `--resume` was given without a value."""

_PLAYED, _ASKED, _WRITTEN = "What is played", "How answers are asked for", "How it is run"


def run(
    agent: Annotated[
        str | None,
        typer.Option(help="Who plays: hf:MODEL, random, expert, ... (cotbench list agents).", rich_help_panel=_PLAYED),
    ] = None,
    env: Annotated[
        str | None,
        typer.Option(help="The environment (cotbench list envs).", show_default="alfworld-gen", rich_help_panel=_PLAYED),
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
    elicitation: Annotated[
        str | None, typer.Option(help="prefill or template.", show_default="prefill", rich_help_panel=_ASKED)
    ] = None,
    trace_tokens: Annotated[
        int | None, typer.Option(min=1, help="Token budget of a trace.", show_default="256", rich_help_panel=_ASKED)
    ] = None,
    action_tokens: Annotated[
        int | None, typer.Option(min=1, help="Token budget of an action.", show_default="32", rich_help_panel=_ASKED)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="0 is greedy.", show_default="0", rich_help_panel=_ASKED)
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Nucleus of the sampling.", show_default="1", rich_help_panel=_ASKED)
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(help="What of the past is shown: actions or traces.", show_default="actions", rich_help_panel=_ASKED),
    ] = None,
    show_admissible: Annotated[
        bool | None,
        typer.Option("--show-admissible", help="List the admissible actions of the current state.", rich_help_panel=_ASKED),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder.", show_default="a new one under runs/", rich_help_panel=_WRITTEN)
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="[DIR]", help="Go on with the run in DIR, or in --out.", rich_help_panel=_WRITTEN),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", "-w", min=1, help="Episodes played side by side.", rich_help_panel=_WRITTEN)
    ] = 1,
    data: Annotated[
        Path | None, typer.Option(help="Where the games are.", show_default="$ALFWORLD_DATA", rich_help_panel=_WRITTEN)
    ] = None,
    available_only: Annotated[
        bool | None,
        typer.Option("--available-only", help="Play an incomplete split; marked partial.", rich_help_panel=_WRITTEN),
    ] = None,
    import_: Annotated[
        list[str] | None,
        typer.Option("--import", help="A Python file or module that registers agents.", rich_help_panel=_WRITTEN),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.", rich_help_panel=_WRITTEN)] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print summary.json instead.", rich_help_panel=_WRITTEN)] = False,
) -> int:
    """Play every task in each mode, and compare the modes on the same tasks."""
    import sys

    from cotbench import runner
    from cotbench.agents.registry import resolve
    from cotbench.cli.options import import_plugins, new_config, only_given
    from cotbench.cli.progress import progress
    from cotbench.errors import UsageError
    from cotbench.manifest import read_manifest

    asked = only_given(
        {
            "style": elicitation,
            "trace_tokens": trace_tokens,
            "action_tokens": action_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "history": history,
            "show_admissible": show_admissible,
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
        }
    )
    import_plugins(import_ or [])
    folder = _resumed(resume, out)
    if folder is not None:
        config = read_manifest(folder).config
        before = config.model_dump()
        before |= before["elicitation"]
        typed = given | asked
        runner.check_same(folder, {name: before[name] for name in typed}, typed)
    elif agent is None:
        raise UsageError("--agent is missing: try --agent hf:smollm2, or --agent random (cotbench list agents)")
    else:
        config = new_config(given, asked)
    build = resolve(config.agent)
    plan = runner.make_plan(config, data)
    if dry_run:
        _print_plan(plan, json_)
        return 0
    plan.entry.require()
    target = folder or out or runner.new_folder(config)
    if folder is None:
        runner.new_run_folder(target)  # Before the model is loaded: that can take minutes.
    again = f"cotbench run --resume {target}" + "".join(f" --import {name}" for name in import_ or [])
    again += f" --data {data}" if data is not None else ""
    print(f"loading {config.agent}", file=sys.stderr)
    player = build()
    try:
        with progress(plan, target, quiet=json_ and not sys.stderr.isatty()) as observer:
            play = runner.resume if folder is not None else lambda path, **rest: runner.start(plan, path, **rest)
            outcome = play(target, agent=player, workers=workers, data=data, observer=observer)
    except KeyboardInterrupt:
        print(f"interrupted; what was played is kept: {again}", file=sys.stderr)
        return 130
    finally:
        player.close()
    return _print_outcome(outcome, json_, again)


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


def _print_plan(plan: Any, as_json: bool) -> None:
    import json
    from collections import Counter

    from cotbench.envs.splits import digest

    steps = plan.config.max_steps or plan.entry.max_steps()
    types = Counter(unit.task_type for unit in plan.units)
    modes = Counter(unit.mode for unit in plan.units)
    config = plan.config
    if as_json:
        whole = {
            "config": config.model_dump(mode="json"),
            "elicitation_fingerprint": config.elicitation.fingerprint,
            "task_list": plan.tasks,
            "task_list_sha256": digest(plan.tasks),
            "partial": plan.partial,
            "episodes": len(plan.units),
        }
        typer.echo(json.dumps(whole, indent=2))
        return
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
    import sys

    from cotbench.cli.options import console
    from cotbench.table import run_table

    if as_json:
        typer.echo(outcome.summary.model_dump_json(indent=2))
    else:
        screen = console()
        screen.print(run_table(outcome.summary))
        screen.print(f"run folder: {outcome.folder}", soft_wrap=True, highlight=False)
    failed = [episode for episode in outcome.episodes if episode.error is not None]
    if failed:
        first = failed[0]
        print(
            f"error: {len(failed)} of {len(outcome.episodes)} episodes failed, the first is {first.key}: {first.error}; "
            f"play them again with: {again}",
            file=sys.stderr,
        )
        return 1
    return 0
