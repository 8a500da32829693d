"""What mkdocs does beyond `mkdocs.yml`: pages of the commands, tables of what is registered, the splits as data.

Invariant: nothing that a page takes from the code is written down; it is made at each build.
"""

from __future__ import annotations

import re
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from command_reference import COMMANDS, FOLDER, command_pages
from registered import TABLES

from cotbench.cli import run_cli

_ROOT = Path(__file__).resolve().parents[2]
_MARK = re.compile(r"^<!-- table: ([\w-]+)(?: ([\w-]+))? -->$", re.MULTILINE)
_EXAMPLE = re.compile(r"^<!-- example: ([\w.]+) -->$", re.MULTILINE)
_SOURCES = tempfile.TemporaryDirectory(prefix="cotbench-docs-")


def on_config(config: Any) -> Any:
    """Let mkdocstrings read the checkout's sources, laid out by links as they are installed; list the pages of the commands in
    the navigation.
    """
    package = Path(_SOURCES.name) / "cotbench"
    package.mkdir(exist_ok=True)
    places = {path.name: path for path in (_ROOT / "cotbench").iterdir()}
    places |= {name: _ROOT / name for name in ("envs", "baselines", "leaderboard")}
    for name, path in places.items():
        if not (package / name).exists():
            (package / name).symlink_to(path)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [_SOURCES.name]
    config.nav = _with_commands(config.nav)
    return config


on_config.mkdocs_priority = 100  # type: ignore[attr-defined]  # Before mkdocstrings reads where the sources are.


def _with_commands(nav: Any) -> Any:
    """Return the navigation with the commands' pages below their index."""
    if isinstance(nav, list):
        return [_with_commands(one) for one in nav]
    if isinstance(nav, dict):
        return {title: _with_commands(one) for title, one in nav.items()}
    return [nav, *({f"cotbench {name}": f"{FOLDER}/{name}.md"} for name in COMMANDS)] if nav == f"{FOLDER}/index.md" else nav


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the commands, and the table of all splits with its metadata."""
    from mkdocs.structure.files import File

    for page in command_pages():
        files.append(File.generated(config, page.path, content=page.text))
    data = Path(_SOURCES.name) / "data"
    with redirect_stdout(StringIO()):
        run_cli(["data", "splits", str(data)])
    for path in sorted(data.iterdir()):
        files.append(File.generated(config, f"data/{path.name}", content=path.read_bytes()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put a table in place of `<!-- table: KIND NAME -->`, and a script in place of `<!-- example: FILE -->`."""
    markdown = _EXAMPLE.sub(lambda found: _example(found[1]), markdown)
    return _MARK.sub(lambda found: TABLES[found[1]](*(part for part in (found[2],) if part)), markdown)


def _example(name: str) -> str:
    text = (_ROOT / "examples" / name).read_text("utf-8")
    return f'```python title="{name}"\n{text}```'
