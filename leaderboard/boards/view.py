"""The rows of a board. Invariant: only replayed entries of models that played the whole split by the rules, and not as another
entry or an expert did, have ranks; what the paper reports stands apart, as reported; a row holds all that it shows, so that
drawing computes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cotbench import paper
from cotbench.envs.registry import env_entry
from cotbench.envs.tasks import first_tasks
from cotbench.errors import CotbenchError, UnknownNameError
from cotbench.leaderboard.boards.ranking import exchange_of, mcnemar_of, ranks
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.store.entry import STATES, WON, Candidate, State, tasks_sha256
from cotbench.leaderboard.store.levels import LEVELS, Level
from cotbench.leaderboard.store.store import Store
from cotbench.leaderboard.submission.baselines import is_baseline
from cotbench.leaderboard.submission.details import Details
from cotbench.leaderboard.submission.look_alikes import fold_name
from cotbench.leaderboard.submission.model_facts import Weights
from cotbench.paper import Success
from cotbench.stats import estimates
from cotbench.stats.estimates import Estimate

OTHER_SPLIT = "the split has other tasks by now"


@dataclass(frozen=True, slots=True)
class BoardView:
    """A board with its rows.

    Attributes:
        rows: those with a rank first, by rank and success; then baselines, then the others, by success.
        reported: what the paper reports for the board; not replayed, not ours.
        counts: state -> how many entries of the board have it.
    """

    board: Board
    rows: tuple[Standing, ...]
    reported: tuple[Success, ...]
    counts: Mapping[State, int]


_NEVER = -math.inf
_KEYS: dict[str, Callable[[Standing], Any]] = {
    "rank": lambda row: row.rank if row.rank is not None else math.inf,
    "name": lambda row: row.details.name.casefold(),
    "team": lambda row: row.details.team.casefold(),
    "success": lambda row: _mean(row.success),
    "score": lambda row: _mean(row.score),
    "gap": lambda row: _mean(row.gap),
    "consistency": lambda row: _mean(row.consistency),
    "tokens": lambda row: _mean(row.tokens),
    "computed": lambda row: _mean(row.computed),
    "dollars": lambda row: _mean(row.dollars),
    "parameters": lambda row: row.parameters if row.parameters is not None else math.inf,
    "submitted": lambda row: row.submitted,
}
COLUMNS = tuple(_KEYS)
"""What a board can be sorted by."""


def _mean(estimate: Estimate | None) -> float:
    return estimate.mean if estimate is not None and estimate.mean is not None else _NEVER


def sorted_rows(rows: Sequence[Standing], column: str, descending: bool) -> list[Standing]:
    """Sort rows by a column; what has no value there comes last, whichever way.

    Raises:
        UnknownNameError: no such column.
    """
    if column not in _KEYS:
        raise UnknownNameError("column", column[:100], COLUMNS)
    key = _KEYS[column]
    with_value = [row for row in rows if key(row) not in (_NEVER, math.inf)]
    return sorted(with_value, key=key, reverse=descending) + [row for row in rows if key(row) in (_NEVER, math.inf)]


def named_rows(rows: Sequence[Standing], name: str) -> list[Standing]:
    """Return the rows whose name or team has a text in it, whatever the case.

    Args:
        rows: of a board.
        name: the text; empty: all rows.
    """
    wanted = name.casefold().strip()
    return [row for row in rows if wanted in row.details.name.casefold() or wanted in row.details.team.casefold()]


def parse_board(slug: str, known: Iterable[Board]) -> Board:
    """Return the board of a slug.

    Raises:
        UnknownNameError: there is none.
    """
    by_slug = {board.slug: board for board in known}
    if slug not in by_slug:
        raise UnknownNameError("board", slug[:100], by_slug)
    return by_slug[slug]


def board_view(store: Store, board: Board, state: State | None = "replayed") -> BoardView:
    """Return a board with its rows; computed again when an entry has changed.

    Args:
        store: holds the entries.
        board: the board.
        state: of the entries that are listed; None: all. Ranks are the same in every view.
    """
    changes = store.changes()
    envs = board.envs
    cached = store.views.get((board, envs, state))
    if cached is not None and cached[0] == changes:
        view: BoardView = cached[1]
        return view
    full_key = (board, envs, "whole")
    full = store.views.get(full_key)
    if full is None or full[0] != changes:
        full = (changes, _view(store, board))
        store.views[full_key] = full
    view = full[1]
    if state is not None:
        view = replace(view, rows=tuple(row for row in view.rows if row.state == state))
    store.views[board, envs, state] = (changes, view)
    return view


def _view(store: Store, board: Board) -> BoardView:
    found = {env: store.candidates(env, board.scheme, board.split, board.mode) for env in board.envs}
    now = {env: _tasks_now(env, board) for env, some in found.items() if some}
    found = {env: [_dated(one, now[env]) for one in some] for env, some in found.items()}
    rows = _overall(found) if board.overall else _single(found[board.env])
    rows.sort(
        key=lambda row: (
            row.rank is None,
            not row.baseline,
            row.rank or 0,
            -_mean(row.success),
            -_mean(row.score),
            row.submitted,
        )
    )
    return BoardView(
        board,
        tuple(rows),
        _reported(board),
        {state: sum(row.state == state for row in rows) for state in STATES},
    )


def _tasks_now(env: str, board: Board) -> str | None:
    """Return the hash of the tasks of the split that are ranked now; None where the environment is not known here."""
    try:
        return tasks_sha256(first_tasks(env_entry(env).source(), board.scheme, board.split))
    except CotbenchError:
        return None


def _dated(one: Candidate, now: str | None) -> Candidate:
    if one.unranked or now is None or one.result.tasks_sha256 == now:
        return one
    return replace(one, unranked=(OTHER_SPLIT,))


def _reported(board: Board) -> tuple[Success, ...]:
    """Return the paper's rows. It does not say in which mode success was measured; its agents reason, so they stand by CoT."""
    if board.mode != "cot" or board.scheme != paper.SCHEME:
        return ()
    return tuple(one for one in paper.SUCCESS if (one.env, one.split) == (board.env, board.split))


