"""Make a decision out of pieces that a model writes, whatever computes them. Invariant: both modes continue the same prompt and
read the action after the same opening tag, so they differ in the trace alone; every backend runs these programs.

A program is a generator: it yields a `GenerationRequest`, is sent the `Generation`, and returns the decision.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from cotbench.errors import AgentError, ContextOverflowError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.parsing import parse_answer, without_partial_tag
from cotbench.prompting.query import Decision, Query, derive_seed

TAG_ALLOWANCE = 32
"""Tokens of the context kept free for the tags themselves."""

_LOGPROB_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Generation:
    """Hold what a model wrote for one `GenerationRequest`.

    Attributes:
        text: up to the stop string, without it.
        stop: the stop string that was met, "eos", or "budget".
        tokens: how many were generated, an end-of-turn token included; 0 for a forced continuation.
        text_after_token: the text after each generated token, an end-of-turn token left out, where the backend tells.
        ids: the ids of the same tokens, where the backend tells.
        logprobs: natural logarithm of each generated token's probability at temperature 1, an end-of-turn token included;
            None where the backend does not tell.
        eos_id: the end-of-turn token that ended it, where one did and the backend tells.
    """

    text: str
    stop: str
    tokens: int
    text_after_token: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] | None = None
    eos_id: int | None = None

    @property
    def generated_ids(self) -> tuple[int, ...]:
        """Return every token that was generated, an end-of-turn token included."""
        return self.ids if self.eos_id is None else (*self.ids, self.eos_id)


Prefill = tuple[str | Generation, ...]
"""The assistant's turn so far: text that the harness put there, and what the model wrote, up to its stop."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Ask for a continuation of the assistant's turn.

    Attributes:
        prefill: the turn so far, which it continues.
        budget: tokens at most.
        stops: strings that end it.
        one_line: whether a line break after some text ends it too.
        seed: for sampling.
        forced: this very continuation, whose log-probability is wanted; nothing is generated.
    """

    prefill: Prefill
    budget: int
    stops: tuple[str, ...]
    one_line: bool
    seed: int
    forced: str | None = None


AnswerProgram = Generator[GenerationRequest, Generation, Decision]


def prefill_text(prefill: Prefill) -> str:
    """Return the assistant's turn so far, as text."""
    return "".join(piece if isinstance(piece, str) else piece.text for piece in prefill)


def answer_program(query: Query) -> AnswerProgram:
    """Return the program that answers a query.

    Raises:
        AgentError: a given action in style template, where nothing says at which token it would begin; a query whose candidates
            have to be scored one by one (`cotbench.agents.ranking`).
    """
    if is_ranked(query):
        raise AgentError("a ranked prompt action is several queries, one a candidate: ask by agents.decisions.decide_all")
    if query.given_action is not None and query.elicitation.style == "template":
        raise AgentError("an action can be scored only after an opened tag: ask with style prefill")
    return _answer_prefilled(query) if query.elicitation.style == "prefill" else _answer_freely(query)


def prompt_limit(elicitation: Elicitation, context: int) -> int:
    """Return the longest prompt, in tokens, that leaves room for an answer in a context of so many tokens.

    Raises:
        ContextOverflowError: there is no room at all.
    """
    limit = context - elicitation.trace_tokens - elicitation.action_tokens - TAG_ALLOWANCE
    if limit < 1:
        raise ContextOverflowError(
            f"a context of {context} tokens has no room for a trace of {elicitation.trace_tokens} and an action of "
            f"{elicitation.action_tokens}: lower --trace-tokens, or use a model with a longer context"
        )
    return limit


def first_stop(text: str, stops: Sequence[str], one_line: bool) -> tuple[str, str] | None:
    """Return the text before the first stop string, and that string; None where there is none.

    Args:
        text: what was generated so far.
        stops: the strings that end it.
        one_line: whether a line break after some text ends it too.
    """
    places = [(place, stop) for stop in stops if (place := text.find(stop)) >= 0]
    if one_line:
        start = len(text) - len(text.lstrip())
        if (place := text.find("\n", start)) >= 0:
            places.append((place, "\n"))
    if not places:
        return None
    place, stop = min(places)
    return text[:place], stop


def is_ranked(query: Query) -> bool:
    """Return whether the answer is the most probable of the admissible actions, so that nothing is generated."""
    return query.mode == "prompt" and query.elicitation.prompt_action == "ranked" and query.given_action is None


