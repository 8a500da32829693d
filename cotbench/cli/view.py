"""`cotbench view`: a local page over a folder of runs and studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cotbench.cli.flags import Import
from cotbench.cli.terminal import echo

_MODULES = ("starlette", "uvicorn", "jinja2")
_BACKLOG = 128


def view(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder of runs and studies", show_default=".")] = Path(),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1", show_default="a free one")] = 0,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser")] = False,
    import_: Import = None,
) -> int:
    """Show a folder of runs and studies as a local page, live while they run."""
    from importlib.util import find_spec

    from cotbench.errors import MissingExtraError, UsageError

    if any(find_spec(module) is None for module in _MODULES):
        raise MissingExtraError("cotbench view", "view")
    import socket

    from cotbench.view.app import server_of
    from cotbench.view.library import Library

    library = Library(folder)
    with socket.socket(socket.AF_INET) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
            listening.listen(_BACKLOG)
        except OSError as error:
            raise UsageError(f"cannot listen on 127.0.0.1:{port} ({error.strerror}): choose another --port") from error
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        echo(f"{library.root} on {address} (Ctrl-C ends it)")
        if open_:
            import webbrowser

            webbrowser.open(address)
        server_of(library).run(sockets=[listening])
    return 0
