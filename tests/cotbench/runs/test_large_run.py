"""Memory does not grow with the episodes of a run: what is held of one is a row of small numbers."""

import dataclasses
import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from cotbench.agents.registry import make_agent
from cotbench.report.browser import browsed
from cotbench.report.runs import page_of_runs
from cotbench.runs.comparison import compare_runs
from cotbench.runs.episode import EPISODES, Journal, read_episodes, row_of
from cotbench.runs.replay_agent import ReplayAgent
from cotbench.runs.resources import Resources
from cotbench.runs.results import load_run
from cotbench.runs.runner import SilentObserver, resume_run
from cotbench.runs.summary import summarize
from tests.large_runs import multiplied, play_few

FEW, MANY = 20, 120
HELD = 4_000
"""Bytes of an episode that may stay in memory; its line has ten times as many."""


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return play_few(tmp_path_factory.mktemp("few") / "run")


def _grown(use: Callable[[int], object], whole: bool = True) -> float:
    """The bytes that each task more takes: at its highest while `use` works, or afterwards in what it returns."""
    use(FEW)  # Imports and caches.
    sizes = []
    for tasks in (FEW, MANY):
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        held = use(tasks)
        after, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        del held
        sizes.append((highest if whole else after) - before)
    return (sizes[1] - sizes[0]) / (MANY - FEW)


def test_an_episode_takes_its_row(few: Path, tmp_path: Path) -> None:
    folders = {tasks: multiplied(few, tmp_path / str(tasks), tasks) for tasks in (FEW, MANY)}
    line = (folders[MANY] / EPISODES).stat().st_size / (2 * MANY)
    assert line > 10 * HELD / 2, "the episodes are long enough to tell"
    for use in (
        read_episodes,
        load_run,
        lambda folder: sum(episode.steps for episode in read_episodes(folder)),
        lambda folder: ReplayAgent(str(folder)),
        lambda folder: browsed(page_of_runs([load_run(folder)]).runs, budget=100_000),
        lambda folder: compare_runs({"e": load_run(folder)}, {"e": load_run(folder)}).envs["e"].tasks,
    ):
        grown = _grown(lambda tasks, use=use: use(folders[tasks]))  # type: ignore[misc]
        assert grown < 2 * HELD, f"{use}: {grown:.0f} bytes a task"


def test_a_run_that_goes_on_holds_rows(few: Path, tmp_path: Path) -> None:
    count = 0

    def resumed(tasks: int) -> object:
        nonlocal count
        count += 1
        folder = multiplied(few, tmp_path / str(count), tasks, missing=2)
        gc.collect()
        tracemalloc.reset_peak()
        return resume_run(folder, agent=make_agent("random"), resources=Resources(), observer=SilentObserver())

    # The table of a bootstrap has 10,000 bytes a task.
    assert _grown(resumed) < 2 * HELD + 4 * 10_000


def test_what_is_appended_is_not_held(few: Path, tmp_path: Path) -> None:
    (episode, *_) = read_episodes(few)
    size = len(episode.model_dump_json())
    count = 0

    def played(tasks: int) -> object:
        nonlocal count
        count += 1
        (tmp_path / str(count)).mkdir()
        with Journal(tmp_path / str(count)) as journal:
            for number in range(tasks):
                journal.append(episode.model_copy(update={"task": f"t{number}"}))
            return journal.finalize([f"t{number}#{episode.mode}" for number in reversed(range(tasks))])

    grown = _grown(played, whole=False)
    assert grown < HELD < size / 5, grown


def test_rows_give_the_numbers_of_their_episodes(few: Path) -> None:
    recorded = load_run(few)
    whole = list(recorded.records)
    assert [dataclasses.asdict(row_of(one)) for one in whole] == [dataclasses.asdict(row) for row in read_episodes(few).rows]
    assert summarize(whole, recorded.manifest) == summarize(recorded.records, recorded.manifest) == recorded.summary


def test_records_are_a_sequence(few: Path) -> None:
    records = read_episodes(few)
    whole = list(records)
    assert (len(records), records[0], records[-1], records[2:4]) == (len(whole), whole[0], whole[-1], whole[2:4])
    assert records == whole and records == tuple(whole) and records != whole[:-1] and records != [*whole[1:], whole[0]]
    assert records.get(whole[3].key) == whole[3] and records.get("no such episode") is None
    with pytest.raises(IndexError):
        records[len(whole)]


def test_a_file_that_was_written_anew_is_not_read_by_old_places(few: Path, tmp_path: Path) -> None:
    import shutil

    from cotbench.errors import RunFolderError

    shutil.copytree(few, tmp_path / "run")
    path = tmp_path / "run" / EPISODES
    records = read_episodes(tmp_path / "run")
    lines = path.read_bytes().splitlines(keepends=True)
    with path.open("ab") as file:
        file.write(lines[0])
    assert records[1].key == read_episodes(few)[1].key, "appending changes nothing"
    path.unlink()
    path.write_bytes(b"".join(reversed(lines)))
    with pytest.raises(RunFolderError, match=r"written anew|as it was written"):
        records[1]
