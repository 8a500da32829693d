"""`cotbench study`: a whole study with one command, from traces to the report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cotbench.cli.flags import DryRun, Import, Resume, Typed, Verbose, with_options
from cotbench.cli.terminal import echo, echo_error, echo_json, print_tables
from cotbench.cli.trust import Trust, confirm
from cotbench.flags import OUTPUT
from cotbench.study.resources import StudyResources

_KINDS = ("reference", "traces", "pairs", "train", "run", "probe")
"""Kinds of stages, in the order of their table."""


@with_options(StudyResources)
def study(
    typed: Typed,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="smoke, tiny, tiny-rl, small, paper, paper-scripted, or a TOML file", show_default=False
        ),
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the study", show_default="studies/NAME", rich_help_panel=OUTPUT),
    ] = None,
    resume: Resume = None,
    import_: Import = None,
    trust: Trust = False,
    dry_run: DryRun = False,
    verbose: Verbose = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the plan, or the report's numbers, as JSON", rich_help_panel=OUTPUT)
    ] = False,
) -> int:
    """Run a whole study: traces, training, rollouts and probes at every checkpoint, report. Run it again to continue."""
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
        _print_plan(plan, target, resources.flops, jobs, json_, verbose=verbose)
        return 0
    again = resume_command("study", target, import_ or [], config=config.model_dump(mode="json"))
    require_parts(plan)
    try:
        part = plan if resources.until is None else plan.until(resources.until)
        failures = carry_out(plan, target, jobs, lambda: _progress(part, target), resources.until)
    except KeyboardInterrupt:
        return print_interrupted("finished stages are kept", again, target / STUDY)
    if failures:
        first = failures[0]
        echo_error(
            f"error: {len(failures)} stages failed, the first is {first.stage.name}: {first.message}; see {first.log}, then "
            f"resume with: {again}"
        )
        return 1
    if resources.until is not None:
        echo(f"{len(part.stages)} of {len(plan.stages)} stages are done, up to {resources.until}; continue with: {again}")
        return 0
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
            raise UsageError(f"{begun} holds a different study than {name}: omit {name}, or choose another --out")
        return config, begun
    if wanted is None or usual is None:
        raise UsageError(
            "NAME is missing: smoke, tiny, tiny-rl, small, paper, paper-scripted, or a TOML file, as in cotbench study smoke"
        )
    return wanted, out or usual


def _print_plan(plan: Any, target: Path, speed: float | None, jobs: int, as_json: bool, *, verbose: bool) -> None:
    """Print the approximate cost of the stages by kind, and what the study could detect; `verbose`: each stage's command."""
    import json
    import shlex

    from cotbench.paragraph import Paragraph
    from cotbench.study import cost
    from cotbench.study.folder import is_done
    from cotbench.study.plan_power import power_parts

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
    if verbose:
        for stage, done, _, _ in rows:
            echo(f"{'done' if done else '    '} {stage.name}: cotbench {shlex.join(stage.command)}")
        echo()
    notes = [
        f"an estimate: 2 operations per weight and token, 6 in training; {jobs} {'jobs' if jobs > 1 else 'job'} at a time"
        + (f", {speed:g} operations per second each" if speed else "")
    ]
    if not verbose:
        notes.append(f"-v lists the commands of the {len(rows)} stages")
    print_tables(_costs(plan.config.name, target, rows, jobs), *map(Paragraph, notes), *power_parts(plan.config))


def _costs(name: str, target: Path, rows: list[Any], jobs: int) -> Any:
    """Return the table of what the stages cost, a row for each kind, and what is left to do."""
    from rich.console import Group

    from cotbench.cli.progress_display import format_duration
    from cotbench.paragraph import Paragraph
    from cotbench.text_table import TableColumn, TextTable, table_row

    left = [row for row in rows if not row[1]]
    done = len(rows) - len(left)
    parts = {kind: [row for row in rows if row[0].kind == kind] for kind in _KINDS}
    parts |= {"all": rows} | ({"left to do": left} if done else {})
    unknown = any(operations is None for _, _, operations, _ in rows)
    titles = ["stages", "tokens", "operations", "one job", *([f"{jobs} jobs"] if jobs > 1 else [])]
    titles += ["unknown size"] if unknown else []
    lines = []
    for kind, some in parts.items():
        if some:
            duration = sum(took or 0.0 for _, _, _, took in some)
            cells = [str(len(some)), f"{sum(stage.tokens for stage, _, _, _ in some):.2g}"]
            cells += [f"{sum(found or 0.0 for _, _, found, _ in some):.2g}", format_duration(duration)]
            cells += [format_duration(duration / jobs)] if jobs > 1 else []
            cells += [str(sum(operations is None for _, _, operations, _ in some))] if unknown else []
            lines.append(table_row(kind, *cells, style="" if kind in _KINDS else "bold"))
    title = f"study {name}: {len(rows)} stages in {target}, {done} done"
    return Group(
        Paragraph(title, "bold"), TextTable((TableColumn("stages of", "label"), *map(TableColumn, titles)), tuple(lines))
    )


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
    from cotbench.paragraph import Paragraph

    claims = [] if page.claims is None else [_claims(page.claims)]
    print_tables(*claims, *map(Paragraph, (*page.answer, *page.warnings)))
    echo(f"report: {written}")
    return 0


def _claims(claims: Any) -> Any:
    """Return the table of the paper's claims for the terminal."""
    from cotbench.report.cells import render_table
    from cotbench.text_table import TableColumn, TextCell, TextTable, table_row

    rows = []
    for claim, here, verdict, difference, _ in render_table(claims).rows:
        text = f"{claim.value}: {here.value}" if here.value else claim.value
        rows.append(table_row(verdict.value, TextCell(difference.value, difference.beside), text))
    columns = (TableColumn("verdict", "label"), TableColumn("difference"), TableColumn("claim of the paper", "text"))
    return TextTable(columns, tuple(rows))
