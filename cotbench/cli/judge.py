"""`cotbench judge`: probe `preference` on the states and answers that a run recorded.

Invariant: options typed beside `--resume` are checked against the folder's, never mixed in; `--limit` alone may grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cotbench.cli.flags import Debug, Import, Resume, Typed, Verbose, with_options
from cotbench.cli.terminal import echo, echo_json, print_tables
from cotbench.cli.trust import Trust, confirm
from cotbench.flags import OUTPUT
from cotbench.judge.preference import PreferenceOptions


@with_options(PreferenceOptions, without=("judge",))
def judge(
    typed: Typed,
    run: Annotated[
        Path | None, typer.Argument(metavar="[RUN]", help="Folder of a run in mode both", show_default=False)
    ] = None,
    agent: Annotated[str | None, typer.Option(help="The judge: hf:MODEL, human, ... (cotbench list agents)")] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the judgements", show_default="RUN/judges/AGENT", rich_help_panel=OUTPUT),
    ] = None,
    resume: Resume = None,
    import_: Import = None,
    trust: Trust = False,
    debug: Debug = False,
    verbose: Verbose = False,
    json_: Annotated[bool, typer.Option("--json", help="Print probe.json instead", rich_help_panel=OUTPUT)] = False,
) -> int:
    """Let a judge compare the prompt action with the CoT action, at every state where the trace changed the action."""
    import shlex
    import sys
    from dataclasses import replace

    from cotbench.agents.registry import resolve
    from cotbench.cli.agent_cache import open_agent
    from cotbench.cli.options import model_of
    from cotbench.cli.resume import print_interrupted, resume_folder
    from cotbench.errors import UsageError
    from cotbench.judge import folder as judge_folder
    from cotbench.runs.folder import open_folder

    given = typed[PreferenceOptions]
    limit = given.pop("limit", None)
    if run is None or agent is None:
        begun, typed_agent = resume_folder(resume, out) if resume is not None else None, agent
        run, agent = _begun(begun, run, agent)
        confirm(agent, begun, typed={"agent": typed_agent}, trust=trust)
    if run is None:
        raise UsageError("RUN is missing: name the run folder, as in cotbench judge runs/mine --agent hf:qwen-8b")
    if agent is None:
        raise UsageError("--agent is missing: name the judge, as in --agent hf:qwen-8b (cotbench list agents)")
    build = resolve(agent)
    usual = judge_folder.folder_of(run, agent)
    begun = resume_folder(resume, out, usual)
    folder = begun or out or usual
    values = {"judge": agent, **given}
    plan = judge_folder.make_judge_plan(run, model_of(PreferenceOptions, values))
    if not plan.recorded.revised:
        return _print_nothing(plan, json_)
    if begun is not None:
        plan = replace(plan, options=_recorded(begun, plan.options, values))
    words = ["cotbench", "judge", str(run), "--agent", agent, *(["--out", str(folder)] if folder != usual else [])]
    words += [word for name in import_ or [] for word in ("--import", name)] + (["--limit", str(limit)] if limit else [])
    again = f"{shlex.join(words)} --resume"
    try:
        with (
            # Locked before the model is loaded, which can take minutes: a second start is refused at once.
            open_folder(folder, judge_folder.JUDGE_FOLDER, judge_folder.new_judge_folder if begun is None else None) as opened,
            open_agent(agent, build) as asking,
            _progress(plan, folder, limit, quiet=json_ and not sys.stderr.isatty()) as observer,
        ):
            summary = judge_folder.judge_run(plan, opened, agent=asking, limit=limit, observer=observer, stop_at_failures=debug)
    except KeyboardInterrupt:
        return print_interrupted("judged states are kept", again, folder / judge_folder.JUDGE_FOLDER.manifest)
    return _print_outcome(folder, summary, json_, again, verbose=verbose)


def _begun(folder: Path | None, run: Path | None, agent: str | None) -> tuple[Path | None, str | None]:
    """Return the run and the judge of a folder to resume, for what was not typed; its usual place is RUN/judges/AGENT."""
    from cotbench.judge.folder import JUDGES
    from cotbench.probes.folder import read_probe_manifest

    if folder is None:
        return run, agent
    if run is None and folder.parent.name == JUDGES:
        run = folder.parent.parent
    recorded = read_probe_manifest(folder).options.get("judge")
    return run, agent or (None if recorded is None else str(recorded))


def _recorded(begun: Path, options: Any, typed: dict[str, Any]) -> Any:
    """Return the options of a folder to resume; those that were typed must not contradict them."""
    from cotbench.errors import RunFolderError
    from cotbench.probes.folder import read_probe_manifest
    from cotbench.runs.folder import check_identity
    from cotbench.runs.manifest import MANIFEST

    if not (begun / MANIFEST).is_file():
        raise RunFolderError(f"{begun} holds no judgements to resume with: omit --resume")
    manifest = read_probe_manifest(begun)
    if manifest.recorded is None:
        raise RunFolderError(f"{begun} holds probe {manifest.probe} and no judgements of a run: choose another --out")
    recorded = type(options)(**manifest.options)
    before, now = ({**dict(one), **dict(one.question.elicitation)} for one in (recorded, options))
    check_identity(begun, {name: before[name] for name in typed}, {name: now[name] for name in typed})
    return recorded


@contextmanager
def _progress(plan: Any, folder: Path, limit: int | None, *, quiet: bool) -> Iterator[Callable[[Any], None]]:
    """Return an observer that shows progress on standard error; states that were judged before are done."""
    from cotbench.cli.even_progress import EvenProgress
    from cotbench.cli.progress_display import shown_progress
    from cotbench.probes.folder import ROWS, read_probe

    existing = read_probe(folder).rows if (folder / ROWS).is_file() else []
    results = [row.judgement.result for row in existing if row.error is None and row.left_out is None]
    total = max(len(results), min(limit or plan.recorded.revised, plan.recorded.revised))
    with shown_progress("states", total, quiet=quiet) as shown:
        work = EvenProgress(shown, total, len(results))

        def advance(row: Any) -> None:
            results.append(row.judgement.result)
            counts = ((name, results.count(name)) for name in ("cot", "prompt", "split", "no verdict", None))
            work.advance([f"{name or 'error'} {count}" for name, count in counts if count])

        yield advance


def _print_nothing(plan: Any, as_json: bool) -> int:
    """Print that no trace changed an action: that is no failure, the judge is not asked, and no file is written."""
    from cotbench.judge.folder import nothing_judged

    if as_json:
        echo_json(nothing_judged(plan).model_dump_json(indent=2))
    else:
        echo(
            f"nothing to judge in {plan.run}: the trace changed the action at 0 of {plan.recorded.compared} states "
            f"in {plan.recorded.episodes} CoT episodes"
        )
    return 0


def _print_outcome(folder: Path, summary: Any, as_json: bool, again: str, *, verbose: bool) -> int:
    """Print the table; the exit code is 1 where states could not be judged."""
    from cotbench.cli.failures import print_failures
    from cotbench.probes.folder import read_probe
    from cotbench.probes.table import probe_table

    if as_json:
        echo_json(summary.model_dump_json(indent=2))
    else:
        print_tables(probe_table(summary, verbose=verbose))
        echo(f"judgements: {folder}")
    named = [(f"step {row.step} of {row.task}", row) for row in read_probe(folder).rows] if summary.numbers.errors else []
    states = summary.numbers.states + summary.numbers.errors
    return print_failures(named, f"of {states} states could not be judged", f"retry with: {again}")
