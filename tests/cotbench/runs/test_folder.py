"""Folders of results: one writer, locked before anything is written, and readable where there are no locks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotbench.agents.random import RandomAgent
from cotbench.cli import run_cli
from cotbench.errors import RunFolderError
from cotbench.runs.folder import LOCK, FolderKind, lock_folder, make_folder, open_folder
from cotbench.runs.manifest import MANIFEST, RUN_FOLDER, RunConfig
from cotbench.runs.plan import make_plan
from cotbench.runs.results import load_run
from cotbench.runs.runner import Resources, SilentObserver, resume_run, run, start_run
from cotbench.runs.suite import write_suite

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
        with pytest.raises(RunFolderError, match=r"holds another thing: its a is 1, not 2; leave the option away"):
            opened.check_identity({"a": 1}, {"a": 2})


def test_what_fails_before_it_writes_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_folder(tmp_path / "new", THING):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
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


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_system_without_locks_is_not_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    for shared in (False, True):
        (tmp_path / LOCK).touch()
        said = f"cannot lock .*{os.strerror(number)}.*choose another --out"
        with pytest.raises(RunFolderError, match=said) as raised, lock_folder(tmp_path, "x", shared=shared):
            pass
        assert "in use" not in str(raised.value)


def test_reading_works_without_fcntl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(CONFIG, out=tmp_path / "run", agent=RandomAgent())
    for name in [name for name in sys.modules if name.startswith("cotbench.runs")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    from cotbench.runs import folder, results

    assert len(results.load_run(tmp_path / "run").records) == 2
    with folder.lock_folder(tmp_path / "run", "x", shared=True):
        pass
    with pytest.raises(RunFolderError, match="has no fcntl"), folder.lock_folder(tmp_path, "x"):
        pass


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
        with pytest.raises(RunFolderError, match=f"is not empty; go on with: cotbench run --resume {folder}"):
            _start(folder)
        assert _content(folder) == before
    assert load_run(folder).records == outcome.episodes


def test_two_starts_of_a_suite(tmp_path: Path) -> None:
    plans = [make_plan(CONFIG)]
    write_suite(tmp_path, plans, None)
    before = (tmp_path / "suite.json").read_bytes()
    with pytest.raises(RunFolderError, match="is not empty; go on with: cotbench run --resume"):
        write_suite(tmp_path, [make_plan(CONFIG.model_copy(update={"seed": 1}))], None)
    assert (tmp_path / "suite.json").read_bytes() == before


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
