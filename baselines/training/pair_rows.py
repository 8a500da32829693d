"""Preference pairs as packed rows, and the steps of a training on them. Invariant: the loss weight of a token of a row is its
number in the row, counted from 1, so whatever order the log-probabilities come back in, each is found again; the tokens of a
step depend on the pairs, the schedule and the masks alone, never on earlier steps.

A state's two answers are two branches of one tree: their prompt is computed once, and with whole episodes as units the prompts
of all states too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from cotbench.baselines.data.examples import Example
from cotbench.baselines.data.preference_pair import PreferencePair
from cotbench.baselines.training.batching import TrainingStep
from cotbench.baselines.training.dataset import StepBatch, portion
from cotbench.baselines.training.loss import Losses
from cotbench.baselines.training.masks import LossNormalisation, Masks
from cotbench.baselines.training.packing import Packed, pack
from cotbench.baselines.training.sequence_tree import Tree, build_trees
from cotbench.baselines.training.token_logprobs import TokenRow, token_logprobs
from cotbench.baselines.training.transfer import device_tensor

AnswerLogprobs = tuple[float, ...]
"""Log-probability (nats) of each token of an answer."""

Reference = Mapping[str, tuple[AnswerLogprobs, AnswerLogprobs]]
"""Pair id -> the reference's log-probabilities of the chosen and of the rejected answer."""


@dataclass(frozen=True, slots=True)
class WeightedPair:
    """A pair, with what its tokens weigh at some point of the training.

    Attributes:
        pair: the pair.
        weights: loss weight of each token of the chosen answer, and of the rejected one.
        counted: whether it is in the loss.
    """

    pair: PreferencePair
    weights: tuple[tuple[float, ...], tuple[float, ...]]
    counted: bool = True


@dataclass(slots=True)
class PairRow(Packed):
    """Row of trees that hold the answers of pairs. Tokens without a weight are in no sum and have no place in the lists.

    Attributes:
        answers: of each supervised token, in the order of their numbers: the pair's index times 2, plus 1 where rejected.
        loss_weights: of each, its weight in the answer's sum.
        reference: of each, its log-probability under the reference.
        counted: of each pair, 1.0 where it is in the loss, else 0.0.
    """

    answers: list[int] = field(default_factory=list)
    loss_weights: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)
    counted: list[float] = field(default_factory=list)


def pair_row(episodes: Sequence[Sequence[WeightedPair]], reference: Reference | None = None) -> PairRow:
    """Return pairs packed into a row.

    Args:
        episodes: the pairs of each episode, in order of steps.
        reference: of all pairs; None: 0 for each token.
    """
    trees: list[Tree] = []
    answers: list[int] = []
    loss_weights: list[float] = []
    logprobs: list[float] = []
    counted: list[float] = []
    for episode in episodes:
        examples: list[Example] = []
        numbers: list[list[float]] = []
        for one in episode:
            known = None if reference is None else reference[one.pair.id]
            for side, (example, weights) in enumerate(zip(one.pair.examples(), one.weights, strict=True)):
                places = [0.0] * len(weights)
                for place, weight in enumerate(weights):
                    if weight > 0:
                        answers.append(2 * len(counted) + side)
                        loss_weights.append(weight)
                        logprobs.append(0.0 if known is None else known[side][place])
                        places[place] = float(len(answers))
                examples.append(example)
                numbers.append(places)
            counted.append(float(one.counted))
        trees += build_trees(examples, numbers)
    packed = pack(trees)
    return PairRow(
        **{one.name: getattr(packed, one.name) for one in fields(Packed)},
        answers=answers,
        loss_weights=loss_weights,
        reference=logprobs,
        counted=counted,
    )


def in_order(nll: Any, numbers: Any) -> Any:
    """Return the log-probabilities of a row's supervised tokens in the order of their numbers, with gradient.

    Args:
        nll: (tokens,) negative log-likelihoods, in any order.
        numbers: (tokens,) the number of each, counted from 1: what `Losses` returns as weights.
    """
    import torch

    return torch.zeros_like(nll).scatter(0, numbers.long() - 1, -nll)


def answer_sums(logprobs: Any, row: PairRow) -> tuple[Any, Any]:
    """Return the weighted sums of token log-probabilities over each answer.

    Args:
        logprobs: (tokens,) in the order of the tokens' numbers.
        row: the row.

    Returns:
        Two tensors (pairs,): of the chosen and of the rejected answers.
    """
    import torch

    weights = device_tensor(row.loss_weights, logprobs.device, logprobs.dtype)
    places = device_tensor(row.answers, logprobs.device, torch.long)
    sums = torch.zeros(2 * len(row.counted), dtype=logprobs.dtype, device=logprobs.device)
    both = sums.index_add(0, places, logprobs * weights).view(-1, 2)
    return both[:, 0], both[:, 1]


