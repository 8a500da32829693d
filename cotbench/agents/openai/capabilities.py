"""The capabilities of a server, found out once by test requests. Invariant: a capability counts when the server has shown it,
never because it accepted a field: some ignore unknown fields. The description is the same at every start.

A turn can be continued in two ways. *Chat*: the messages end with the opened turn, and `continue_final_message` keeps it open.
*Completions*: the prompt is rendered here, with the model's own tokenizer, and the server continues it. Both are verified by
the number of tokens that the server counts. Test requests are greedy, so that they have the same answers at every start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from cotbench.agents.openai.client import CompletionClient, Path
from cotbench.agents.openai.connection import ServerError
from cotbench.agents.openai.context import find_context, find_entry
from cotbench.agents.openai.reply import CompletionReply
from cotbench.agents.openai.stops import WARNINGS, Stops, choose_test_stop, classify_stops
from cotbench.agents.openai.tokens import ServerTokenizer
from cotbench.agents.tokenization.chat_template import system_in_first_user
from cotbench.errors import AgentError, did_you_mean
from cotbench.prompting.elicitation import Message
from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN, THINK_CLOSE, THINK_OPEN, Tags

Prompts = Literal["messages", "ids", "text", "text, begun by the server"]
Way = Literal["auto", "chat", "completions"]

CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}

_MESSAGES = (Message("system", "You are brief."), Message("user", "Write one short sentence."))
_DIALOGUE = (*_MESSAGES, Message("assistant", f"{ACTION_OPEN}a{ACTION_CLOSE}"), Message("user", "Another."))
_OPENINGS = (ACTION_OPEN, THINK_OPEN, f"{THINK_OPEN}a{THINK_CLOSE}\n{ACTION_OPEN}")
"""The openings of a turn that a run uses; each is tried, because chat templates rewrite a turn that holds reasoning."""

_LETTER = "a"
"""A turn of one token in every tokenizer."""

_TEST_TOKENS = 16

_PLAIN_SAMPLING = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": False, "return_token_ids": True}
_EXTRAS: Mapping[str, Mapping[str, Any]] = {
    "vllm": _PLAIN_SAMPLING,
    "sglang": _PLAIN_SAMPLING,
    "llamacpp": {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
}
"""Extra fields by `owned_by`: without them these servers take penalties, a top-k and a min-p of their own, or from
generation_config.json.
"""


def rendering_difference(chat: Endpoint, tokens: ServerTokenizer, messages: Sequence[Message], tags: Tags) -> str:
    """Return why a server that renders the chat template itself makes another prompt of messages, where a turn is opened.

    Empty where it does not.

    Args:
        chat: its endpoint for messages.
        tokens: the model's tokenizer.
        messages: with past turns of the assistant.
        tags: those in them.
    """
    reasons = (
        tokens.template_difference(chat.request_messages([*messages, Message("assistant", opening)]), messages, opening, tags)
        for opening in map(tags.rename, _OPENINGS)
    )
    return next(filter(None, reasons), "")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint, and the fields that it takes.

    Attributes:
        path: its path below the base URL.
        prompts: the form in which it is given a prompt.
        budget: its name for the most tokens to generate.
        stops: what it does with a stop string that is met.
        seed: whether it takes one.
        logprobs: the fields that make it return log-probabilities; none where it does not.
        extras: fields that are always sent.
        system: whether the role `system` is accepted.
        repeats: whether the answer begins with the turn that we opened.
    """

    path: Path
    prompts: Prompts
    budget: str
    stops: Stops
    seed: bool
    logprobs: Mapping[str, Any]
    extras: Mapping[str, Any]
    system: bool = True
    repeats: bool = False

    @property
    def description(self) -> dict[str, Any]:
        """The endpoint as the manifest describes it."""
        fields = {"prompts": self.prompts, "stops": self.stops, "seed": self.seed, "logprobs": bool(self.logprobs)}
        return {**fields, "system_role": self.system, "extras": dict(self.extras)}

    def request_messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Return messages in the form of a request."""
        accepted = list(messages) if self.system else system_in_first_user(messages)
        return [message._asdict() for message in accepted]


@dataclass(frozen=True, slots=True)
class ServerCapabilities:
    """The capabilities of a server for one model.

    Attributes:
        model_info: the entry of the model in the server's list; empty where it is not listed.
        context: the longest prompt and answer together, in tokens, where the server reports it.
        chat: the endpoint for messages, where it exists and is wanted.
        completions: the endpoint for prompts, where it was needed and understood.
        prefill: the endpoint that continues a turn.
        reason: why not chat, or why none.
        warnings: what a reader of the results has to know of the server.
    """

    model_info: Mapping[str, Any]
    context: int | None
    chat: Endpoint | None
    completions: Endpoint | None
    prefill: Literal["chat", "completions", "none"]
    reason: str
    warnings: tuple[str, ...] = ()

    @property
    def description(self) -> dict[str, Any]:
        """The capabilities as the manifest describes them."""
        used = self.used
        return {
            "server": dict(self.model_info),
            "prefill": self.prefill,
            "reason": self.reason,
            **(used.description if used is not None else {}),
        }

    @property
    def continuing(self) -> Endpoint | None:
        """Return the endpoint that continues a turn."""
        return {"chat": self.chat, "completions": self.completions, "none": None}[self.prefill]

    @property
    def used(self) -> Endpoint | None:
        """Return the endpoint that continues a turn, else the one that there is."""
        return self.continuing or self.chat or self.completions


def probe_server(connection: CompletionClient, model: str, way: Way, tokens: ServerTokenizer | str) -> ServerCapabilities:
    """Find out the capabilities of a server by test requests.

    Args:
        connection: to the server.
        model: the server's name for it.
        way: the wanted way of continuing a turn.
        tokens: the model's tokenizer, or why there is none.

    Raises:
        ServerError: the server does not answer, or does not accept the key.
        AgentError: the server does not have the model, or neither endpoint.
    """
    listed = connection.models()
    model_entry = find_entry(listed, model)
    extras = _EXTRAS.get(str(model_entry.get("owned_by")), {})
    probe = _Probe(connection, model, extras)
    chat = completions = None
    refusals: list[str] = []
    reasons = {"chat": "not wanted", "completions": "not wanted"}
    if way != "completions":
        try:
            chat, counted = probe.chat()
            chat, reasons["chat"] = probe.continued(chat, counted, tokens)
        except ServerError as error:
            reasons["chat"] = _refusal(error, "messages")
            refusals.append(str(error))
    if way != "chat" and reasons["chat"]:
        try:
            completions, reasons["completions"] = probe.completions(tokens)
        except ServerError as error:
            reasons["completions"] = _refusal(error, "prompts")
            refusals.append(str(error))
    if chat is None and completions is None:
        names = [str(entry["id"]) for entry in listed]
        known = did_you_mean(model, names) if names and model not in names else ""
        raise AgentError(
            f"{connection.url} does not answer for {model!r}{known}: {'; '.join(refusals) or _join_reasons(reasons)}"
        )
    prefill: Literal["chat", "completions", "none"] = "none"
    if chat is not None and not reasons["chat"]:
        prefill = "chat"
    elif completions is not None:
        prefill, reasons["completions"] = "completions", ""
    capabilities = ServerCapabilities(
        model_info={name: model_entry[name] for name in ("id", "owned_by") if name in model_entry},
        context=find_context(connection, model, model_entry),
        chat=chat,
        completions=completions,
        prefill=prefill,
        reason=_join_reasons(reasons) if prefill != "chat" else "",
    )
    names = [str(entry["id"]) for entry in listed]
    return replace(capabilities, warnings=tuple(_warnings(capabilities, names, model, probe, tokens)))


def _warnings(
    server: ServerCapabilities, listed: Sequence[str], model: str, probe: _Probe, tokens: ServerTokenizer | str
) -> Iterator[str]:
    """Yield what a reader of the results has to know of a server."""
    if listed and model not in listed:
        alone = f" (only {listed[0]!r})" if len(listed) == 1 else ""
        yield f"it answers for {model!r}, which it does not list{alone}: another model may be playing"
    if server.used is not None and server.used.stops in WARNINGS:
        yield WARNINGS[server.used.stops]
    if server.chat is not None and isinstance(tokens, ServerTokenizer) and tokens.reads_clock:
        yield "its chat template inserts today's date: with style template, prompts change daily"
    if not probe.usage:
        yield "it does not report how many tokens prompts and answers have, so their numbers in the tables are too small"


def _join_reasons(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason)


def _refusal(error: ServerError, what: str) -> str:
    """Return a refusal in fixed words.

    A server's own words may differ from start to start, and the manifest is compared when a run is resumed.
    """
    if not error.refused:
        raise error
    return f"the server refuses {what} ({error.status})"


class _Probe:
    """Sends test requests for one model."""

    def __init__(self, connection: CompletionClient, model: str, extras: Mapping[str, Any]) -> None:
        self._connection, self._model, self._extras = connection, model, extras
        self.usage = True  # Whether every answer came with its numbers of tokens.

    def chat(self) -> tuple[Endpoint, int | None]:
        """Return the endpoint for messages, and the tokens that it counts in `_MESSAGES`.

        Some servers want another name for the budget, some templates take no system role.
        """
        refusals: list[ServerError] = []
        for budget, system in (("max_tokens", True), ("max_completion_tokens", True), ("max_tokens", False)):
            try:
                return self._endpoint("chat/completions", _MESSAGES, "messages", budget, {"logprobs": True}, system)
            except ServerError as error:
                if not error.refused:
                    raise
                refusals.append(error)
        raise refusals[0]

    def continued(self, chat: Endpoint, before: int | None, tokens: ServerTokenizer | str) -> tuple[Endpoint, str]:
        """Return the endpoint for messages, and why it does not continue a turn as it stands; empty where it does.

        Without a tokenizer the evidence is that a turn of one letter makes the prompt one token longer: nothing is put behind
        it, and it begins as a turn that the server opens.

        Args:
            chat: the endpoint.
            before: the tokens that it counts in `_MESSAGES`.
            tokens: the model's tokenizer, or why there is none.
        """
        field = "continue_final_message"
        if isinstance(tokens, ServerTokenizer):
            for opening in _OPENINGS:
                sent = chat.request_messages([*_DIALOGUE, Message("assistant", opening)])
                if reason := tokens.template_difference(sent, _DIALOGUE, opening):
                    return chat, reason
        openings = _OPENINGS if isinstance(tokens, ServerTokenizer) else (_LETTER, *_OPENINGS)
        for place, opening in enumerate(openings):
            body = {
                "messages": chat.request_messages([*_MESSAGES, Message("assistant", opening)]),
                chat.budget: 1,
                **chat.extras,
                **CONTINUE,
            }
            try:
                reply = self._ask(chat.path, body)
            except ServerError as error:
                return chat, _refusal(error, field if place == 0 else f"{field} after {opening!r}")
            counted = reply.prompt_tokens
            if counted is None:
                return chat, "the server does not tell how many tokens a prompt has"
            if isinstance(tokens, ServerTokenizer):
                expected = len(tokens.encode_whole(tokens.prompt_text(_MESSAGES) + opening))
                if counted != expected:
                    return chat, f"with {field} the server counts {counted} tokens, not {expected}, up to {opening!r}"
            elif opening == _LETTER and counted != (before or 0) + 1:
                return chat, f"nothing shows that the server knows {field}"
        # The last opening is longer than any token, so only a server that repeats it can begin with it.
        return replace(chat, repeats=reply.text.startswith(opening)), ""

    def completions(self, tokens: ServerTokenizer | str) -> tuple[Endpoint | None, str]:
        """Return the endpoint for prompts and an empty text; else None and why it cannot be used."""
        if not isinstance(tokens, ServerTokenizer):
            return None, tokens
        text = tokens.prompt_text(_MESSAGES) + ACTION_OPEN
        ids = tokens.encode_whole(text)
        forms: list[tuple[Prompts, Any]] = [("ids", ids), ("text", text)]
        if tokens.begin and text.startswith(tokens.begin):
            forms.append(("text, begun by the server", text.removeprefix(tokens.begin)))
        counts: list[str] = []
        for prompts, prompt in forms:
            try:
                counted = self._ask("completions", {"prompt": prompt, "max_tokens": 1}).prompt_tokens
            except ServerError as error:
                counts.append(_refusal(error, prompts))
                continue
            if counted == len(ids) or (counted is None and prompts == "ids"):
                return self._endpoint("completions", prompt, prompts, "max_tokens", {"logprobs": 1})[0], ""
            counts.append(f"of a prompt of {len(ids)} tokens, sent as {prompts}, the server counts {counted}")
        return None, ", ".join(counts)

    def _endpoint(
        self, path: Path, prompt: Any, prompts: Prompts, budget: str, logprobs: Mapping[str, Any], system: bool = True
    ) -> tuple[Endpoint, int | None]:
        """Return an endpoint with the optional fields that it takes: all are tried at once, or else one after the other; and
        the tokens that it counts in the prompt.
        """
        bare = Endpoint(path, prompts, budget, "unknown", False, {}, {}, system)
        base = {"messages": bare.request_messages(prompt)} if path == "chat/completions" else {"prompt": prompt}
        optional: dict[str, Mapping[str, Any]] = {
            "temperature": {"temperature": 0.0},
            "seed": {"seed": 1},
            "logprobs": logprobs,
            "extras": self._extras,
        }

        def ask(names: Sequence[str], **more: Any) -> CompletionReply:
            fields = {name: value for group in names for name, value in optional[group].items()}
            return self._ask(path, {**base, budget: _TEST_TOKENS, **fields, **more})

        taken = list(optional)
        try:
            reply = ask(taken)
        except ServerError as error:
            if not error.refused:
                raise
            ask((), **{budget: 1})
            taken = [name for name in optional if not self._refused(lambda name=name: ask((name,), **{budget: 1}))]  # type: ignore[misc]
            reply = ask(taken)
        endpoint = Endpoint(
            path=path,
            prompts=prompts,
            budget=budget,
            stops=self._stops(reply, lambda stop: ask(taken, stop=[stop])),
            seed="seed" in taken,
            logprobs=logprobs if "logprobs" in taken and reply.logprobs is not None else {},
            extras=self._extras if "extras" in taken else {},
            system=system,
        )
        return endpoint, reply.prompt_tokens

    def _stops(self, free: CompletionReply, ask: Callable[[str], CompletionReply]) -> Stops:
        """Return what an endpoint does with stop strings: the same greedy request is sent again, with a piece of its answer.

        Args:
            free: the answer without stop strings.
            ask: sends the request again with a stop string.
        """
        stop = choose_test_stop(free)
        try:
            stopped = ask(ACTION_CLOSE if stop is None else stop)
        except ServerError as error:
            if not error.refused:
                raise
            return "refused"
        return "unknown" if stop is None else classify_stops(stop, free, stopped)

    def _refused(self, ask: Callable[[], object]) -> bool:
        try:
            ask()
        except ServerError as error:
            if not error.refused:
                raise
            return True
        return False

    def _ask(self, path: Path, body: Mapping[str, Any]) -> CompletionReply:
        reply = self._connection.ask(path, {"model": self._model, **body})
        self.usage = self.usage and bool(reply.prompt_tokens) and reply.tokens is not None
        return reply
