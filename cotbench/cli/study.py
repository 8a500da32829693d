"""`cotbench study`: a whole study with one command, from traces to the report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cotbench.cli.flags import DryRun, Import, Resume, Typed, with_options
from cotbench.cli.terminal import console, echo, echo_error, echo_json
from cotbench.cli.trust import Trust, confirm
from cotbench.flags import OUTPUT
from cotbench.study.resources import StudyResources


@with_options(StudyResources)
def study(
    typed: Typed,
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="smoke, tiny, paper, paper-scripted, or a TOML file.", show_default=False),
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="folder of the study", show_default="studies/NAME", rich_help_panel=OUTPUT),
    ] = None,
    resume: Resume = None,
    import_: Import = None,
    trust: Trust = False,
    dry_run: DryRun = False,
    json_: Annotated[
        bool, typer.Option("--json", help="print the plan, or the report's numbers, as JSON", rich_help_panel=OUTPUT)
    ] = False,
) -> int:
    """Do a whole study: traces, training, rollouts and probes at every checkpoint, report. Started again, it goes on."""
    from cotbench.api.study import carry_out, require_parts, usual_jobs
    from cotbench.cli.options import model_of
    from cotbench.cli.resume import print_interrupted, resume_command
    from cotbench.study.folder import STUDY
    from cotbench.study.plan import make_study_plan

    resources = model_of(StudyResources, typed[StudyResources])
    config, target = _config(name, out, resume)
    confirm(config.model_dump(mode="json"), target if name is None else name, trust=trust or dry_run)
    plan = make_study_plan(config)
    jobs = resources.jobs or usual_jobs(config)
    if dry_run:
        _print_plan(plan, target, resources.flops, jobs, json_)
        return 0
    again = resume_command("study", target, import_ or [], config=config.model_dump(mode="json"))
    require_parts(plan)
    try:
        failures = carry_out(plan, target, jobs, lambda: _progress(plan, target))
    except KeyboardInterrupt:
        return print_interrupted("what was done is kept, go on with", again, target / STUDY)
    if failures:
        first = failures[0]
        echo_error(
            f"error: {len(failures)} stages failed, the first is {first.stage.name}: {first.message}; see {first.log}, then "
            f"go on with: {again}"
        )
        return 1
    return _report(target, json_)


def _config(name: str | None, out: Path | None, resume: str | None) -> tuple[Any, Path]:
    """Return the config of a study, and its folder.

    Raises:
        UsageError: no study is named.
    """
    from cotbench.cli.resume import resume_folder
    from cotbench.errors import UsageError
    from cotbench.study.config import read_study
    from cotbench.study.data import read_config

    wanted = None if name is None else read_study(name)
    usual = None if wanted is None else Path("studies") / wanted.name
    begun = resume_folder(resume, out, usual)
    if begun is not None:
        config = read_config(begun)
        if wanted is not None and wanted != config:
            raise UsageError(f"{begun} holds another study than {name}: leave {name} away, or choose another --out")
        return config, begun
    if wanted is None or usual is None:
        raise UsageError("which study? smoke, tiny, paper, paper-scripted, or a TOML file: cotbench study NAME")
    return wanted, out or usual


def _print_plan(plan: Any, target: Path, speed: float | None, jobs: int, as_json: bool) -> None:
    """Print the stages, those that are done already, and the approximate cost."""
    import json
    import shlex

    from cotbench.study import cost
    from cotbench.study.folder import is_done
    from cotbench.study.plan_power import power_lines

    rows = []
    for stage in plan.stages:
        model = stage.place.model or ""
        operations = cost.flops(model, stage.tokens, stage.trained) if model else 0.0
        duration = None if operations is None else cost.seconds(operations, speed or cost.usual_speed(model))
        rows.append((stage, is_done(target, stage), operations, duration))
    if as_json:
        echo_json(
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
                        "seconds": duration,
                    }
                    for stage, done, operations, duration in rows
                ],
                indent=2,
            )
        )
        return
    for stage, done, _, _ in rows:
        echo(f"{'done' if done else '    '} {stage.name}: cotbench {shlex.join(stage.command)}")
    echo()
    for kind in ("reference", "traces", "train", "run", "probe"):
        of_kind = [row for row in rows if row[0].kind == kind]
        if of_kind:
            echo(f"{len(of_kind):5d} {kind}: {_cost(of_kind, jobs)}")
    left = [row for row in rows if not row[1]]
    echo(f"{len(rows):5d} stages in {target}, {len(rows) - len(left)} done; left: {_cost(left, jobs)}")
    echo(
        f"an estimate: 2 operations a weight and token, 6 in training, {jobs} stages at a time"
        + (f", {speed:g} operations a second each" if speed else "")
    )
    for line in power_lines(plan.config):
        echo(line)


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
    """Return an observer: a bar with the running stages on a terminal, a line a stage elsewhere; on standard error."""
    import sys

    from cotbench.cli.progress_display import shown_progress
    from cotbench.cli.study_progress import StudyProgress
    from cotbench.study.folder import is_done

    done = [stage.name for stage in plan.stages if is_done(target, stage)]
    lines = not sys.stderr.isatty()
    with shown_progress("stages", len(plan.stages), quiet=lines) as shown:
        yield StudyProgress(shown, plan, target, done, lines=lines)


def _report(target: Path, as_json: bool) -> int:
    from cotbench.report.html import write_report
    from cotbench.study.report import page_of_study

    page = page_of_study(target)
    written = write_report(page, target / "report")
    if as_json:
        echo_json((target / "numbers.json").read_text("utf-8"), nl=False)
        return 0
    screen = console()
    if page.claims is not None:
        screen.print(_claims(page.claims))
    for sentence in (*page.answer, *page.warnings):
        screen.print(sentence, highlight=False)
    screen.print(f"report: {written}", soft_wrap=True, highlight=False)
    return 0


def _claims(claims: Any) -> Any:
    """Return the table of the paper's claims for the terminal: a line or two each, in 80 columns."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from cotbench.report.cells import render_table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("claim of the paper", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    table.add_column("difference", no_wrap=True)
    for claim, here, verdict, difference, _ in render_table(claims).rows:
        found = f"{difference.value} {difference.beside}".strip()
        table.add_row(Text(f"{claim.value}: {here.value}" if here.value else claim.value), Text(verdict.value), Text(found))
    return table
