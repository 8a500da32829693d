"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from cotbench.cli import (
    compare,
    data,
    doctor,
    judge,
    leaderboard_pages,
    listing,
    play,
    probe,
    report,
    run,
    study,
    traces,
    train,
)
from cotbench.cli.flags import RESUME_OUT

app = typer.Typer(
    name="cotbench",
    help="Does an agent's reasoning change what it does? Prompt actions against CoT actions, on real environments.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from cotbench import __version__

        typer.echo(f"cotbench {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


app.command("run")(run.run)
app.command("traces")(traces.traces)
app.command("train")(train.train)
app.command("study")(study.study)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("play")(play.play)
app.command("judge")(judge.judge)
app.command("probe")(probe.probe)
app.add_typer(leaderboard_pages.app, name="leaderboard")
app.add_typer(listing.app, name="list")
app.add_typer(data.app, name="data")
app.command("doctor")(doctor.doctor)


def with_resume_value(arguments: list[str]) -> list[str]:
    """`--resume` of `run`, `traces`, `train` and `judge` may stand alone beside `--out DIR`; give it the value that says so."""
    if arguments[:1] not in (["run"], ["traces"], ["train"], ["judge"]):
        return arguments
    ready = []
    for place, argument in enumerate(arguments):
        ready.append(argument)
        following = arguments[place + 1 : place + 2]
        if argument == "--resume" and (not following or following[0].startswith("-")):
            ready.append(RESUME_OUT)
    return ready
