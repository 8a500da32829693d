"""`cotbench probe`: a measurement on the states of a reference's episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cotbench.cli.flags import (
    PLAYED,
    WRITTEN,
    ActionTokens,
    Data,
    History,
    Import,
    ObservationChars,
    Scheme,
    Style,
    Temperature,
    TraceTokens,
)


def probe(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="alignment, conflict, attention, ... (cotbench list probes).", show_default=False),
    ],
    agent: Annotated[str | None, typer.Option(help="Who is measured (cotbench list agents).", rich_help_panel=PLAYED)] = None,
    reference: Annotated[
        str,
        typer.Option(
            help="Whose states: an agent that wins, or a run folder with CoT episodes; its actions are the reference.",
            rich_help_panel=PLAYED,
        ),
    ] = "scripted",
    env: Annotated[
        str | None, typer.Option(help="The environment.", show_default="alfworld-gen", rich_help_panel=PLAYED)
    ] = None,
    split: Annotated[str | None, typer.Option(help="The split.", show_default="id", rich_help_panel=PLAYED)] = None,
    scheme: Scheme = None,
    states: Annotated[
        int | None, typer.Option("--states", "-n", min=1, help="How many, drawn by the seed.", show_default="200")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws states, pairs them, seeds sampling.", rich_help_panel=PLAYED)] = 0,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            metavar="NAME=VALUE",
            help="Of the probe (cotbench list probes); may be repeated.",
        ),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(help="A folder of probe alignment: the agent's answers at these states, not asked for again."),
    ] = None,
    elicitation: Style = None,
    trace_tokens: TraceTokens = None,
    action_tokens: ActionTokens = None,
    temperature: Temperature = None,
    history: History = None,
    observation_chars: ObservationChars = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder of the probe.", show_default="a new one under probes/", rich_help_panel=WRITTEN),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what was begun in --out.", rich_help_panel=WRITTEN)
    ] = False,
    data: Data = None,
    import_: Import = None,
    json_: Annotated[bool, typer.Option("--json", help="Print probe.json instead.", rich_help_panel=WRITTEN)] = False,
) -> int:
    """Measure an agent on a fixed set of states: what it answers there, what it follows, where it looks."""
    import sys

    from cotbench.agents.registry import resolve
    from cotbench.cli.agent_cache import open_agent
    from cotbench.cli.options import emptied, new_config, only_given
    from cotbench.cli.playing import resume_folder
    from cotbench.errors import UsageError
    from cotbench.plugins import load_plugins
    from cotbench.probes.folder import known_answers, parse_options, run_probe
    from cotbench.probes.probe import probe_named

    measured = probe_named(name)
    options = parse_options(measured, _pairs(option or []))
    asked = only_given(
        {
            "style": elicitation,
            "trace_tokens": trace_tokens,
            "action_tokens": action_tokens,
            "temperature": temperature,
            "history": history,
            "observation_chars": observation_chars,
        }
    )
    load_plugins(import_ or [])
    if agent is None:
        raise UsageError("--agent is missing: name who is measured, as in --agent hf:smollm2 (cotbench list agents)")
    if resume:
        resume_folder("@out", out)
    build = resolve(agent)
    target = _target(out, name, agent, env or "alfworld-gen", split or "id", resume)
    given = only_given({"env": env, "split": split, "scheme": scheme}) | {"agent": reference, "mode": "cot", "seed": seed}
    again = f"cotbench probe {name} --agent {agent} --out {target} ... --resume"
    try:
        with emptied(target):
            found, asked_how = _states(target, reference, given, asked, (states or _STATES, seed), data, new_config)
            known = None if answers is None else known_answers(answers, agent, found, asked_how)
        quiet = json_ and not sys.stderr.isatty()
        with open_agent(agent, build, target) as player, _progress(name, len(found.states), quiet=quiet) as observer:
            summary = run_probe(
                measured,
                target,
                agent=player,
                spec=agent,
                states=found,
                elicitation=asked_how,
                options=options,
                seed=seed,
                answers=known,
                observer=observer,
            )
    except KeyboardInterrupt:
        print(f"interrupted; what was measured is kept: {again}", file=sys.stderr)
        return 130
    return _print_outcome(summary, target, json_, again)


_STATES = 200
_REFERENCE = "reference"


def _pairs(options: list[str]) -> dict[str, str]:
    from cotbench.errors import UsageError

    pairs = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--option {text}: write it as NAME=VALUE")
        pairs[name.strip().replace("-", "_")] = value.strip()
    return pairs


def _target(out: Path | None, name: str, agent: str, env: str, split: str, resume: bool) -> Path:
    """The folder of the probe: the one that was named, or a new one."""
    from cotbench.errors import UsageError
    from cotbench.runs.folder import file_name, make_folder
    from cotbench.runs.manifest import MANIFEST

    if out is None:
        stem = "_".join(map(file_name, (name, agent, env, split)))
        count, target = 1, Path("probes") / stem
        while target.exists():
            count += 1
            target = Path("probes") / f"{stem}_{count}"
    else:
        target = out
    if resume:
        if not target.is_dir():
            raise UsageError(f"--resume: there is no folder {target}")
    else:
        begun = target.is_dir() and any((target / name).exists() for name in (MANIFEST, _REFERENCE))
        hint = "go on with --resume, or choose another --out" if begun else "choose another --out"
        make_folder(target, hint, "folder of the probe")
    return target


def _states(
    target: Path,
    reference: str,
    given: dict[str, Any],
    asked: dict[str, Any],
    drawn: tuple[int, int],
    data: Path | None,
    new_config: Callable[..., Any],
) -> tuple[Any, Any]:
    """The states, and how answers are asked for; where the reference is an agent, it plays the split first."""
    from cotbench.agents.registry import resolve
    from cotbench.cli.agent_cache import open_agent
    from cotbench.cli.options import check_choices
    from cotbench.cli.playing import play_run
    from cotbench.errors import UsageError
    from cotbench.probes.states import read_states
    from cotbench.prompting.elicitation import Elicitation
    from cotbench.runs import runner
    from cotbench.runs.manifest import MANIFEST, RunConfig
    from cotbench.runs.plan import make_plan

    run = Path(reference)
    if (run / MANIFEST).is_file():
        for name in ("env", "split", "scheme"):
            if name in given:
                raise UsageError(
                    f"--{name} and --reference {reference} both say where the states are from: leave --{name} away"
                )
    else:
        config = new_config({"env": RunConfig.model_fields["env"].default, **given}, {})
        plan = make_plan(config, data)
        run = target / _REFERENCE
        with open_agent(reference, resolve(reference), target) as player:
            play_run(plan, run, True, player, runner.Resources(data=data))
    check_choices(Elicitation, asked)
    found = read_states(run, *drawn)
    return found, Elicitation.for_env(found.env, **asked)


@contextmanager
def _progress(name: str, total: int, *, quiet: bool) -> Iterator[Callable[[Any], None]]:
    """An observer that shows how far a probe is, on standard error."""
    import sys

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    if quiet or not sys.stderr.isatty():
        yield lambda row: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(f"{name}: states", total=total)
        yield lambda row: bar.update(task, advance=1)


def _print_outcome(summary: Any, folder: Path, as_json: bool, again: str) -> int:
    import sys

    from cotbench.cli.options import console
    from cotbench.probes.table import probe_table

    if as_json:
        typer.echo(summary.model_dump_json(indent=2))
    else:
        screen = console()
        screen.print(probe_table(summary))
        screen.print(f"folder of the probe: {folder}", soft_wrap=True, highlight=False)
    if summary.numbers.errors:
        print(
            f"error: {summary.numbers.errors} states could not be measured; measure them again with: {again}", file=sys.stderr
        )
        return 1
    return 0
