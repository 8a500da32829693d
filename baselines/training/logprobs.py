"""Log-probabilities of the training data's actions under the base model. Invariant: an action's log-probability is that of its
tokens after the opening tag and of the closing tag, as the agent counts them: from the prompt alone, and after the trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cotbench.agents.tokenization.chat_template import Chat
from cotbench.baselines.data.examples import Example
from cotbench.baselines.training.loss import Losses
from cotbench.baselines.training.masks import Score
from cotbench.baselines.training.packing import pack
from cotbench.baselines.training.sequence_tree import Branch, Tree
from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN

_TOKENS = 8192


def action_logprobs(
    model: Any, chat: Chat, episodes: Sequence[Sequence[Example]], *, compute: Losses, device: Any
) -> dict[str, Score]:
    """Return example id -> log-probability (nats) of the action, closing tag included, from the prompt alone and after the
    trace.

    Args:
        model: a transformers model.
        chat: its tokenizer and template.
        episodes: the examples of each episode.
        compute: the losses of a row, as the model is prepared for them.
        device: where it is.
    """
    import torch

    tags = tuple(chat.encode(ACTION_OPEN)), tuple(chat.encode(ACTION_CLOSE))
    found: dict[str, Score] = {}
    model.eval()
    with torch.inference_mode():
        for group in _groups([example for examples in episodes for example in examples]):
            # Branch by branch, so that the order of what comes back is known in either way of computing.
            trees = [tree for example in group for tree in _both(example, *tags)]
            nll, _ = compute(model, pack(trees), device)
            sums = [-float(part.sum()) for part in nll.split([tree.supervised for tree in trees])]
            found |= {example.id: Score(prompt=sums[2 * index], cot=sums[2 * index + 1]) for index, example in enumerate(group)}
    return found


def _groups(examples: Sequence[Example]) -> Iterator[list[Example]]:
    group: list[Example] = []
    for example in examples:
        if group and 2 * sum(len(one.ids) for one in [*group, example]) > _TOKENS:
            yield group
            group = []
        group.append(example)
    if group:
        yield group


def _both(example: Example, opening: tuple[int, ...], closing: tuple[int, ...]) -> tuple[Tree, Tree]:
    """Return the action after the prompt alone, and after the trace, one tree each, with the closing tag that ends it."""
    action, prompt = (*example.part("action"), *closing), example.prompt
    counts = (0.0,) * len(opening) + (1.0,) * len(action)
    alone = Tree(prompt, (Branch(len(prompt), (*opening, *action), counts),))
    span = next(span for span in example.spans if span.label == "action")
    before = example.ids[len(prompt) : span.start]
    return alone, Tree(prompt, (Branch(len(prompt), (*before, *action), (0.0,) * len(before) + (1.0,) * len(action)),))