def opening_tag(query: Query) -> str:
    """Return what the harness writes first in the assistant's turn."""
    trace, tags = _given_trace(query), query.elicitation.tags
    if query.elicitation.style == "template":
        return "" if trace is None else f"{tags.think_open}{trace}{tags.think_close}\n"
    return tags.action_open if query.mode == "prompt" and trace is None else tags.think_open


def _given_trace(query: Query) -> str | None:
    """Return the trace that the harness writes, an empty one before an `empty` prompt action; None where it writes none."""
    if query.mode == "prompt":
        return "" if query.elicitation.prompt_action == "empty" else None
    return query.given_trace


def _seed(query: Query, stops: tuple[str, ...]) -> int:
    return derive_seed(query.seed, len(stops))


def _answer_prefilled(query: Query) -> AnswerProgram:
    """Open the tags for the model: `p <think>` ... `</think>`, then, in both modes, `<action>`."""
    elicitation, tags = query.elicitation, query.elicitation.tags
    prefill: Prefill = ()
    trace, reasoning = _given_trace(query), None
    if query.mode == "cot" or trace is not None:
        prefill = (tags.think_open,)
        if trace is None:
            ends = (tags.think_close, tags.action_open)
            reasoning = yield GenerationRequest(prefill, elicitation.trace_tokens, ends, False, _seed(query, ends))
            trace = _without_cut_tag(reasoning, tags.think_close)
            prefill = (*prefill, replace(reasoning, text=trace))
        else:
            prefill = (*prefill, trace)
        prefill = (*prefill, f"{tags.think_close}\n")
    prefill = (*prefill, tags.action_open)
    stops = (tags.action_close,)
    forced = None if query.given_action is None else f"{query.given_action}{tags.action_close}"
    answer = yield GenerationRequest(
        prefill, elicitation.action_tokens, stops, elicitation.one_line, _seed(query, stops), forced
    )
    trace_closed = reasoning is None or reasoning.stop == tags.think_close
    parsed = parse_answer(f"{tags.action_open}{_without_cut_tag(answer, tags.action_close)}{tags.action_close}", tags)
    before = "" if trace is None else f"{tags.think_open}{trace}{tags.think_close}\n"
    return Decision(
        action=parsed.action,
        trace=None if query.mode == "prompt" else (trace or "").strip(),
        raw=f"{before}{tags.action_open}{answer.text}" + (tags.action_close if answer.stop == tags.action_close else ""),
        format_ok=trace_closed and answer.stop == tags.action_close and parsed.format_ok,
        trace_truncated=not trace_closed,
        trace_tokens=reasoning.tokens if reasoning else 0,
        action_tokens=answer.tokens,
        action_logprob=None if answer.logprobs is None else round(sum(answer.logprobs), _LOGPROB_DIGITS),
    )


def _answer_freely(query: Query) -> AnswerProgram:
    """Let the model write the whole answer, then read it."""
    elicitation, tags = query.elicitation, query.elicitation.tags
    opening = opening_tag(query)
    budget = elicitation.action_tokens + TAG_ALLOWANCE
    if query.mode == "cot" and not opening:
        budget += elicitation.trace_tokens
    stops = (tags.action_close,)
    answer = yield GenerationRequest((opening,) if opening else (), budget, stops, False, _seed(query, stops))
    return _read_free_answer(query, opening, answer)


def _read_free_answer(query: Query, opening: str, answer: Generation) -> Decision:
    """Return the decision in a free answer that followed `opening`."""
    tags = query.elicitation.tags
    raw = opening + answer.text + (tags.action_close if answer.stop == tags.action_close else "")
    parsed = parse_answer(raw, tags)
    # As with prefill, the action's tokens are those after the opening tag; without a tag none can be told apart.
    action_start = next((count for count, text in enumerate(answer.text_after_token, 1) if tags.action_open in text), None)
    trace_tokens = answer.tokens if action_start is None else action_start
    scored = action_start is not None and answer.logprobs is not None
    return Decision(
        action=parsed.action,
        trace=parsed.trace if query.mode == "cot" else None,
        raw=raw,
        format_ok=parsed.format_ok and (query.mode == "cot" or bool(opening)) == (parsed.trace is not None),
        trace_truncated="trace not closed" in parsed.problems,
        trace_tokens=trace_tokens,
        action_tokens=answer.tokens - trace_tokens,
        action_logprob=round(sum((answer.logprobs or ())[action_start:]), _LOGPROB_DIGITS) if scored else None,
    )


def _without_cut_tag(generation: Generation, tag: str) -> str:
    """Return the text without the beginning of a tag that the budget cut in two."""
    return without_partial_tag(generation.text, tag) if generation.stop == "budget" else generation.text
