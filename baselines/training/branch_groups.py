"""Groups of answers to one prompt as training data: preference pairs, the answerer's three answers. Invariant: the answers of a
group are branches of one tree, one after the other, so a `GroupLoss` finds them together, and their prompt is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cotbench.baselines.data.examples import Example
from cotbench.baselines.training.batching import ExampleUnit, TrainingStep
from cotbench.baselines.training.dataset import PartTrees, Trees
from cotbench.baselines.training.sequence_tree import Tree, build_trees

Weights = Sequence[float]
"""Loss weight of each token of an answer."""


@dataclass(frozen=True, slots=True)
class BranchGroup:
    """Several answers at one state.

    Attributes:
        id: of the state's example.
        answers: examples of the same prompt.
        references: log-probability (nats) of each answer's supervised tokens under the reference model; empty where the loss
            has none.
    """

    id: str
    answers: tuple[Example, ...]
    references: tuple[float, ...] = ()


Weigh = Callable[[BranchGroup, TrainingStep], Sequence[Weights]]
"""Returns the loss weights of each answer of a group in a step."""


def trees_of_groups(episodes: Sequence[Sequence[BranchGroup]], weigh: Weigh) -> Trees:
    """Return a function that makes the trees of groups.

    Args:
        episodes: the groups of each episode, in order of steps.
        weigh: the loss weights.
    """

    def trees(step: TrainingStep, part: tuple[tuple[int, tuple[int, ...]], ...]) -> PartTrees:
        built: list[Tree] = []
        actions, others = 0, 0.0
        for episode, decisions in part:
            groups = [episodes[episode][decision] for decision in decisions]
            weights = [own for group in groups for own in weigh(group, step)]
            built += group_trees(groups, weights)
            answers = [answer for group in groups for answer in group.answers]
            for answer, own in zip(answers, weights, strict=True):
                is_action = [span.label == "action" for span in answer.spans[1:] for _ in range(span.start, span.end)]
                actions += sum(is_action)
                others += math.fsum(weight for weight, action in zip(own, is_action, strict=True) if not action)
        return PartTrees(built, actions, others)

    return trees


def group_trees(groups: Sequence[BranchGroup], weights: Sequence[Weights]) -> list[Tree]:
    """Return the trees of the groups of one episode; the branches of a group are never in two of them.

    Args:
        groups: in order of steps.
        weights: of each answer of each group.
    """
    trees = build_trees([answer for group in groups for answer in group.answers], weights)
    if not any(group.references for group in groups):
        return trees
    references = iter([one for group in groups for one in group.references])
    return [
        replace(tree, branches=tuple(replace(branch, reference=next(references)) for branch in tree.branches)) for tree in trees
    ]


def group_sizes(episodes: Sequence[Sequence[BranchGroup]], unit: ExampleUnit) -> list[list[int]]:
    """Return the tokens that each group of each episode adds to what is computed, as `make_steps` takes them.

    Args:
        episodes: the groups of each episode.
        unit: whether an episode's prompts are computed as one.
    """
    return [
        [
            sum(len(answer.answer) for answer in group.answers)
            + (len(group.answers[0].prompt) if unit == "decision" or index == len(groups) - 1 else 0)
            for index, group in enumerate(groups)
        ]
        for groups in episodes
    ]
