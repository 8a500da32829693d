"""A process that carries out the blocks of pages. Invariant: each command and each script runs as in a process of its own, in
the folder of its page.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.docs.blocks import Block, read_blocks, resized, setting_of

_WORKER = textwrap.dedent(
    """
    import io, json, os, runpy, sys, traceback
    from contextlib import redirect_stderr, redirect_stdout
    import gymnasium, numpy, pandas, rich.console, scipy.stats
    from cotbench.cli import run_cli

    def carry_out(kind, content):
        if kind == "command":
            return run_cli(content)
        sys.path.insert(0, os.getcwd())
        try:
            if kind == "file":
                runpy.run_path(content, run_name="__main__")
            else:
                exec(compile(content, "<block>", "exec"), {"__name__": "__main__"})
        except Exception:
            traceback.print_exc()
            return 1
        return 0

    for line in iter(sys.__stdin__.readline, ""):
        kind, content, folder = json.loads(line)
        child = os.fork()  # As fresh as a process of its own, without loading the libraries again.
        if child == 0:
            os.chdir(folder)
            sys.stdin, out, err = io.StringIO(), io.StringIO(), io.StringIO()
            with redirect_stdout(out), redirect_stderr(err):
                code = carry_out(kind, content)
            print(json.dumps([code, out.getvalue(), err.getvalue()]), file=sys.__stdout__, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
    """
)


class Printed(NamedTuple):
    """What a block printed to standard output, and to standard error."""

    out: str
    err: str


class Session:
    """Carries out blocks, one page after the other."""

    def __init__(self, home: Path) -> None:
        self._environment = os.environ | {
            "COTBENCH_LEADERBOARD": str(home / "leaderboard.db"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _WORKER],
            cwd=home,
            env=dict(self._environment),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self) -> Self:
        """Return the session, which is closed at the end."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """End the process."""
        self._process.communicate(timeout=60)

    def run(self, block: Block, folder: Path) -> Printed:
        """Carry out a block in a folder, and return what it printed.

        Raises:
            AssertionError: a command or a script failed.
        """
        if block.language == "python":
            return self.run_code(block.text, folder)
        printed = [self._command(words, folder) for words in block.commands]
        return Printed("".join(one.out for one in printed), "".join(one.err for one in printed))

    def run_code(self, code: str, folder: Path) -> Printed:
        """Carry out a script in a folder, and return what it printed.

        Raises:
            AssertionError: it failed.
        """
        return self._send("code", code, folder)

    def _command(self, words: list[str], folder: Path) -> Printed:
        if words[0] == "cotbench":
            return self._send("command", words[1:], folder)
        if words[:2] == ["pip", "install"]:
            return Printed("", "")  # Checked by its extras.
        assert words[0] == "python" and len(words) == 2, f"a page's command is cotbench, python FILE or pip install: {words}"
        return self._send("file", words[1], folder)

    def _send(self, kind: str, content: str | list[str], folder: Path) -> Printed:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps([kind, content, str(folder)]), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, f"the process ended at: {content}"
        code, out, err = json.loads(answer)
        assert code == 0, f"{content}\n{out}{err}"
        return Printed(out, err)


def play_page(session: Session, page: Path, folder: Path) -> list[tuple[Block, str]]:
    """Carry out a page's blocks, and return its output blocks with what was printed.

    Args:
        session: the process.
        page: the page.
        folder: a new folder for it.
    """
    setting = setting_of(page)
    for path in setting.files:
        (shutil.copytree if path.is_dir() else shutil.copy)(path, folder / path.name)
    printed, found = Printed("", ""), []
    for block in read_blocks(page):
        if block.is_output:
            found.append((block, _shown(printed.out)))
        elif block.title:
            (folder / block.title).write_text(block.text, "utf-8")
        elif block.is_run:
            printed = session.run(resized(block, setting.sizes), folder)
    return found


def _shown(text: str) -> str:
    """Return a text as a page shows it: without blanks at the ends of lines, and empty lines around it."""
    lines = [line.rstrip() for line in text.splitlines()]
    while lines and not lines[0]:
        lines.pop(0)
    while lines and not lines[-1]:
        lines.pop()
    return "".join(f"{line}\n" for line in lines)
