"""`cotbench list`: agents, environments, tasks, recipes, probes and runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cotbench.cli.flags import Import
from cotbench.cli.terminal import echo_json, print_tables

app = typer.Typer(
    help="List agents, environments, recipes, probes, runs, or the tasks of a split.",
    no_args_is_help=True,
    add_completion=False,
)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON")]


@app.command("agents")
def agents(
    import_: Import = None,
    json_: _Json = False,
) -> None:
    """List the agents that --agent accepts."""
    from cotbench.agents.registry import agent_names, builtin_summaries, summary_of

    known = builtin_summaries()
    named = {spec.partition(":")[0] for spec in known}
    rows = [*known.items(), *((name, summary_of(name)) for name in agent_names() if name not in named)]
    _print(("agent", "what it is"), rows, json_)
    if not json_:
        from cotbench.agents.hf.loading import ALIASES
        from cotbench.paragraph import Paragraph, together

        aliases = ", ".join(together(f"hf:{alias} = {name}") for alias, name in ALIASES.items())
        print_tables(Paragraph(f"aliases: {aliases}"))


@app.command("envs")
def envs(import_: Import = None, json_: _Json = False) -> None:
    """List the environments, with the size of every split."""
    from cotbench.envs.registry import env_entry, env_names

    rows = []
    for name in env_names():
        entry = env_entry(name)
        source = entry.source()
        for scheme, splits in source.schemes().items():
            sizes = ", ".join(f"{split} {len(source.tasks(scheme, split))}" for split in splits)
            rows.append((name, scheme, sizes, str(entry.max_steps()), entry.license))
    _print(("env", "scheme", _SIZES, "steps", "licence"), rows, json_)


@app.command("tasks")
def tasks(
    env: Annotated[str, typer.Option(help="The environment")] = "alfworld-gen",
    split: Annotated[str, typer.Option(help="The split")] = "id",
    scheme: Annotated[str, typer.Option(help="The split scheme")] = "paper",
    data: Annotated[Path | None, typer.Option(help="Folder of the games")] = None,
    missing: Annotated[bool, typer.Option("--missing", help="Only tasks whose games are not on this machine")] = False,
    import_: Import = None,
    json_: _Json = False,
) -> None:
    """List the task ids of a split, one per line."""
    import json

    from cotbench.envs.registry import env_entry

    source = env_entry(env).source()
    ids = source.tasks(scheme, split)
    if missing:
        ids = tuple(source.missing(ids, data))
    echo_json(json.dumps(ids) if json_ else "\n".join(ids))


@app.command("recipes")
def recipes(import_: Import = None, json_: _Json = False) -> None:
    """List the training recipes that --recipe accepts, and their presets."""
    from cotbench.recipes import recipe_named, recipe_names

    entries = [recipe_named(name) for name in recipe_names()]
    rows = [
        (entry.name, entry.description, "\n".join(f"{name}: {preset.description}" for name, preset in entry.presets.items()))
        for entry in entries
    ]
    _print(("recipe", "what it is", "--preset"), rows, json_)


@app.command("probes")
def probes(import_: Import = None, json_: _Json = False) -> None:
    """List the probes of `cotbench probe`, with their options."""
    from cotbench.probes.probe import probe_named, probe_names

    rows = []
    for name in probe_names():
        probe = probe_named(name)
        options = [f"{option}={_default(field)}: {field.description}" for option, field in probe.options.model_fields.items()]
        rows.append((name, probe.description, "\n".join(options)))
    _print(("probe", "what it measures", "options"), rows, json_)


@app.command("runs")
def runs(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder to search", show_default="runs")] = Path("runs"),
    json_: _Json = False,
) -> None:
    """List the runs below a folder: what they play, how far they are, and their success so far."""
    from cotbench.runs.run_list import list_runs

    found = list_runs(folder)
    if json_:
        import json
        from dataclasses import asdict

        content = {
            "runs": [run.model_dump(mode="json") for run in found.runs],
            "unread": [asdict(one) for one in found.unread],
        }
        echo_json(json.dumps(content, indent=2))
        return
    from cotbench.runs.status_table import status_table

    print_tables(status_table(found, str(folder)))


_SIZES = "splits and their tasks"
_TEXTS = frozenset({"what it is", "--preset", "what it measures", "options", "licence", _SIZES})
"""Columns of running text; the others hold names."""


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    return ",".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)


def _print(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], as_json: bool) -> None:
    if as_json:
        import json

        echo_json(json.dumps([dict(zip(head, row, strict=True)) for row in rows], indent=2))
        return
    from cotbench.paragraph import together
    from cotbench.text_table import TableColumn, TextTable, table_row

    columns = tuple(TableColumn(title, "text" if title in _TEXTS else "label") for title in head)
    if _SIZES in head:  # No line ends between a split and its size.
        place = head.index(_SIZES)
        rows = [(*row[:place], ", ".join(map(together, row[place].split(", "))), *row[place + 1 :]) for row in rows]
    print_tables(TextTable(columns, tuple(table_row(*row) for row in rows)))
