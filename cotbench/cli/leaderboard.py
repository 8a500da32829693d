"""`cotbench leaderboard`: submit runs, replay them, list and show them, serve them as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cotbench.cli.flags import Data, Import, Verbose
from cotbench.cli.leaderboard_replay import print_verdict, replay_bundle, settle_entry
from cotbench.cli.terminal import echo, echo_error, echo_json, print_tables
from cotbench.flags import OUTPUT

if TYPE_CHECKING:
    from cotbench.leaderboard.store.store import Store
    from cotbench.leaderboard.submission.bundle import Bundle

app = typer.Typer(help="Submit and verify runs; list, show and serve leaderboards.", no_args_is_help=True, add_completion=False)

DB_VARIABLE = "COTBENCH_LEADERBOARD"
Db = Annotated[
    str | None,
    typer.Option(
        help="Leaderboard: an SQLite file, or postgresql://USER@HOST/NAME",
        show_default=f"${DB_VARIABLE}, else a file in the user's data folder",
        rich_help_panel=OUTPUT,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON", rich_help_panel=OUTPUT)]
Name = Annotated[str | None, typer.Option(help="Name shown on the board", show_default="the agent")]
Team = Annotated[str | None, typer.Option(help="Team that submits")]
Link = Annotated[str | None, typer.Option(help="Link to a paper, a model or code: https://...")]


def require_leaderboard(*more: str) -> None:
    """Raise a one-line error where the leaderboard's libraries are not installed.

    Args:
        more: modules beyond those of the store.

    Raises:
        MissingExtraError: names the extra.
    """
    from importlib.util import find_spec

    from cotbench.errors import MissingExtraError

    if any(find_spec(module) is None for module in ("sqlalchemy", *more)):
        raise MissingExtraError("cotbench leaderboard", "leaderboard")


def opened_store(db: str | None) -> Store:
    """Open the leaderboard of `--db`, else of the environment variable, else the user's own."""
    import os

    require_leaderboard()
    from cotbench.leaderboard.store.database import default_path
    from cotbench.leaderboard.store.store import Store

    return Store.open(db or os.environ.get(DB_VARIABLE) or default_path())


@app.command()
def submit(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or bundles", show_default=False)],
    name: Name = None,
    team: Team = None,
    link: Link = None,
    server: Annotated[
        str | None, typer.Option(help="Submit to the leaderboard server at this address", show_default="the local leaderboard")
    ] = None,
    verify_: Annotated[
        bool, typer.Option("--verify", help="Replay each run at once; with --server before anything is sent")
    ] = False,
    data: Data = None,
    import_: Import = None,
    db: Db = None,
    json_: Json = False,
) -> int:
    """Submit runs (every run of a folder of several). The server's token is read from COTBENCH_LEADERBOARD_TOKEN."""
    import io
    import json
    import os

    require_leaderboard()
    from cotbench.errors import SubmissionError
    from cotbench.leaderboard.store.store import accept_submission
    from cotbench.leaderboard.submission import client

    given = {"name": name or "", "team": team or "", "link": link or ""}
    bundles = _bundles(runs, given)
    rows: list[dict[str, Any]] = []
    failed = 0
    if server is not None:
        if verify_ and any(_differs(str(path), bundle, data, quiet=json_) for path, bundle in bundles.items()):
            raise SubmissionError("nothing was sent: a server would reject what a replay here does not confirm")
        for bundle in bundles.values():
            receipt = client.submit(server, bundle, os.environ.get(client.TOKEN))
            rows.append({"id": receipt.id, "state": receipt.state, "new": receipt.new, "url": receipt.url})
    else:
        with opened_store(db) as store:
            for bundle in bundles.values():
                entry, new = accept_submission(store, io.BytesIO(bundle), **given)
                if verify_ and entry.state in ("pending", "unchecked"):
                    failed += print_verdict(entry.id, settle_entry(store, entry.id, None, data), quiet=json_)
                    entry = store.entry(entry.id)
                rows.append({"id": entry.id, "state": entry.state, "new": new, "unranked": list(entry.unranked)})
    if json_:
        echo_json(json.dumps(rows, indent=2))
        return int(failed > 0)
    for path, row in zip(bundles, rows, strict=True):
        note = "" if row["new"] else ", already there"
        echo(f"{row['id']} {row['state']}{note}: {row.get('url', path)}")
        if row.get("unranked"):
            echo(f"    listed without a rank: {', '.join(row['unranked'])}")
    if server is None and not verify_ and any(row["state"] == "pending" for row in rows):
        flag = f" --db {db}" if db else ""
        echo(f"verify them with: cotbench leaderboard verify --all{flag}")
    return int(failed > 0)


