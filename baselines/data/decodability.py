"""Decodability of traces, whoever wrote them. Invariant: a decision is decoded by a `TraceDecoder` that was fitted to other
tasks alone, and the floor sees the same tasks but no trace.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.trace_decoder import DecodedAction, TraceDecoder, holds, tokens_of
from cotbench.envs.reading import ActionParts, word_parts
from cotbench.envs.registry import env_entry
from cotbench.errors import UsageError
from cotbench.stats.decodability import Decodability
from cotbench.stats.estimates import Estimate, score

FOLDS = 5
LEAST_TASKS = 10
"""With fewer there is little to fit and less to hold out."""
MOST_DECISIONS = 2000
MOST_OF_TASK = 40
"""Of more decisions, whole tasks are left out, and of a longer task decisions at even distances: the interval is narrow enough,
and the decoder's time grows with the square.
"""
DECODER = (
    "form of the action: ridge regression on words and pairs of words; arguments: naive Bayes over mentions in the trace; "
    f"{FOLDS} folds of tasks"
)


class _Decision(NamedTuple):
    tokens: tuple[str, ...]
    action: DecodedAction


class _Counts(NamedTuple):
    """Numbers of one task."""

    decisions: int = 0
    arguments: int = 0
    action: int = 0
    action_floor: int = 0
    right_arguments: int = 0
    right_arguments_floor: int = 0
    in_trace: int = 0


def has_enough_tasks(demonstrations: Sequence[Demonstration]) -> bool:
    """Return whether there are enough tasks with traces to hold some out.

    Args:
        demonstrations: of any environments and teachers.
    """
    return len(_by_task(demonstrations)) >= LEAST_TASKS


def measure_decodability(demonstrations: Sequence[Demonstration]) -> Decodability:
    """Return how often the action, and its arguments, can be told from the trace alone on held-out tasks.

    Actions are compared in the canonical spelling of their environment, letter case and spaces aside. An imported conversation
    without a task counts as a task of its own, and its actions are taken apart word by word.

    Args:
        demonstrations: of any environments and teachers; steps without a trace are skipped.

    Raises:
        UsageError: there is no trace, or fewer than `LEAST_TASKS` tasks have one.
    """
    tasks = _by_task(demonstrations)
    if not tasks:
        raise UsageError(f"none of {len(demonstrations)} demonstrations has a trace: decodability is measured on traces")
    if len(tasks) < LEAST_TASKS:
        raise UsageError(
            f"traces of {len(tasks)} task{'s' * (len(tasks) > 1)} are too few to hold some out: decodability needs at least "
            f"{LEAST_TASKS} tasks"
        )
    chosen = _first_tasks(tasks)
    folds = [[one for place, one in enumerate(chosen) if place % FOLDS == fold] for fold in range(FOLDS)]
    counts = []
    for fold, held_out in enumerate(folds):
        fitted = [one for other, names in enumerate(folds) if other != fold for name in names for one in tasks[name]]
        decoder, floor = TraceDecoder(fitted), _Floor([one.action for one in fitted])
        counts += [_count(tasks[name], decoder, floor) for name in held_out]
    decisions, arguments = [one.decisions for one in counts], [one.arguments for one in counts]
    return Decodability(
        decoder=DECODER,
        decisions=sum(decisions),
        tasks=len(counts),
        action=_share([one.action for one in counts], decisions),
        action_floor=_share([one.action_floor for one in counts], decisions),
        arguments=_share([one.right_arguments for one in counts], arguments),
        arguments_floor=_share([one.right_arguments_floor for one in counts], arguments),
        arguments_in_trace=_share([one.in_trace for one in counts], arguments),
    )


def _by_task(demonstrations: Sequence[Demonstration]) -> dict[str, list[_Decision]]:
    """Return task -> its decisions with a trace, `MOST_OF_TASK` at most; several demonstrations of a task are one."""
    found: dict[str, list[_Decision]] = {}
    for number, one in enumerate(demonstrations):
        decisions = list(_decisions(one))
        if decisions:
            found.setdefault(f"{one.env} {one.task or f'conversation {number}'}", []).extend(decisions)
    return {task: decisions[:: math.ceil(len(decisions) / MOST_OF_TASK)] for task, decisions in found.items()}


def _decisions(demonstration: Demonstration) -> Iterator[_Decision]:
    canonical, action_parts = _reading(demonstration.env)
    for action, trace in zip(demonstration.actions, demonstration.traces, strict=True):
        if trace is not None:
            yield _Decision(tokens_of(trace), DecodedAction.of(action_parts(canonical(action))))


def _reading(env: str) -> tuple[Callable[[str], str], Callable[[str], ActionParts]]:
    if not env:
        return lambda action: " ".join(action.casefold().split()), word_parts
    entry = env_entry(env)
    return entry.canonical(), entry.action_parts()


def _first_tasks(tasks: dict[str, list[_Decision]]) -> list[str]:
    """Return tasks in the order of their hashes, as many as hold `MOST_DECISIONS` decisions."""
    ordered = sorted(tasks, key=lambda task: hashlib.sha256(task.encode("utf-8", "surrogatepass")).digest())
    chosen: list[str] = []
    decisions = 0
    for task in ordered:
        decisions += len(tasks[task])
        if decisions > MOST_DECISIONS and len(chosen) >= LEAST_TASKS:
            break
        chosen.append(task)
    return chosen


class _Floor:
    """The most frequent action, and as many of the most frequent arguments as actions usually have."""

    def __init__(self, actions: Sequence[DecodedAction]) -> None:
        (self.action, _), *_ = Counter(actions).most_common(1)
        (usual, _), *_ = Counter(len(one.arguments) for one in actions if one.arguments).most_common(1) or [(0, 0)]
        self.arguments = [key for key, _ in Counter(key for one in actions for key in one.arguments).most_common(usual)]


def _count(decisions: Sequence[_Decision], decoder: TraceDecoder, floor: _Floor) -> _Counts:
    total = _Counts()
    for tokens, action in decisions:
        decoded = decoder.decode(tokens)
        found = _Counts(
            decisions=1,
            arguments=len(action.arguments),
            action=decoded == action,
            action_floor=floor.action == action,
            right_arguments=_common(decoded.arguments, action.arguments),
            right_arguments_floor=_common(floor.arguments, action.arguments),
            in_trace=sum(holds(tokens, key) for key in action.arguments),
        )
        total = _Counts(*(one + other for one, other in zip(total, found, strict=True)))
    return total


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    return (Counter(first) & Counter(second)).total()


def _share(totals: Sequence[int], counts: Sequence[int]) -> Estimate:
    """Return the mean share of the tasks that count anything: Wilson's interval where each is 0 or 1, else the bootstrap's."""
    return score([total / count for total, count in zip(totals, counts, strict=True) if count])
