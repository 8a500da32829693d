"""Folders of results: one writer, locked before anything is written, and readable where there are no locks."""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotbench.agents.random import RandomAgent
from cotbench.cli import run_cli
from cotbench.errors import RunFolderError
from cotbench.file_lock import OWNER, file_lock
from cotbench.runs.folder import LOCK, FolderKind, lock_folder, make_folder, open_folder
from cotbench.runs.manifest import MANIFEST, RUN_FOLDER, RunConfig
from cotbench.runs.plan import make_plan
from cotbench.runs.results import load_run
from cotbench.runs.runner import Resources, SilentObserver, new_run_folder, resume_run, run, start_run
from cotbench.runs.suite import SUITE_FOLDER, write_suite

THING = FolderKind(noun="thing", writer="cotbench make", manifest="thing.json")
CONFIG = RunConfig(agent="random", tasks=("alfworld/gen/look/1",), max_steps=2)
IN_USE = "is in use by another cotbench {}: wait for it, or choose another --out"


def _content(folder: Path) -> dict[str, Any]:
    return {str(path): path.is_file() and (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


def _start(folder: Path) -> Any:
    return start_run(make_plan(CONFIG), folder, agent=RandomAgent(), resources=Resources(), observer=SilentObserver())


def test_a_folder_is_locked_for_as_long_as_it_is_open(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with open_folder(folder, THING) as opened:
        assert not opened.begun
        opened.begin('{"a": 1}')
        before = _content(folder)
        with pytest.raises(RunFolderError, match=IN_USE.format("make")), open_folder(folder, THING):
            pass
        child = (
            f"from pathlib import Path\nfrom cotbench.runs.folder import *\nwith lock_folder(Path({str(folder)!r}), 'x'): pass"
        )
        done = subprocess.run([sys.executable, "-P", "-c", child], capture_output=True, text=True, check=False)
        assert "is in use by another x" in done.stderr
        assert _content(folder) == before
    with open_folder(folder, THING) as opened:
        assert opened.begun
        opened.begin('{"a": 2}')
        assert (folder / "thing.json").read_text() == '{"a": 1}\n', "it stays what it was begun as"
        with pytest.raises(RunFolderError, match=r"holds another thing: its a is 1, not 2; omit the option"):
            opened.check_identity({"a": 1}, {"a": 2})


def test_what_fails_before_it_writes_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_folder(tmp_path / "new", THING):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), open_folder(tmp_path / "outer" / "inner" / "new", THING, new_run_folder):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == [], "nor the folders that were made for it to lie in"
    (tmp_path / "there").mkdir()
    with pytest.raises(ZeroDivisionError), open_folder(tmp_path / "there", THING):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.rglob("*")] == ["there"], "no lock file, but the folder is not ours to remove"
    with pytest.raises(ZeroDivisionError), open_folder(tmp_path / "begun", THING) as opened:
        opened.begin("{}")
        raise ZeroDivisionError
    assert {path.name for path in (tmp_path / "begun").iterdir()} == {"thing.json", LOCK}


def test_a_folder_of_somebody_elses_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("...")
    with (
        pytest.raises(RunFolderError, match="is not empty; go away"),
        open_folder(tmp_path, THING, lambda folder: make_folder(folder, "go away")),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_who_comes_second_is_refused_under_the_lock(tmp_path: Path) -> None:
    """Both found the folder empty; the other one has begun by the time that this one holds the lock."""
    calls: list[int] = []

    def check(folder: Path) -> None:
        make_folder(folder, "go on with it")
        calls.append(len(calls))
        if len(calls) == 1:
            with open_folder(folder, THING) as other:
                other.begin("{}")

    with pytest.raises(RunFolderError, match="is not empty; go on with it"), open_folder(tmp_path / "new", THING, check):
        pass
    assert (tmp_path / "new" / "thing.json").read_text() == "{}\n"


def test_the_lock_of_a_file_that_was_removed_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between opening the lock file and locking it, whoever held it may have removed it."""
    import fcntl

    real, removed = fcntl.flock, list[Path]()

    def flock(handle: int, how: int) -> None:
        if not removed:
            removed.append(tmp_path / LOCK)
            (tmp_path / LOCK).unlink()
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock_folder(tmp_path, "x"):
        monkeypatch.undo()
        with pytest.raises(RunFolderError, match="in use"), lock_folder(tmp_path, "x"):
            pass


def _failing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES])
def test_a_lock_that_somebody_holds_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    _failing(monkeypatch, number)
    for shared in (False, True):
        (tmp_path / LOCK).touch()
        with (
            pytest.raises(RunFolderError, match=f"{tmp_path} is in use by another x: wait"),
            lock_folder(tmp_path, "x", shared=shared),
        ):
            pass


@pytest.mark.parametrize("number", [errno.EIO, errno.EBADF, errno.EINTR])
def test_an_error_of_the_lock_is_not_in_use_and_keeps_no_reader_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    _failing(monkeypatch, number)
    (tmp_path / LOCK).touch()
    said = re.escape(f"cannot lock {tmp_path} ({os.strerror(number)}): choose another --out, on a local disk")
    with pytest.raises(RunFolderError, match=f"^{said}$"), lock_folder(tmp_path, "x"):
        pass
    with lock_folder(tmp_path, "x", shared=True):
        pass


NO_LOCKS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL]


@pytest.mark.parametrize("number", NO_LOCKS)
def test_where_a_file_system_has_no_locks_a_file_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    _failing(monkeypatch, number)
    owner = tmp_path / (LOCK + OWNER)
    holder = (
        rf"process {os.getpid()} on {re.escape(socket.gethostname())} since [-0-9: ]+ UTC; if that has ended, remove {owner}"
    )
    with lock_folder(tmp_path, "x"):
        assert owner.is_file()
        for shared in (False, True):
            said = rf"^{tmp_path} is in use by another y \({holder}\): wait for it, or choose another --out$"
            with pytest.raises(RunFolderError, match=said), lock_folder(tmp_path, "y", shared=shared):
                pass
        assert owner.is_file(), "it is the other one's"
    assert list(tmp_path.iterdir()) == []
    with lock_folder(tmp_path, "y"):
        pass
    (tmp_path / LOCK).touch()
    with lock_folder(tmp_path, "y", shared=True):
        assert not owner.exists(), "reading writes nothing"


def test_a_folder_locked_by_a_file_is_in_use_where_there_are_locks_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine has mounted the same file system with locks."""
    with monkeypatch.context() as patch:
        _failing(patch, errno.ENOSYS)
        with lock_folder(tmp_path, "x"):
            patch.undo()
            for shared in (False, True):
                with pytest.raises(RunFolderError, match="in use by another y"), lock_folder(tmp_path, "y", shared=shared):
                    pass
    with lock_folder(tmp_path, "y"):
        pass


@pytest.mark.parametrize("number", NO_LOCKS)
def test_killed_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The file stays, and is never taken over: the message says that it is to be removed, and then all goes on."""
    child = (
        "import fcntl, os, signal\nfrom pathlib import Path\nfrom cotbench.runs.folder import lock_folder\n"
        f"def flock(*_): raise OSError({number}, '')\nfcntl.flock = flock\n"
        f"with lock_folder(Path({str(tmp_path)!r}), 'x'): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", child], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    _failing(monkeypatch, number)
    owner = tmp_path / (LOCK + OWNER)
    with pytest.raises(RunFolderError, match=f"if that has ended, remove {owner}"):
        _start(tmp_path)
    owner.unlink()
    _start(tmp_path)
    resume_run(tmp_path, agent=RandomAgent(), resources=Resources(), observer=SilentObserver())
    assert not owner.exists()


def test_no_room_for_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _failing(monkeypatch, errno.ENOLCK)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.write", full)
    with pytest.raises(RunFolderError, match=r"cannot lock .* \(No space left on device\)"), lock_folder(tmp_path, "x"):
        pass
    monkeypatch.undo()
    assert not (tmp_path / (LOCK + OWNER)).exists()


def test_a_lock_is_waited_for_until_a_deadline(tmp_path: Path) -> None:
    path, order = tmp_path / "lock", list[str]()

    def second() -> None:
        with file_lock(path, wait=30):
            order.append("second")

    with file_lock(path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        with pytest.raises(BlockingIOError), file_lock(path, wait=0.1):
            pass
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_readers_do_not_keep_each_other_away_but_a_writer_does(tmp_path: Path) -> None:
    with lock_folder(tmp_path, "x", shared=True):
        assert list(tmp_path.iterdir()) == [], "reading creates no lock file"
    (tmp_path / LOCK).touch()
    with lock_folder(tmp_path, "x", shared=True), lock_folder(tmp_path, "x", shared=True):
        pass
    with (
        lock_folder(tmp_path, "x"),
        pytest.raises(RunFolderError, match="in use by another x: submit it later"),
        lock_folder(tmp_path, "x", "submit it later", shared=True),
    ):
        pass


def test_a_second_start_of_a_run_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with lock_folder(folder, RUN_FOLDER.writer):  # The first has locked it, and has not written its manifest yet.
        before = _content(folder)
        with pytest.raises(RunFolderError, match=IN_USE.format("run")):
            _start(folder)
        assert _content(folder) == before and not (folder / MANIFEST).exists()
    outcome = _start(folder)
    with lock_folder(folder, RUN_FOLDER.writer):
        before = _content(folder)
        with pytest.raises(RunFolderError, match=IN_USE.format("run")):
            resume_run(folder, agent=RandomAgent(), resources=Resources(), observer=SilentObserver())
        with pytest.raises(RunFolderError, match=f"is not empty; resume with: cotbench run --resume {folder}"):
            _start(folder)
        assert _content(folder) == before
    assert load_run(folder).records == outcome.records


def test_two_starts_of_a_suite(tmp_path: Path) -> None:
    plans = [make_plan(CONFIG)]
    with open_folder(tmp_path, SUITE_FOLDER, new_run_folder) as opened:
        write_suite(opened, plans, None)
        with (
            pytest.raises(RunFolderError, match="is not empty; resume with"),
            open_folder(tmp_path, SUITE_FOLDER, new_run_folder),
        ):
            pass
        with pytest.raises(RunFolderError, match=IN_USE.format("run")), open_folder(tmp_path, SUITE_FOLDER):
            pass


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("played") / "run"
    tasks = ("alfworld/gen/look/1", "alfworld/gen/look/2")
    run(CONFIG.model_copy(update={"tasks": tasks, "agent": "random"}), out=folder, agent=RandomAgent())
    return folder


COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "run": lambda run: ["run", "--agent", "random", "--task", "alfworld/gen/look/1", "--max-steps", "2"],
    "probe": lambda run: ["probe", "alignment", "--agent", "random", "--reference", str(run.parent / "won"), "-n", "2"],
    "judge": lambda run: ["judge", str(run), "--agent", "random"],
    "study": lambda run: ["study", "smoke"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_second_start_of_a_command_changes_nothing(
    command: str, played: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    won = played.parent / "won"
    if command == "probe" and not won.exists():
        assert run_cli(["run", "--agent", "expert", "--task", "alfworld/gen/look/1", "--mode", "cot", "--out", str(won)]) == 0
    capsys.readouterr()
    out = tmp_path / "out"
    out.mkdir()
    with lock_folder(out, "first"):
        before = _content(out)
        assert run_cli([*COMMANDS[command](played), "--out", str(out)]) == 2
        assert IN_USE.format(command) in capsys.readouterr().err
        assert _content(out) == before
