"""Schedule of a training: which decisions make up which step. Invariant: a pure function of sizes, numbers and the seed: a
resumed training gets the same steps, whatever was computed before.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ExampleUnit = Literal["decision", "episode"]


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """Data of one update of the weights.

    Attributes:
        epoch: how often the data was gone through before.
        progress: share of all steps that lie before this one, in [0, 1).
        parts: for each process and accumulated pass, (episode, decisions) pairs.
    """

    epoch: int
    progress: float
    parts: tuple[tuple[tuple[int, tuple[int, ...]], ...], ...]


def make_steps(
    sizes: Sequence[Sequence[int]],
    *,
    unit: ExampleUnit,
    batch: int,
    epochs: float,
    seed: int,
    tokens: int,
    processes: int = 1,
    max_steps: int | None = None,
    compute: int | None = None,
) -> list[TrainingStep]:
    """Return the steps of a whole training.

    Args:
        sizes: tokens of each decision of each episode, as it is computed beside the others.
        unit: whether decisions are drawn one by one, or whole episodes, which are computed as one sequence.
        batch: decisions a step; whole episodes are drawn until there are at least so many.
        epochs: how often the data is gone through; a fraction ends within an epoch.
        seed: of the order.
        tokens: at most so many tokens go through the model at once, except where a single unit is longer.
        processes: among how many a step is divided.
        max_steps: number of steps, instead of `epochs`.
        compute: tokens that the whole training computes, instead of `epochs`: the steps end with the one that reaches them.
    """
    units: list[tuple[int, tuple[int, ...]]] = [(e, (d,)) for e, lengths in enumerate(sizes) for d in range(len(lengths))]
    if unit == "episode":
        units = [(e, tuple(range(len(lengths)))) for e, lengths in enumerate(sizes)]
    drawn: list[tuple[int, list[tuple[int, tuple[int, ...]]]]] = []
    computed = 0
    for epoch in itertools.count():
        order = list(units)
        random.Random(f"cotbench-order-{seed}-{epoch}").shuffle(order)
        batches = _batches(order, batch)
        if max_steps is None and compute is None:
            share = min(1.0, epochs - epoch)
            batches = batches[: max(1, round(share * len(batches)))]
        for one in batches:
            if (max_steps is not None and len(drawn) >= max_steps) or (compute is not None and computed >= compute):
                break
            drawn.append((epoch, one))
            computed += sum(sizes[episode][decision] for episode, decisions in one for decision in decisions)
        else:
            if max_steps is not None or compute is not None or epoch + 1 < -(-int(epochs * 1000) // 1000):
                continue
        break
    return [
        TrainingStep(epoch, index / len(drawn), _parts(one, sizes, tokens, processes))
        for index, (epoch, one) in enumerate(drawn)
    ]


def computed_tokens(steps: Sequence[TrainingStep], sizes: Sequence[Sequence[int]]) -> int:
    """Return how many tokens go through the model in some steps.

    Args:
        steps: the schedule.
        sizes: as `make_steps` takes them.
    """
    pairs = (pair for step in steps for part in step.parts for pair in part)
    return sum(sizes[episode][decision] for episode, decisions in pairs for decision in decisions)


def _batches(order: Sequence[tuple[int, tuple[int, ...]]], batch: int) -> list[list[tuple[int, tuple[int, ...]]]]:
    batches: list[list[tuple[int, tuple[int, ...]]]] = []
    held = batch
    for unit in order:
        if held >= batch:
            batches.append([])
            held = 0
        batches[-1].append(unit)
        held += len(unit[1])
    return batches


def _parts(
    units: Sequence[tuple[int, tuple[int, ...]]], sizes: Sequence[Sequence[int]], tokens: int, processes: int
) -> tuple[tuple[tuple[int, tuple[int, ...]], ...], ...]:
    """Return units in parts of at most `tokens`, the longest first, each where least is; a multiple of `processes` parts."""
    length = {unit: sum(sizes[unit[0]][d] for d in unit[1]) for unit in units}
    ordered = sorted(units, key=lambda one: (-length[one], one))
    count = -(-sum(length.values()) // tokens)
    while True:
        count += -count % processes
        parts: list[list[tuple[int, tuple[int, ...]]]] = [[] for _ in range(count)]
        loads = [0] * count
        for unit in ordered:
            least = loads.index(min(loads))
            parts[least].append(unit)
            loads[least] += length[unit]
        if all(load <= tokens or len(part) == 1 for load, part in zip(loads, parts, strict=True)):
            return tuple(tuple(sorted(part)) for part in parts)
        count += 1