def _ranked(one: Candidate) -> bool:
    return one.state == "replayed" and one.level != "self-reported" and not one.unranked


def _by_success(one: Standing) -> tuple[float, float, Any]:
    return -_mean(one.success), -_mean(one.score), one.submitted


def _single(candidates: Sequence[Candidate]) -> list[Standing]:
    rows = [_standing(one) for one in candidates]
    placed = sorted((place for place, one in enumerate(candidates) if _ranked(one)), key=lambda place: _by_success(rows[place]))
    if not placed:
        return rows
    won = np.zeros((len(rows), len(candidates[placed[0]].result.outcomes)), dtype=np.int8)
    for place in placed:
        won[place] = _won(candidates[place])
    first = won[placed[0]]
    for place, rank in ranks(placed, mcnemar_of(won)).items():
        behind = _behind(first, won[place]) if place != placed[0] else None
        rows[place] = replace(rows[place], rank=rank, behind=behind)
    return rows


def _won(one: Candidate) -> NDArray[np.int8]:
    characters = np.frombuffer(one.result.outcomes.encode("ascii"), dtype=np.int8)
    won: NDArray[np.int8] = (characters == ord(WON)).astype(np.int8)
    return won


def _behind(first: NDArray[np.int8], other: NDArray[np.int8]) -> Estimate:
    both = int(np.count_nonzero(first & other))
    ones = int(np.count_nonzero(first)) - both, int(np.count_nonzero(other)) - both
    return estimates.paired_rate_difference_of(both, *ones, len(first))


def _standing(one: Candidate) -> Standing:
    reached = one.result
    return Standing(
        rank=None,
        details=one.details,
        entries=(one.id,),
        agent=one.agent,
        state=one.state,
        level=one.level,
        baseline=is_baseline(one.agent),
        unranked=one.unranked,
        tasks=one.tasks,
        fingerprint=one.fingerprint,
        submitted=one.submitted,
        success=reached.success,
        score=reached.score,
        behind=None,
        gap=reached.gap,
        consistency=reached.consistency,
        tokens=reached.tokens,
        computed=reached.computed,
        dollars=reached.dollars,
        parameters=reached.model.parameters,
        weights=reached.model.weights,
    )


