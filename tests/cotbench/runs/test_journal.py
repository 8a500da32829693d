"""What is on disk is whole, whatever happens to the process that writes it."""

from pathlib import Path

import pytest

from cotbench.errors import RunFolderError
from cotbench.runs.atomic_file import write_atomically
from cotbench.runs.episode import EPISODES, Episode, Journal, read_episodes
from cotbench.runs.line_digest import with_digest


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
    good = with_digest(_episode("1").model_dump_json().encode()) + b"\n"
    for line, why in (
        (with_digest(b'{"task": 3}'), r"\(task:"),
        (good.strip().replace(b"1", b"2", 1), r"as it was written \(its sha256 is that of another text\)"),
        (_episode("2").model_dump_json().encode(), r"as it was written \(it does not end with its sha256\)"),
    ):
        (tmp_path / EPISODES).write_bytes(good + line + b"\n")
        with pytest.raises(RunFolderError, match=rf"episodes\.jsonl:2 is not an episode {why}"):
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
        with pytest.raises(RunFolderError, match=r"cannot write .*episodes\.jsonl .*: free some space there and"):
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
