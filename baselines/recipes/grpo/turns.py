"""Turns of played episodes as tokens to be trained on. Invariant: what is trained on is what was generated: the ids of
`Decision.tokens`, nothing is tokenized again; tokens that the harness wrote are in the context and in no loss.

An episode's turns follow each other, so that those whose prompts grow share their prompt's computation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.detokenizer import Detokenizer
from cotbench.baselines.training.masks import MaskConfig, fraction_at, rank
from cotbench.baselines.training.token_logprobs import TokenRow
from cotbench.errors import AgentError
from cotbench.prompting.parsing import Tags
from cotbench.prompting.query import DecisionTokens
from cotbench.runs.episode import Episode

Kind = Literal["trace", "tag", "action", "closing"]
"""What a token that the model wrote belongs to: its trace, the tag that ends the trace (and, with style template, every opening
tag), its action, or the tag and end of turn that end the action.
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a played episode.

    Attributes:
        id: names the turn within its update: the episode's key and the step.
        task: the task id.
        row: the tokens; those that the model wrote are asked for.
        kinds: of each token that the model wrote, in order.
        logprobs: what the engine said of them when they were sampled, at temperature 1.
    """

    id: str
    task: str
    row: TokenRow
    kinds: tuple[Kind, ...]
    logprobs: tuple[float, ...]


def episode_turns(episode: Episode, chat: Chat, tags: Tags) -> tuple[Turn, ...]:
    """Return the turns of an episode.

    Args:
        episode: played with `return_tokens`, to its end.
        chat: the tokenizer that its tokens are of.
        tags: of the elicitation.

    Raises:
        AgentError: an answer has no token ids.
    """
    turns = []
    for number, step in enumerate(episode.trajectory):
        tokens = step.decision.tokens
        if tokens is None:
            raise AgentError(
                f"{episode.key}, step {number}: the engine returned no token ids, so nothing can be trained on them"
            )
        own = tuple(not written for written in tokens.harness)
        kinds = token_kinds(chat, tokens, tags)
        row = TokenRow(tokens.prompt_ids, tokens.completion_ids, own)
        logprobs = tuple(one for one, mine in zip(tokens.logprobs, own, strict=True) if mine)
        turns.append(Turn(f"{episode.key}#{number}", episode.task, row, kinds, logprobs))
    return tuple(turns)


def token_kinds(chat: Chat, tokens: DecisionTokens, tags: Tags) -> tuple[Kind, ...]:
    """Return the kind of each token of an answer that the model wrote.

    A token in which one part ends and the next begins belongs to the earlier one, but to the action where that is one of them:
    what a mask of the actions leaves in the loss holds nothing of an action.

    Args:
        chat: the tokenizer.
        tokens: of the answer.
        tags: of the elicitation.
    """
    ids = tokens.completion_ids
    if ids and ids[-1] in chat.end_ids and not tokens.harness[-1]:
        ids = ids[:-1]  # What ends the turn is no text of an action that was not closed.
    growing, text, ends = Detokenizer(chat), "", []
    for token in ids:
        text = growing.append(token)
        ends.append(len(text))
    ends += [len(text) + 1] * (len(tokens.completion_ids) - len(ids))
    opened = text.find(tags.action_open)
    begin = len(text) if opened < 0 else opened + len(tags.action_open)
    end = _found(text, tags.action_close, begin)
    closed = _found(text[: len(text) if opened < 0 else opened], tags.think_close, 0)
    leading = len(tags.think_open) if text.startswith(tags.think_open) else 0
    kinds: list[Kind] = []
    for place, written in enumerate(tokens.harness):
        if written:
            continue
        first, last = ends[place - 1] if place else 0, ends[place]
        if first < end and last > begin:
            kinds.append("action")
        elif first >= end and opened >= 0:
            kinds.append("closing")
        elif first < closed and last > leading:
            kinds.append("trace")
        else:
            kinds.append("tag")
    return tuple(kinds)


def _found(text: str, part: str, start: int) -> int:
    place = text.find(part, start)
    return len(text) if place < 0 else place


def masked_turns(turns: Sequence[Turn], config: MaskConfig, update: int, progress: float) -> frozenset[str]:
    """Return the ids of the turns whose action tokens are left out of an update's policy loss.

    What is drawn is a turn of the update's episodes (`per-task`: all turns of a task), anew in each update, by the seed, the
    update and the turns' ids alone: rewards and advantages have no part in it.

    Args:
        turns: of all episodes of the batch that have a score, also of groups from which nothing is learned.
        config: which share, and how it is drawn.
        update: counted from 0.
        progress: share of the training that is done, from 0 to 1.
    """
    fraction = fraction_at(config.mask_schedule, config.mask_fraction, progress)
    if not fraction or not turns:
        return frozenset()
    select = config.mask_select
    if select == "per-task" and len({turn.task for turn in turns}) == 1:
        select = "random"  # Of the only task that is left, its turns are drawn.
    places = rank([(turn.id, turn.task) for turn in turns], select, config.seed, update)
    return frozenset(id_ for id_, place in places.items() if place <= fraction)


def policy_weights(turn: Turn, masked: bool, config: MaskConfig) -> tuple[float, ...]:
    """Return what each token that the model wrote weighs in the policy loss.

    Args:
        turn: the turn.
        masked: whether its action is.
        config: what masked actions, closing tokens and traces weigh.
    """
    weight: dict[Kind, float] = {"trace": config.trace_weight}
    if masked:
        weight["action"] = config.action_weight
        if config.mask_closing:
            weight["closing"] = config.action_weight
    return tuple(weight.get(kind, 1.0) for kind in turn.kinds)
