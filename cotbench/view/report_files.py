"""The files of a study's report as answers. Invariant: only the files that a report has are given, out of the study's own
folder; whatever a page in their place holds, no script but the report's runs in it, and it reaches no other page of the server.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from starlette.responses import FileResponse, Response

from cotbench.errors import RunFolderError
from cotbench.report.html import INDEX, script_source

_FOLDER = "report"
_NAMES = re.compile(r"(?:(?P<study>.+)/)?(?P<file>index\.html|(?:figures|tables)/[A-Za-z0-9][A-Za-z0-9_.-]*\.(?:csv|tex|pdf))")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".csv": "text/csv; charset=utf-8",
    ".tex": "application/x-tex",
    ".pdf": "application/pdf",
}


_HEADERS = {
    "Cache-Control": "no-cache",
    # A browser refuses a page that is both in a sandbox and in a group of its own.
    "Cross-Origin-Opener-Policy": "unsafe-none",
}


def split_address(path: str) -> tuple[str, str]:
    """Return the study and the file that an address below `/report/` names.

    Args:
        path: the study's folder, relative to the root and left out for the root itself, then the file.

    Raises:
        RunFolderError: a report has no such file.
    """
    found = _NAMES.fullmatch(path)
    if found is None:
        raise RunFolderError(f"a report has no file {path[:200]!r}")
    return found["study"] or ".", found["file"]


def report_response(study: Path, file: str) -> Response:
    """Return the answer with a file of a report.

    Args:
        study: the study's folder.
        file: of its report, as `split_address` returns it.

    Raises:
        RunFolderError: it is not there, or is a link out of the study's folder.
    """
    path = study / _FOLDER / file
    if not path.is_file():
        raise RunFolderError(f"there is no {path}: write the report with cotbench report {study}")
    if not path.resolve().is_relative_to(study.resolve()):
        raise RunFolderError(f"{path} is a link that leads out of {study}: it is not read")
    if file != INDEX:
        name = f'attachment; filename="{path.name}"'
        return FileResponse(path, media_type=_TYPES[path.suffix], headers={**_HEADERS, "Content-Disposition": name})
    return FileResponse(path, media_type=_TYPES[path.suffix], headers={**_HEADERS, "Content-Security-Policy": _policy()})


@cache
def _policy() -> str:
    """Return the policy of a page that may have been written elsewhere: it is of no origin, and loads nothing."""
    return (
        f"sandbox allow-scripts allow-downloads; default-src 'none'; style-src 'unsafe-inline'; script-src {script_source()}; "
        "img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )
