"""What is printed: no text of a model, a server, a file or a person does anything to a terminal, whatever the terminal is; and
no key pressed too often ends a command in a traceback.
"""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cotbench
from cotbench.agents import registry as agents
from cotbench.child_process import ErrorOutput
from cotbench.cli import run_cli
from cotbench.cli.terminal import console, text_column
from cotbench.errors import AgentError
from cotbench.printable import one_line, printable, printable_json
from cotbench.prompting.query import Decision, Query
from tests.cotbench.report.pages import needs_report
from tests.faults.hostile_texts import CONTROL, INVISIBLE

ROOT = Path(__file__).resolve().parents[2]
EVIL = "\x1b]0;owned\x07\x1b[2J\u202egnp.exe\u2066\x9b31m\u200b[red]x[/red]\r\x7f"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\u202egnp.exe\u2066\x9b31m\u200b[red]x[/red]"
UNSEEN = frozenset([*CONTROL, *INVISIBLE]) - {"\n", "\t"}
GAMES = ("--task", "alfworld/gen/pick/0", "--max-steps", "3")


def _harmless(text: str) -> bool:
    return not UNSEEN.intersection(text)


# Texts


@given(st.text())
def test_a_printable_text_does_nothing_and_stays_printable(text: str) -> None:
    shown = printable(text)
    assert _harmless(shown) and printable(shown) == shown and shown.encode("utf-8") is not None
    assert all(line.isprintable() or "\t" in line or re.search(r"[^\S ]", line) for line in shown.split("\n"))
    assert "\n" not in one_line(text)


@settings(max_examples=30)
@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_printable_json_has_the_same_value(value: Any) -> None:
    for indent in (None, 2):
        text = printable_json(json.dumps(value, ensure_ascii=False, indent=indent))
        assert json.loads(text) == value and _harmless(text)


def test_what_is_usual_stays_as_it_is() -> None:
    for text in ("plain\ttext\n", "größer ≥ 0.5 – ok", "日本語", "👍", "a\u00a0b", r"back\slash [red]"):
        assert printable(text) == text
    assert printable(EVIL) == SHOWN + r"\r\x7f"
    assert printable("a\ud800") == r"a\ud800"


