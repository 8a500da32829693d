"""The table of commands. Invariant: a command's module is imported when the command is used: `cotbench --help` imports none
of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from cotbench.cli.resume import with_resume_value
from cotbench.cli.terminal import echo

__all__ = ["app", "with_resume_value"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A command, or a group of commands.

    Attributes:
        summary: the first paragraph of its help.
        target: "module:attribute": a function, a group's `typer.Typer`, or with `built` a function that returns the command.
        built: whether the options depend on the arguments: the target is called with them.
    """

    summary: str
    target: str
    built: bool = False


COMMANDS = {
    "run": Entry("Play every task in each mode, and compare the modes on the same tasks.", "run:run"),
    "traces": Entry("Let a teacher play in CoT mode, and keep its successful episodes as training data.", "traces:traces"),
    "pairs": Entry(
        "Sample a model's answers at the states of traces, and keep those whose action is worse as rejected ones.",
        "pairs:pairs",
    ),
    "train": Entry(
        "Train a model on traces: checkpoints are loaded as hf:OUT/checkpoint-N, the last state as hf:OUT.",
        "train:make_command",
        built=True,
    ),
    "study": Entry(
        "Run a whole study: traces, training, rollouts and probes at every checkpoint, report. Run it again to continue.",
        "study:study",
    ),
    "report": Entry(
        "Write a page: the answer in sentences, tables, figures, and the episodes to step through.", "report:report"
    ),
    "view": Entry("Show a folder of runs and studies as a local page, live while they run.", "view:view"),
    "compare": Entry("Compare two runs on the tasks that both have played: second minus first.", "compare:compare"),
    "play": Entry('Play a task yourself. "?" lists what can be done, "!" asks the expert, Ctrl-D ends.', "play:play"),
    "judge": Entry(
        "Let a judge compare the prompt action with the CoT action, at every state where the trace changed the action.",
        "judge:judge",
    ),
    "probe": Entry(
        "Measure an agent on a fixed set of states: what it answers there, what it follows, where it looks.", "probe:probe"
    ),
    "doctor": Entry("Show what is installed, what is missing, and the exact command that fixes it.", "doctor:doctor"),
    "leaderboard": Entry("Submit and verify runs; list, show and serve leaderboards.", "leaderboard_pages:app"),
    "export": Entry(
        "Write results in the formats of other tools: data sets and model cards for a hub, eval results.", "export:app"
    ),
    "list": Entry("List agents, environments, recipes, probes, runs, or the tasks of a split.", "listing:app"),
    "data": Entry("Fetch and list pinned wheels that are read as data; write metadata of splits, traces and runs.", "data:app"),
}


def load_command(name: str, arguments: list[str]) -> Any:
    """Return a command, with its options.

    Args:
        name: a key of `COMMANDS`.
        arguments: the words typed after it.

    Raises:
        CotbenchError: its options cannot be determined.
    """
    entry = COMMANDS[name]
    module, attribute = entry.target.split(":")
    found = getattr(import_module(f"cotbench.cli.{module}"), attribute)
    if not isinstance(found, typer.Typer):
        typer_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        typer_app.command(name)(found(arguments) if entry.built else found)
        found = typer_app
    command = get_command(found)
    command.name = name
    return command


class _Commands(TyperGroup):
    """Lists the commands by their summaries, and loads the one that is used."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, entry in COMMANDS.items():
            self.commands[name] = TyperCommand(name, help=entry.summary)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, load_command(str(name), rest), rest


app = typer.Typer(
    name="cotbench",
    cls=_Commands,
    help="Does an agent's reasoning change what it does? Prompt actions against CoT actions, on real environments.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from cotbench import __version__

        echo(f"cotbench {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version")] = False,
) -> None:
    pass
