"""An episode as one training sequence. Invariant: a branch sees the trunk up to where it leaves it, and itself, and nothing
else; so the loss of a tree is the loss of its decisions one by one, while their common history is computed once.

The prompt of a later decision begins with that of an earlier one (`chat_template`), so the longest prompt of an
episode holds all of them: it is the trunk, and each decision's answer is a branch. A tree without a branch is plain text; a
decision on its own is a tree with one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cotbench.baselines.data.examples import Example


@dataclass(frozen=True, slots=True)
class Branch:
    """Answer that continues a tree's trunk.

    Attributes:
        at: how many tokens of the trunk it continues; at least 1.
        ids: its tokens.
        weights: loss weight of each of them.
        reference: its summed log-probability under a reference model, where a loss compares with one.
    """

    at: int
    ids: tuple[int, ...]
    weights: tuple[float, ...]
    reference: float = 0.0


@dataclass(frozen=True, slots=True)
class Tree:
    """Text with branches.

    Attributes:
        trunk: token ids that the branches see, up to where they leave it.
        branches: in the order of `at`.
        weights: loss weight of each of the trunk's tokens; empty for none.
    """

    trunk: tuple[int, ...]
    branches: tuple[Branch, ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def tokens(self) -> int:
        """Number of tokens that are computed."""
        return len(self.trunk) + sum(len(branch.ids) for branch in self.branches)

    @property
    def answer_tokens(self) -> int:
        """Number of tokens that are supervised without masks: those of the branches, and those of the trunk with a weight."""
        return sum(weight > 0 for weight in self.weights[1:]) + sum(len(branch.ids) for branch in self.branches)

    @property
    def supervised(self) -> int:
        """Number of tokens with a loss that counts; nothing predicts the very first token of a text."""
        return sum(weight > 0 for weight in self.weights[1:]) + sum(
            weight > 0 for branch in self.branches for weight in branch.weights
        )


def build_trees(examples: Sequence[Example], weights: Sequence[Sequence[float]]) -> list[Tree]:
    """Return the trees of the examples of one episode: one, or more where a prompt does not continue the one before.

    Args:
        examples: in order of steps.
        weights: for each example, the loss weight of each token of its answer.
    """
    trees: list[Tree] = []
    group: list[tuple[Example, Sequence[float]]] = []
    for example, counts in zip(examples, weights, strict=True):
        if group and not _continues(example, group[-1][0]):
            trees.append(_tree(group))
            group = []
        group.append((example, counts))
    return [*trees, _tree(group)] if group else trees


def _continues(example: Example, before: Example) -> bool:
    return example.ids[: before.spans[0].end] == before.prompt and example.spans[0].end >= before.spans[0].end


def _tree(group: Sequence[tuple[Example, Sequence[float]]]) -> Tree:
    branches = tuple(Branch(example.spans[0].end, example.answer, tuple(counts)) for example, counts in group)
    return Tree(group[-1][0].prompt, branches)
