"""How cotbench was installed, and so by which command a part of it is. Invariant: the command works whether or not a release is
on an index: what came from a checkout, a file or an address is installed from there again.

The source is PEP 610's `direct_url.json`, which an installer writes for everything that is not from an index.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import Distribution

_NAME = "cotbench"


def install_command(extra: str = "") -> str:
    """Return the command that installs cotbench with an extra, from where it was installed.

    Args:
        extra: name of the extra; empty: cotbench alone.
    """
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    extras = f"[{extra}]" if extra else ""
    found = _distribution()
    if found is None:  # Python was started in a checkout.
        return _pip(None, "-e", f"{_folder_text(Path(__file__).resolve().parents[1])}{extras}")
    origin = _origin(found)
    url = str(origin.get("url", ""))
    if not url:
        return _pip(found, f"{_NAME}{extras}")
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        revision = vcs.get("requested_revision") or vcs.get("commit_id", "")
        return _pip(found, f"{_NAME}{extras} @ {vcs.get('vcs', 'git')}+{url}{f'@{revision}' if revision else ''}")
    if urlsplit(url).scheme != "file":
        return _pip(found, f"{_NAME}{extras} @ {url}")
    path = Path(url2pathname(urlsplit(url).path))
    if not path.exists():  # A checkout or a wheel that was removed since; what the extra asks for is on an index.
        return _pip(found, *_requirements(found, extra))
    editable = ["-e"] if origin.get("dir_info", {}).get("editable") else []
    return _pip(found, *editable, f"{_folder_text(path)}{extras}")


def install_version(version: str) -> str:
    """Return how to install another version of cotbench.

    Args:
        version: the version.
    """
    found = _distribution()
    if found is not None and not _origin(found):
        return _pip(found, f"{_NAME}=={version}")
    return f"check out version {version} of cotbench and install it"


def _distribution() -> Distribution | None:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return distribution(_NAME)
    except PackageNotFoundError:
        return None


def _origin(found: Distribution) -> dict[str, Any]:
    """Return where it was installed from; empty for an index."""
    import json

    try:
        origin = json.loads(found.read_text("direct_url.json") or "{}")
    except ValueError:
        return {}
    return origin if isinstance(origin, dict) else {}


def _folder_text(path: Path) -> str:
    return "." if path == Path.cwd() else str(path)


def _requirements(found: Distribution, extra: str) -> list[str]:
    """Return the requirements of an extra, those of the extras that it takes in too."""
    wanted = []
    for line in found.requires or ():
        requirement, _, marker = line.partition(";")
        if (f'extra == "{extra}"' in marker.replace("'", '"')) if extra else "extra" not in marker:
            inner = requirement.removeprefix(f"{_NAME}[").partition("]")[0].split(",") if requirement.startswith(_NAME) else []
            wanted += [one for name in inner for one in _requirements(found, name.strip())] or [requirement.strip()]
    return list(dict.fromkeys(wanted))


def _pip(found: Distribution | None, *words: str) -> str:
    import shlex

    installer = "" if found is None else (found.read_text("INSTALLER") or "").strip()
    return f"{'uv pip' if installer == 'uv' else 'pip'} install {shlex.join(words)}"
