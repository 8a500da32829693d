"""A full disk: at whatever moment, the command says which file it was and by which command it goes on; once there is room, that
command ends with the same result as if nothing had happened.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from cotbench.cli import run_cli
from cotbench.runs import atomic_file
from cotbench.runs.jsonl_store import JsonlStore
from tests.lines import read_objects

# Of different lengths, so that episodes played side by side end in another order than they are planned in.
_TASKS = [word for task in ("heat/1", "look/2", "pick/0") for word in ("--task", f"alfworld/gen/{task}")]
_PLAY = ["run", "--agent", "expert", *_TASKS, "--num-envs", "6"]
_EPISODES = 6
MANIFEST, REWRITE, CARD, SUMMARY = 1, 2 + _EPISODES, 3 + _EPISODES, 4 + _EPISODES
_NAMES = {MANIFEST: "manifest.json", REWRITE: "episodes.jsonl", CARD: "README.md", SUMMARY: "summary.json"}


@contextmanager
def _no_room() -> Iterator[None]:
    """Let no file grow beyond nine bytes: the system refuses what is written, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _fill(monkeypatch: pytest.MonkeyPatch, full: Callable[[Path], bool]) -> None:
    """Let there be no room for the writes that a function of their files chooses."""
    append, replacement = JsonlStore.append, atomic_file.replacement

    def room_for(path: Path) -> AbstractContextManager[None]:
        return _no_room() if full(path) else nullcontext()

    def appended(store: JsonlStore[Any, Any], record: Any) -> None:
        with room_for(Path(store.name)):
            append(store, record)

    @contextmanager
    def replaced(path: Path) -> Iterator[BinaryIO]:
        with room_for(path), replacement(path) as file:
            yield file

    monkeypatch.setattr(JsonlStore, "append", appended)
    monkeypatch.setattr(atomic_file, "replacement", replaced)


def _untimed(folder: Path) -> list[dict[str, object]]:
    return [{**row, "seconds": 0} for row in read_objects(folder / "episodes.jsonl")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run_cli([*_PLAY, "--out", str(folder)]) == 0
    return folder


def _some(values: Iterable[Any], quick: Container[Any]) -> list[Any]:
    """The values of a test; those that are not among the quick ones are slow."""
    return [one if one in quick else pytest.param(one, marks=pytest.mark.slow) for one in values]


@pytest.mark.parametrize("moment", _some(range(1, SUMMARY + 1), {MANIFEST, 4, REWRITE, SUMMARY}))
def test_a_run_goes_on_once_there_is_room(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], moment: int
) -> None:
    folder, writes = tmp_path / "run", count(1)
    with monkeypatch.context() as patch:
        _fill(patch, lambda path: next(writes) == moment)
        assert run_cli([*_PLAY, "--out", str(folder)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: cannot write {folder / _NAMES.get(moment, 'episodes.jsonl')} (")
    if moment <= 2:  # No episode is there: nothing is left behind.
        assert last.endswith("free some space there and give the same command again") and not folder.exists()
        again = [*_PLAY, "--out", str(folder)]
    else:
        assert last.endswith(f"free some space there and resume with: cotbench run --resume {folder}")
        again = ["run", "--resume", str(folder)]
    assert run_cli(again) == 0
    assert _untimed(folder) == _untimed(whole)
    assert (folder / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}, "nothing half-written is left"


def _command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-P", "-m", "cotbench", *words], capture_output=True, text=True, check=False)


@contextmanager
def _small_disk(folder: Path, kilobytes: int) -> Iterator[bool]:
    """A disk of its own under a folder, for who may make one."""
    folder.mkdir()
    size = f"size={kilobytes}k"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", str(folder)], capture_output=True, check=False)
    try:
        yield mounted.returncode == 0
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 1.1, 1.4, 1.8])
def test_a_disk_that_is_full(whole: Path, tmp_path: Path, share: float) -> None:
    """The sizes are shares of what the episodes take: where it is above 1, the last rewrite finds no room."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    size = (whole / "episodes.jsonl").stat().st_size
    with _small_disk(tmp_path / "disk", round(size * share / 1000)) as mounted:
        if not mounted:
            pytest.skip("no disk can be mounted here")
        folder = tmp_path / "disk" / "run"
        failed = _command(*_PLAY, "--out", str(folder))
        assert failed.returncode == 1 and f"cannot write {folder}/" in failed.stderr, failed.stderr
        assert "Traceback" not in failed.stderr
        if folder.exists():
            assert f"cotbench run --resume {folder}" in failed.stderr.splitlines()[-1]
            shutil.copytree(folder, tmp_path / "run")
        again = ["run", "--resume"] if folder.exists() else [*_PLAY, "--out"]
        assert _command(*again, str(tmp_path / "run")).returncode == 0
    assert _untimed(tmp_path / "run") == _untimed(whole)
    assert (tmp_path / "run" / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()


@pytest.mark.parametrize("name", _some(["figures/success.pdf", "tables/success.csv", "index.html"], {"figures/success.pdf"}))
def test_a_report_that_finds_no_room_names_the_file(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = tmp_path / "report"
    _fill(monkeypatch, lambda path: path == out / name)
    assert run_cli(["report", str(whole), "--out", str(out)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: cannot write {out / name} (") and last.endswith("and give the same command again")


@pytest.mark.parametrize("umask", _some([0o077, 0o027, 0o002], {0o077}))
def test_files_and_folders_have_the_permissions_of_the_umask(tmp_path: Path, umask: int) -> None:
    root = tmp_path / "new"
    before = os.umask(umask)
    try:
        assert run_cli([*_PLAY, "--out", str(root / "run")]) == 0
        assert run_cli(["report", str(root / "run"), "--out", str(root / "report")]) == 0
        assert run_cli(["leaderboard", "bundle", str(root / "run"), "--out", str(root / "run.zip")]) == 0
        assert run_cli(["traces", "--teacher", "expert", "-n", "1", "--out", str(root / "traces")]) == 0
    finally:
        os.umask(before)
    made = [root, *root.rglob("*")]
    assert len(made) > 15
    for path in made:
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~umask, path
