"""Writes anew what the blocks of pages print: `python -m tests.docs.outputs docs/PAGE.md ...`; all pages that have such blocks
when none is named.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.docs.blocks import pages, read_blocks
from tests.docs.session import Session, play_page


def renew(page: Path, session: Session, folder: Path) -> bool:
    """Write the output blocks of a page anew, and tell whether one has changed."""
    before = text = page.read_text("utf-8")
    for block, printed in reversed(play_page(session, page, folder)):
        begin, end = block.span
        text = text[:begin] + printed + text[end:]
    page.write_text(text, "utf-8")
    return text != before


def main() -> None:
    """Renew the pages of the command line."""
    named = [Path(name).resolve() for name in sys.argv[1:]]
    wanted = named or [page for page in pages() if any(block.is_output for block in read_blocks(page))]
    with tempfile.TemporaryDirectory() as home, Session(Path(home)) as session:
        for number, page in enumerate(wanted):
            folder = Path(home) / str(number)
            folder.mkdir()
            print("renewed" if renew(page, session, folder) else "as it was", page)


if __name__ == "__main__":
    main()