def _overall(found: Mapping[str, Sequence[Candidate]]) -> list[Standing]:
    """Return a row for each system (name and team) with a ranked entry of every environment; its newest counts.

    Names that look alike are one system.
    """
    systems: dict[tuple[str, str], dict[str, Candidate]] = {}
    for env, candidates in found.items():
        for one in filter(_ranked, candidates):
            systems.setdefault((fold_name(one.details.name), fold_name(one.details.team)), {})[env] = one
    complete = [[by_env[env] for env in found] for by_env in systems.values() if len(by_env) == len(found)]
    if not complete:
        return []
    rows = [_mean_standing(some) for some in complete]
    values = np.array([np.concatenate([_won(one) / len(one.result.outcomes) for one in some]) for some in complete])
    placed = sorted(range(len(rows)), key=lambda place: _by_success(rows[place]))
    first = complete[placed[0]]
    for place, rank in ranks(placed, exchange_of(values)).items():
        apart = [_behind(_won(one), _won(other)) for one, other in zip(first, complete[place], strict=True)]
        rows[place] = replace(rows[place], rank=rank, behind=estimates.average(apart) if place != placed[0] else None)
    return rows


def _mean_standing(some: Sequence[Candidate]) -> Standing:
    """Return a row with the unweighted means over environments."""
    newest = max(some, key=lambda one: one.number)
    reached = [one.result for one in some]
    return Standing(
        rank=None,
        details=newest.details,
        entries=tuple(one.id for one in some),
        agent=newest.agent,
        state="replayed",
        level=min((one.level for one in some), key=LEVELS.index),
        baseline=False,
        unranked=(),
        tasks=sum(one.tasks for one in some),
        fingerprint=newest.fingerprint if len({one.fingerprint for one in some}) == 1 else "",
        submitted=newest.submitted,
        success=estimates.average([one.success for one in reached]),
        score=estimates.average([one.score for one in reached]),
        behind=None,
        gap=_average([one.gap for one in reached]),
        consistency=_average([one.consistency for one in reached]),
        tokens=estimates.average([one.tokens for one in reached]),
        computed=estimates.average([one.computed for one in reached]),
        dollars=_average([one.dollars for one in reached]),
        parameters=newest.result.model.parameters if len({one.model for one in reached}) == 1 else None,
        weights=newest.result.model.weights if len({one.model for one in reached}) == 1 else "",
    )


def _average(some: Sequence[Estimate | None]) -> Estimate | None:
    known = [one for one in some if one is not None]
    return estimates.average(known) if len(known) == len(some) else None


@dataclass(frozen=True, slots=True)
class Standing:
    """A row of a board. Intervals are over tasks.

    Attributes:
        rank: of a replayed entry that is whole and a model's own; None for the others.
        entries: ids; one of each environment on an overall board.
        level: how far its figures were checked, at most; `levels.FIGURES` says which figures reach it.
        baseline: its agent is no model.
        unranked: why it has no rank though it may be replayed.
        fingerprint: of the elicitation; empty where the environments have different ones, or the agent takes none.
        submitted: UTC; of the newest entry on an overall board.
        behind: success minus that of the board's first, paired on the same tasks; None for the first and for what has no rank.
        gap: CoT minus prompt; consistency: prompt action = CoT action; of entries with both modes.
        tokens: generated an episode; `computed` generated and prefilled; dollars: an episode, where the run has prices. On an
            overall board means over its environments.
        parameters: of the model, and whether its weights are to be had, as submitted; unknown on an overall board where the
            entries differ.
    """

    rank: int | None
    details: Details
    entries: tuple[str, ...]
    agent: str
    state: State
    level: Level
    baseline: bool
    unranked: tuple[str, ...]
    tasks: int
    fingerprint: str
    submitted: datetime
    success: Estimate
    score: Estimate
    behind: Estimate | None
    gap: Estimate | None
    consistency: Estimate | None
    tokens: Estimate
    computed: Estimate
    dollars: Estimate | None = None
    parameters: int | None = None
    weights: Weights = ""
