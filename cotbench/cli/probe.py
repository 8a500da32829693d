"""`cotbench probe`: a measurement on the states of a reference's episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cotbench.cli.flags import Debug, Import, Resume, Typed, Verbose, with_options
from cotbench.cli.terminal import echo, echo_json, print_tables
from cotbench.cli.trust import Trust, confirm
from cotbench.flags import OUTPUT
from cotbench.probes.config import MEASUREMENT, ProbeConfig
from cotbench.runs.resources import Resources


@with_options(ProbeConfig, Resources, without=("cache_gb", "report_to"))
def probe(
    typed: Typed,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="Probe: alignment, conflict, attention, ... (cotbench list probes)", show_default=False
        ),
    ] = None,
    *,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            metavar="NAME=VALUE",
            help="An option of the probe (cotbench list probes); may be repeated",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Probe folder", show_default="a new one under probes/", rich_help_panel=OUTPUT),
    ] = None,
    resume: Resume = None,
    import_: Import = None,
    trust: Trust = False,
    debug: Debug = False,
    verbose: Verbose = False,
    json_: Annotated[bool, typer.Option("--json", help="Print probe.json instead", rich_help_panel=OUTPUT)] = False,
) -> int:
    """Measure an agent on a fixed set of states: what it answers there, what it follows, where it looks."""
    import sys

    from cotbench.agents.registry import resolve
    from cotbench.api.measurement import free_folder, opened_folder, reference_states
    from cotbench.cli.agent_cache import open_agent
    from cotbench.cli.options import elicitation_of, model_of, only_given
    from cotbench.cli.resume import print_interrupted, resume_command, resume_folder
    from cotbench.probes.config import CONFIG
    from cotbench.probes.folder import known_answers, run_probe
    from cotbench.probes.probe import parse_options, probe_named

    folder = resume_folder(resume, out)
    given = {**only_given({"probe": name}), **typed[ProbeConfig]}
    pairs = _pairs(option or [])
    config = _config(folder, given, pairs)
    if folder is not None:
        confirm(config.model_dump(mode="json"), folder, typed={**given, "options": pairs}, trust=trust)
    resources = model_of(Resources, typed[Resources])
    measured = probe_named(config.probe)
    options = parse_options(measured, config.options)
    build = resolve(config.agent)
    target = folder or out or free_folder(config)
    again = resume_command("probe", target, import_ or [], resources.data, config=config.model_dump(mode="json"))
    try:
        with opened_folder(target, config, new=folder is None) as opened:
            found = reference_states(target, config, resources.data, partial(_play, resources=resources, debug=debug))
            elicitation = elicitation_of(found.env, config.elicitation)
            known = None if config.answers is None else known_answers(config.answers, config.agent, found, elicitation)
            quiet = json_ and not sys.stderr.isatty()
            with (
                open_agent(config.agent, build) as player,
                _progress(target, len(found.states), quiet=quiet) as observer,
            ):
                summary = run_probe(
                    measured,
                    opened,
                    agent=player,
                    spec=config.agent,
                    states=found,
                    elicitation=elicitation,
                    options=options,
                    seed=config.seed,
                    answers=known,
                    observer=observer,
                    stop_at_failures=debug,
                    data=resources.data,
                )
    except KeyboardInterrupt:
        return print_interrupted("measured states are kept", again, target / CONFIG)
    return _print_outcome(summary, target, json_, again, verbose=verbose)


def _config(folder: Path | None, given: dict[str, Any], options: dict[str, str]) -> ProbeConfig:
    """Return the config of a measurement: typed values, over those of the folder to resume.

    Raises:
        UsageError: the probe or the agent is missing, there is no such folder, or a typed value contradicts it.
    """
    from cotbench.cli.options import model_of
    from cotbench.errors import UsageError
    from cotbench.probes.config import read_config
    from cotbench.runs.folder import check_identity

    before = {}
    if folder is not None:
        if not folder.is_dir():
            raise UsageError(f"--resume: there is no folder {folder}")
        begun = read_config(folder)
        if begun is not None:
            fixed: dict[str, Any] = {name: given[name] for name in ("probe", "agent", "seed", "states") if name in given}
            check_identity(folder, {name: getattr(begun, name) for name in fixed}, fixed, "measurement")
            before = begun.model_dump()
            if "reference" in given:  # It says where the states are from.
                before = {name: value for name, value in before.items() if name not in ("env", "scheme", "split")}
    # What else was typed differently shows in the states, the options or the elicitation, which are compared with those before.
    tables = {"options": options, "elicitation": given.get("elicitation", {})}
    merged = before | given | {name: {**before.get(name, {}), **table} for name, table in tables.items()}
    if "probe" not in merged:
        raise UsageError("NAME is missing: name the probe, as in cotbench probe alignment (cotbench list probes)")
    if "agent" not in merged:
        raise UsageError("--agent is missing: name the agent to measure, as in --agent hf:smollm2 (cotbench list agents)")
    return model_of(ProbeConfig, merged)


def _pairs(options: list[str]) -> dict[str, str]:
    from cotbench.errors import UsageError

    pairs = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--option {text}: write it as NAME=VALUE")
        pairs[name.strip().replace("-", "_")] = value.strip()
    return pairs


def _play(config: Any, folder: Path, resources: Resources, debug: bool) -> None:
    """Play a reference, or what is missing of it."""
    from cotbench.agents.registry import resolve
    from cotbench.cli.agent_cache import open_agent
    from cotbench.cli.playing import play_run
    from cotbench.runs.plan import make_plan

    plan = make_plan(config, resources.data)
    with open_agent(config.agent, resolve(config.agent)) as player:
        play_run(plan, folder, True, player, resources, debug=debug)


@contextmanager
def _progress(target: Path, total: int, *, quiet: bool) -> Iterator[Callable[[Any], None]]:
    """Return an observer that shows progress on standard error; states that were measured before are done."""
    from cotbench.cli.even_progress import EvenProgress
    from cotbench.cli.progress_display import shown_progress
    from cotbench.probes.folder import ROWS, read_probe

    before = read_probe(target).rows if (target / ROWS).is_file() else ()
    with shown_progress("states", total, quiet=quiet) as shown:
        work = EvenProgress(shown, total, sum(row.error is None for row in before))
        errors = 0

        def advance(row: Any) -> None:
            nonlocal errors
            errors += row.error is not None
            work.advance([f"{errors} errors"] if errors else [])

        yield advance


def _print_outcome(summary: Any, folder: Path, as_json: bool, again: str, *, verbose: bool) -> int:
    from cotbench.cli.failures import print_failures
    from cotbench.probes.folder import read_probe
    from cotbench.probes.table import probe_table

    if as_json:
        echo_json(summary.model_dump_json(indent=2))
    else:
        print_tables(probe_table(summary, verbose=verbose))
        echo(f"probe folder: {folder}")
    named = [(f"step {row.step} of {row.task}", row) for row in read_probe(folder).rows] if summary.numbers.errors else []
    return print_failures(named, f"of {len(named)} states could not be measured", f"retry with: {again}")
