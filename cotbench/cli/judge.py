"""`cotbench judge`: which of the two actions of a state is better, asked of any agent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cotbench.cli.flags import ASKED, WRITTEN, Import, ObservationChars, Resume, Style, Temperature, TraceTokens


def judge(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, of a run in mode both.")],
    agent: Annotated[str | None, typer.Option(help="The judge: hf:MODEL, human, ... (cotbench list agents).")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="States to judge, drawn by the seed.", show_default="all")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Draws states and orders, seeds sampling.", show_default="0")] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="prompt: answers at once; cot: reasons first.", show_default="prompt", rich_help_panel=ASKED),
    ] = None,
    both_orders: Annotated[
        bool | None,
        typer.Option(
            "--both-orders/--one-order",
            help="Ask twice, each action first once; or once, in a drawn order.",
            show_default="both orders",
            rich_help_panel=ASKED,
        ),
    ] = None,
    elicitation: Style = None,
    trace_tokens: TraceTokens = None,
    action_tokens: Annotated[
        int | None, typer.Option(min=1, help="Token budget of the letter.", show_default="8", rich_help_panel=ASKED)
    ] = None,
    temperature: Temperature = None,
    observation_chars: ObservationChars = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the judgements.", show_default="RUN/judges/AGENT", rich_help_panel=WRITTEN),
    ] = None,
    resume: Resume = None,
    import_: Import = None,
    json_: Annotated[bool, typer.Option("--json", help="Print judge.json instead.", rich_help_panel=WRITTEN)] = False,
) -> int:
    """Let a judge compare the prompt action with the CoT action, at every state where the trace changed the action."""
    import shlex
    import sys
    from dataclasses import replace

    from cotbench.agents.registry import resolve
    from cotbench.cli.agent_cache import open_agent
    from cotbench.cli.options import emptied, only_given
    from cotbench.cli.resume import resume_folder
    from cotbench.errors import UsageError
    from cotbench.judge import folder as judge_folder
    from cotbench.plugins import load_plugins

    asked = only_given(
        {
            "style": elicitation,
            "trace_tokens": trace_tokens,
            "action_tokens": action_tokens,
            "temperature": temperature,
            "observation_chars": observation_chars,
        }
    )
    given = only_given({"mode": mode, "both_orders": both_orders, "seed": seed})
    load_plugins(import_ or [])
    if agent is None:
        raise UsageError("--agent is missing: name the judge, as in --agent hf:qwen-8b (cotbench list agents)")
    build = resolve(agent)
    plan = judge_folder.make_judge_plan(run, agent, _question(given, asked))
    if not plan.pairs:
        return _print_nothing(plan, json_)
    usual = judge_folder.folder_of(run, agent)
    begun = resume_folder(resume, out, usual)
    folder = begun or out or usual
    if begun is not None:
        plan = replace(plan, question=_recorded(folder, agent, given, asked))
    else:
        judge_folder.new_judge_folder(folder)  # Before the model is loaded: that can take minutes.
    words = ["cotbench", "judge", str(run), "--agent", agent, *(["--out", str(out)] if out is not None else [])]
    words += [word for name in import_ or [] for word in ("--import", name)] + (["--limit", str(limit)] if limit else [])
    again = f"{shlex.join(words)} --resume"
    quiet = json_ and not sys.stderr.isatty()
    try:
        with (
            open_agent(agent, build, folder) as asking,
            emptied(folder),
            _progress(plan, folder, limit, quiet=quiet) as observer,
        ):
            summary, judgements = judge_folder.judge_run(plan, folder, agent=asking, limit=limit, observer=observer)
    except KeyboardInterrupt:
        print(f"interrupted; what was judged is kept: {again}", file=sys.stderr)
        return 130
    return _print_outcome(folder, summary, judgements, json_, again)


def _question(given: dict[str, Any], asked: dict[str, Any]) -> Any:
    """The question that the options describe; where none is given, as it is by itself."""
    from pydantic import ValidationError

    from cotbench.cli.options import bad_value, check_choices
    from cotbench.judge.question import Question
    from cotbench.prompting.elicitation import Elicitation

    check_choices(Question, given)
    check_choices(Elicitation, asked)
    try:
        return Question(**given, elicitation={**Question().elicitation.model_dump(), **asked})
    except ValidationError as error:
        raise bad_value(error) from error


def _recorded(folder: Path, judge: str, given: dict[str, Any], asked: dict[str, Any]) -> Any:
    """The question of a folder to go on with; what was typed must not contradict it."""
    from cotbench.judge.manifest import read_judge_manifest
    from cotbench.runs.folder import check_identity

    manifest = read_judge_manifest(folder)
    question = manifest.question
    before = {**question.model_dump(), **question.elicitation.model_dump(), "judge": manifest.judge}
    typed = {"judge": judge, **given, **asked}
    check_identity(folder, {name: before[name] for name in typed}, typed)
    return question


@contextmanager
def _progress(plan: Any, folder: Path, limit: int | None, *, quiet: bool) -> Iterator[Callable[[Any], None]]:
    """An observer that shows how far a judge is, on standard error: a bar on a terminal, a line a state elsewhere."""
    import sys

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from cotbench.judge.journal import JUDGEMENTS, read_judgements

    there = read_judgements(folder) if (folder / JUDGEMENTS).is_file() else []
    results = [one.result for one in there if one.error is None]
    total = max(len(results), min(limit or len(plan.pairs), len(plan.pairs)))

    def tally() -> str:
        counts = ((name, results.count(name)) for name in ("cot", "prompt", "split", "no verdict", None))
        return "  ".join(f"{name or 'error'} {count}" for name, count in counts if count)

    def say(judgement: Any) -> None:
        results.append(judgement.result)
        ending = f"error: {judgement.error}" if judgement.error is not None else judgement.result
        print(f"{len(results)}/{total} step {judgement.step} of {judgement.task}: {ending}", file=sys.stderr, flush=True)

    if quiet or not sys.stderr.isatty():
        yield say if not quiet else lambda judgement: None
        return
    columns = (TextColumn("states"), BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.fields[tally]}"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("states", total=total, completed=len(results), tally=tally())

        def advance(judgement: Any) -> None:
            results.append(judgement.result)
            bar.update(task, advance=1, tally=tally())

        yield advance


def _print_nothing(plan: Any, as_json: bool) -> int:
    """A run in which no trace changed an action is no failure: nothing is asked, and nothing is written."""
    from cotbench.judge.folder import summarize_judge

    if as_json:
        typer.echo(summarize_judge(plan, [], {}).model_dump_json(indent=2))
    else:
        typer.echo(
            f"nothing to judge in {plan.run}: the trace changed the action at 0 of {plan.compared} states "
            f"in {plan.episodes} CoT episodes"
        )
    return 0


def _print_outcome(folder: Path, summary: Any, judgements: list[Any], as_json: bool, again: str) -> int:
    """The table; the exit code is 1 where states could not be judged."""
    import sys

    from cotbench.cli.options import console
    from cotbench.judge.table import judge_table

    if as_json:
        typer.echo(summary.model_dump_json(indent=2))
    else:
        screen = console()
        screen.print(judge_table(summary))
        screen.print(f"judgements: {folder}", soft_wrap=True, highlight=False, markup=False)
    failed = [one for one in judgements if one.error is not None]
    if failed:
        first = failed[0]
        print(
            f"error: {len(failed)} of {len(judgements)} states could not be judged, the first is step {first.step} of "
            f"{first.task}: {first.error}; judge them again with: {again}",
            file=sys.stderr,
        )
        return 1
    return 0
