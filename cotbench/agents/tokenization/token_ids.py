"""Token ids of a prompt, of the assistant's turn, and of a whole decision. Invariant: evaluation, probes and training make
these ids here and nowhere else, so a model is trained on what it is shown; what was generated keeps the ids that it was
generated as.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cotbench.agents.tokenization.chat_template import Chat
from cotbench.prompting.dialogue import Dialogue, fit_context
from cotbench.prompting.generation import Generation, Prefill, prompt_limit
from cotbench.prompting.query import DecisionTokens, Query

Label = Literal["prompt", "think_open", "trace", "think_close", "action_open", "action", "closing"]
"""What a piece of a prompt with its answer is."""


def prompt_ids(query: Query, chat: Chat, context: int) -> tuple[list[int], int]:
    """Return the ids of a query's prompt, and how many observations were dropped so that it fits.

    Args:
        query: the state, and how it is asked for.
        chat: the model's tokenizer and template.
        context: the longest prompt and answer together, in tokens.

    Raises:
        ContextOverflowError: it does not fit even so.
        AgentError: the template drops a message.
    """
    ids_of: dict[Dialogue, list[int]] = {}
    chat = chat.with_tags(query.elicitation.tags)

    def length(dialogue: Dialogue) -> int:
        messages = query.elicitation.messages(dialogue, query.mode, query.admissible_actions)
        ids_of[dialogue] = chat.prompt_ids(messages)
        return len(ids_of[dialogue])

    fitting, dropped = fit_context(query.dialogue, length, prompt_limit(query.elicitation, context))
    return ids_of[fitting], dropped


def prefill_ids(chat: Chat, prefill: Prefill) -> list[int]:
    """Return the ids of the assistant's turn so far: the harness's text encoded piece by piece, the model's as generated."""
    ids: list[int] = []
    for piece in prefill:
        ids += chat.encode(piece) if isinstance(piece, str) else truncate_ids(chat, piece.ids, piece.text)
    return ids


def answer_pieces(chat: Chat, trace: str | None, action: str, *, ended: bool = False) -> list[tuple[Label, list[int]]]:
    """Return a whole answer piece by piece, as `cotbench.prompting.generation` opens it.

    Args:
        chat: the model's tokenizer, with the tags of the elicitation (`Chat.with_tags`).
        trace, action: texts, each encoded on its own; no trace: an answer of mode prompt.
        ended: whether what ends the assistant's turn stands behind the answer.
    """
    reasoning: list[tuple[Label, list[int]]] = []
    tags = chat.tags
    if trace is not None:
        reasoning = [
            ("think_open", prefill_ids(chat, (tags.think_open,))),
            ("trace", chat.encode(chat.escape_special(trace))),
            ("think_close", prefill_ids(chat, (f"{tags.think_close}\n",))),
        ]
    return [
        *reasoning,
        ("action_open", prefill_ids(chat, (tags.action_open,))),
        ("action", chat.encode(chat.escape_special(action))),
        ("closing", [*chat.encode(tags.action_close), *(chat.turn_end if ended else ())]),
    ]


def decision_tokens(prompt: Sequence[int], generations: Sequence[tuple[Sequence[int], Generation]]) -> DecisionTokens | None:
    """Return the tokens of a decision, or None where a backend did not tell the id and probability of each generated token.

    Args:
        prompt: ids of the prompt.
        generations: what the decision was made of, in order: each generation with the ids of the turn before it
            (`prefill_ids`), which it continued.
    """
    prefill, last = generations[-1]
    completion = [*prefill, *last.generated_ids]
    logprobs, harness = [0.0] * len(completion), [True] * len(completion)
    for prefill, generation in generations:
        if generation.tokens == 0:  # Forced or empty: nothing was generated.
            continue
        generated, scores = generation.generated_ids, generation.logprobs
        if scores is None or not len(generated) == len(scores) == generation.tokens:
            return None
        start = len(prefill)
        # A generation that was cut, or whose closing tag was written anew, is the model's as far as the ids are the same.
        for place in range(start, start + common_prefix(generated, completion[start:])):
            logprobs[place], harness[place] = scores[place - start], False
    return DecisionTokens(tuple(prompt), tuple(completion), tuple(logprobs), tuple(harness))


def truncate_ids(chat: Chat, ids: Sequence[int], text: str) -> list[int]:
    """Return token ids of `text`, a beginning of the text of `ids`: the same tokens as far as they go, the rest encoded anew.

    A tag can begin inside a token; then the token's first part has to become a token of its own.
    """
    for count in range(len(ids), -1, -1):
        start = chat.decode(ids[:count])
        if text.startswith(start):
            rest = text[len(start) :]
            return [*ids[:count], *(chat.encode(rest) if rest else [])]
    return chat.encode(text)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many tokens two sequences have in common at their beginning."""
    shorter = min(len(left), len(right))
    if list(left[:shorter]) == list(right[:shorter]):
        return shorter
    return next(index for index in range(shorter) if left[index] != right[index])
