"""A full disk: at whatever moment, the command says which file it was and by which command it goes on; once there is room, that
command ends with the same result as if nothing had happened.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lines import read_objects

_PLAY = ["--agent", "expert", "--split", "id", "-n", "3", "--max-steps", "6"]
_EPISODES = 6

_FULL_AT = """
import resource, sys
from contextlib import contextmanager
from cotbench.cli import main
from cotbench.runs import atomic_file, jsonl_store

left = int(sys.argv.pop(1))

def write():
    global left
    left -= 1
    if left == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9, resource.RLIM_INFINITY))

append, replacement = jsonl_store.JsonlStore.append, atomic_file.replacement

def counted_append(self, record):
    write()
    append(self, record)

@contextmanager
def counted_replacement(path):
    write()
    with replacement(path) as file:
        yield file

jsonl_store.JsonlStore.append, atomic_file.replacement = counted_append, counted_replacement
main()
"""
"""A command line after whose n-th write the system lets no file grow beyond nine bytes."""


def _command(*words: str, full_at: int | None = None) -> subprocess.CompletedProcess[str]:
    start = ["-m", "cotbench"] if full_at is None else ["-c", _FULL_AT, str(full_at)]
    return subprocess.run([sys.executable, "-P", *start, *words], capture_output=True, text=True, check=False)


def _untimed(folder: Path) -> list[dict[str, object]]:
    return [{**row, "seconds": 0} for row in read_objects(folder / "episodes.jsonl")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert _command("run", *_PLAY, "--out", str(folder)).returncode == 0
    return folder


MANIFEST, REWRITE, CARD, SUMMARY = 1, 2 + _EPISODES, 3 + _EPISODES, 4 + _EPISODES
_NAMES = {MANIFEST: "manifest.json", REWRITE: "episodes.jsonl", CARD: "README.md", SUMMARY: "summary.json"}


@pytest.mark.parametrize(
    "moment",
    [
        *(MANIFEST, 4, REWRITE, SUMMARY),
        *(pytest.param(moment, marks=pytest.mark.slow) for moment in range(2, SUMMARY) if moment not in (4, REWRITE)),
    ],
)
def test_a_run_goes_on_once_there_is_room(whole: Path, tmp_path: Path, moment: int) -> None:
    folder = tmp_path / "run"
    # Three episodes side by side end in another order than they are written in: the file is rewritten.
    failed = _command("run", *_PLAY, "--num-envs", "3", "--out", str(folder), full_at=moment)
    named = folder / _NAMES.get(moment, "episodes.jsonl")
    assert failed.returncode == 1 and f"error: cannot write {named} (" in failed.stderr, failed.stderr
    assert "Traceback" not in failed.stderr
    last = failed.stderr.splitlines()[-1]
    if moment <= 2:  # No episode is there: nothing is left behind.
        assert last.endswith("make room there and give the same command again") and not folder.exists()
        again = _command("run", *_PLAY, "--out", str(folder))
    else:
        assert last.endswith(f"make room there and go on with: cotbench run --resume {folder}")
        again = _command("run", "--resume", str(folder))
    assert again.returncode == 0, again.stderr
    assert _untimed(folder) == _untimed(whole)
    assert (folder / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}, "nothing half-written is left"


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
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 1.2, 1.6, 2.2])
def test_a_disk_that_is_full(whole: Path, tmp_path: Path, share: float) -> None:
    """The sizes are shares of what the episodes take: where it is above 1, the last rewrite finds no room, or all is well."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    size = (whole / "episodes.jsonl").stat().st_size
    with _small_disk(tmp_path / "disk", round(size * share / 1000)) as mounted:
        if not mounted:
            pytest.skip("no disk can be mounted here")
        folder = tmp_path / "disk" / "run"
        failed = _command("run", *_PLAY, "--num-envs", "3", "--out", str(folder))
        if failed.returncode == 0:
            assert share > 1
            return
        assert failed.returncode == 1 and f"cannot write {folder}/" in failed.stderr, failed.stderr
        assert "No space left on device" in failed.stderr and "Traceback" not in failed.stderr
        if folder.exists():
            assert f"cotbench run --resume {folder}" in failed.stderr.splitlines()[-1]
            shutil.copytree(folder, tmp_path / "run")
        again = ["--resume", str(tmp_path / "run")] if folder.exists() else [*_PLAY, "--out", str(tmp_path / "run")]
        assert _command("run", *again).returncode == 0
    assert _untimed(tmp_path / "run") == _untimed(whole)
    assert (tmp_path / "run" / "summary.json").read_bytes() == (whole / "summary.json").read_bytes()


@pytest.mark.parametrize("name", ["figures/success.pdf", "index.html"])
def test_a_report_that_finds_no_room_names_the_file(whole: Path, tmp_path: Path, name: str) -> None:
    code = _FULL_AT.replace("    left -= 1\n    if left == 0:", "    if str(sys._getframe(2).f_locals['path']).endswith(NAME):")
    code = code.replace("left = int(sys.argv.pop(1))", "NAME = sys.argv.pop(1)").replace("global left", "pass")
    command = [sys.executable, "-P", "-c", code, name, "report", str(whole), "--out", str(tmp_path / "r")]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1, failed.stderr
    assert failed.stderr.strip() == (
        f"error: cannot write {tmp_path / 'r' / name} (File too large): make room there and give the same command again"
    )


@pytest.mark.parametrize("umask", [0o077, 0o027, 0o002])
def test_files_and_folders_have_the_permissions_of_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        done = _command("run", *_PLAY, "-n", "1", "--out", str(tmp_path / "new" / "run"))
        report = _command("report", str(tmp_path / "new" / "run"), "--out", str(tmp_path / "new" / "report"))
    finally:
        os.umask(before)
    assert done.returncode == report.returncode == 0, done.stderr + report.stderr
    made = [tmp_path / "new", *(tmp_path / "new").rglob("*")]
    assert len(made) > 10
    for path in made:
        wanted = (0o777 if path.is_dir() else 0o666) & ~umask
        assert path.stat().st_mode & 0o777 == wanted, (path, oct(path.stat().st_mode))
