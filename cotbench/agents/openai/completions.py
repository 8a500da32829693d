"""Send the requests of an answer program to a server. Invariant: the prompt `p` and the opened turn are the same texts with
either endpoint; with prompts sent as ids they are the token ids of the `hf:` agent too. With prompts sent as text the server
tokenizes the whole: where a tag's first character merges with the word before it, the ids differ, and that is counted.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cotbench.agents.openai.capabilities import CONTINUE, Endpoint, ServerCapabilities
from cotbench.agents.openai.client import CompletionClient
from cotbench.agents.openai.connection import ServerError
from cotbench.agents.openai.reply import CompletionReply, to_generation
from cotbench.agents.openai.stops import restore_stop, stops_to_send
from cotbench.agents.openai.tokens import ServerTokenizer
from cotbench.errors import AgentError
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Message
from cotbench.prompting.generation import Generation, GenerationRequest, Prefill, prefill_text
from cotbench.prompting.parsing import USUAL_TAGS, Tags
from cotbench.prompting.query import Query

_FULL_CONTEXT = "as where its context is full: give ?tokenizer=FOLDER, with which old observations are dropped"

_SEEDS = 2**31
"""Seeds are taken modulo this number: some servers take no larger ones."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt `p` of a query.

    Attributes:
        messages: as a chat.
        dialogue: the dialogue in it.
        ids: its tokens, where there is a tokenizer.
        tags: of its elicitation.
        dropped: number of observations that did not fit.
    """

    messages: Sequence[Message]
    dialogue: Dialogue
    ids: Sequence[int] | None
    tags: Tags = USUAL_TAGS
    dropped: int = 0


@dataclass(slots=True)
class TokenUsage:
    """The token counts of one decision's requests; `prompt_tokens` and `cached` are those of the first one.

    `generated` is what the server generated, also behind a stop string.
    """

    prompt_tokens: int = 0
    cached: int = 0
    prefilled: int = 0
    generated: int = 0
    requests: int = 0

    def add(self, reply: CompletionReply) -> None:
        """Add the counts of a request."""
        sent = reply.prompt_tokens or 0
        if self.requests == 0:
            self.prompt_tokens, self.cached = sent, reply.cached_tokens
        self.prefilled += max(0, sent - reply.cached_tokens)
        self.generated += reply.tokens or 0
        self.requests += 1


@dataclass(slots=True)
class Merges:
    """The number of prompts sent as text, and of those that the server tokenizes otherwise than the `hf:` agent."""

    sent: int = 0
    merged: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, merged: bool) -> None:
        """Count a prompt."""
        with self.lock:
            self.sent += 1
            self.merged += merged


class CompletionWriter:
    """Continues prompts on one server.

    Args:
        connection: to the server.
        model: the server's name for it.
        server: its capabilities.
        tokens: the model's tokenizer, or why there is none.
    """

    def __init__(
        self, connection: CompletionClient, model: str, server: ServerCapabilities, tokens: ServerTokenizer | str
    ) -> None:
        self._connection, self._model, self._server = connection, model, server
        self._tokens = tokens if isinstance(tokens, ServerTokenizer) else None
        self.merges = Merges()

    def write(self, query: Query, prompt: Prompt, request: GenerationRequest, usage: TokenUsage) -> Generation:
        """Return one continuation.

        Args:
            query: the query of the program.
            prompt: its prompt.
            request: the program's request.
            usage: the counts of the decision, to which those of the request are added.

        Raises:
            AgentError: the server cannot do that, or failed.
        """
        if request.forced is not None:
            return self._score(prompt, request, request.forced, usage)
        endpoint = self._endpoint(request.prefill)
        body = {**self._prompt(endpoint, prompt, request.prefill), **self.fields(endpoint, query, request)}
        exact = endpoint is self._server.continuing and prompt.ids is not None
        reply = self.ask(endpoint, body, usage, len(prompt.ids or ()) if exact else 0)
        if endpoint.repeats and request.prefill:
            reply = _without_opening(reply, prefill_text(request.prefill))
        if reply.reasoning is not None:
            reply = _with_reasoning(reply, prompt.tags, opened=bool(request.prefill))
        reply = restore_stop(reply, request.stops, endpoint.stops)
        if reply.logprobs is not None and reply.tokens not in (None, len(reply.logprobs)):
            reply = replace(reply, logprobs=None, ids=())  # Some servers leave out the tokens of the stop string.
        return to_generation(reply, request, self._growth, self.count)

    def turn_ids(self, prefill: Prefill) -> list[int] | None:
        """Return the ids of the assistant's turn so far, where prompts are sent as token ids; else None."""
        endpoint = self._endpoint(prefill)
        if self._tokens is None or endpoint.path == "chat/completions" or endpoint.prompts != "ids":
            return None
        return self._tokens.opened(prefill)

    def ask(self, endpoint: Endpoint, body: dict[str, Any], usage: TokenUsage, least: int = 0) -> CompletionReply:
        """Send one request, and add its token counts to `usage`.

        Args:
            endpoint: the endpoint.
            body: the fields of the request, without `model`.
            usage: the counts of the decision.
            least: tokens that the prompt has at least; where they are unknown, its words are counted.

        Raises:
            ServerError: it failed for good, or too often.
            AgentError: the server left out a part of the prompt, or ended the answer before its budget.
        """
        reply = self._connection.ask(endpoint.path, {"model": self._model, **body})
        usage.add(reply)
        least = least or _count_words(body)
        if reply.prompt_tokens and reply.prompt_tokens < least:
            raise AgentError(
                f"the server silently truncated the prompt: it counts {reply.prompt_tokens} tokens where "
                f"{least} or more were sent; start it with a longer context, or say ?context=TOKENS&tokenizer=FOLDER"
            )
        budget = body[endpoint.budget]
        if reply.finish == "length" and reply.tokens is not None and reply.tokens < budget:
            raise AgentError(
                f"the server ended an answer after {reply.tokens} of {budget} tokens, {_FULL_CONTEXT}, or lower --trace-tokens"
            )
        return reply

    def fields(self, endpoint: Endpoint, query: Query, request: GenerationRequest) -> dict[str, Any]:
        """Return all fields of a request but those of its prompt."""
        elicitation = query.elicitation
        fields: dict[str, Any] = {endpoint.budget: request.budget, "temperature": elicitation.temperature}
        if elicitation.temperature > 0:
            fields["top_p"] = elicitation.top_p
            if endpoint.seed:
                fields["seed"] = request.seed % _SEEDS
        if stops := stops_to_send(request.stops, endpoint.stops):
            fields["stop"] = stops
        return {**fields, **endpoint.logprobs, **endpoint.extras}

    def count(self, text: str) -> int | None:
        """Return the number of tokens of a text; None without a tokenizer."""
        return None if self._tokens is None else len(self._tokens.encode(text))

    def _growth(self, ids: Sequence[int]) -> tuple[str, ...]:
        return () if self._tokens is None else self._tokens.growth(ids)

    def _endpoint(self, opened: Prefill) -> Endpoint:
        server = self._server
        endpoint = server.continuing if opened else server.chat or server.completions
        if endpoint is None:
            raise AgentError(
                f"the server cannot continue a turn that cotbench opens ({server.reason}): use --elicitation-style template"
            )
        return endpoint

    def _prompt(self, endpoint: Endpoint, prompt: Prompt, opened: Prefill) -> dict[str, Any]:
        if endpoint.path == "chat/completions":
            if not opened:
                return {"messages": endpoint.request_messages(prompt.messages)}
            return {
                "messages": endpoint.request_messages([*prompt.messages, Message("assistant", prefill_text(opened))]),
                **CONTINUE,
            }
        if self._tokens is None or prompt.ids is None:
            raise AgentError("prompts cannot be written without a tokenizer: give ?tokenizer=FOLDER")
        if endpoint.prompts == "ids":
            return {"prompt": [*prompt.ids, *self._tokens.opened(opened)]}
        text = self._tokens.prompt_text(prompt.messages, prompt.tags) + prefill_text(opened)
        self.merges.add(self._tokens.merges(text, prompt.ids, opened))
        return {"prompt": text.removeprefix(self._tokens.begin) if endpoint.prompts != "text" else text}

    def _score(self, prompt: Prompt, request: GenerationRequest, given: str, usage: TokenUsage) -> Generation:
        """Return the log-probabilities of a given action: the server echoes the prompt with that of each token."""
        endpoint = self._server.completions
        if endpoint is None or endpoint.prompts != "ids" or self._tokens is None or prompt.ids is None:
            raise AgentError("a given action can be scored only where prompts are sent as token ids: use ?way=completions")
        before, ids = [*prompt.ids, *self._tokens.opened(request.prefill)], self._tokens.encode(given)
        body = {
            "model": self._model,
            "prompt": [*before, *ids],
            "max_tokens": 1,
            "temperature": 0.0,
            "echo": True,
            "logprobs": 1,
        }
        reply = self._connection.ask("completions", body)
        usage.add(replace(reply, tokens=0))  # The one token that has to be generated is no part of an answer.
        listed = reply.token_logprobs[len(before) : len(before) + len(ids)]
        scores = tuple(float(score) for score in listed if isinstance(score, int | float))
        if len(scores) < len(ids):
            raise AgentError(
                "the server does not return log-probabilities of the prompt: a given action cannot be scored there"
            )
        stop = request.stops[0]  # The action's closing tag, which the given text ends with.
        return Generation(given.removesuffix(stop), stop, 0, (), tuple(ids), scores)