def _differs(name: str, data: bytes, folder: Path | None, *, quiet: bool) -> bool:
    """Replay a bundle and print the verdict; returns whether the replay does not confirm it."""
    import io

    from cotbench.leaderboard.submission.bundle import unpack

    return bool(print_verdict(name, replay_bundle(unpack(io.BytesIO(data)), None, folder, name), quiet=quiet))


def _bundles(paths: list[Path], given: dict[str, str]) -> dict[Path, bytes]:
    """Return the bundles in the paths, all of them before any is submitted."""
    from cotbench.errors import SubmissionError
    from cotbench.leaderboard.submission import limits
    from cotbench.leaderboard.submission.bundle import pack_run
    from cotbench.leaderboard.submission.run_reader import run_folders

    found: dict[Path, bytes] = {}
    for path in paths:
        if path.is_file():
            if path.stat().st_size > limits.PACKED:
                raise SubmissionError(f"{path} has {path.stat().st_size:,} bytes; a bundle has at most {limits.PACKED:,}")
            found[path] = path.read_bytes()
        else:
            found |= {folder: pack_run(folder, **given) for folder in run_folders(path)}
    return found


@app.command()
def bundle(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write", show_default="RUN.zip")] = None,
    name: Name = None,
    team: Team = None,
    link: Link = None,
) -> int:
    """Pack a run into the file that the web form accepts."""
    require_leaderboard()
    from cotbench.errors import UsageError
    from cotbench.leaderboard.submission.bundle import pack_run
    from cotbench.runs.atomic_file import write_atomically

    data = pack_run(run, name=name or "", team=team or "", link=link or "")
    target = out or run.with_name(run.name + ".zip")
    if target.is_dir():
        raise UsageError(f"{target} is a folder: give --out a file")
    write_atomically(target, [data])
    echo(f"{target}: {len(data):,} bytes")
    return 0


@app.command()
def verify(
    entries: Annotated[
        list[str] | None, typer.Argument(metavar="[ID|FILE|RUN]...", help="Entry ids, bundles or run folders")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Verify every pending entry")] = False,
    again: Annotated[bool, typer.Option("--again", help="With --all: also the entries verified before")] = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Number of processes", show_default="1; for slow engines one per core"),
    ] = None,
    data: Data = None,
    import_: Import = None,
    db: Db = None,
) -> int:
    """Replay entries: execute their actions again; an entry is marked replayed if all observations and scores agree."""
    require_leaderboard()
    from cotbench.errors import UsageError

    named = entries or []
    if bool(named) == all_:
        raise UsageError("name entries (cotbench leaderboard list), or give --all")
    if again and not all_:
        raise UsageError("--again goes with --all; entries given by id are always replayed")
    files = [Path(one) for one in named if Path(one).exists()]
    failed = 0
    for path in files:
        failed += print_verdict(str(path), replay_bundle(_bundle_at(path), jobs, data, str(path)))
    ids = [one for one in named if not Path(one).exists()]
    if not ids and not all_:
        return int(failed > 0)
    with opened_store(db) as store:
        for id in _pending(store, again) if all_ else [store.entry(one).id for one in ids]:
            failed += print_verdict(id, settle_entry(store, id, jobs, data))
        pending = store.count("pending")
    if pending:
        echo_error(f"{pending} entries are still pending")
    return int(failed > 0)


