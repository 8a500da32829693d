"""How far a run is, as its folder says, while another writes to it; and the list of the runs below a folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cotbench.cli import run_cli
from cotbench.errors import RunFolderError
from cotbench.file_lock import file_lock, is_locked
from cotbench.runs import runner
from cotbench.runs.episode import EPISODES, Episode, read_episodes
from cotbench.runs.folder import LOCK, lock_folder
from cotbench.runs.folder_search import find_folders
from cotbench.runs.manifest import MANIFEST, RunConfig
from cotbench.runs.rollout import RolloutSpec
from cotbench.runs.run_list import list_runs
from cotbench.runs.run_status import FollowedRun
from cotbench.runs.summary import SUMMARY


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run, `a/first`: three games in both modes, by the expert."""
    root = tmp_path_factory.mktemp("runs")
    runner.run(RunConfig(agent="expert", episodes=3), out=root / "a" / "first")
    return root


@pytest.fixture
def half(runs: Path, tmp_path: Path) -> Path:
    """The same run, as if it had been killed in its fourth episode."""
    folder = tmp_path / "half"
    folder.mkdir()
    (folder / MANIFEST).write_bytes((runs / "a" / "first" / MANIFEST).read_bytes())
    lines = (runs / "a" / "first" / EPISODES).read_bytes().splitlines(keepends=True)
    (folder / EPISODES).write_bytes(b"".join(lines[:3]) + lines[3][:50])
    return folder


def test_a_finished_run_is_told_by_its_summary_alone(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = FollowedRun(runs / "a" / "first")
    monkeypatch.setattr(run.episodes, "update", None)  # Not called.
    status = run.status()
    assert (status.state, status.done, status.planned, status.errors) == ("finished", 6, 6, 0)
    assert {mode: (one.mean, one.n) for mode, one in status.success.items()} == {"prompt": (1.0, 3), "cot": (1.0, 3)}
    assert (status.agent, status.env, status.split, status.mode) == ("expert", "alfworld-gen", "id", "both")


def test_a_run_is_followed_while_it_plays(tmp_path: Path) -> None:
    """Another process sees each episode when it has ended, the state, and the same numbers in the end."""
    seen = []

    class Looking:
        def __init__(self) -> None:
            self.run = FollowedRun(tmp_path / "r")

        def stepped(self, unit: RolloutSpec, step: int) -> None: ...

        def finished(self, episode: Episode) -> None:
            status = self.run.status()
            seen.append((status.state, status.done))

    looking = Looking()
    runner.run(RunConfig(agent="expert", episodes=3), out=tmp_path / "r", observer=looking)
    assert seen == [("running", number) for number in range(1, 7)]
    assert looking.run.status() == FollowedRun(tmp_path / "r").status()
    assert looking.run.status().state == "finished"
    assert looking.run.update_episodes().rows == read_episodes(tmp_path / "r").rows


def test_a_killed_run_is_interrupted_and_its_last_line_is_not_counted(half: Path) -> None:
    status = FollowedRun(half).status()
    assert (status.state, status.done, status.planned) == ("interrupted", 3, 6)


def test_only_new_lines_are_read(runs: Path, half: Path) -> None:
    run = FollowedRun(half)
    run.status()
    before, version = run.episodes.rows, run.episodes.version
    run.status()
    assert run.episodes.version == version
    lines = (runs / "a" / "first" / EPISODES).read_bytes().splitlines(keepends=True)
    with (half / EPISODES).open("ab") as file:
        file.write(lines[3][50:] + lines[4])
    assert run.status().done == 5 and run.episodes.version > version
    assert all(one is two for one, two in zip(before, run.episodes.rows, strict=False)), "the old ones were read again"
    assert [episode.key for episode in run.episodes.records()] == [row.key for row in run.episodes.rows]


def test_a_file_that_was_replaced_is_read_anew(runs: Path, half: Path) -> None:
    run = FollowedRun(half)
    assert run.status().done == 3
    lines = (runs / "a" / "first" / EPISODES).read_bytes().splitlines(keepends=True)
    (half / "new").write_bytes(b"".join(lines[:1]))
    (half / "new").replace(half / EPISODES)
    assert run.status().done == 1
    (half / EPISODES).write_bytes(b"")
    assert run.status().done == 0
    (half / EPISODES).unlink()
    assert run.status().done == 0


def test_a_damaged_line_is_named_and_when_it_is_mended_the_run_is_read(half: Path) -> None:
    run, whole = FollowedRun(half), (half / EPISODES).read_bytes()
    (half / EPISODES).write_bytes(whole.replace(b'"task"', b'"tusk"', 1))
    for _ in range(2):
        with pytest.raises(RunFolderError, match=r"episodes\.jsonl:1 is not an episode"):
            run.status()
    (half / EPISODES).write_bytes(whole)
    assert run.status().done == 3


def test_a_lock_is_looked_at_and_not_taken(half: Path) -> None:
    lock = half / LOCK
    assert not is_locked(lock) and not lock.exists()
    with file_lock(lock):
        assert is_locked(lock) and FollowedRun(half).status().state == "running"
    assert not is_locked(lock)
    with file_lock(lock, shared=True):  # Somebody reads.
        assert not is_locked(lock)


def test_a_writer_that_meets_a_look_tries_again(half: Path) -> None:
    import threading

    (half / LOCK).touch()
    taken, done = threading.Event(), threading.Event()

    def look() -> None:
        with file_lock(half / LOCK, shared=True):
            taken.set()
            done.wait(0.05)

    thread = threading.Thread(target=look)
    thread.start()
    taken.wait()
    with lock_folder(half, "cotbench run"):
        assert is_locked(half / LOCK)
    thread.join()


def test_the_list_names_what_it_cannot_read_and_leaves_out_what_is_no_run(runs: Path, half: Path, tmp_path: Path) -> None:
    for name in ("foreign", "damaged", "node_modules", ".hidden", "checkpoint-3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST).write_text('{"name": "some app"}')
    (tmp_path / "damaged" / MANIFEST).write_bytes(b"\xff{")
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / MANIFEST).write_text('{"probe": "alignment", "states_sha256": "0", "format": 2}')
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / EPISODES).write_text("")
    (tmp_path / "away").symlink_to(runs)
    found = list_runs(tmp_path)
    assert [Path(run.folder).name for run in found.runs] == ["half"]
    assert [Path(one.folder).name for one in found.unread] == ["alone", "damaged", "foreign"]
    assert "has no manifest.json" in found.unread[0].reason
    assert all("is not the manifest of a cotbench run" in one.reason for one in found.unread[1:])
    with pytest.raises(RunFolderError, match="there is no folder"):
        list_runs(tmp_path / "nowhere")