def _count_words(body: Mapping[str, Any]) -> int:
    """Return the number of tokens that the prompt of a request has at least: its ids, or its words."""
    prompt = body.get("prompt")
    if isinstance(prompt, list):
        return len(prompt)
    texts = [prompt] if isinstance(prompt, str) else [message["content"] for message in body["messages"]]
    return sum(len(text.split()) for text in texts)


def _without_opening(reply: CompletionReply, opening: str) -> CompletionReply:
    """Return a reply without the turn so far, which the server repeats.

    Raises:
        AgentError: it does not begin with that.
    """
    if not reply.text.startswith(opening):
        raise AgentError(f"the server repeats the turn that we opened, but not in this answer: {reply.text[:80]!r}")
    return replace(reply, text=reply.text.removeprefix(opening))


def _with_reasoning(reply: CompletionReply, tags: Tags, *, opened: bool) -> CompletionReply:
    """Return a reply with the text that a reasoning parser took out of it: in tags again, or, in an opened turn, as it
    stood.
    """
    reasoning = reply.reasoning or ""
    if opened:
        text = reasoning + reply.text
    else:
        closed = reply.text or reply.finish != "length"
        text = tags.think_open + reasoning + (f"{tags.think_close}\n{reply.text}" if closed else "")
    return replace(reply, text=text, pieces=(), ids=(), logprobs=None)


def explain_error(error: ServerError) -> str:
    """Return the message of a failed request, with the next step where it is known."""
    if error.overflow:
        return (
            f"{error}: give ?tokenizer=FOLDER, with which old observations are dropped (and ?context=TOKENS, where the length "
            "is unknown), or use fewer steps (--max-steps), or shorter observations (--observation-chars)"
        )
    return str(error)
