"""Memory does not grow with the episodes of a run: what is held of one is a row of small numbers."""

import dataclasses
import gc
import shutil
import tracemalloc
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from cotbench.agents.registry import make_agent
from cotbench.errors import RunFolderError
from cotbench.report.browser import browsed
from cotbench.report.runs import page_of_runs
from cotbench.runs.comparison import compare_runs
from cotbench.runs.episode import EPISODES, Journal, read_episodes, row_of
from cotbench.runs.replay_agent import ReplayAgent
from cotbench.runs.resources import Resources
from cotbench.runs.results import load_run
from cotbench.runs.runner import SilentObserver, resume_run
from cotbench.runs.summary import summarize
from cotbench.stats import bootstrap, estimates
from tests.large_runs import multiplied, play_few

FEW, MANY = 20, 80
HELD = 4_000
"""Bytes of an episode that may stay in memory; its line has several times as many."""


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return play_few(tmp_path_factory.mktemp("few") / "run", max_steps=30)


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bootstrap whose blocks of resamples, of up to 20 MB, do not stand out."""
    for module in (bootstrap, estimates):
        monkeypatch.setattr(module, "RESAMPLES", 50)
    for name in ("_small_table", "_large_table"):
        monkeypatch.setattr(bootstrap, name, bootstrap._all_times_drawn)


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


def test_an_episode_takes_its_row(few: Path, tmp_path: Path, few_resamples: None) -> None:
    folders = {tasks: multiplied(few, tmp_path / str(tasks), tasks) for tasks in (FEW, MANY)}
    assert (folders[MANY] / EPISODES).stat().st_size / (2 * MANY) > 4 * HELD, "the episodes are long enough to tell"

    def read(folder: Path) -> object:
        one, agent = load_run(folder), ReplayAgent(str(folder))
        page = page_of_runs([one])
        compared = compare_runs({"env": one}, {"env": one})
        return one, agent, page, compared, sum(len(episode.trajectory) for episode in one.records), browsed(page.runs, 50_000)

    assert _grown(lambda tasks: read(folders[tasks])) < 2 * 3 * HELD, "an episode is read by two, and is on the page"


def test_a_run_that_goes_on_holds_rows(few: Path, tmp_path: Path, few_resamples: None) -> None:
    number = count()

    def resumed(tasks: int) -> object:
        folder = multiplied(few, tmp_path / str(next(number)), tasks, missing=1)
        gc.collect()
        tracemalloc.reset_peak()
        return resume_run(folder, agent=make_agent("random"), resources=Resources(), observer=SilentObserver())

    assert _grown(resumed) < 2 * HELD


def test_what_is_appended_is_not_held(few: Path, tmp_path: Path) -> None:
    (episode, *_) = read_episodes(few)
    size = len(episode.model_dump_json())
    number = count()

    def played(tasks: int) -> object:
        folder = tmp_path / str(next(number))
        folder.mkdir()
        with Journal(folder) as journal:
            for task in range(tasks):
                journal.append(episode.model_copy(update={"task": f"t{task}"}))
            return journal.finalize([f"t{task}#{episode.mode}" for task in reversed(range(tasks))])

    grown = _grown(played, whole=False)
    assert grown < HELD < size / 4, grown


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
    shutil.copytree(few, tmp_path / "run")
    path = tmp_path / "run" / EPISODES
    records = read_episodes(tmp_path / "run")
    lines = path.read_bytes().splitlines(keepends=True)
    with path.open("ab") as file:
        file.write(lines[0])
    assert records[1].key == read_episodes(few)[1].key, "appending changes nothing"
    path.unlink()
    path.write_bytes(b"".join(reversed(lines)))
    with pytest.raises(RunFolderError, match=r"changed while|as it was written"):
        records[1]
