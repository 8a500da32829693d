"""The `openai:` agent: a server, queried by many threads. Invariant: a request that fails for good becomes the error of its
query and of no other; neither the agent's description nor a message holds the key.
"""

from __future__ import annotations

import hashlib
import json
import logging
import queue
import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, Self

from cotbench.agents.decisions import error_decision
from cotbench.agents.openai import tools as native
from cotbench.agents.openai.address import read_address, read_key
from cotbench.agents.openai.capabilities import Way, probe_server, rendering_difference
from cotbench.agents.openai.client import CompletionClient
from cotbench.agents.openai.completions import CompletionWriter, Prompt, TokenUsage, explain_error
from cotbench.agents.openai.connection import Connection, ServerError
from cotbench.agents.openai.tokens import ServerTokenizer, find_tokens
from cotbench.agents.tokenization.token_ids import decision_tokens
from cotbench.envs.registry import Instructions
from cotbench.errors import AgentError, UsageError
from cotbench.prompting.dialogue import Dialogue, fit_context
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.examples import has_traces
from cotbench.prompting.generation import TAG_ALLOWANCE, Generation, GenerationRequest, answer_program, prompt_limit
from cotbench.prompting.parsing import USUAL_TAGS
from cotbench.prompting.query import Decision, Query, derive_seed

_log = logging.getLogger(__name__)

_Done = queue.SimpleQueue[tuple[Hashable, Decision]]
_Task = tuple[Hashable, Query, _Done]

_TRIAL = Dialogue(Instructions("You are brief."), ("Say yes.",), functions=json.dumps(native.TRIAL_TOOL))


