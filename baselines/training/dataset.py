"""Dataset of the trainer, step by step. Invariant: the tokens of a step depend on the examples, the schedule and the masks,
never on earlier steps; so skipping to a step is the same as coming to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cotbench.baselines.data.examples import Example
from cotbench.baselines.training.batching import TrainingStep
from cotbench.baselines.training.masks import LossNormalisation, Masks
from cotbench.baselines.training.packing import Packed, pack
from cotbench.baselines.training.sequence_tree import Tree, build_trees

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One process's portion of a step.

    Attributes:
        passes: rows that go through the model, one after the other.
        padding: rows of another process, computed after them and not counted: where the weights are divided among the
            processes, each pass needs all of them, so that all make as many.
        count: what the loss is divided by: tokens (or pairs, or groups of branches) of the whole step, of all processes.
        actions: action tokens in this portion, masked or not.
        others: sum of the loss weights of its other tokens.
    """

    passes: tuple[Packed, ...]
    padding: tuple[Packed, ...]
    count: int
    actions: int
    others: float


class StepDataset(Protocol):
    """Steps of a training as a dataset: item `step * processes + process` is that process's portion."""

    steps: Sequence[TrainingStep]

    def __len__(self) -> int:
        """Return the number of portions."""

    def __getitem__(self, index: int) -> StepBatch:
        """Return a portion."""


@dataclass(frozen=True, slots=True)
class PartTrees:
    """Trees of a part of a step.

    Attributes:
        trees: the trees.
        actions: number of action tokens in them, masked or not.
        others: sum of the loss weights of their other tokens.
    """

    trees: list[Tree]
    actions: int
    others: float


def portion(parts: Sequence[_Part], process: int, processes: int) -> tuple[Sequence[_Part], Sequence[_Part]]:
    """Return the parts of a step that a process computes for itself, and those of others that it computes beside them, so that
    all processes compute equally many: where each pass needs all of them, none waits forever.

    Args:
        parts: those of the step, none of them empty.
        process: its number, from 0.
        processes: how many there are.
    """
    own = parts[process::processes]
    return own, list(parts[:1]) * (-(-len(parts) // processes) - len(own))


Trees = Callable[[TrainingStep, tuple[tuple[int, tuple[int, ...]], ...]], PartTrees]
"""Returns the trees of a part of a step."""


class PackedDataset:
    """Steps of a training as a dataset: item `step * processes + process` is that process's portion.

    Args:
        steps: the schedule.
        trees: makes the trees of a part.
        processes: among how many a step is divided.
        normalisation: which tokens of a step are counted in what its loss is divided by: all answer tokens, or those of a
            weight above 0.
        counted: (tree) -> what of it is counted instead, such as its preference pairs.
    """

    def __init__(
        self,
        steps: Sequence[TrainingStep],
        trees: Trees,
        processes: int = 1,
        normalisation: LossNormalisation = "all",
        counted: Callable[[Tree], int] | None = None,
    ) -> None:
        self.steps = steps
        self._trees = trees
        self._processes = processes
        by_tokens = (lambda tree: tree.supervised) if normalisation == "remaining" else (lambda tree: tree.answer_tokens)
        self._counted: Callable[[Tree], int] = counted or by_tokens

    def __len__(self) -> int:
        return len(self.steps) * self._processes

    def __getitem__(self, index: int) -> StepBatch:
        step = self.steps[index // self._processes]
        parts = [part for part in (self._trees(step, one) for one in step.parts) if part.trees]
        trees = [tree for part in parts for tree in part.trees]
        count = max(1, sum(map(self._counted, trees)))  # 0 where all of a step is masked and only the rest is counted.
        own, padding = portion(parts, index % self._processes, self._processes)
        return StepBatch(
            tuple(pack(part.trees) for part in own),
            tuple(pack(part.trees) for part in padding),
            count,
            sum(part.actions for part in own),
            math.fsum(part.others for part in own),
        )


def trees_of_examples(episodes: Sequence[Sequence[Example]], masks: Masks) -> Trees:
    """Return a function that makes the trees of decisions, with the loss weights that the masks give their tokens.

    Args:
        episodes: the examples of each episode.
        masks: which of them are masked.
    """

    def trees(step: TrainingStep, part: tuple[tuple[int, tuple[int, ...]], ...]) -> PartTrees:
        built: list[Tree] = []
        actions, others = 0, 0.0
        for episode, decisions in part:
            examples = [episodes[episode][decision] for decision in decisions]
            counts = [masks.weights(example, step.epoch, step.progress) for example in examples]
            built += build_trees(examples, counts)
            for example, own in zip(examples, counts, strict=True):
                is_action = [span.label == "action" for span in example.spans[1:] for _ in range(span.start, span.end)]
                actions += sum(is_action)
                others += math.fsum(weight for weight, action in zip(own, is_action, strict=True) if not action)
        return PartTrees(built, actions, others)

    return trees


def trees_of_texts(texts: Sequence[Tree]) -> Trees:
    """Return a function that gives the trees as they are.

    Args:
        texts: one tree for each episode of the schedule.
    """

    def trees(step: TrainingStep, part: tuple[tuple[int, tuple[int, ...]], ...]) -> PartTrees:
        found = [texts[index] for index, _ in part]
        others = math.fsum(weight for tree in found for weight in tree.weights[1:])
        return PartTrees(
            found, 0, others + math.fsum(one for tree in found for branch in tree.branches for one in branch.weights)
        )

    return trees
