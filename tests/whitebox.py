"""States, settings and small models for the probes that look into a model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from cotbench.agents import make_agent
from cotbench.agents.hf.agent import HFAgent
from cotbench.envs import Instructions
from cotbench.probes.probe import ProbeSetting
from cotbench.probes.states import ProbeState, StateSet
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation
from tests import tiny_models

ASKED = Elicitation(trace_tokens=24, action_tokens=8)
TRACE = "I look for a mug. It may be on the desk."
ACTION = "go to desk 1"
KINDS = ("llama", "qwen", "gemma", "gemma3", "mistral", "sinks", "hybrid")
"""Grouped queries; normed queries; windows, capped scores; windows; windows everywhere; attention sinks; recurrent layers."""


def state(turns: int = 2, task: str = "t", trace: str | None = TRACE, action: str = ACTION) -> ProbeState:
    dialogue = Dialogue(Instructions("You act."), ("You are in a room. Your task is to: look.",))
    for turn in range(turns):
        dialogue = dialogue.extended(f"go to desk {turn}", None, f"On the desk {turn} you see a mug {turn}.")
    return ProbeState(task, "look", turns, "look", dialogue, action, trace)


def setting(*states: ProbeState, elicitation: Elicitation = ASKED, **more: Any) -> ProbeSetting:
    whole = StateSet("alfworld-gen", "paper", "id", "expert", 0, len(states), states)
    return ProbeSetting(whole, elicitation, str.strip, **more)


def save_model(folder: Path, kind: str) -> Path:
    """A random model of two layers, of four in `hybrid`."""
    import torch
    import transformers

    if kind not in ("mistral", "sinks", "hybrid"):
        return tiny_models.save_model(folder, kind)
    words = tiny_models.tokenizer()
    torch.manual_seed(7)
    shape: dict[str, Any] = {
        "vocab_size": len(words),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "eos_token_id": words.eos_token_id,
        "bos_token_id": words.bos_token_id,
        "pad_token_id": words.pad_token_id,
        "initializer_range": 0.2,
    }
    if kind == "mistral":
        config: Any = transformers.MistralConfig(**shape, sliding_window=40)
    elif kind == "sinks":
        config = transformers.GptOssConfig(**shape, sliding_window=40, num_local_experts=2, num_experts_per_tok=1)
    else:
        shape |= {"num_hidden_layers": 4, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
        heads = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16}
        config = transformers.Qwen3NextConfig(**shape, **heads, num_experts=2, num_experts_per_tok=1, decoder_sparse_step=1)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def agent_of(folder: Path, options: str = "") -> HFAgent:
    made = make_agent(f"hf:{folder}?" + "&".join(filter(None, ("threads=1&device=cpu", options))))
    assert isinstance(made, HFAgent)
    return made


def agent(tmp_path: Path, kind: str = "llama", options: str = "") -> HFAgent:
    folder = tmp_path / kind
    return agent_of(folder if folder.exists() else save_model(folder, kind), options)


def plain(folder: Path, attention: str = "eager") -> Any:
    """The same weights, loaded without cotbench."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention).eval()


def by_distance(folder: Path, strength: tuple[float, ...], key_heads: int) -> Any:
    """A Llama of one layer whose attention is known: gives weight(head, query's position, key's position) before softmax.

    Queries and keys do not depend on tokens, they are one vector b, turned by the rotary embedding; a head's queries are
    `strength` times as long. So a score is that strength times the sum of |b_d|^2 cos(theta_d * distance) over b's planes d.
    """
    import torch
    import transformers

    words, size = tiny_models.tokenizer(), 16
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=len(strength),
        num_key_value_heads=key_heads,
        head_dim=size,
        max_position_embeddings=4096,
        eos_token_id=words.eos_token_id,
        bos_token_id=words.bos_token_id,
        pad_token_id=words.pad_token_id,
        attention_bias=True,
        initializer_range=0.3,
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    planes = [0.2 + 0.15 * plane for plane in range(size // 2)]
    own = torch.tensor([*planes, *reversed(planes)])
    attention = model.model.layers[0].self_attn
    with torch.no_grad():
        for projection, lengths in ((attention.q_proj, strength), (attention.k_proj, (1.0,) * key_heads)):
            projection.weight.zero_()
            projection.bias.copy_(torch.cat([length * own for length in lengths]))
    model.save_pretrained(folder)
    words.save_pretrained(folder)

    def score(head: int, query: int, key: int) -> float:
        turned = (
            (here * here + there * there) * math.cos(10_000 ** (-2 * plane / size) * (query - key))
            for plane, (here, there) in enumerate(zip(planes, reversed(planes), strict=True))
        )
        return strength[head] * sum(turned) / math.sqrt(size)

    return score


def weights(score: Any, head: int, query: int) -> list[float]:
    """Attention of one head's query on the tokens up to its own."""
    raised = [math.exp(score(head, query, key)) for key in range(query + 1)]
    return [each / sum(raised) for each in raised]
