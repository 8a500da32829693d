"""`cotbench probe`: a measurement on the states of a reference's episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cotbench.cli.flags import Debug, Import, Resume, Typed, Verbose, with_options
from cotbench.cli.terminal import console, echo, echo_json, print_tables, text_column
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
    from cotbench.cli.agent_cache import open_agent
    from cotbench.cli.options import model_of, only_given
    from cotbench.cli.resume import print_interrupted, resume_command, resume_folder
    from cotbench.probes.config import CONFIG
    from cotbench.probes.folder import known_answers, parse_options, run_probe
    from cotbench.probes.probe import probe_named

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
    target = folder or out or _free_folder(config)
    again = resume_command("probe", target, import_ or [], resources.data, config=config.model_dump(mode="json"))
    try:
        with _opened(target, config, new=folder is None) as opened:
            found, elicitation = _states(target, config, resources, debug)
            known = None if config.answers is None else known_answers(config.answers, config.agent, found, elicitation)
            quiet = json_ and not sys.stderr.isatty()
            with (
                open_agent(config.agent, build) as player,
                _progress(config.probe, len(found.states), quiet=quiet) as observer,
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


_REFERENCE = "reference"


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


def _free_folder(config: ProbeConfig) -> Path:
    """Return a folder under `probes/` that is not taken."""
    from cotbench.runs.folder import file_name
    from cotbench.runs.manifest import RunConfig

    usual = {name: RunConfig.model_fields[name].default for name in ("env", "split")}
    words = (config.probe, config.agent, config.env or usual["env"], config.split or usual["split"])
    stem = "_".join(map(file_name, words))
    count, target = 1, Path("probes") / stem
    while target.exists():
        count += 1
        target = Path("probes") / f"{stem}_{count}"
    return target


@contextmanager
def _opened(target: Path, config: ProbeConfig, *, new: bool) -> Iterator[Any]:
    """Lock the folder of a probe and write its config; a failure before the first measured state leaves no folder behind.

    All writes are under the lock: another start on the same folder must neither change nor remove its contents.
    """
    from cotbench.probes.config import read_config, write_config
    from cotbench.probes.folder import PROBE_FOLDER
    from cotbench.runs.folder import open_folder

    with open_folder(target, PROBE_FOLDER, _check_new if new else None) as opened:
        if new or read_config(target) is None:
            write_config(target, config)
        try:
            yield opened
        except Exception:
            _discard(target, new=new)  # Under the lock, as everything here.
            raise


def _check_new(target: Path) -> None:
    """Raise an error for a folder with contents, except those of a measurement that was killed before its first row."""
    from cotbench.probes.config import CONFIG
    from cotbench.runs.folder import make_folder
    from cotbench.runs.manifest import MANIFEST

    if _names(target) == {CONFIG}:
        return
    begun = (target / CONFIG).is_file() and any((target / name).exists() for name in (MANIFEST, _REFERENCE))
    hint = f"resume with: cotbench probe --resume {target}, or choose another --out" if begun else "choose another --out"
    make_folder(target, hint, "folder of the probe")


def _names(folder: Path) -> set[str]:
    """Return the files of a folder except the hidden ones: a lock, or the remains of a killed write."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.is_dir() else set()


def _discard(target: Path, *, new: bool) -> None:
    """Remove a folder in which nothing was measured: config, our lock, and what a reference of this command played."""
    import shutil

    from cotbench.probes.config import CONFIG

    ours = {CONFIG, _REFERENCE} if new else {CONFIG}
    if _names(target) <= ours:
        shutil.rmtree(target)


def _states(target: Path, config: ProbeConfig, resources: Resources, debug: bool) -> tuple[Any, Any]:
    """Return the states, and the elicitation; where the reference is an agent, it plays the split first."""
    from cotbench.agents.registry import resolve
    from cotbench.cli.agent_cache import open_agent
    from cotbench.cli.options import elicitation_of, new_config, only_given
    from cotbench.cli.playing import play_run
    from cotbench.errors import UsageError
    from cotbench.probes.states import read_states
    from cotbench.runs.manifest import MANIFEST, RunConfig
    from cotbench.runs.plan import make_plan

    run = Path(config.reference)
    where = only_given({"env": config.env, "scheme": config.scheme, "split": config.split})
    if (run / MANIFEST).is_file():
        for name in where:
            raise UsageError(f"--{name} and --reference {config.reference} both say where the states come from: omit --{name}")
    else:
        played = {"agent": config.reference, "mode": "cot", "seed": config.seed}
        plan = make_plan(new_config({"env": RunConfig.model_fields["env"].default, **where, **played}), resources.data)
        run = target / _REFERENCE
        with open_agent(config.reference, resolve(config.reference)) as player:
            play_run(plan, run, True, player, resources, debug=debug)
    states = read_states(run, config.states, config.seed)
    return states, elicitation_of(states.env, config.elicitation)


@contextmanager
def _progress(name: str, total: int, *, quiet: bool) -> Iterator[Callable[[Any], None]]:
    """Return an observer that shows progress on standard error."""
    import sys

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    if quiet or not sys.stderr.isatty():
        yield lambda row: None
        return
    columns = (
        text_column("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True)) as bar:
        task = bar.add_task(f"{name}: states", total=total)
        yield lambda row: bar.update(task, advance=1)


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
