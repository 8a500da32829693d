"""Boards: who is ranked, who is only listed, what the paper reports, and that the numbers are those of one comparison."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: pip install -e '.[leaderboard]'")

from cotbench import paper
from cotbench.envs.registry import env_entry
from cotbench.errors import UnknownNameError
from cotbench.leaderboard.boards.view import COLUMNS, OTHER_SPLIT, board_view, parse_board, sorted_rows
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.store.store import Store
from cotbench.leaderboard.verification.difference import Difference
from cotbench.stats import estimates
from tests.leaderboard.stored import bundle

COT = Board("alfworld-gen", "paper", "id", "cot")
N = 120


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "board.sqlite") as opened:
        yield opened


def _add(store: Store, one: Any, unranked: tuple[str, ...] = (), replayed: bool | None = True) -> str:
    entry, _ = store.add(one, unranked, b"zip")
    if replayed is not None:
        difference = None if replayed else Difference.at("score", 1.0, 0.0)
        store.settle(entry.id, difference, with_versions={})
    return entry.id


def _won(count: int) -> list[bool]:
    return [place < count for place in range(N)]


def test_only_replayed_whole_entries_have_ranks(store: Store) -> None:
    _add(store, bundle("Best, but pending", won=_won(120)), replayed=None)
    _add(store, bundle("Best, but forged", won=_won(119)), replayed=False)
    _add(store, bundle("Best, but partial", won=_won(118)), ("4 of 120 tasks",))
    _add(store, bundle("Good", won=_won(100)))
    _add(store, bundle("Bad", won=_won(10)))
    view = board_view(store, COT, None)
    assert [(row.rank, row.details.name) for row in view.rows] == [
        (1, "Good"),
        (2, "Bad"),
        (None, "Best, but pending"),
        (None, "Best, but forged"),
        (None, "Best, but partial"),
    ]
    assert view.counts == {"pending": 1, "replayed": 3, "rejected": 1, "unchecked": 0}
    assert [row.details.name for row in board_view(store, COT).rows] == ["Good", "Bad", "Best, but partial"]
    assert [row.details.name for row in board_view(store, COT, "rejected").rows] == ["Best, but forged"]


def test_the_distance_to_the_first_is_paired(store: Store) -> None:
    first, second = bundle("First", 0.8, seed=1), bundle("Second", 0.5, seed=2)
    _add(store, second)
    _add(store, first)
    rows = board_view(store, COT).rows
    won = [
        [episode.success for episode in sorted(one.episodes, key=lambda each: each.task) if episode.mode == "cot"]
        for one in (first, second)
    ]
    assert rows[0].behind is None
    assert rows[1].behind == estimates.paired_rate_difference(*won)


def test_a_split_that_has_other_tasks_by_now_has_no_rank(store: Store) -> None:
    _add(store, bundle("Now", won=_won(10)))
    _add(store, bundle("Before", won=_won(119)[:119], tasks=env_entry("alfworld-gen").source().tasks("paper", "id")[:119]))
    rows = {row.details.name: row for row in board_view(store, COT).rows}
    assert (rows["Now"].rank, rows["Before"].rank) == (1, None)
    assert rows["Before"].unranked == (OTHER_SPLIT,)


def test_a_change_is_seen_at_once(store: Store) -> None:
    id = _add(store, bundle("First", won=_won(10)), replayed=None)
    assert board_view(store, COT).rows == ()
    with Store.open(Path(store.database.name.removeprefix("sqlite:///"))) as other:
        other.settle(id, None, with_versions={})
    assert [row.rank for row in board_view(store, COT).rows] == [1]


def test_every_column_sorts_both_ways_with_gaps_last(store: Store) -> None:
    for seed, mode in enumerate(["both", "cot", "both"]):
        _add(store, bundle(f"Entry {seed}", 0.3 * seed + 0.1, seed=seed, team="TU"[seed % 2], mode=mode))  # type: ignore[arg-type]
    rows = board_view(store, COT).rows
    for column in COLUMNS:
        for descending in (False, True):
            assert {row.entries for row in sorted_rows(rows, column, descending)} == {row.entries for row in rows}
    for descending in (False, True):
        assert sorted_rows(rows, "gap", descending)[-1].gap is None
    success = [row.success.mean for row in sorted_rows(rows, "success", True)]
    assert success == sorted(success, reverse=True)
    with pytest.raises(UnknownNameError, match="unknown column 'sucess'; did you mean 'success'"):
        sorted_rows(rows, "sucess", True)


def test_what_the_paper_reports_stands_beside_cot_alone() -> None:
    class Empty:
        views: dict[Any, Any] = {}

        def changes(self) -> int:
            return 0

        def candidates(self, *_: str) -> list[Any]:
            return []

    def reported(*board: str) -> tuple[paper.Success, ...]:
        return board_view(Empty(), Board(*board)).reported  # type: ignore[arg-type]

    found = reported("bfcl", "paper", "ood", "cot")
    assert {(one.model, one.method): one.value for one in found} == {
        ("Qwen3-4B", "GRPO"): 0.61,
        ("Qwen3-4B", "GRPO+"): 0.64,
        ("Qwen3-8B", "GRPO"): 0.63,
        ("Qwen3-8B", "GRPO+"): 0.69,
        (None, "SFT"): 0.58,
        (None, "DPO"): 0.62,
        (None, "FRODO"): 0.64,
        (None, "SFT+"): 0.62,
        (None, "DPO+"): 0.67,
    }
    assert reported("bfcl", "paper", "ood", "prompt") == ()
    assert reported("alfworld-gen", "paper", "ood", "cot") == ()
    assert reported("bfcl", "official", "multi_turn_base", "cot") == ()


def _everywhere(store: Store, name: str, rates: dict[str, float], seed: int, team: str = "") -> list[str]:
    return [_add(store, bundle(name, rate, seed=seed, env=env, team=team)) for env, rate in rates.items()]


def test_the_overall_board_is_the_mean_over_environments(store: Store) -> None:
    _everywhere(store, "Good", {"alfworld-gen": 0.9, "scienceworld": 0.8, "bfcl": 0.7}, 1, team="A")
    _everywhere(store, "Bad", {"alfworld-gen": 0.1, "scienceworld": 0.2, "bfcl": 0.1}, 2, team="A")
    _everywhere(store, "Good", {"alfworld-gen": 0.5, "bfcl": 0.5}, 3, team="B")  # Another team's, and not everywhere.
    overall = Board("all-gen", "paper", "id", "cot")
    assert overall in store.boards()
    assert Board("all", "paper", "id", "cot") not in store.boards()
    view = board_view(store, overall)
    assert [(row.rank, row.details.name, row.details.team) for row in view.rows] == [(1, "Good", "A"), (2, "Bad", "A")]
    singles = [board_view(store, Board(env, "paper", "id", "cot")) for env in overall.envs]
    of_good = [next(row for row in single.rows if row.details.name == "Good" and row.details.team == "A") for single in singles]
    assert view.rows[0].success == estimates.average([row.success for row in of_good])
    assert view.rows[0].entries == tuple(row.entries[0] for row in of_good)
    assert view.rows[1].behind is not None
    assert view.rows[1].behind.high is not None
    assert view.rows[1].behind.high < 0


def test_the_newest_entry_of_a_system_counts_overall(store: Store) -> None:
    _everywhere(store, "One", {"alfworld-gen": 0.9, "scienceworld": 0.9, "bfcl": 0.9}, 1)
    newer = _add(store, bundle("One", 0.1, seed=9, env="bfcl"))
    (row,) = board_view(store, Board("all-gen", "paper", "id", "cot")).rows
    assert row.entries[-1] == newer


def test_boards_are_found_by_their_names() -> None:
    assert parse_board("alfworld-gen_paper_id_cot", [COT]) == COT
    with pytest.raises(UnknownNameError, match="did you mean 'alfworld-gen_paper_id_cot'"):
        parse_board("alfworld-gen_paper_id_cott", [COT])


@pytest.mark.slow
def test_a_thousand_entries_are_ranked_in_a_moment(store: Store) -> None:
    one = bundle("Entry", 0.5)
    for seed in range(1000):
        other = bundle(f"Entry {seed}", seed / 1000, seed=seed)
        _add(store, replace(one, details=other.details, episodes=other.episodes, digest=other.digest))
    began = time.perf_counter()
    view = board_view(store, COT)
    print(f"{time.perf_counter() - began:.3f} s")
    assert len(view.rows) == 1000
    assert view.rows[0].rank == 1


def test_in_eighty_columns_every_column_is_there(store: Store) -> None:
    from rich.console import Console

    from cotbench.leaderboard.boards.terminal import board_table

    first, second = _add(store, bundle("First", won=_won(100))), _add(store, bundle("Second", won=_won(10), team="A long team"))
    view = board_view(store, COT)
    for width in (80, 120):
        screen = Console(width=width, record=True, quiet=False, file=io.StringIO())
        screen.print(board_table(view, view.rows))
        text = screen.export_text()
        assert max(map(len, text.splitlines())) <= width
        for part in (first, second, "First", "rank", "success ●", "CoT - prompt ●", "state", "replayed", "[0.76, 0.89]"):
            assert part in text, (width, part)
        assert "…" not in text
