"""`cotbench study`: the whole study from one command, from traces to the report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cotbench.cli.flags import WRITTEN, DryRun


def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help="smoke, tiny, paper, or a TOML file.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The folder of the study; what is done there is kept.", show_default="studies/NAME", rich_help_panel=WRITTEN
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", min=1, help="Stages at a time.", show_default="one a core; 1 on a GPU", rich_help_panel=WRITTEN
        ),
    ] = None,
    flops: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Operations a second of one job, for the estimate.",
            show_default="3e10; 2e14 for large models",
            rich_help_panel=WRITTEN,
        ),
    ] = None,
    dry_run: DryRun = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the plan, or the report's numbers, as JSON.", rich_help_panel=WRITTEN)
    ] = False,
) -> int:
    """Do a whole study: traces, training, rollouts and probes at every checkpoint, report. Started again, it goes on."""
    import sys

    from cotbench.report.require import require_report
    from cotbench.study import folder
    from cotbench.study.config import read_study
    from cotbench.study.plan import make_plan
    from cotbench.study.scheduler import run_study

    config = read_study(name)
    plan = make_plan(config)
    _check_trainings(plan)
    target = out or Path("studies") / config.name
    if dry_run:
        _print_plan(plan, target, flops, jobs or _jobs(config), json_)
        return 0
    _require(plan)
    require_report("the report of a study")
    folder.begin(target, plan)
    try:
        with folder.only_one(target), _progress(plan, target) as watcher:
            failures = run_study(target, plan, jobs=jobs or _jobs(config), watcher=watcher)
    except KeyboardInterrupt:
        print(f"interrupted; what was done is kept, go on with: {_again(name, out)}", file=sys.stderr)
        return 130
    if failures:
        first = failures[0]
        print(
            f"error: {len(failures)} stages failed, the first is {first.stage.name}: {first.said}; see {first.log}, then go on "
            f"with: {_again(name, out)}",
            file=sys.stderr,
        )
        return 1
    return _report(target, json_)


def _again(name: str, out: Path | None) -> str:
    return f"cotbench study {name}" + (f" --out {out}" if out is not None else "")


def _jobs(config: Any) -> int:
    """How many stages at a time: as many as there are cores for their threads; one where a GPU does the work."""
    from importlib.util import find_spec

    from cotbench.cli.options import cores

    if config.threads is None and find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            return 1
    return max(1, cores() // (config.threads or cores()))


def _check_trainings(plan: Any) -> None:
    """Refuse an option that no recipe has before hours of work, not after them."""
    from cotbench.baselines.recipes import resolve
    from cotbench.cli.train import options_of
    from cotbench.errors import UnknownNameError, UsageError
    from cotbench.probes.folder import parse_options as probe_options
    from cotbench.probes.probe import probe_named

    for stage in plan.of_kind("train"):
        words = list(stage.command[1:])
        given: dict[str, list[str]] = {}
        for flag, value in zip(words[::2], words[1::2], strict=True):
            given.setdefault(flag, []).append(value)
        options = options_of(given.get("--option", [])) | {"model": given["--model"][0], "data": tuple(given["--data"])}
        preset = given.get("--preset", [None])[0]
        try:
            resolve.resolve_config(given["--recipe"][0], preset, None, options, None)
        except UnknownNameError:
            raise
        except UsageError as error:
            raise UsageError(f"stage {stage.name}: {error}") from error
    for probe in plan.config.probes:
        texts = {
            name: ",".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in probe.options.items()
        }
        probe_options(probe_named(probe.probe), texts)


def _require(plan: Any) -> None:
    from cotbench.baselines.recipes.require import require_training
    from cotbench.envs.registry import env_entry

    for env in plan.config.envs:
        env_entry(env).require()
    if plan.of_kind("train"):
        require_training()


def _print_plan(plan: Any, target: Path, speed: float | None, jobs: int, as_json: bool) -> None:
    """What would be done, what is done already, and about what it costs."""
    import json
    import shlex

    from cotbench.study import cost
    from cotbench.study.folder import is_done

    rows = []
    for stage in plan.stages:
        model = stage.place.model or ""
        operations = cost.flops(model, stage.tokens, stage.trained) if model else 0.0
        took = None if operations is None else cost.seconds(operations, speed or cost.usual_speed(model))
        rows.append((stage, is_done(target, stage), operations, took))
    if as_json:
        typer.echo(
            json.dumps(
                [
                    {
                        "stage": stage.name,
                        "kind": stage.kind,
                        "folder": stage.folder,
                        "key": stage.key,
                        "done": done,
                        "command": ["cotbench", *stage.command],
                        "tokens": stage.tokens,
                        "flops": operations,
                        "seconds": took,
                    }
                    for stage, done, operations, took in rows
                ],
                indent=2,
            )
        )
        return
    for stage, done, _, _ in rows:
        typer.echo(f"{'done' if done else '    '} {stage.name}: cotbench {shlex.join(stage.command)}")
    typer.echo()
    for kind in ("reference", "traces", "train", "run", "probe"):
        some = [row for row in rows if row[0].kind == kind]
        if some:
            typer.echo(f"{len(some):5d} {kind}: {_cost(some, jobs)}")
    left = [row for row in rows if not row[1]]
    typer.echo(f"{len(rows):5d} stages in {target}, {len(rows) - len(left)} done; left: {_cost(left, jobs)}")
    typer.echo(
        f"an estimate: 2 operations a weight and token, 6 in training, {jobs} stages at a time"
        + (f", {speed:g} operations a second each" if speed else "")
    )


def _cost(rows: list[Any], jobs: int) -> str:
    tokens = sum(stage.tokens for stage, _, _, _ in rows)
    unknown = sum(operations is None for _, _, operations, _ in rows)
    operations = sum(found or 0.0 for _, _, found, _ in rows)
    hours = sum(took or 0.0 for _, _, _, took in rows) / 3600
    text = f"about {tokens:.2g} tokens, {operations:.2g} operations, {hours:.1f} hours of one job"
    if jobs > 1:
        text += f" ({hours / jobs:.1f} with {jobs})"
    return text + (f", {unknown} of unknown size" if unknown else "")


@contextmanager
def _progress(plan: Any, target: Path) -> Iterator[Any]:
    """A watcher: a bar with what is running on a terminal, a line a stage elsewhere; on standard error."""
    import sys

    from cotbench.cli.study_progress import Bar, Lines
    from cotbench.study.folder import is_done

    done = sum(is_done(target, stage) for stage in plan.stages)
    if not sys.stderr.isatty():
        yield Lines(len(plan.stages), done)
        return
    with Bar(plan, done, target) as bar:
        yield bar


def _report(target: Path, as_json: bool) -> int:
    from cotbench.cli.options import console
    from cotbench.report.html import write_report
    from cotbench.study.report import page_of_study

    page = page_of_study(target)
    written = write_report(page, target / "report")
    if as_json:
        typer.echo((target / "numbers.json").read_text("utf-8"), nl=False)
        return 0
    screen = console()
    for sentence in page.answer:
        screen.print(sentence, highlight=False)
    screen.print(f"report: {written}", soft_wrap=True, highlight=False)
    return 0