def _pending(store: Store, again: bool) -> list[str]:
    """Return the ids of the entries to verify, oldest first."""
    return [entry.id for entry in reversed(store.entries(None if again else "pending"))]


def _bundle_at(path: Path) -> Bundle:
    from cotbench.leaderboard.submission.bundle import pack_run, unpack
    from cotbench.leaderboard.submission.run_reader import run_folders

    if path.is_file():
        with path.open("rb") as file:
            return unpack(file)
    folders = run_folders(path)
    if len(folders) > 1:
        from cotbench.errors import UsageError

        raise UsageError(f"{path} holds several runs: verify them one by one, as in {folders[0]}")
    import io

    return unpack(io.BytesIO(pack_run(folders[0])))


@app.command("list")
def list_(
    env: Annotated[
        str | None, typer.Option(help="Only boards of this environment; all or all-gen: the means", show_default="any")
    ] = None,
    scheme: Annotated[str | None, typer.Option(help="Only boards of this split scheme", show_default="any")] = None,
    split: Annotated[str | None, typer.Option(help="Only boards of this split", show_default="any")] = None,
    mode: Annotated[str | None, typer.Option(help="Only boards of this mode: prompt or cot", show_default="both")] = None,
    state: Annotated[
        str, typer.Option(help="Only entries in this state: replayed, pending, rejected, unchecked or all")
    ] = "all",
    sort: Annotated[str, typer.Option(help="Column to sort by")] = "rank",
    import_: Import = None,
    db: Db = None,
    verbose: Verbose = False,
    json_: Json = False,
) -> int:
    """List the boards, each with its entries."""
    require_leaderboard()
    from cotbench.errors import UnknownNameError
    from cotbench.leaderboard.boards.terminal import board_tables
    from cotbench.leaderboard.boards.view import board_view, sorted_rows
    from cotbench.leaderboard.store.entry import STATES
    from cotbench.leaderboard.web.models import BoardRows, board_name

    if state not in (*STATES, "all"):
        raise UnknownNameError("state", state, [*STATES, "all"])
    wanted = {"env": env, "scheme": scheme, "split": split, "mode": mode}
    with opened_store(db) as store:
        boards = store.boards()
        for field, value in wanted.items():
            known = {getattr(board, field) for board in boards}
            if value is not None and boards and value not in known:
                raise UnknownNameError("environment" if field == "env" else field, value, known, "among the entries")
            boards = [board for board in boards if value is None or getattr(board, field) == value]
        views = [board_view(store, board, next((one for one in STATES if one == state), None)) for board in boards]
        name = store.database.name
    descending = sort not in ("rank", "name", "team")
    tables = [(view, sorted_rows(view.rows, sort, descending)) for view in views]
    if json_:
        import json

        found = [
            BoardRows(
                board=board_name(view.board),
                state=next((one for one in STATES if one == state), None),
                rows=tuple(rows),
                reported=view.reported,
            )
            for view, rows in tables
        ]
        echo_json(json.dumps([one.model_dump(mode="json") for one in found], indent=2))
        return 0
    if not tables:
        echo(f"no entries in {name}: submit a run with: cotbench leaderboard submit RUN")
        return 0
    print_tables(board_tables(tables, verbose=verbose))
    return 0


@app.command()
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="Id of an entry", show_default=False)],
    db: Db = None,
    verbose: Verbose = False,
    json_: Json = False,
) -> int:
    """Show an entry: who submitted it, its state, its numbers."""
    with opened_store(db) as store:
        entry = store.entry(id)
    if json_:
        echo_json(entry.model_dump_json(indent=2))
        return 0
    from cotbench.leaderboard.boards.terminal import entry_page

    print_tables(entry_page(entry, verbose=verbose))
    return 0


@app.command()
def remove(
    id: Annotated[str, typer.Argument(metavar="ID", help="Id of an entry", show_default=False)],
    db: Db = None,
) -> int:
    """Delete an entry for good."""
    with opened_store(db) as store:
        name = store.entry(id).details.name
        store.remove(id)
    echo(f"removed {id} ({name})")
    return 0
