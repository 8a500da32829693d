"""What the writer and the answerer of `frodo` are trained on. Invariant: both have the same states, each with a right and a
counterfactual trace after the very prompt of evaluation; no token of an action is in the writer's loss, and none of a trace in
the answerer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cotbench.baselines.data.counterfactuals import Counterfactuals
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.examples import Example, Examples, make_examples, with_answer
from cotbench.baselines.recipes.frodo_config import FrodoConfig
from cotbench.baselines.training.batching import TrainingStep
from cotbench.baselines.training.branch_groups import BranchGroup, Weights
from cotbench.baselines.training.masks import Masks
from cotbench.errors import UsageError
from cotbench.prompting.elicitation import Elicitation


@dataclass(frozen=True, slots=True)
class FrodoData:
    """Training data of both models.

    Attributes:
        pairs: of each episode, a group for each state: (right trace, counterfactual trace), each up to its closing tag.
        triples: likewise (right trace and action, counterfactual trace and its action, counterfactual trace and right action).
        right: the examples of the right answers, one a triple.
        counts: for the card.
    """

    pairs: tuple[tuple[BranchGroup, ...], ...]
    triples: tuple[tuple[BranchGroup, ...], ...]
    right: Examples
    counts: dict[str, int]


def frodo_data(
    config: FrodoConfig,
    demonstrations: Sequence[Demonstration],
    elicitations: dict[str, Elicitation],
    trainable: Any,
    others: Counterfactuals,
) -> FrodoData:
    """Return the training data.

    Args:
        config: the options.
        demonstrations: with the right traces and actions.
        elicitations: environment -> the elicitation that evaluation will use.
        trainable: the model, a `TrainableModel`.
        others: the counterfactual traces and their actions.

    Raises:
        UsageError: nothing is left.
    """
    longest = min(trainable.context, config.max_length or trainable.context)
    chat = trainable.chat
    examples = make_examples(demonstrations, chat, elicitations, context=trainable.context, longest=longest)
    triples: list[tuple[BranchGroup, ...]] = []
    right: list[tuple[Example, ...]] = []
    without, too_long = 0, list(examples.too_long)
    for episode in examples.episodes:
        groups = []
        for example in episode:
            other = others.by_id.get(example.id)
            if other is None:
                without += 1
                continue
            counterfactual = with_answer(example, chat, other.trace, other.action)
            crossed = crossed_answer(counterfactual, example)
            if max(len(counterfactual.ids), len(crossed.ids)) > longest:
                too_long.append(example.id)
                continue
            groups.append(BranchGroup(example.id, (example, counterfactual, crossed)))
        if groups:
            triples.append(tuple(groups))
            right.append(tuple(group.answers[0] for group in groups))
    if not triples:
        raise UsageError(
            f"no example is left of {len(demonstrations)} demonstrations: {len(too_long)} decisions are longer than {longest} "
            f"tokens (--max-length), {examples.without_trace} have no trace, {without} no counterfactual trace"
        )
    counts = {
        "examples": sum(map(len, triples)),
        "too_long": len(too_long),
        "shortened": examples.shortened,
        "without_trace": examples.without_trace,
        "without_counterfactual": without,
        "beyond_budget": examples.beyond_budget,
    }
    pairs = tuple(
        tuple(BranchGroup(group.id, (reasoning(group.answers[0]), reasoning(group.answers[1]))) for group in groups)
        for groups in triples
    )
    return FrodoData(pairs, tuple(triples), replace(examples, episodes=tuple(right)), counts)


def crossed_answer(counterfactual: Example, right: Example) -> Example:
    """Return the first example's trace with the second one's action: the same tokens, put together anew.

    Args:
        counterfactual: of the same state.
        right: the example whose action, and what ends it, is taken.
    """
    start = _span(counterfactual, "action").start
    taken = _span(right, "action").start
    ids = (*counterfactual.ids[:start], *right.ids[taken:])
    common = [span for span in counterfactual.spans if span.end <= start]
    moved = [
        replace(span, start=span.start + start - taken, end=span.end + start - taken)
        for span in right.spans
        if span.start >= taken
    ]
    return replace(counterfactual, ids=ids, spans=(*common, *moved))


def reasoning(example: Example) -> Example:
    """Return an example's answer up to the end of its trace, the closing tag included: what the writer is to write."""
    end = _span(example, "think_close").end
    return replace(example, ids=example.ids[:end], spans=tuple(span for span in example.spans if span.end <= end))


def _span(example: Example, label: str) -> Any:
    return next(span for span in example.spans if span.label == label)


def writer_weights(group: BranchGroup, step: TrainingStep) -> tuple[Weights, ...]:
    """Return the loss weights of a pair of traces: 1 for traces and closing tags; evaluation opens the tag.

    Args:
        group: of `FrodoData.pairs`.
        step: not used.
    """
    return tuple(_by_label(answer, {"trace": 1.0, "think_close": 1.0}) for answer in group.answers)


def answerer_weights(masks: Masks, group: BranchGroup, step: TrainingStep) -> tuple[Weights, ...]:
    """Return the loss weights of the three answers at a state: 1 for actions, their closing tags and the end of the turn.

    Where the state's action is masked, the first two answers have what the mask leaves, and the third, which is in the hinge
    alone, has nothing.

    Args:
        masks: which states are masked.
        group: of `FrodoData.triples`.
        step: of the training.
    """
    if not masks.masked(group.id, step.epoch, step.progress):
        return tuple(_by_label(answer, {"action": 1.0, "closing": 1.0}) for answer in group.answers)
    left = {} if masks.config.mask_closing else {"closing": 1.0}
    return tuple(_by_label(answer, {} if index == 2 else left) for index, answer in enumerate(group.answers))


def _by_label(example: Example, weights: dict[str, float]) -> Weights:
    return tuple(weights.get(span.label, 0.0) for span in example.spans[1:] for _ in range(span.start, span.end))
