"""The prompt of a query as a person reads it. Invariant: messages, opening and rendered text are what the agent is sent, made
by the code that asks; no weights are loaded and no server is asked.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from cotbench.agents.ranking import candidate_queries
from cotbench.agents.registry import may_use_elicitation, parse_spec, spec_option
from cotbench.errors import UsageError
from cotbench.prompting.elicitation import Message, Mode
from cotbench.prompting.generation import Prefill, answer_program, is_ranked, prefill_text
from cotbench.prompting.query import Query


class PromptPreview(BaseModel):
    """What a model is sent for one query.

    Attributes:
        elicitation: its fingerprint.
        messages: the chat.
        opening: what the harness writes into the assistant's turn before the model goes on.
        candidates: with ranked prompt actions: the actions that are scored behind the opening; nothing is generated then.
        tools: how many functions go as tools beside the messages (`tools=native`).
        rendered: the whole text that the model reads, by its own chat template, up to where it goes on; None where a server
            renders it.
        prompt_tokens: tokens of `rendered`, those of the opening left out.
    """

    model_config = ConfigDict(frozen=True)

    env: str
    task: str
    mode: Mode
    elicitation: str
    messages: tuple[Message, ...]
    opening: str
    candidates: int = 0
    tools: int = 0
    rendered: str | None = None
    prompt_tokens: int | None = None


def preview(spec: str, query: Query) -> PromptPreview:
    """Return what the model of a spec is sent for a query.

    Args:
        spec: of the agent; of `hf:` its tokenizer is loaded.
        query: the query.

    Raises:
        UsageError: the agent takes no elicitation, so it is sent no prompt.
        AgentError: the tokenizer cannot be loaded, or the prompt is longer than the model's context.
    """
    if not may_use_elicitation(spec):
        raise UsageError(f"agent {spec} is sent no prompt: --show-prompt is for agents with a model, such as hf:tiny-cot")
    agent = parse_spec(spec)
    messages, tools = query.elicitation.messages(query.dialogue, query.mode, query.admissible_actions), 0
    if spec_option(spec, "tools") == "native" and query.dialogue.functions:
        from cotbench.agents.openai import tools as native

        messages, tools = native.messages(query.dialogue, query), len(native.toolbox(query.dialogue).tools)
    candidates = candidate_queries(query) if is_ranked(query) else []
    opening: Prefill = next(answer_program(candidates[0] if candidates else query)).prefill if not tools else ()
    found = PromptPreview(
        env=query.env,
        task=query.task,
        mode=query.mode,
        elicitation=query.elicitation.fingerprint,
        messages=tuple(messages),
        opening=prefill_text(opening),
        candidates=len(candidates),
        tools=tools,
    )
    if agent.name != "hf":
        return found
    from cotbench.agents.hf.tokenizer import load_tokenizer
    from cotbench.agents.tokenization.chat_template import Chat
    from cotbench.agents.tokenization.token_ids import prefill_ids, prompt_ids

    tokenizer, longest = load_tokenizer(agent.target)
    chat = Chat(tokenizer)
    context = agent.options.get("context")
    ids, _ = prompt_ids(query, chat, int(context) if context else longest)
    text = chat.decode([*ids, *prefill_ids(chat, opening)])
    return found.model_copy(update={"rendered": text, "prompt_tokens": len(ids)})