def reference_logprobs(
    model: Any, pairs: Sequence[PreferencePair], *, compute: Losses, device: Any, tokens: int
) -> dict[str, tuple[AnswerLogprobs, AnswerLogprobs]]:
    """Return pair id -> the log-probability of each token of both answers under a model.

    Args:
        model: a transformers model; its mode is left as it was found.
        pairs: the pairs.
        compute: the losses of a row, as the model is prepared for them.
        device: where it is.
        tokens: at most so many go through the model at once, except where a single answer with its prompt is longer.
    """
    import torch

    answers = [(pair.prompt_ids, answer.ids) for pair in pairs for answer in (pair.chosen, pair.rejected)]
    rows = [TokenRow(prompt, ids, (True,) * len(ids)) for prompt, ids in answers]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            logprobs = token_logprobs(model, rows, compute=compute, device=device, tokens=tokens)
    finally:
        model.train(training)
    parts = [tuple(part.tolist()) for part in logprobs.split([row.count for row in rows])]
    return {pair.id: both for pair, both in zip(pairs, zip(parts[::2], parts[1::2], strict=True), strict=True)}


def weigh(pair: PreferencePair, masks: Masks, epoch: int, progress: float) -> WeightedPair:
    """Return a pair with the weights that the masks give its tokens at some point of the training.

    Where the action of a pair is left out and both traces are the same, nothing is left to prefer but tags that follow
    different actions; such a pair is not in the loss.

    Args:
        pair: one of the training.
        masks: which pairs are masked; both answers of a pair are, or neither.
        epoch, progress: as `Masks.masked` takes them.
    """
    chosen, rejected = pair.examples()
    weights = masks.weights(chosen, epoch, progress), masks.weights(rejected, epoch, progress)
    alike = pair.identical_traces and masks.config.action_weight == 0 and masks.masked(pair.id, epoch, progress)
    return WeightedPair(pair, weights, counted=not alike)


class PairDataset:
    """Steps of a training on pairs as a dataset: item `step * processes + process` is that process's portion.

    Args:
        steps: the schedule, over (episode, decision) pairs of numbers.
        episodes: the preference pairs of each episode, in order of steps.
        masks: which of them are masked.
        reference: log-probabilities of all pairs under the reference.
        processes: among how many a step is divided.
        normalisation: which pairs of a step are counted in what its loss is divided by: all, or those that are in the loss.
    """

    def __init__(
        self,
        steps: Sequence[TrainingStep],
        episodes: Sequence[Sequence[PreferencePair]],
        masks: Masks,
        reference: Reference,
        processes: int = 1,
        normalisation: LossNormalisation = "all",
    ) -> None:
        self.steps = steps
        self._episodes = episodes
        self._masks = masks
        self._reference = reference
        self._processes = processes
        self._normalisation = normalisation

    def __len__(self) -> int:
        return len(self.steps) * self._processes

    def __getitem__(self, index: int) -> StepBatch:
        step = self.steps[index // self._processes]
        parts = [self.weighted(step, part) for part in step.parts if part]
        flat = [one for part in parts for episode in part for one in episode]
        count = sum(one.counted for one in flat) if self._normalisation == "remaining" else len(flat)
        own, padding = portion(parts, index % self._processes, self._processes)
        actions, others = _counts([one for part in own for episode in part for one in episode])
        rows, padded = (tuple(pair_row(part, self._reference) for part in some) for some in (own, padding))
        return StepBatch(rows, padded, max(1, count), actions, others)

    def weighted(self, step: TrainingStep, part: Sequence[tuple[int, tuple[int, ...]]]) -> list[list[WeightedPair]]:
        """Return the pairs of a part of a step, episode by episode, with their weights.

        Args:
            step: the step, which says how far the training is.
            part: (episode, decisions) pairs of numbers.
        """
        return [
            [weigh(self._episodes[episode][decision], self._masks, step.epoch, step.progress) for decision in decisions]
            for episode, decisions in part
        ]


def _counts(pairs: Sequence[WeightedPair]) -> tuple[int, float]:
    """Return the number of action tokens in both answers, masked or not, and the sum of the weights of all other tokens."""
    actions, others = 0, []
    for one in pairs:
        for answer, weights in zip((one.pair.chosen, one.pair.rejected), one.weights, strict=True):
            labels = [piece.label for piece in answer.pieces for _ in piece.ids]
            actions += labels.count("action")
            others += [weight for label, weight in zip(labels, weights, strict=True) if label != "action"]
    return actions, math.fsum(others)