def test_a_console_and_a_bar_show_texts_as_texts(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

    screen = console()
    screen.print(EVIL)
    table = Table(EVIL, title=EVIL)
    table.add_row(Text(EVIL))
    table.add_row(EVIL)
    screen.print(table, Text(EVIL))
    with Progress(text_column("{task.description}"), text_column("{task.fields[more]}"), console=console()) as bar:
        bar.add_task(EVIL, more=EVIL)
    found = capsys.readouterr().out
    assert _harmless(found) and found.count("owned") >= 7 and "[red]x[/red]" in found


def test_commands_print_through_one_file_alone() -> None:
    """What is printed otherwise would not be printable."""
    forbidden = {"print", "typer.echo", "typer.secho", "Console", "TextColumn", "sys.stdout.write", "sys.stderr.write"}
    found = []
    for path in sorted((ROOT / "cotbench" / "cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in forbidden and path.name != "terminal.py":
                found.append(f"{path.name}:{node.lineno}")
    assert found == []


# Commands


class Evil:
    """Answers with what nobody wants on a screen; fails with it when it is told to."""

    needs = frozenset({"expert_action"})
    fails = False

    def __init__(self) -> None:
        self.name = "evil-test"

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        if self.fails:
            raise AgentError(f"the server answered {EVIL}")
        return [Decision(EVIL if query.mode == "prompt" else query.expert_action or EVIL, EVIL, EVIL) for query in queries]

    def describe(self) -> dict[str, str]:
        return {"model": EVIL}

    def close(self) -> None: ...


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(agents, "_agents", agents._agents) if hasattr(agents, "_agents") else None
    monkeypatch.setattr(Evil, "fails", False)
    return tmp_path


def _register() -> None:
    if "evil-test" not in agents.agent_names():
        cotbench.register_agent("evil-test")(Evil)


@needs_report
def test_no_command_passes_on_what_does_something_to_a_terminal(here: Path, monkeypatch: Any, capsys: Any) -> None:
    _register()
    shown: dict[str, str] = {}

    def command(*words: str, fails: bool = False, named: str = "") -> str:
        assert (run_cli(list(words)) != 0) == fails, capsys.readouterr()
        out, err = capsys.readouterr()
        assert _harmless(out) and _harmless(err), words
        shown[named or " ".join(words[:2])] = out + err
        return str(out)

    command("run", "--agent", "evil-test", *GAMES, "--out", "r")
    command("run", "--agent", "expert", *GAMES[:2], "--mode", "cot", "--out", "won", named="expert")
    json.loads(command("run", "--agent", "evil-test", *GAMES, "--out", "r2", "--json"))
    monkeypatch.setattr(Evil, "fails", True)
    command("run", "--agent", "evil-test", *GAMES, "--out", "failed", fails=True, named="failed run")
    command("run", "--agent", "evil-test", *GAMES, "--out", "f2", "--debug", fails=True, named="run --debug")
    command("probe", "alignment", "--agent", "evil-test", "--reference", "won", "-n", "2", "--out", "p", fails=True)
    command("judge", "r", "--agent", "evil-test", "--out", "j", fails=True)
    monkeypatch.setattr(Evil, "fails", False)
    command("judge", "r", "--agent", "evil-test", "--out", "j2", fails=True)
    command(
        "traces", "--teacher", "evil-test", "--task", "alfworld/gen/pick/1000", "--max-steps", "3", "--out", "t", fails=True
    )
    command("compare", "r", "r2", "--tasks")
    command("report", "r", "--out", f"page{EVIL[:6]}")
    command("run", "--agent", EVIL, fails=True, named="unknown agent")
    command("run", f"--{EVIL}", fails=True, named="unknown option")
    command(EVIL, fails=True, named="unknown command")
    command("run", "--agent", "random", "--task", EVIL, fails=True, named="unknown task")
    command("report", EVIL.replace("/", ""), fails=True, named="unknown folder")
    command("leaderboard", "submit", "r", "--name", "A", "--db", "b.sqlite", fails=True, named="refused")
    command("leaderboard", "submit", "won", "--name", "A", "--db", "b.sqlite")
    command("leaderboard", "show", EVIL, "--db", "b.sqlite", fails=True)
    command("leaderboard", "list", "--db", "b.sqlite")
    json.loads(command("leaderboard", "list", "--db", "b.sqlite", "--json"))
    command("leaderboard", "verify", "r", fails=True)
    entry = shown["leaderboard submit"].split()[0]
    command("leaderboard", "show", entry, "--db", "b.sqlite", named="show entry")
    json.loads(command("leaderboard", "show", entry, "--db", "b.sqlite", "--json"))
    (here / "study.toml").write_text(f'name = "x"\nmodels = [{json.dumps(EVIL)}]\n')
    command("study", "study.toml", "--dry-run", fails=True)
    manifest = json.loads((here / "r" / "manifest.json").read_text())
    manifest["config"]["agent"] = EVIL
    (here / "r" / "manifest.json").write_text(json.dumps(manifest))
    command("run", "--resume", "r", fails=True, named="foreign folder")
    command("compare", "r", "r2", named="compare foreign")
    for name in ("failed run", "run --debug", "unknown agent", "unknown task", "foreign folder", "compare foreign"):
        assert r"\x1b]0;owned" in shown[name], name


def test_playing_shows_what_an_environment_says_as_text(monkeypatch: Any, capsys: Any) -> None:
    from cotbench.envs.registry import env_entry

    env_class = env_entry("alfworld-gen").loaded_class()
    before = env_class.step

    def step(self: Any, action: str) -> Any:
        observation, *rest, info = before(self, action)
        return observation + EVIL, *rest, {**info, "invalid_action": EVIL}

    monkeypatch.setattr(env_class, "step", step)
    lines = iter(["look", EVIL, "?"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines, None) or (_ for _ in ()).throw(EOFError))
    assert run_cli(["play", "--task", "alfworld/gen/pick/0"]) == 0
    out = capsys.readouterr().out
    assert _harmless(out) and out.count(r"\x1b]0;owned") == 4


def test_what_a_child_process_prints_is_printable(capfd: pytest.CaptureFixture[str]) -> None:
    read, write = os.pipe()
    errors = ErrorOutput(os.fdopen(read, "rb", buffering=0), forwarded=True)
    evil = EVIL.replace("\r", "")  # Where a line ends, as that of a progress bar does.
    data = f"größer {evil}\n".encode()
    for place in range(0, len(data), 3):  # Also in the middle of a character.
        os.write(write, data[place : place + 3])
    os.close(write)
    assert errors.last_line() == f"größer {SHOWN}" + r"\x7f"
    shown = capfd.readouterr().err
    assert _harmless(shown) and "größer" in shown


# Processes

_COTBENCH = [sys.executable, "-P", "-c", "from cotbench.cli import main; main()"]
RUN = ["run", "--agent", "random", *GAMES]


def _ended(words: Sequence[str], folder: Path, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f'"$@" {shell}', "-", *_COTBENCH, *words]
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        cwd=folder,
        env={**os.environ, **environment},
        timeout=300,
    )


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_end_no_command(tmp_path: Path, closed: str) -> None:
    done = _ended([*RUN, "--out", "r"], tmp_path, closed)
    assert done.returncode == 0 and "Traceback" not in done.stderr and "error" not in done.stderr, done.stderr
    assert (tmp_path / "r" / "summary.json").is_file()
    text = (tmp_path / "r" / "episodes.jsonl").read_text()
    assert [json.loads(line)["error"] for line in text.splitlines()] == [None, None], "nothing else was written there"


ENCODINGS = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin": {"PYTHONIOENCODING": "latin-1:strict"},
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_terminal_without_our_characters_ends_no_command(tmp_path: Path, encoding: str) -> None:
    plugin = tmp_path / "umlaut.py"
    plugin.write_text(
        "import cotbench\nfrom cotbench.errors import AgentError\n"
        "@cotbench.register_agent('größer')\n"
        "class Agent:\n    name, needs = 'größer', ()\n"
        "    def decide(self, queries): raise AgentError('日本 👍 größer')\n    def close(self): pass\n"
    )
    done = _ended(["run", "--import", "umlaut.py", "--agent", "größer", *GAMES, "--out", "ü"], tmp_path, **ENCODINGS[encoding])
    assert "Traceback" not in done.stderr and done.returncode in (1, 2), done.stderr
    assert r"\u65e5\u672c \U0001f44d" in done.stderr or "not UTF-8" in done.stderr


def test_a_full_disk_under_the_output_is_one_line(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is a device of Linux")
    for words in (["list", "envs"], [*RUN, "--out", "r"]):
        done = _ended(words, tmp_path, "> /dev/full")
        assert done.returncode == 1 and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
        assert "No space left on device" in done.stderr.splitlines()[-1]


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    done = _ended(["list", "tasks", "--env", "alfworld-gen", "--split", "train"], tmp_path, "| head -1 > /dev/null")
    assert done.stderr == ""


_INTERRUPTED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from cotbench.cli import main; main()"


def _on_terminal(words: Sequence[str], folder: Path, act: Callable[[subprocess.Popen[bytes]], None]) -> tuple[int, str]:
    """The exit code of a command whose streams are a terminal, and what stood there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _INTERRUPTED, *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "200"},
    )
    os.close(theirs)
    shown, acted = b"", False
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if not acted and b"won" in shown:
            acted = True
            act(process)
        if select.select([ours], [], [], 0.05)[0]:
            try:
                shown += os.read(ours, 1 << 16)
            except OSError:
                break
    os.close(ours)
    return process.wait(30), shown.decode("utf-8", "replace")


@pytest.mark.parametrize("rounds", [1, pytest.param(15, marks=pytest.mark.slow)])
@pytest.mark.parametrize("pause", [0.0, 0.05, pytest.param(0.3, marks=pytest.mark.slow)])
def test_ten_quick_interrupts_are_one(tmp_path: Path, pause: float, rounds: int) -> None:
    def press(process: subprocess.Popen[bytes]) -> None:
        for _ in range(10):
            process.send_signal(signal.SIGINT)
            time.sleep(pause)

    words = ["run", "--agent", "random", "--split", "train", "--episodes", "400", "--max-steps", "30", "--workers", "1"]
    for number in range(rounds):
        code, shown = _on_terminal([*words, "--out", str(number)], tmp_path, press)
        assert code in (130, -signal.SIGINT) and "Traceback" not in shown and "Exception ignored" not in shown, shown[-3000:]
        assert "interrupted" in shown


@settings(max_examples=20)
@given(st.text())
def test_warnings_are_printable(text: str) -> None:
    from cotbench.cli.terminal import _PrintableFormatter

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_PrintableFormatter())
    handler.emit(logging.LogRecord("x", logging.WARNING, "f", 1, "a server said %s", (text,), None))
    assert _harmless(stream.getvalue())
