"""The flags that several commands share, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PLAYED, ASKED, WRITTEN = "What is played", "How answers are asked for", "How it is run"
"""The panels of `--help` that they stand in."""

RESUME_OUT = "@out"
"""Stands for "the folder of --out" where `--resume` was given without a value."""

Scheme = Annotated[
    str | None, typer.Option(help="Family of splits: paper or official.", show_default="paper", rich_help_panel=PLAYED)
]
Episodes = Annotated[
    int | None,
    typer.Option(
        "--episodes", "--limit", "-n", min=1, help="Tasks, drawn by the seed.", show_default="all", rich_help_panel=PLAYED
    ),
]
Task = Annotated[list[str] | None, typer.Option(help="Play this task id; may be repeated.", rich_help_panel=PLAYED)]
Seed = Annotated[
    int | None, typer.Option(min=0, help="Chooses tasks, seeds sampling.", show_default="0", rich_help_panel=PLAYED)
]
MaxSteps = Annotated[
    int | None, typer.Option(min=1, help="Step budget.", show_default="the environment's", rich_help_panel=PLAYED)
]

Style = Annotated[str | None, typer.Option(help="prefill or template.", show_default="prefill", rich_help_panel=ASKED)]
TraceTokens = Annotated[
    int | None, typer.Option(min=1, help="Token budget of a trace.", show_default="256", rich_help_panel=ASKED)
]
ActionTokens = Annotated[
    int | None, typer.Option(min=1, help="Token budget of an action.", show_default="32; bfcl 512", rich_help_panel=ASKED)
]
Temperature = Annotated[float | None, typer.Option(min=0, help="0 is greedy.", show_default="0", rich_help_panel=ASKED)]
TopP = Annotated[
    float | None, typer.Option(min=0, max=1, help="Nucleus of the sampling.", show_default="1", rich_help_panel=ASKED)
]
History = Annotated[
    str | None,
    typer.Option(help="What of the past is shown: actions or traces.", show_default="actions", rich_help_panel=ASKED),
]
ObservationChars = Annotated[
    int | None,
    typer.Option(min=2, help="Characters of an observation that are shown.", show_default="16000", rich_help_panel=ASKED),
]
Import = Annotated[
    list[str] | None,
    typer.Option("--import", help="A Python file or module that registers agents.", rich_help_panel=WRITTEN),
]
Resume = Annotated[
    str | None, typer.Option(metavar="[DIR]", help="Go on with the run in DIR, or in --out.", rich_help_panel=WRITTEN)
]
Batch = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        "-b",
        min=1,
        help="Episodes played side by side.",
        show_default="what keeps the agent busy",
        rich_help_panel=WRITTEN,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        "-w",
        min=0,
        help="Processes for the environments.",
        show_default="1 beside a model, else none",
        rich_help_panel=WRITTEN,
    ),
]
Data = Annotated[Path | None, typer.Option(help="Where the games are.", show_default="$ALFWORLD_DATA", rich_help_panel=WRITTEN)]
AvailableOnly = Annotated[
    bool | None, typer.Option("--available-only", help="Play an incomplete split; marked partial.", rich_help_panel=WRITTEN)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.", rich_help_panel=WRITTEN)]
