"""Send the requests of an answer program to a server. Invariant: the prompt `p` and the opened turn are the same texts with
either endpoint; with prompts sent as ids they are the token ids of the `hf:` agent too. With prompts sent as text the server
tokenizes the whole: where a tag's first character merges with the word before it, the ids differ, and that is counted.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cotbench.agents.openai.capabilities import CONTINUE, Endpoint, ServerCapabilities
from cotbench.agents.openai.connection import Connection, ServerError
from cotbench.agents.openai.reply import CompletionReply, to_generation
from cotbench.agents.openai.tokens import ServerTokenizer
from cotbench.errors import AgentError
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Message
from cotbench.prompting.generation import Generation, GenerationRequest, Prefill, prefill_text
from cotbench.prompting.parsing import ACTION_CLOSE, THINK_CLOSE, THINK_OPEN
from cotbench.prompting.query import Query

_SEEDS = 2**31
"""Seeds are taken modulo this number: some servers take no larger ones."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt `p` of a query.

    Attributes:
        messages: as a chat.
        dialogue: the dialogue in it.
        ids: its tokens, where there is a tokenizer.
        dropped: number of observations that did not fit.
    """

    messages: Sequence[Message]
    dialogue: Dialogue
    ids: Sequence[int] | None
    dropped: int = 0


@dataclass(slots=True)
class TokenUsage:
    """The token counts of one decision's requests; `prompt_tokens` and `cached` are those of the first one."""

    prompt_tokens: int = 0
    cached: int = 0
    prefilled: int = 0
    requests: int = 0

    def add(self, reply: CompletionReply) -> None:
        """Add the counts of a request."""
        sent = reply.prompt_tokens or 0
        if self.requests == 0:
            self.prompt_tokens, self.cached = sent, reply.cached_tokens
        self.prefilled += max(0, sent - reply.cached_tokens)
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

    def __init__(self, connection: Connection, model: str, server: ServerCapabilities, tokens: ServerTokenizer | str) -> None:
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
            return self._score(prompt, request.prefill, request.forced, usage)
        endpoint = self._endpoint(request.prefill)
        body = {**self._prompt(endpoint, prompt, request.prefill), **self.fields(endpoint, query, request)}
        reply = self.ask(endpoint, body, usage)
        if reply.reasoning is not None:
            reply = _with_reasoning(reply, opened=bool(request.prefill))
        return to_generation(reply, request, self._growth, self.count)

    def turn_ids(self, prefill: Prefill) -> list[int] | None:
        """Return the ids of the assistant's turn so far, where prompts are sent as token ids; else None."""
        endpoint = self._endpoint(prefill)
        if self._tokens is None or endpoint.path == "chat/completions" or endpoint.prompts != "ids":
            return None
        return self._tokens.opened(prefill)

    def ask(self, endpoint: Endpoint, body: dict[str, Any], usage: TokenUsage) -> CompletionReply:
        """Send one request, and add its token counts to `usage`.

        Args:
            endpoint: the endpoint.
            body: the fields of the request, without `model`.
            usage: the counts of the decision.

        Raises:
            ServerError: it failed for good, or too often.
        """
        reply = self._connection.ask(endpoint.path, {"model": self._model, **body})
        usage.add(reply)
        return reply

    def fields(self, endpoint: Endpoint, query: Query, request: GenerationRequest) -> dict[str, Any]:
        """Return all fields of a request but those of its prompt."""
        elicitation = query.elicitation
        fields: dict[str, Any] = {endpoint.budget: request.budget, "temperature": elicitation.temperature}
        if elicitation.temperature > 0:
            fields["top_p"] = elicitation.top_p
            if endpoint.seed:
                fields["seed"] = request.seed % _SEEDS
        if endpoint.stops != "unknown" and request.stops:
            fields["stop"] = list(request.stops)
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
                f"the server cannot continue a turn that we open ({server.reason}): use --elicitation-style template"
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
        text = self._tokens.prompt_text(prompt.messages) + prefill_text(opened)
        self.merges.add(self._tokens.merges(text, prompt.ids, opened))
        return {"prompt": text.removeprefix(self._tokens.begin) if endpoint.prompts != "text" else text}

    def _score(self, prompt: Prompt, opened: Prefill, given: str, usage: TokenUsage) -> Generation:
        """Return the log-probabilities of a given action: the server echoes the prompt with that of each token."""
        endpoint = self._server.completions
        if endpoint is None or endpoint.prompts != "ids" or self._tokens is None or prompt.ids is None:
            raise AgentError("a given action can be scored only where prompts are sent as token ids: use ?way=completions")
        before, ids = [*prompt.ids, *self._tokens.opened(opened)], self._tokens.encode(given)
        body = {
            "model": self._model,
            "prompt": [*before, *ids],
            "max_tokens": 1,
            "temperature": 0.0,
            "echo": True,
            "logprobs": 1,
        }
        reply = self._connection.ask("completions", body)
        usage.add(reply)
        listed = reply.token_logprobs[len(before) : len(before) + len(ids)]
        scores = tuple(float(score) for score in listed if isinstance(score, int | float))
        if len(scores) < len(ids):
            raise AgentError(
                "the server does not tell the log-probabilities of a prompt: a given action cannot be scored there"
            )
        return Generation(given.removesuffix(ACTION_CLOSE), ACTION_CLOSE, 0, (), tuple(ids), scores)


def _with_reasoning(reply: CompletionReply, *, opened: bool) -> CompletionReply:
    """Return a reply with the text that a reasoning parser took out of it: in tags again, or, in an opened turn, as it
    stood.
    """
    reasoning = reply.reasoning or ""
    if opened:
        text = reasoning + reply.text
    else:
        closed = reply.text or reply.finish != "length"
        text = f"{THINK_OPEN}{reasoning}{THINK_CLOSE}\n{reply.text}" if closed else f"{THINK_OPEN}{reasoning}"
    return replace(reply, text=text, pieces=(), ids=(), logprobs=None)


def explain_error(error: ServerError) -> str:
    """Return the message of a failed request, with the next step where it is known."""
    if error.overflow:
        return f"{error}: use fewer steps (--max-steps), shorter observations (--observation-chars), or say ?context=TOKENS"
    return str(error)