def test_a_search_ends_in_a_circle_of_links(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / MANIFEST).touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert [found.path for found in find_folders(tmp_path)] == [tmp_path / "a"]


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_the_table_cuts_nothing(
    runs: Path, half: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    from rich.console import Console

    from cotbench.cli import terminal

    long = half.with_name("hf-organisation-model-with-a-long-name_alfworld-gen_ood_pair_both_seed0")
    half.rename(long)
    monkeypatch.setattr(terminal, "console", lambda: Console(width=columns, markup=False, emoji=False))
    assert run_cli(["list", "runs", str(long.parent)]) == 0
    out = capsys.readouterr().out
    assert str(long) in out, "a path is not broken"
    assert all(len(line) <= columns for line in out.splitlines() if str(long) not in line) and "…" not in out
    for text in ("3/6", "interrupted", "1.00", "expert", "alfworld-gen"):
        assert text in out, text


def test_the_list_as_json(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["list", "runs", str(runs), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    (run,) = content["runs"]
    assert (run["folder"], run["state"], run["done"], run["planned"]) == (str(runs / "a" / "first"), "finished", 6, 6)
    assert content["unread"] == []


def test_where_there_is_no_run_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["list", "runs", str(tmp_path)]) == 0
    assert f"no runs in {tmp_path}" in "".join(capsys.readouterr().out.split("\n"))


def test_a_run_that_lacks_its_summary_is_not_finished(half: Path, runs: Path) -> None:
    (half / EPISODES).write_bytes((runs / "a" / "first" / EPISODES).read_bytes())
    assert FollowedRun(half).status().state == "interrupted"
    (half / SUMMARY).write_bytes((runs / "a" / "first" / SUMMARY).read_bytes())
    assert FollowedRun(half).status().state == "finished"
    os.truncate(half / SUMMARY, 20)
    with pytest.raises(RunFolderError, match="is damaged: remove it"):
        FollowedRun(half).status()
