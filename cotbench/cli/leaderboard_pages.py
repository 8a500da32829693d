"""`cotbench leaderboard serve`, `export` and `token`: the leaderboard on the web; with it, all commands are known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cotbench.cli import leaderboard_rerun
from cotbench.cli.flags import Import
from cotbench.cli.leaderboard import Db, Json, opened_store, require_leaderboard
from cotbench.cli.terminal import echo, echo_error, echo_json

_WEB = ("fastapi", "uvicorn", "jinja2", "python_multipart")
_BACKLOG = 2048
app = leaderboard_rerun.app
tokens = typer.Typer(help="Tokens for submitting over the web.", no_args_is_help=True, add_completion=False)
app.add_typer(tokens, name="token")


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; any other than a loopback address requires tokens")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one")] = 8000,
    rate: Annotated[int, typer.Option(min=1, help="Submissions per minute from one address")] = 600,
    connections: Annotated[int, typer.Option(min=1, help="Open connections per address; behind a proxy: in total")] = 100,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="A host name under which the server is reached; may be repeated")
    ] = None,
    import_: Import = None,
    db: Db = None,
) -> int:
    """Serve the leaderboard on the web: tables, entries, episodes to step through, a form and an API for submitting."""
    require_leaderboard(*_WEB)
    import socket

    from cotbench.errors import UsageError
    from cotbench.leaderboard.web.app import server_of
    from cotbench.leaderboard.web.settings import Settings

    with opened_store(db) as store:
        wanted = store.has_tokens()
        if not wanted and not Settings(host, port, token_required=True).loopback:
            raise UsageError(
                f"--host {host} can be reached from outside, so submitting needs a token: make one first with: "
                "cotbench leaderboard token new NAME"
            )
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.socket(family)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(_BACKLOG)
        except OSError as error:
            listening.close()
            raise UsageError(f"cannot listen on {host}:{port} ({error.strerror}): choose another --port or --host") from error
        bound = listening.getsockname()[1]
        settings = Settings(
            host, bound, token_required=wanted, hosts=tuple(allow_host or ()), rate=rate, connections=connections
        )
        url_host = f"[{host}]" if ":" in host else host
        echo(f"leaderboard {store.database.name} on http://{url_host}:{bound} (Ctrl-C ends it)")
        server_of(store, settings).run(sockets=[listening])
    return 0


@app.command()
def export(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder", show_default=False)],
    db: Db = None,
) -> int:
    """Write the leaderboard as a static site: HTML and JSON, for any web server."""
    require_leaderboard("jinja2")
    from cotbench.leaderboard.web.site import write_site

    with opened_store(db) as store:
        index = write_site(store, out)
    echo(str(index))
    return 0


@tokens.command("new")
def token_new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who the token is for", show_default=False)], db: Db = None
) -> int:
    """Make a token and show it, only this once."""
    with opened_store(db) as store:
        token = store.new_token(name)
    echo_error("shown only once; to submit with it, set COTBENCH_LEADERBOARD_TOKEN to:")
    echo(token)
    return 0


@tokens.command("list")
def token_list(db: Db = None, json_: Json = False) -> int:
    """List who has tokens."""
    import json

    with opened_store(db) as store:
        rows = store.tokens()
    if json_:
        echo_json(json.dumps([{"name": row.name, "created": row.created.isoformat()} for row in rows], indent=2))
        return 0
    for row in rows:
        echo(f"{row.name}  {row.created:%Y-%m-%d %H:%M} UTC")
    if not rows:
        echo("no tokens: make one with: cotbench leaderboard token new NAME")
    return 0


@tokens.command("revoke")
def token_revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose token to revoke", show_default=False)], db: Db = None
) -> int:
    """Revoke a token."""
    with opened_store(db) as store:
        store.revoke(name)
    echo(f"revoked the token of {name}")
    return 0
