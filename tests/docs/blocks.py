"""The code blocks of the documentation. Invariant: every block has a language that says what is done with it, and one that is
not run says why.

- ```` ```bash ```` holds commands, ```` ```python ```` a script; with `title="FILE"` any block is a file that the reader saves.
- A page begins with `<!-- page: default -->` or `<!-- page: slow, needs MODULE, MODULE -->`: which suite runs its blocks, from
  top to bottom, in one folder. A page without it has no block to run.
- `<!-- sizes: --episodes 300 = 40; --states 60 = 12 -->`: with what smaller numbers its commands are run here.
- `<!-- file: NAME -->` puts a file or folder of `examples/` into that folder first.
- `<!-- block: skip, REASON -->` before a block: it is not run; its commands are parsed all the same.
- `<!-- example: FILE -->` stands for the block that holds a file of `examples/`, under its name.
- `<!-- block: output -->` before a ```` ```text ```` block: it is what the block before it prints.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
EXAMPLES = [path.name for path in sorted((ROOT / "examples").glob("*.py"))]
RUN = ("bash", "python")
FILES = ("python", "toml", "json", "yaml")
_FENCE = re.compile(
    r"(?:<!-- block: (?P<mark>.*?) -->\n\s*)?^(?P<indent> *)```(?P<language>[\w+-]*)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_EXAMPLE = re.compile(r"^<!-- example: ([\w.]+) -->$", re.MULTILINE)
_PAGE = re.compile(r"^<!-- page: (default|slow)(?:, needs ([\w, ]+))? -->$", re.MULTILINE)
_SIZES = re.compile(r"^<!-- sizes: (.+) -->$", re.MULTILINE)
_FILE = re.compile(r"^<!-- file: ([\w./]+) -->$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A code block of a page.

    Attributes:
        line: where it begins.
        language: after the fence.
        title: the file that a reader saves it as; empty: none.
        mark: "skip, REASON", "output" or empty.
        text: without the fences.
        span: place of the text in the page.
    """

    line: int
    language: str
    title: str
    mark: str
    text: str
    span: tuple[int, int]

    @property
    def is_output(self) -> bool:
        """Whether it is what the block before it prints."""
        return self.mark == "output"

    @property
    def is_run(self) -> bool:
        """Whether it is carried out."""
        return self.language in RUN and not self.title and not self.mark.startswith("skip")

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a `bash` block; comments left out, continued lines joined."""
        joined = self.text.replace("\\\n", " ")
        return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def pages() -> list[Path]:
    """Return the pages that people write, sorted."""
    return sorted(path for path in DOCS.rglob("*.md"))


def read_blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, in their order."""
    text = page.read_text("utf-8")
    found = []
    for match in _FENCE.finditer(text):
        indent = match["indent"]
        lines = [line.removeprefix(indent) for line in match["text"].splitlines()]
        found.append(
            Block(
                text.count("\n", 0, match.start("language")) + 1,
                match["language"],
                match["title"] or "",
                match["mark"] or "",
                "".join(f"{line}\n" for line in lines),
                match.span("text"),
            )
        )
    for match in _EXAMPLE.finditer(text):
        source = (ROOT / "examples" / match[1]).read_text("utf-8")
        found.append(Block(text.count("\n", 0, match.start()) + 1, "python", match[1], "", source, match.span()))
    return sorted(found, key=lambda block: block.line)


@dataclass(frozen=True, slots=True)
class PageSetting:
    """What a page says of how it is run.

    Attributes:
        suite: "default", "slow", or empty where the page has nothing to run.
        needs: modules without which it cannot be run.
        files: files and folders of `examples/` that lie where it is run.
        sizes: option with its number, as its commands have it -> as they are run.
    """

    suite: str
    needs: tuple[str, ...]
    files: tuple[Path, ...]
    sizes: Mapping[str, str]


def setting_of(page: Path) -> PageSetting:
    """Return how a page is run."""
    text = page.read_text("utf-8")
    found = _PAGE.search(text)
    needs = tuple(name.strip() for name in (found[2] or "").split(",") if name.strip()) if found else ()
    files = tuple(ROOT / "examples" / one[1] for one in _FILE.finditer(text))
    pairs = (one.strip().partition(" = ") for line in _SIZES.findall(text) for one in line.split(";"))
    sizes = {given: f"{given.split()[0]} {smaller}" for given, _, smaller in pairs}
    return PageSetting(found[1] if found else "", needs, files, sizes)


def resized(block: Block, sizes: Mapping[str, str]) -> Block:
    """Return a block of commands with other sizes.

    Args:
        block: the block.
        sizes: as a page's setting has them.
    """
    text = block.text
    if block.language == "bash":
        for given, smaller in sizes.items():
            text = re.sub(rf"(?<!\S){re.escape(given)}(?!\S)", smaller, text)
    return replace(block, text=text)
