"""The flags that several commands share, each said once."""

from __future__ import annotations

from typing import Annotated

import typer

ASKED, WRITTEN = "How answers are asked for", "How it is run"
"""The panels of `--help` that they stand in."""

Style = Annotated[str | None, typer.Option(help="prefill or template.", show_default="prefill", rich_help_panel=ASKED)]
TraceTokens = Annotated[
    int | None, typer.Option(min=1, help="Token budget of a trace.", show_default="256", rich_help_panel=ASKED)
]
Temperature = Annotated[float | None, typer.Option(min=0, help="0 is greedy.", show_default="0", rich_help_panel=ASKED)]
ObservationChars = Annotated[
    int | None,
    typer.Option(min=2, help="Characters of an observation that are shown.", show_default="16000", rich_help_panel=ASKED),
]
Import = Annotated[
    list[str] | None,
    typer.Option("--import", help="A Python file or module that registers agents.", rich_help_panel=WRITTEN),
]
