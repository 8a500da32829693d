"""What is on disk is whole, whatever happens to the process that writes it."""

from pathlib import Path

import pytest

from cotbench.errors import RunFolderError
from cotbench.runs.episode import EPISODES, Episode, Journal, read_episodes
from cotbench.runs.jsonl_store import write_atomically


def _episode(task: str, error: str | None = None) -> Episode:
    return Episode(task=task, task_type="t", mode="cot", error=error, goal="ünïcode")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append(_episode("1"))
        journal.append(_episode("2"))
    assert [episode.task for episode in read_episodes(tmp_path)] == ["1", "2"]
    assert (tmp_path / EPISODES).read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    with Journal(tmp_path) as journal:
        journal.append(_episode("1"))
        journal.append(_episode("2"))
    path = tmp_path / EPISODES
    path.write_bytes(path.read_bytes()[:-cut])
    assert [episode.task for episode in read_episodes(tmp_path)] == ["1"], "reading changes nothing"
    with Journal(tmp_path) as journal:
        assert journal.truncated_tail
        journal.append(_episode("3"))
    assert [episode.task for episode in read_episodes(tmp_path)] == ["1", "3"]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / EPISODES).write_text(_episode("1").model_dump_json() + '\n{"task": 3}\n')
    with pytest.raises(RunFolderError, match=r"episodes\.jsonl:2 is not an episode \(task:"):
        read_episodes(tmp_path)
    with pytest.raises(RunFolderError):
        Journal(tmp_path)
    (tmp_path / EPISODES).write_text("")
    Journal(tmp_path).close()


def test_settling_orders_and_drops_replayed_errors(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        journal.append(_episode("2", error="gone"))
        journal.append(_episode("3", error="gone"))
        journal.append(_episode("2"))
        journal.append(_episode("1"))
        settled = journal.finalize(["1#cot", "2#cot", "3#cot"])
    assert [(episode.task, episode.error) for episode in settled] == [("1", None), ("2", None), ("3", "gone")]
    assert read_episodes(tmp_path) == settled


def test_a_full_disk_tears_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    with Journal(tmp_path) as journal:
        journal.append(_episode("1"))
        real = os.write
        monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:10]))
        with pytest.raises(RunFolderError, match=r"cannot write to .* make room"):
            journal.append(_episode("2"))
        monkeypatch.undo()
        journal.append(_episode("3"))
    assert [episode.task for episode in read_episodes(tmp_path)] == ["1", "3"]


def test_an_interrupted_replacement_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def broken() -> object:
        yield "new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, broken())  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="not a run folder"):
        read_episodes(tmp_path)