class OpenAIAgent:
    """A model at a server that speaks OpenAI's protocol.

    Args:
        target: `MODEL@URL`, or `MODEL` for the server in `OPENAI_BASE_URL`, else OpenAI's own.
        tokenizer: the model's tokenizer, a folder or a hub name; default: MODEL, where it is one of these. With it prompts are
            cut to the context, and a server that continues no messages is sent prompts instead; needs the extra `hf`.
        way: how a turn that we open is continued: "chat" (`continue_final_message`), "completions", or "auto": chat where the
            server shows that it does that, else completions. With "completions" every request goes to that endpoint.
        concurrency: requests at once.
        timeout: seconds to wait for an answer.
        retries: further attempts after a failure that may pass.
        tools: "text" describes functions in the system text, "native" hands them to the server as tools (style template).
        context: the longest prompt and answer together, in tokens; default: the length that the server reports, else that of
            the model's configuration beside the tokenizer; where none is known, the server itself has to refuse a longer
            prompt.
        key_env: the environment variable with the key; empty: none is sent.
    """

    uses_elicitation = True
    scores_actions = True
    """Where the server does: `require` tries it."""

    def __init__(
        self,
        target: str,
        *,
        tokenizer: str | None = None,
        way: Way = "auto",
        concurrency: int = 8,
        timeout: float = 600.0,
        retries: int = 5,
        tools: Literal["text", "native"] = "text",
        context: int | None = None,
        key_env: str = "OPENAI_API_KEY",
    ) -> None:
        _check_options(concurrency, timeout, retries, context)
        address = read_address(target)
        key = read_key(key_env, address.url)
        credential = f"the key in {key_env}" if key is not None else f"no key ({key_env or 'key_env'} is not set)"
        connection = Connection(address.url, key, timeout=timeout, retries=retries)
        self._connect(connection, address.model, tokenizer, way, concurrency, tools, context, credential)

    @classmethod
    def from_client(cls, client: CompletionClient, model: str, *, tokenizer: str | None, concurrency: int) -> Self:
        """Make an agent that asks something else than a server, with prompts as token ids.

        Args:
            client: takes requests for completions.
            model: its name for the model.
            tokenizer, concurrency: as for `OpenAIAgent`.

        Raises:
            AgentError: the client does not answer, or there is no tokenizer.
        """
        agent = cls.__new__(cls)
        agent._connect(client, model, tokenizer, "completions", concurrency, "text", None, "no key")
        return agent

    def _connect(
        self,
        connection: CompletionClient,
        model: str,
        tokenizer: str | None,
        way: Way,
        concurrency: int,
        tools: Literal["text", "native"],
        context: int | None,
        credential: str,
    ) -> None:
        """Find out what is asked and how; `credential` says in words what it was sent."""
        self.name = f"openai:{model}"
        self.needs: frozenset[str] = frozenset()
        self.batch = concurrency
        self._native = tools == "native"
        self._connection = connection
        tokens = find_tokens(model, tokenizer)
        try:
            self._server = probe_server(connection, model, way, tokens)
        except ServerError as error:
            if error.status not in (401, 403):
                raise
            raise AgentError(f"{connection.url} does not accept {credential}: {error}") from None
        if self._native:
            if self._server.chat is None:
                raise AgentError(f"tools=native needs messages, which {connection.url} does not take: omit tools and way")
            native.check_tools(connection, model, self._server.chat)
        self._tokens = tokens if isinstance(tokens, ServerTokenizer) else None
        known = (context, self._server.context, self._tokens.context if self._tokens is not None else None)
        self._context = next((limit for limit in known if limit is not None), None)
        warnings = list(self._warnings(context))
        for warning in warnings:
            _log.warning("%s: %s", self.name, warning)
        self._writer = CompletionWriter(connection, model, self._server, tokens)
        self._description = {
            "model": model,
            "url": connection.url,
            **self._server.description,
            **(self._tokens.description if self._tokens is not None else {"tokenizer": None}),
            "context": self._context,
            **({"warnings": warnings} if warnings else {}),
            "tools": tools,
            **({"tools_sha256": hashlib.sha256(json.dumps(native.INSTRUCTIONS).encode()).hexdigest()} if self._native else {}),
        }
        self._waiting: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._done: _Done = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._open = 0

    def _warnings(self, context: int | None) -> Iterator[str]:
        """Yield what a reader of the results has to know of the server."""
        yield from self._server.warnings
        if context is None and self._server.context is None and self._context is not None:
            yield (
                f"it does not tell the length of its context, so that of the model's configuration is taken: {self._context} "
                "tokens (?context=TOKENS, where the server was started with a shorter one)"
            )

    def describe(self) -> dict[str, Any]:
        """Return server, model, and the form of requests, for the manifest."""
        return dict(self._description)

    def require(self, elicitation: Elicitation) -> None:
        """Raise an error where this server cannot be asked this way: a trial query shows it.

        Raises:
            AgentError: with style prefill, where the server continues no turn, or tools are native; the server refuses the
                trial (its temperature, say), so it would refuse every query.
        """
        if elicitation.style == "prefill" and self._native:
            raise AgentError(
                "tools=native lets the server write the whole answer, so nothing is opened: --elicitation-style template"
            )
        opened = elicitation.style == "prefill" or elicitation.prompt_action == "empty"
        if opened and self._server.prefill == "none":
            raise AgentError(
                f"{self._connection.url} cannot continue a turn that cotbench opens ({self._server.reason}): "
                "ask with --elicitation-style template and --prompt-elicitation bare"
            )
        self._require_rendering(elicitation, opened=opened)
        # Of a ranked prompt action, the score of one candidate.
        given = "yes" if elicitation.prompt_action == "ranked" else None
        try:
            self._answer(Query("trial", "", "", 0, "prompt", _TRIAL, elicitation, given_action=given))
        except ServerError as error:
            if error.refused:  # What may pass, or concerns one answer, is left to the queries.
                flags = [flag for flag in ("--temperature", "--top-p") if flag[2:].replace("-", "_") in str(error)]
                raise AgentError(
                    f"{explain_error(error)}; so it would refuse every query: change {' or '.join(flags) or 'what it names'}"
                ) from None

    def _require_rendering(self, elicitation: Elicitation, *, opened: bool) -> None:
        """Raise an error where the server renders the chat, and its template rewrites the tags or the traces of examples."""
        endpoint = self._server.continuing if opened else self._server.chat
        plain = elicitation.tags == USUAL_TAGS and not has_traces(elicitation.examples)
        if plain or self._tokens is None or endpoint is None or endpoint.path != "chat/completions":
            return
        messages = elicitation.messages(_TRIAL.extended("a", None, "Another."), "cot")
        if reason := rendering_difference(endpoint, self._tokens, messages, elicitation.tags):
            raise AgentError(
                f"{self._connection.url} would show the model another chat ({reason}): ask with ?way=completions, with other "
                "--think-tag and --action-tag, or with --examples without traces"
            )

    def submit(self, key: Hashable, query: Query) -> None:
        """Take a query; `collect` returns its decision.

        Args:
            key: names the query in `collect`.
            query: the query.
        """
        self._open += 1
        self._enqueue(key, query, self._done)

    def collect(self, wait: float) -> list[tuple[Hashable, Decision]]:
        """Return the decisions completed since the last call, with the keys of their queries.

        Args:
            wait: seconds to wait for one at most.
        """
        answers: list[tuple[Hashable, Decision]] = []
        try:
            while len(answers) < self._open:
                answers.append(self._done.get(timeout=wait) if not answers and wait > 0 else self._done.get_nowait())
        except queue.Empty:
            pass
        self._open -= len(answers)
        return answers

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """Return a decision for each query, in order; a failure is an error of that query alone."""
        done: _Done = queue.SimpleQueue()
        for index, query in enumerate(queries):
            self._enqueue(index, query, done)
        answers = dict(done.get() for _ in queries)
        return [answers[index] for index in range(len(queries))]

    def close(self) -> None:
        """End the threads, without waiting for requests in progress."""
        self._connection.close()
        with suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        for _ in self._threads:
            self._waiting.put(None)
        self._threads, self._open = [], 0
        merges = self._writer.merges
        if merges.merged:
            _log.warning(
                "%s: %d of %d prompts were sent as text of which the server makes other tokens than the hf: agent",
                self.name,
                merges.merged,
                merges.sent,
            )

    def _enqueue(self, key: Hashable, query: Query, done: _Done) -> None:
        if len(self._threads) < self.batch:
            thread = threading.Thread(target=self._work, name=f"{self.name} {len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._waiting.put((key, query, done))

    def _work(self) -> None:
        while (task := self._waiting.get()) is not None:
            key, query, done = task
            try:
                decision = self._answer(query)
            except ServerError as error:
                decision = Decision("", error=explain_error(error))
            except Exception as error:  # A broken template or an undecodable text: the failure of this query alone.
                decision = error_decision(error)
                redact = self._connection.redact
                decision = replace(
                    decision, error=redact(decision.error or ""), traceback=redact(decision.traceback or "") or None
                )
            done.put((key, decision))

    def _answer(self, query: Query) -> Decision:
        prompt, usage = self._prompt(query), TokenUsage()
        uses_tools = self._native and bool(query.dialogue.functions)
        decision = (self._call_tools if uses_tools else self._run_program)(query, prompt, usage)
        length = usage.prompt_tokens if uses_tools or prompt.ids is None else len(prompt.ids)
        return replace(
            decision,
            prompt_tokens=length,
            reused_tokens=min(usage.cached, length),
            prefilled_tokens=usage.prefilled,
            discarded_tokens=max(0, usage.generated - decision.generated_tokens),
            dropped_observations=prompt.dropped,
        )

    def _prompt(self, query: Query) -> Prompt:
        """Return the prompt, cut to the context where both are known; without a tokenizer the server has to refuse a longer
        one.
        """
        elicitation, tokens = query.elicitation, self._tokens
        prompts: dict[Dialogue, Prompt] = {}

        def length(dialogue: Dialogue) -> int:
            messages = elicitation.messages(dialogue, query.mode, query.admissible_actions)
            ids = tokens.prompt(messages, elicitation.tags) if tokens is not None else None
            prompts[dialogue] = Prompt(messages, dialogue, ids, elicitation.tags)
            return len(ids or ())

        limit = 2**31 if self._context is None else prompt_limit(elicitation, self._context)
        fitted, dropped = fit_context(query.dialogue, length, limit)
        return replace(prompts[fitted], dropped=dropped)

    def _run_program(self, query: Query, prompt: Prompt, usage: TokenUsage) -> Decision:
        """Run the query's program: a CoT decision takes two requests."""
        program = answer_program(query)
        request = next(program)
        history: list[tuple[list[int], Generation]] = []
        while True:
            turn = self._writer.turn_ids(request.prefill) if query.return_tokens else None
            generation = self._writer.write(query, prompt, request, usage)
            if turn is not None:
                history.append((turn, generation))
            try:
                request = program.send(generation)
            except StopIteration as end:
                decision: Decision = end.value
                if turn is None or prompt.ids is None:
                    return decision
                return replace(decision, tokens=decision_tokens(prompt.ids, history))

    def _call_tools(self, query: Query, prompt: Prompt, usage: TokenUsage) -> Decision:
        """Send one request with the functions as tools, and return its decision."""
        if query.elicitation.style == "prefill" or query.given_trace is not None or query.given_action is not None:
            raise AgentError("with tools=native no tag is opened, no trace given, no action scored: use ?tools=text")
        chat = self._server.chat
        if chat is None:
            raise AgentError("the server takes no messages, so no tools")
        box = native.toolbox(prompt.dialogue)
        request = GenerationRequest((), native.budget(query.elicitation, query.mode), (), False, derive_seed(query.seed, 0))
        fields = self._writer.fields(chat, query, request)
        body = {"messages": chat.request_messages(native.messages(prompt.dialogue, query)), "tools": list(box.tools), **fields}
        return native.read_calls(self._writer.ask(chat, body, usage), box, query)


def _check_options(concurrency: int, timeout: float, retries: int, context: int | None) -> None:
    if concurrency < 1 or retries < 0 or not timeout > 0:
        raise UsageError("an openai: agent needs concurrency of 1 or more, retries of 0 or more, and a timeout above 0")
    if context is not None and context < 2 * TAG_ALLOWANCE:
        raise UsageError(f"context={context} leaves no room for an answer")
