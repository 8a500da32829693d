"""Dataset of the trainer, step by step. Invariant: the tokens of a step depend on the examples, the schedule and the masks,
never on earlier steps; so skipping to a step is the same as coming to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cotbench.baselines.data.examples import Example
from cotbench.baselines.training.batching import TrainingStep
from cotbench.baselines.training.masks import Masks, weights
from cotbench.baselines.training.packing import Packed, pack
from cotbench.baselines.training.sequence_tree import Tree, build_trees


@dataclass(frozen=True, slots=True)
class StepBatch:
    """One process's portion of a step.

    Attributes:
        passes: rows that go through the model, one after the other.
        count: supervised tokens of the whole step, of all processes.
        actions: action tokens in this portion, masked or not.
        others: other supervised tokens in it.
        idle: it is another process's, computed so that no process waits, and counts nothing.
    """

    passes: tuple[Packed, ...]
    count: int
    actions: int
    others: int
    idle: bool = False


Trees = Callable[[TrainingStep, tuple[tuple[int, tuple[int, ...]], ...]], tuple[list[Tree], int]]
"""Returns the trees of a part of a step, and how many action tokens they hold."""


class PackedDataset:
    """Steps of a training as a dataset: item `step * processes + process` is that process's portion.

    Args:
        steps: the schedule.
        trees: makes the trees of a part.
        processes: among how many a step is divided.
    """

    def __init__(self, steps: Sequence[TrainingStep], trees: Trees, processes: int = 1) -> None:
        self.steps = steps
        self._trees = trees
        self._processes = processes

    def __len__(self) -> int:
        return len(self.steps) * self._processes

    def __getitem__(self, index: int) -> StepBatch:
        step = self.steps[index // self._processes]
        parts = [self._trees(step, part) for part in step.parts]
        count = sum(tree.supervised for trees, _ in parts for tree in trees)
        own = parts[index % self._processes :: self._processes]
        actions = sum(number for _, number in own)
        supervised = sum(len(branch.ids) for trees, _ in own for tree in trees for branch in tree.branches)
        supervised += sum(weight > 0 for trees, _ in own for tree in trees for weight in tree.weights[1:])
        passes = tuple(pack(trees) for trees, _ in own if trees)
        if not passes:  # Too few for every process; yet all must compute, or the others would wait for this one.
            return StepBatch((pack(next(trees for trees, _ in parts if trees)),), count, 0, 0, idle=True)
        return StepBatch(passes, count, actions, supervised - actions)


def trees_of_examples(episodes: Sequence[Sequence[Example]], masks: Masks) -> Trees:
    """Return a function that makes the trees of decisions, with the action tokens of masked ones left out of the loss.

    Args:
        episodes: the examples of each episode.
        masks: which of them are masked.
    """

    def trees(step: TrainingStep, part: tuple[tuple[int, tuple[int, ...]], ...]) -> tuple[list[Tree], int]:
        built: list[Tree] = []
        actions = 0
        for episode, decisions in part:
            examples = [episodes[episode][decision] for decision in decisions]
            masked = [masks.masked(example.id, step.epoch, step.progress) for example in examples]
            built += build_trees(
                examples, [weights(one, hide, masks.action_weight) for one, hide in zip(examples, masked, strict=True)]
            )
            actions += sum(len(example.part("action")) for example in examples)
        return built, actions

    return trees


def trees_of_texts(texts: Sequence[Tree]) -> Trees:
    """Return a function that gives the trees as they are.

    Args:
        texts: one tree for each episode of the schedule.
    """

    def trees(step: TrainingStep, part: tuple[tuple[int, tuple[int, ...]], ...]) -> tuple[list[Tree], int]:
        return [texts[index] for index, _ in part], 0

    return trees
