"""How a decision is made out of pieces that a model writes, whatever computes them. Invariant: both modes continue the same
prompt and read the action after the same opening tag, so they differ in the trace alone; every backend runs these programs.

A program is a generator: it yields a `GenerationRequest`, is sent the `Generation`, and returns the decision.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from cotbench.errors import AgentError, ContextOverflowError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN, THINK_CLOSE, THINK_OPEN, parse_answer, without_partial_tag
from cotbench.prompting.query import Decision, Query, derive_seed

TAG_ALLOWANCE = 32
"""Tokens kept free for the tags themselves."""

_LOGPROB_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model wrote.

    Attributes:
        text: up to the stop string, without it.
        stop: the stop string that was met, "eos", or "budget".
        grown: the text after each generated token, an end-of-turn token left out, where the backend tells.
        ids: the ids of the same tokens, where the backend tells.
        logprobs: natural logarithm of each generated token's probability at temperature 1, an end-of-turn token included;
            None where the backend does not tell.
        tokens: how many were generated.
    """

    text: str
    stop: str
    tokens: int
    text_after_token: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] | None = None


Prefill = tuple[str | Generation, ...]
"""What stands in the assistant's turn so far: text that the harness put there, and what the model wrote, up to its stop."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A continuation that is wanted.

    Attributes:
        opened: what it continues.
        budget: tokens at most.
        stops: strings that end it.
        one_line: whether a line break after some text ends it too.
        seed: for sampling.
        given: this very continuation, whose log-probability is wanted; nothing is generated.
    """

    prefill: Prefill
    budget: int
    stops: tuple[str, ...]
    one_line: bool
    seed: int
    forced: str | None = None


AnswerProgram = Generator[GenerationRequest, Generation, Decision]


def prefill_text(opened: Prefill) -> str:
    """The assistant's turn so far, as text."""
    return "".join(piece if isinstance(piece, str) else piece.text for piece in opened)


def answer_program(query: Query) -> AnswerProgram:
    """The program that answers a query.

    Raises:
        AgentError: a given action in style template, where nothing says at which token it would begin.
    """
    if query.given_action is not None and query.elicitation.style == "template":
        raise AgentError("an action can be scored only after an opened tag: ask with style prefill")
    return _prefill(query) if query.elicitation.style == "prefill" else _template(query)


def prompt_limit(elicitation: Elicitation, context: int) -> int:
    """The longest prompt, in tokens, that leaves room for an answer.

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
    """The text before the first stop string, and that string."""
    places = [(place, stop) for stop in stops if (place := text.find(stop)) >= 0]
    if one_line:
        start = len(text) - len(text.lstrip())
        if (place := text.find("\n", start)) >= 0:
            places.append((place, "\n"))
    if not places:
        return None
    place, stop = min(places)
    return text[:place], stop


def opening_tag(query: Query) -> str:
    """What the harness writes first in the assistant's turn."""
    if query.elicitation.style == "template":
        return "" if query.mode == "prompt" or query.given_trace is None else f"{THINK_OPEN}{query.given_trace}{THINK_CLOSE}\n"
    return ACTION_OPEN if query.mode == "prompt" else THINK_OPEN


def _seed(query: Query, stops: tuple[str, ...]) -> int:
    return derive_seed(query.seed, len(stops))


def _prefill(query: Query) -> AnswerProgram:
    """Open the tags for the model: `p <think>` ... `</think>`, then, in both modes, `<action>`."""
    asked = query.elicitation
    opened: Prefill = ()
    trace, thought = query.given_trace, None
    if query.mode == "cot":
        opened = (THINK_OPEN,)
        if trace is None:
            stops = (THINK_CLOSE, ACTION_OPEN)
            thought = yield GenerationRequest(opened, asked.trace_tokens, stops, False, _seed(query, stops))
            trace = _unfinished(thought, THINK_CLOSE)
            opened = (*opened, replace(thought, text=trace))
        else:
            opened = (*opened, trace)
        opened = (*opened, f"{THINK_CLOSE}\n")
    stop = (ACTION_CLOSE,)
    given = None if query.given_action is None else f"{query.given_action}{ACTION_CLOSE}"
    said = yield GenerationRequest((*opened, ACTION_OPEN), asked.action_tokens, stop, asked.one_line, _seed(query, stop), given)
    closed = thought is None or thought.stop == THINK_CLOSE
    read = parse_answer(f"{ACTION_OPEN}{_unfinished(said, ACTION_CLOSE)}{ACTION_CLOSE}")
    reasoning = "" if query.mode == "prompt" else f"{THINK_OPEN}{trace}{THINK_CLOSE}\n"
    return Decision(
        action=read.action,
        trace=None if query.mode == "prompt" else (trace or "").strip(),
        raw=f"{reasoning}{ACTION_OPEN}{said.text}" + (ACTION_CLOSE if said.stop == ACTION_CLOSE else ""),
        format_ok=closed and said.stop == ACTION_CLOSE and read.format_ok,
        trace_truncated=not closed,
        trace_tokens=thought.tokens if thought else 0,
        action_tokens=said.tokens,
        action_logprob=None if said.logprobs is None else round(sum(said.logprobs), _LOGPROB_DIGITS),
    )


def _template(query: Query) -> AnswerProgram:
    """Let the model write the whole answer, then read it."""
    asked = query.elicitation
    opening = opening_tag(query)
    budget = asked.action_tokens + TAG_ALLOWANCE
    if query.mode == "cot" and not opening:
        budget += asked.trace_tokens
    stops = (ACTION_CLOSE,)
    said = yield GenerationRequest((opening,) if opening else (), budget, stops, False, _seed(query, stops))
    return read_template(query, opening, said)


def read_template(query: Query, opening: str, said: Generation) -> Decision:
    """The decision in a free answer that followed `opening`."""
    raw = opening + said.text + (ACTION_CLOSE if said.stop == ACTION_CLOSE else "")
    read = parse_answer(raw)
    # As with prefill, the action's tokens are those after the opening tag; without a tag none can be told apart.
    opened = next((count for count, text in enumerate(said.text_after_token, 1) if ACTION_OPEN in text), None)
    trace_tokens = said.tokens if opened is None else opened
    known = opened is not None and said.logprobs is not None
    return Decision(
        action=read.action,
        trace=read.trace if query.mode == "cot" else None,
        raw=raw,
        format_ok=read.format_ok and (query.mode == "prompt") == (read.trace is None),
        trace_truncated="trace not closed" in read.problems,
        trace_tokens=trace_tokens,
        action_tokens=said.tokens - trace_tokens,
        action_logprob=round(sum((said.logprobs or ())[opened:]), _LOGPROB_DIGITS) if known else None,
    )


def _unfinished(said: Generation, tag: str) -> str:
    """The text, without the beginning of a tag that the budget cut in two."""
    return without_partial_tag(said.text, tag) if said.stop == "budget" else said.text
