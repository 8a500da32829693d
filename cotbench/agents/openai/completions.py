"""Having a server write what a program asks for. Invariant: the prompt `p` and what was opened after it are the same texts in
every way; with prompts sent as ids they are the token ids of the `hf:` agent too. With prompts sent as text the server makes
the tokens of the whole: where a tag's first character melts with the word before it, they differ, and that is counted.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cotbench.agents.openai.capabilities import CONTINUE, Endpoint, ServerCapabilities
from cotbench.agents.openai.connection import Connection, ServerError
from cotbench.agents.openai.reply import CompletionReply, read_reply, to_generation
from cotbench.agents.openai.tokens import ServerTokenizer
from cotbench.errors import AgentError
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Message
from cotbench.prompting.generation import Generation, GenerationRequest, Prefill, prefill_text
from cotbench.prompting.parsing import ACTION_CLOSE, THINK_CLOSE, THINK_OPEN
from cotbench.prompting.query import Query

_SEEDS = 2**31
"""Some servers take no larger seed."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt `p` of a query.

    Attributes:
        messages: as a chat.
        shown: the dialogue in it.
        ids: its tokens, where there is a tokenizer.
        dropped: how many observations did not fit.
    """

    messages: Sequence[Message]
    shown: Dialogue
    ids: Sequence[int] | None
    dropped: int = 0


@dataclass(slots=True)
class TokenUsage:
    """What the requests of one decision cost; `prompt_tokens` and `cached` are the first one's."""

    prompt_tokens: int = 0
    cached: int = 0
    prefilled: int = 0
    requests: int = 0

    def add(self, reply: CompletionReply) -> None:
        """Count a request."""
        asked = reply.prompt_tokens or 0
        if self.requests == 0:
            self.prompt_tokens, self.cached = asked, reply.cached_tokens
        self.prefilled += max(0, asked - reply.cached_tokens)
        self.requests += 1


@dataclass(slots=True)
class Merges:
    """How many prompts were sent as text, and how many of them a server reads as other tokens."""

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
        model: as the server calls it.
        server: what it can do.
        tokens: the model's tokenizer, or why there is none.
    """

    def __init__(self, connection: Connection, model: str, server: ServerCapabilities, tokens: ServerTokenizer | str) -> None:
        self._connection, self._model, self._server = connection, model, server
        self._tokens = tokens if isinstance(tokens, ServerTokenizer) else None
        self.merges = Merges()

    def write(self, query: Query, prompt: Prompt, ask: GenerationRequest, spent: TokenUsage) -> Generation:
        """Generate one continuation.

        Raises:
            AgentError: the server cannot do that, or failed.
        """
        if ask.forced is not None:
            return self._scored(prompt, ask.prefill, ask.forced, spent)
        endpoint = self._endpoint(ask.prefill)
        body = {**self._prompt(endpoint, prompt, ask.prefill), **self.fields(endpoint, query, ask)}
        reply = self.ask(endpoint, body, spent)
        if reply.reasoning is not None:
            reply = _whole(reply, opened=bool(ask.prefill))
        return to_generation(reply, ask, self._growth, self.count)

    def turn_ids(self, prefill: Prefill) -> list[int] | None:
        """Return the ids of the assistant's turn so far, where prompts are sent as token ids; else None."""
        endpoint = self._endpoint(prefill)
        if self._tokens is None or endpoint.path == "chat/completions" or endpoint.prompts != "ids":
            return None
        return self._tokens.opened(prefill)

    def ask(self, endpoint: Endpoint, body: dict[str, Any], spent: TokenUsage) -> CompletionReply:
        """Send one request and count its cost; return the reply."""
        reply = read_reply(self._connection.ask(endpoint.path, {"model": self._model, **body}))
        spent.add(reply)
        return reply

    def fields(self, endpoint: Endpoint, query: Query, ask: GenerationRequest) -> dict[str, Any]:
        """Return everything of a request but its prompt."""
        asked = query.elicitation
        fields: dict[str, Any] = {endpoint.budget: ask.budget, "temperature": asked.temperature}
        if asked.temperature > 0:
            fields["top_p"] = asked.top_p
            if endpoint.seed:
                fields["seed"] = ask.seed % _SEEDS
        if endpoint.stops != "unknown" and ask.stops:
            fields["stop"] = list(ask.stops)
        return {**fields, **endpoint.logprobs, **endpoint.extras}

    def count(self, text: str) -> int | None:
        """Return how many tokens a text has; None without a tokenizer."""
        return None if self._tokens is None else len(self._tokens.encode(text))

    def _growth(self, ids: Sequence[int]) -> tuple[str, ...]:
        return () if self._tokens is None else self._tokens.growth(ids)

    def _endpoint(self, opened: Prefill) -> Endpoint:
        server = self._server
        found = server.continuing if opened else server.chat or server.completions
        if found is None:
            raise AgentError(f"the server cannot continue a turn that we open ({server.reason}): use --elicitation template")
        return found

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

    def _scored(self, prompt: Prompt, opened: Prefill, given: str, spent: TokenUsage) -> Generation:
        """Return the log-probability of a given action: the server repeats the prompt with that of each token."""
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
        loaded = self._connection.ask("completions", body)
        spent.add(read_reply(loaded))
        told = (loaded["choices"][0].get("logprobs") or {}).get("token_logprobs") or []
        scores = told[len(before) : len(before) + len(ids)]
        if len(scores) < len(ids) or not all(isinstance(score, int | float) for score in scores):
            raise AgentError(
                "the server does not tell the log-probabilities of a prompt: a given action cannot be scored there"
            )
        return Generation(given.removesuffix(ACTION_CLOSE), ACTION_CLOSE, 0, (), tuple(ids), tuple(map(float, scores)))


def _whole(reply: CompletionReply, *, opened: bool) -> CompletionReply:
    """Return the text with what a reasoning parser took out of it: in tags again, or, in a turn that we opened, as it stood."""
    thought = reply.reasoning or ""
    if opened:
        text = thought + reply.text
    else:
        closed = reply.text or reply.finish != "length"
        text = f"{THINK_OPEN}{thought}{THINK_CLOSE}\n{reply.text}" if closed else f"{THINK_OPEN}{thought}"
    return replace(reply, text=text, pieces=(), ids=(), logprobs=None)


def explain_error(error: ServerError) -> str:
    """Return what is said of a failed request, with a way out where it is known."""
    if error.overflow:
        return f"{error}: use fewer steps (--max-steps), shorter observations (--observation-chars), or say ?context=TOKENS"
    return str(error)
