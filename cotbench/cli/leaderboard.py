"""`cotbench leaderboard`: submit runs, replay them, list and show them, serve them as a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cotbench.cli.flags import Data, Import, Verbose
from cotbench.cli.terminal import console, echo, echo_error, echo_json, print_tables, text_column
from cotbench.flags import OUTPUT

if TYPE_CHECKING:
    from cotbench.errors import CotbenchError
    from cotbench.leaderboard.store.store import Store
    from cotbench.leaderboard.submission.bundle import Bundle
    from cotbench.leaderboard.verification.run_replay import Verdict

app = typer.Typer(help="Submit and verify runs; list, show and serve leaderboards.", no_args_is_help=True)

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
    import_: Import = None,
    db: Db = None,
    json_: Json = False,
) -> int:
    """Submit runs (every run of a folder of several). The server's token is read from COTBENCH_LEADERBOARD_TOKEN."""
    import io
    import json
    import os

    require_leaderboard()
    from cotbench.leaderboard.store.store import accept_submission
    from cotbench.leaderboard.submission import client

    given = {"name": name or "", "team": team or "", "link": link or ""}
    data = _bundles(runs, given)
    rows: list[dict[str, Any]] = []
    if server is not None:
        for bundle in data.values():
            receipt = client.submit(server, bundle, os.environ.get(client.TOKEN))
            rows.append({"id": receipt.id, "state": receipt.state, "new": receipt.new, "url": receipt.url})
    else:
        with opened_store(db) as store:
            for bundle in data.values():
                entry, new = accept_submission(store, io.BytesIO(bundle), **given)
                rows.append({"id": entry.id, "state": entry.state, "new": new, "unranked": list(entry.unranked)})
    if json_:
        echo_json(json.dumps(rows, indent=2))
        return 0
    for path, row in zip(data, rows, strict=True):
        note = "" if row["new"] else ", already there"
        echo(f"{row['id']} {row['state']}{note}: {row.get('url', path)}")
        if row.get("unranked"):
            echo(f"    listed without a rank: {', '.join(row['unranked'])}")
    if server is None and any(row["state"] == "pending" for row in rows):
        flag = f" --db {db}" if db else ""
        echo(f"verify them with: cotbench leaderboard verify --all{flag}")
    return 0


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
    from cotbench.errors import ReplayTimeoutError, UsageError
    from cotbench.leaderboard.submission.bundle import unpack
    from cotbench.leaderboard.verification.run_replay import Verdict
    from cotbench.leaderboard.verification.verify import versions

    named = entries or []
    if bool(named) == all_:
        raise UsageError("name entries (cotbench leaderboard list), or give --all")
    if again and not all_:
        raise UsageError("--again goes with --all; entries given by id are always replayed")
    files = [Path(one) for one in named if Path(one).exists()]
    failed = 0
    for path in files:
        failed += _print_verdict(str(path), _replay(_bundle_at(path), jobs, data, str(path)))
    ids = [one for one in named if not Path(one).exists()]
    if not ids and not all_:
        return int(failed > 0)
    with opened_store(db) as store:
        for id in _pending(store, again) if all_ else [store.entry(one).id for one in ids]:
            bundle = unpack(store.bundle(id))
            verdict = _replay(bundle, jobs, data, id)
            if isinstance(verdict, ReplayTimeoutError):
                store.give_up(id, str(verdict))
            elif isinstance(verdict, Verdict):
                found = versions(bundle.manifest, data)
                store.settle(id, verdict.difference, with_versions=found, expert=verdict.expert)
            failed += _print_verdict(id, verdict)
        pending = store.count("pending")
    if pending:
        echo_error(f"{pending} entries are still pending")
    return int(failed > 0)


def _jobs(bundle: Bundle) -> int:
    """Return the number of processes that save time: a fast engine replays the run before a second one has started."""
    from cotbench.cli.options import cores
    from cotbench.envs.registry import env_entry

    if env_entry(bundle.manifest.config.env).expert_at_hand:
        return 1
    return cores()


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


def _replay(bundle: Bundle, jobs: int | None, data: Path | None, name: str) -> Verdict | CotbenchError:
    """Return the verdict, or why the bundle cannot be replayed here."""
    from cotbench.errors import CotbenchError
    from cotbench.leaderboard.submission.checks import check
    from cotbench.leaderboard.verification.verify import verify_bundle as replay

    try:
        check(bundle)
        with _bar(name) as progress:
            return replay(bundle, jobs=jobs or _jobs(bundle), data=data, progress=progress)
    except CotbenchError as error:
        return error


def _print_verdict(name: str, verdict: Verdict | CotbenchError) -> int:
    """Print the verdict; returns 1 where the replay did not agree."""
    from cotbench.errors import CotbenchError, ReplayTimeoutError

    if isinstance(verdict, ReplayTimeoutError):
        echo(f"{name} not checked: {verdict}")
        return 1
    if isinstance(verdict, CotbenchError):
        echo(f"{name} cannot be replayed here, and is unchanged: {verdict}")
        return 1
    if verdict.difference is not None:
        echo(f"{name} rejected: {verdict.difference}")
        return 1
    echo(f"{name} replayed")
    for share in verdict.expert:
        if share.plays_expert:
            echo(f"    {share.mode} mode {share}")
    return 0


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int], None] | None]:
    """Return a callback that draws a progress bar over episodes; None where there is no terminal."""
    import sys

    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (text_column("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"replaying {name}", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


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
