"""Log-probabilities of given tokens under a model, with gradient, from packed trees. Invariant: they come back in the order in
which they were asked for, whichever way the model computes its losses: each token carries its number as its loss weight, and is
put back by it.

Rows that follow each other share what they can: where a prompt begins with the prompt before it (the turns of an episode, two
answers to one prompt), it is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cotbench.baselines.training.loss import Losses, losses
from cotbench.baselines.training.packing import pack
from cotbench.baselines.training.sequence_tree import Branch, Tree

TOKENS = 8192
"""Tokens that go through the model at once, where nothing else is said."""

_LARGEST = 2**24
"""Numbers above this one are not exact in float32."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """Prompt with an answer, and which of the answer's tokens are asked for.

    Attributes:
        prompt: token ids; at least one, for nothing predicts the first token of a text.
        answer: token ids of what follows it.
        wanted: for each token of the answer, whether its log-probability is asked for.
    """

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    wanted: tuple[bool, ...]

    def __post_init__(self) -> None:
        if not self.prompt or len(self.answer) != len(self.wanted):
            raise ValueError("a row needs a prompt, and an answer as long as what is wanted of it")

    @property
    def count(self) -> int:
        """Number of tokens that are asked for."""
        return sum(self.wanted)


def token_logprobs(
    model: Any, rows: Sequence[TokenRow], *, compute: Losses = losses, device: Any = "cpu", tokens: int = TOKENS
) -> Any:
    """Return the log-probability (nats, at temperature 1) of each token that is asked for.

    With gradients every group of rows keeps its activations until the backward pass: to bound the memory of an update, call it
    for one group of `row_groups` after the other, and go backward after each.

    Args:
        model: a model prepared for training (`TrainableModel.model`), wrapped or not.
        rows: the rows; those that share a prompt should follow each other.
        compute: the losses of a row, as the model is prepared for them (`TrainableModel.losses`).
        device: where the model is.
        tokens: at most so many tokens go through the model at once, except where a single row is longer.

    Returns:
        A tensor (sum of the rows' `count`,), float32, row by row.

    Raises:
        ValueError: more tokens than can be numbered are asked for at once.
    """
    import torch

    found = [_group_logprobs(model, group, compute, device) for group in row_groups(rows, tokens)]
    return torch.cat(found) if found else torch.zeros(0, device=device)


def _group_logprobs(model: Any, rows: Sequence[TokenRow], compute: Losses, device: Any) -> Any:
    import torch

    count = sum(row.count for row in rows)
    if not count:
        return torch.zeros(0, device=device)
    if count >= _LARGEST:
        raise ValueError(f"{count} tokens are asked for at once: ask for fewer")
    nll, number = compute(model, pack(row_trees(rows)), device)
    return torch.zeros(count, device=nll.device).index_copy(0, number.long() - 1, -nll.float())


def row_trees(rows: Sequence[TokenRow]) -> list[Tree]:
    """Return rows as trees; the loss weight of the n-th token that is asked for is n, counted from 1.

    Args:
        rows: those that share a prompt follow each other.
    """
    trees: list[Tree] = []
    prompt: tuple[int, ...] = ()
    branches: list[Branch] = []
    number = 0
    for row in rows:
        if branches and not _continues(row, prompt):
            trees.append(Tree(prompt, tuple(branches)))
            branches = []
        weights = []
        for wanted in row.wanted:
            number += wanted
            weights.append(float(number) if wanted else 0.0)
        branches.append(Branch(len(row.prompt), row.answer, tuple(weights)))
        prompt = row.prompt
    return [*trees, Tree(prompt, tuple(branches))] if branches else trees


def row_groups(rows: Sequence[TokenRow], tokens: int = TOKENS) -> Iterator[tuple[TokenRow, ...]]:
    """Yield rows, in order, in groups that go through the model at once.

    Args:
        rows: the rows.
        tokens: that are computed for a group, at most, except where a single row is longer.
    """
    group: list[TokenRow] = []
    length = 0
    for row in rows:
        added = row_cost(row, group[-1] if group else None)
        if group and length + added > tokens:
            yield tuple(group)
            group, length = [], 0
            added = row_cost(row, None)
        group.append(row)
        length += added
    if group:
        yield tuple(group)


def row_cost(row: TokenRow, before: TokenRow | None) -> int:
    """Return how many tokens a row adds to what is computed.

    Args:
        row: the row.
        before: the row in front of it in the same group; None: it is the first.
    """
    shared = len(before.prompt) if before is not None and _continues(row, before.prompt) else 0
    return len(row.prompt) - shared + len(row.answer)


def row_sums(values: Any, rows: Sequence[TokenRow]) -> Any:
    """Return the sum over each row's tokens.

    Args:
        values: (tokens,), as `token_logprobs` returns them for the same rows.
        rows: the rows.

    Returns:
        A tensor (rows,).
    """
    import torch

    parts = values.split([row.count for row in rows])
    return torch.stack([part.sum() for part in parts]) if parts else values.new_zeros(0)


def _continues(row: TokenRow, prompt: tuple[int, ...]) -> bool:
    return row.prompt[: len(prompt)] == prompt
