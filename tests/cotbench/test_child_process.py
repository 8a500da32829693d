"""Processes of cotbench's own: how they start, how they end, what is said when they do not start."""

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from cotbench import child_process
from cotbench.child_process import ChildProcess, block_interrupts
from cotbench.errors import EngineError

ROOT = Path(__file__).resolve().parents[2]

TOY = """
import os
import pathlib
import signal
import sys
import threading
import time

WORD = "toy"
pathlib.Path(__file__).with_name(f"imported-{os.getpid()}").touch()


def serve(pipes, word):
    for pipe in pipes:
        pipe.send((word, os.getpid(), sys.path[0]))
    for pipe in pipes:
        try:
            pipe.recv()
        except EOFError:
            pass


def ignore_pipes(pipes):
    pipes[0].send(os.getpid())
    time.sleep(120)


def fail(pipes):
    print("a warning", file=sys.stderr)
    raise ValueError("the engine is broken")


def tell_signals(pipes):
    pipes[0].send((signal.getsignal(signal.SIGINT) == signal.SIG_IGN, signal.pthread_sigmask(signal.SIG_BLOCK, [])))
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that lies in a folder which this process alone has on its path."""
    (tmp_path / "toy_served.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    import toy_served  # type: ignore[import-not-found]

    yield toy_served
    del sys.modules["toy_served"]


def _gone(pid: int, seconds: float = 10) -> bool:
    """Whether a process that is not our child ends in time; a zombie has ended."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
        if not state.strip() or state.startswith("Z"):
            return True
        time.sleep(0.05)
    return False


def test_a_function_is_served_over_pipes(toy: Any) -> None:
    child = ChildProcess(toy.serve, ("hello",), pipes=2)
    for pipe in child.pipes:
        assert wait([pipe], 60) == [pipe]
        word, pid, first = pipe.recv()
        assert (word, pid) == ("hello", child.pid) and first not in ("", str(Path.cwd()))
    assert child.alive
    child.close(patience=30)
    assert not child.alive and child._process.returncode == 0, "it ended by itself"
    child.close()


def test_plugins_are_imported_first(tmp_path: Path, toy: Any) -> None:
    plugin = tmp_path / "my_plugin.py"
    plugin.write_text("import pathlib, os\npathlib.Path(__file__).with_suffix('.seen').write_text(str(os.getpid()))\n")
    child = ChildProcess(toy.serve, ("hello",), plugins=[str(plugin)])
    child.pipes[0].recv()
    assert plugin.with_suffix(".seen").read_text() == str(child.pid)
    child.close()


def _fails(start: Callable[[], ChildProcess]) -> str:
    child = start()
    with pytest.raises(EOFError):
        child.pipes[0].recv()
    try:
        return child.ending()
    finally:
        child.close()


def test_what_does_not_start_says_why(tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text("import nothing_of_that_name\n")
    ending = _fails(lambda: ChildProcess(toy.serve, ("hello",), plugins=[str(plugin)]))
    assert ending.startswith("ended while it started (exit code 1): --import") and "'nothing_of_that_name'" in ending
    monkeypatch.setattr(child_process, "python_command", lambda *_: [sys.executable, "-P", "-m", "cotbench.nothing"])
    assert "No module named cotbench.nothing" in _fails(lambda: ChildProcess(toy.serve, ("hello",)))
    monkeypatch.setattr(child_process, "python_command", lambda *_: ["/nothing/python"])
    with pytest.raises(EngineError, match=r"cannot start a process .*No such file"):
        ChildProcess(toy.serve, ("hello",))


def test_what_fails_later_says_why_too(toy: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert _fails(lambda: ChildProcess(toy.fail)) == "died (exit code 1): ValueError: the engine is broken"
    assert "a warning\n" in capfd.readouterr().err, "its standard error is seen"


def test_what_takes_too_long_to_start_is_ended(tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = tmp_path / "slow.py"
    plugin.write_text("import time\ntime.sleep(100)\n")
    monkeypatch.setattr(child_process, "START_SECONDS", 0.5)
    begun = time.monotonic()
    assert _fails(lambda: ChildProcess(toy.serve, ("hello",), plugins=[str(plugin)])) == "did not start within 0.5 s"
    assert time.monotonic() - begun < 50


def test_what_has_started_may_take_its_time(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    child = ChildProcess(toy.serve, ("hello",))
    child.pipes[0].recv()
    child_process._kill_if_not_started(child._process, child._control, child._late)
    assert child.alive and not child._late.is_set()
    child.close()


def test_it_hears_no_interrupt(toy: Any) -> None:
    child = ChildProcess(toy.tell_signals)
    ignored, blocked = child.pipes[0].recv()
    assert ignored and signal.SIGINT in blocked
    child.close()


def test_an_interrupt_while_a_process_starts_is_heard_afterwards(toy: Any) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        with block_interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            child = ChildProcess(toy.serve, ("hello",))
            os.kill(child.pid, signal.SIGINT)
        assert heard == [signal.SIGINT]
        assert child.pipes[0].recv()[0] == "hello"
        child.close()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("function", ["ignore_pipes", "serve"])
def test_it_ends_with_a_parent_that_is_killed(toy: Any, tmp_path: Path, function: str) -> None:
    arguments = {"ignore_pipes": (), "serve": ("hello",)}[function]
    code = f"""
import sys, time
sys.path.append({str(tmp_path)!r})
import toy_served
from cotbench.child_process import ChildProcess
child = ChildProcess(toy_served.{function}, {arguments!r})
child.pipes[0].recv()
print(child.pid, flush=True)
time.sleep(100)
"""
    parent = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    assert _gone(pid)
    parent.stdout.close()


# How processes are started in all of cotbench

_FORBIDDEN = {
    *("multiprocessing.Process", "multiprocessing.Pool", "multiprocessing.Manager", "multiprocessing.get_context"),
    *("concurrent.futures.ProcessPoolExecutor", "os.fork", "os.forkpty", "os.system", "os.popen", "os.posix_spawn"),
    *("pty.fork", "pty.spawn", "asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell"),
}
_NOT_OURS = {"cotbench/agents/vllm.py", "cotbench/parent_death.py", "envs/bfcl/worker.py"}
"""Start programs of others, or fork, which starts no interpreter: a copy imports nothing anew."""


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _starts(tree: ast.Module) -> list[str]:
    """What in a file starts a process otherwise than as `python -P -m`."""
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = []
    fine = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found += sorted(names & _FORBIDDEN)
        elif isinstance(node, ast.List) and node.elts and _dotted(node.elts[0]) == "sys.executable":
            rest: list[ast.expr] = []
            for element in node.elts[1:]:
                value = constants.get(_dotted(element.value)) if isinstance(element, ast.Starred) else None
                rest += value.elts if isinstance(value, ast.Tuple) else [element]
            if [part.value for part in rest[:2] if isinstance(part, ast.Constant)] == ["-P", "-m"]:
                fine.add(node.elts[0])
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            name = _dotted(node)
            if name in _FORBIDDEN or name.startswith(("os.exec", "os.spawn")):
                found.append(name)
            elif name == "sys.executable" and node not in fine and not _is_tested(tree, node):
                found.append(f"{name} in line {node.lineno}")
    return found


def _is_tested(tree: ast.Module, node: ast.Attribute) -> bool:
    return any(
        isinstance(parent, ast.UnaryOp) and isinstance(parent.op, ast.Not) and parent.operand is node
        for parent in ast.walk(tree)
    )


def test_no_child_is_started_otherwise() -> None:
    files = [path for room in ("cotbench", "envs", "baselines", "leaderboard") for path in (ROOT / room).rglob("*.py")]
    assert len(files) > 100
    found = {str(path.relative_to(ROOT)): _starts(ast.parse(path.read_text())) for path in files}
    assert {name: starts for name, starts in found.items() if starts and name not in _NOT_OURS} == {}


@pytest.mark.parametrize(
    "code",
    [
        "subprocess.Popen([sys.executable, '-m', 'cotbench'])",
        "subprocess.Popen([sys.executable, *WORKER])",
        "python = sys.executable",
        "from concurrent.futures import ProcessPoolExecutor",
        "multiprocessing.get_context('spawn')",
        "os.execv('python', [])",
    ],
)
def test_the_check_above_finds(code: str) -> None:
    assert _starts(ast.parse(f"WORKER = ('-m', 'cotbench')\n{code}"))


def test_the_check_above_lets_pass() -> None:
    code = "WORKER = ('-P', '-m', 'cotbench')\nrun([sys.executable, *WORKER])\nrun([sys.executable, '-P', '-m', name])"
    assert _starts(ast.parse(code)) == []
