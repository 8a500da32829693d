"""hf: agents on small random models, and the textbook loop that they are compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cotbench.agents import make_agent
from cotbench.agents.hf.agent import HFAgent
from cotbench.agents.tokenization.token_ids import truncate_ids
from cotbench.envs import Instructions
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation, Mode
from cotbench.prompting.query import Decision, Query
from tests import tiny_models

SHORT = Elicitation(trace_tokens=12, action_tokens=8)


def hf_agent(tmp_path: Path, kind: str = "llama", template: str = "chatml", options: str = "") -> HFAgent:
    kind, _, attn = kind.partition("?")
    folder = tmp_path / "model"
    if not folder.exists():
        tiny_models.save_model(folder, kind, tiny_models.TEMPLATES[template])
    made = make_agent(f"hf:{folder}?" + "&".join(filter(None, ("threads=1&device=cpu", attn, options))))
    assert isinstance(made, HFAgent)
    return made


def reference(agent: HFAgent) -> Any:
    """The same weights with transformers' own attention."""
    import torch
    from transformers import AutoModelForCausalLM

    if not hasattr(agent, "_test_reference"):
        folder = agent._description["model"] if Path(agent._description["model"]).is_dir() else None
        if folder is None:
            from cotbench.agents.hf.bundled import smollm2_folder

            folder = smollm2_folder()
        agent._test_reference = AutoModelForCausalLM.from_pretrained(  # type: ignore[attr-defined]
            folder, dtype=torch.float32, attn_implementation=agent._own_attention
        ).eval()
    return agent._test_reference  # type: ignore[attr-defined]


def state(turns: int, mode: Mode, elicitation: Elicitation = SHORT, episode: str = "e", **more: Any) -> Query:
    dialogue = Dialogue(Instructions("You act."), ("You are in a room. Your task is to: look.",))
    for turn in range(turns):
        dialogue = dialogue.extended(f"go to desk {turn}", None, f"On the desk {turn} you see a mug {turn}.")
    return Query(episode, "", "t", turns, mode, dialogue, elicitation, **more)


def plain_greedy(
    agent: HFAgent, prefix: list[int], budget: int, stops: tuple[str, ...], one_line: bool
) -> tuple[list[int], str]:
    """The textbook loop: the whole sequence through the model for every token, no cache."""
    import torch

    ids: list[int] = []
    for _ in range(budget):
        with torch.inference_mode():
            logits = reference(agent)(input_ids=torch.tensor([prefix + ids]), use_cache=False).logits[0, -1]
        token = int(logits.argmax())
        if token in agent._end_ids:
            break
        ids.append(token)
        text = agent._chat.decode(ids)
        ends = [place for stop in stops if (place := text.find(stop)) >= 0]
        body = text.lstrip()
        if one_line and "\n" in body:
            ends.append(len(text) - len(body) + body.index("\n"))
        if ends:
            return ids, text[: min(ends)]
    return ids, agent._chat.decode(ids)


def plain_answer(agent: HFAgent, query: Query) -> tuple[str | None, str]:
    """Trace and action text, by the definitions of the paper and the textbook loop."""
    tags = query.elicitation.tags
    chat = agent._chat.with_tags(tags)
    ids = chat.prompt_ids(query.elicitation.messages(query.dialogue, query.mode))
    trace = None
    if query.mode == "cot":
        ids = ids + chat.encode(tags.think_open)
        ends = (tags.think_close, tags.action_open)
        tokens, trace = plain_greedy(agent, ids, query.elicitation.trace_tokens, ends, False)
        ids = ids + truncate_ids(chat, tokens, trace) + chat.encode(f"{tags.think_close}\n")
    opened = ids + chat.encode(tags.action_open)
    _, action = plain_greedy(agent, opened, query.elicitation.action_tokens, (tags.action_close,), True)
    return trace, action


def answers_of(decisions: list[Decision]) -> list[tuple[str, str | None, int, float | None]]:
    return [(each.raw, each.trace, each.action_tokens, each.action_logprob) for each in decisions]
