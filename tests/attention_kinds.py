"""Attention as transformers 5 knows it: one configuration a kind, every length in it within reach of a short dialogue.

`prompts` of `tests.hf_agents.state` are 59, 89 and 119 tokens long here: `EARLY` and `LATE` are crossed while an answer is
generated, and by the prompt that grows from turn to turn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import tiny_models

EARLY, LATE = 62, 94
"""Lengths that are crossed by the answers of the first and the second turn."""

CONTEXT = 512

_SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": False,
}
_EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_MLA = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
}
_SLIDING_FULL = ["sliding_attention", "full_attention", "sliding_attention"]
_LINEAR_FULL = ["linear_attention", "full_attention", "linear_attention"]


def _rope(kind: str, **settings: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **settings}}


def _longrope(original: int, **settings: Any) -> dict[str, Any]:
    settings |= {"short_factor": [1.0 + place / 8 for place in range(8)], "long_factor": [4.0 + place for place in range(8)]}
    return {
        "original_max_position_embeddings": original,
        **_rope("longrope", original_max_position_embeddings=original, **settings),
    }


_OTHER = "our attention computes something else than its own"
_PACKED = "the packed attention computes something else than the model's own"
_UNKNOWN = "a layer that our attention does not know"


@dataclass(frozen=True, slots=True)
class AttentionKind:
    """A kind of attention.

    Attributes:
        config: the configuration's class in transformers.
        settings: what is not as in `_SHAPE`; None leaves a setting away.
        reason: why our attention is not installed, a part of the sentence; empty where it is.
        training: the same of the packed attention.
        slow: whether a forward pass takes long, for lack of a compiled kernel.
    """

    config: str
    settings: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    training: str = ""
    slow: bool = False


KINDS: dict[str, AttentionKind] = {
    # Rotary embeddings.
    "default rope": AttentionKind("LlamaConfig"),
    "linear rope": AttentionKind("LlamaConfig", _rope("linear", factor=4.0)),
    "llama3 rope": AttentionKind(
        "LlamaConfig",
        _rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=EARLY),
    ),
    "yarn rope": AttentionKind("LlamaConfig", _rope("yarn", factor=8.0, original_max_position_embeddings=EARLY)),
    "dynamic rope, which begins where the context ends": AttentionKind("LlamaConfig", _rope("dynamic", factor=2.0)),
    "longrope": AttentionKind(
        "Phi3Config",
        _longrope(EARLY),
        reason=f"beyond original_max_position_embeddings={EARLY}",
        training=f"beyond original_max_position_embeddings={EARLY}",
    ),
    "longrope of a mixture of experts": AttentionKind(
        "PhimoeConfig",
        {**_EXPERTS, **_longrope(LATE, short_mscale=1.1, long_mscale=1.3)},
        reason=f"beyond original_max_position_embeddings={LATE}",
        training=f"beyond original_max_position_embeddings={LATE}",
    ),
    "longrope and windows": AttentionKind(
        "Phi3Config",
        {**_longrope(LATE), "sliding_window": EARLY},
        reason=f"beyond original_max_position_embeddings={LATE}",
        training=_UNKNOWN,
    ),
    "partial rope": AttentionKind("PhiConfig", {"partial_rotary_factor": 0.5}),
    "no rope in some layers": AttentionKind("SmolLM3Config", {"no_rope_layers": [1, 0, 1], "head_dim": None}),
    "fixed ntk": AttentionKind("HunYuanDenseV1Config", {"head_dim": 16, **_rope("dynamic", factor=1.0, alpha=50.0)}),
    # Windows and chunks.
    "windows in all layers": AttentionKind("MistralConfig", {"sliding_window": EARLY}, training=_UNKNOWN),
    "windows of a mixture of experts": AttentionKind("MixtralConfig", {**_EXPERTS, "sliding_window": LATE}, training=_UNKNOWN),
    "windows in some layers": AttentionKind(
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": EARLY, "max_window_layers": 1},
        training=_UNKNOWN,
    ),
    "windows and softcaps": AttentionKind(
        "Gemma2Config", {"sliding_window": EARLY, "head_dim": 16, "query_pre_attn_scalar": 16}, training=_UNKNOWN
    ),
    "windows with a rope of their own": AttentionKind(
        "Gemma3TextConfig", {"sliding_window": EARLY, "head_dim": 16, "layer_types": _SLIDING_FULL}, training=_UNKNOWN
    ),
    "windows, shared keys and values": AttentionKind(
        "Gemma3nTextConfig",
        {
            "sliding_window": EARLY,
            "head_dim": 16,
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": 400,
            "laurel_rank": 8,
        },
        training=_UNKNOWN,
    ),
    "head sizes by layer": AttentionKind(
        "Gemma4TextConfig",
        {
            "sliding_window": EARLY,
            "head_dim": 16,
            "global_head_dim": 32,
            "layer_types": _SLIDING_FULL,
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": 400,
        },
        training=_UNKNOWN,
    ),
    "windows beside layers without rope": AttentionKind(
        "Cohere2Config", {"sliding_window": EARLY, "layer_types": _SLIDING_FULL, "head_dim": 16}, training=_UNKNOWN
    ),
    "windows, norms behind": AttentionKind(
        "Olmo3Config", {"sliding_window": EARLY, "layer_types": _SLIDING_FULL}, training=_UNKNOWN
    ),
    "windows, norms of queries": AttentionKind(
        "Exaone4Config", {"sliding_window": LATE, "layer_types": _SLIDING_FULL}, training=_UNKNOWN
    ),
    "windows with biases": AttentionKind("Starcoder2Config", {"sliding_window": EARLY}, training=_UNKNOWN),
    "windows and gates": AttentionKind(
        "AfmoeConfig",
        {**_EXPERTS, "sliding_window": EARLY, "layer_types": _SLIDING_FULL, "head_dim": 16, "num_dense_layers": 1},
        training=_UNKNOWN,
    ),
    "windows with sinks": AttentionKind(
        "GptOssConfig",
        {**_EXPERTS, "sliding_window": EARLY, "head_dim": 16, "layer_types": _SLIDING_FULL},
        reason=_UNKNOWN,
        training=_UNKNOWN,
    ),
    "windows of a decoder made of an encoder": AttentionKind(
        "ModernBertDecoderConfig", {"local_attention": LATE, "num_key_value_heads": None}, training=_UNKNOWN
    ),
    "chunks and temperature": AttentionKind(
        "Llama4TextConfig",
        {
            **_EXPERTS,
            "attention_chunk_size": EARLY,
            "floor_scale": LATE,
            "intermediate_size_mlp": 96,
            "head_dim": 16,
            "no_rope_layers": [1, 0, 1],
        },
        reason=f"beyond attention_chunk_size={EARLY}",
        training=f"beyond attention_chunk_size={EARLY}",
    ),
    "temperature by position": AttentionKind(
        "Ministral3Config",
        _rope("yarn", factor=8.0, original_max_position_embeddings=EARLY, llama_4_scaling_beta=0.5) | {"head_dim": 16},
    ),
    # What a layer chooses among the tokens.
    "chosen keys": AttentionKind("DogeConfig", {"keep_window_size": EARLY}, reason=_UNKNOWN, training=_PACKED),
    "chosen tokens": AttentionKind(
        "DeepseekV32Config",
        {**_MLA, "index_topk": EARLY, "index_head_dim": 16, "index_n_heads": 2},
        reason="NoneType",
        training="NoneType",
    ),
    "chosen blocks": AttentionKind(
        "MiniMaxM3VLTextConfig",
        {
            **_EXPERTS,
            "index_n_heads": 2,
            "index_head_dim": 16,
            "index_block_size": 16,
            "index_topk_blocks": 4,
            "head_dim": 16,
            "rotary_dim": 8,
            "layer_types": ["full_attention", "minimax_m3_sparse", "minimax_m3_sparse"],
            "dense_intermediate_size": 96,
            "shared_intermediate_size": 32,
        },
        reason="out of bounds",
        training="beyond index_block_size=16",
    ),
    # Plain attention over all tokens, in other clothes.
    "norms of queries and keys": AttentionKind("Qwen3Config", {"head_dim": 16}),
    "a mixture of experts": AttentionKind("Qwen3MoeConfig", {**_EXPERTS, "head_dim": 16}),
    "latent keys and values": AttentionKind(
        "DeepseekV3Config",
        {**_MLA, **_rope("yarn", factor=8.0, original_max_position_embeddings=EARLY, mscale=1.0, mscale_all_dim=1.0)},
    ),
    "multipliers": AttentionKind("GraniteConfig", {"attention_multiplier": 0.2, "residual_multiplier": 0.3}),
    "norms behind": AttentionKind("Olmo2Config"),
    "norms before and behind": AttentionKind("Glm4Config", {"head_dim": 16}),
    "parallel layers": AttentionKind("CohereConfig"),
    "several heads of queries alone": AttentionKind(
        "GPTBigCodeConfig", {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_inner": 96, "n_positions": CONTEXT}
    ),
    # Other positions.
    "learned positions": AttentionKind("GPT2Config", {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT}),
    "learned positions with an offset": AttentionKind("OPTConfig", {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    "alibi": AttentionKind("BloomConfig", {"n_layer": 3, "n_head": 4}, reason=_OTHER, training=_PACKED),
    "alibi of other layers": AttentionKind(
        "MptConfig", {"d_model": 64, "n_heads": 4, "n_layers": 3, "max_seq_len": CONTEXT}, reason=_OTHER, training=_PACKED
    ),
    "alibi of one head": AttentionKind("FalconConfig", {"alibi": True, "ffn_hidden_size": 96}, reason=_OTHER, training=_PACKED),
    "rope in a layer of its own": AttentionKind(
        "GPTJConfig",
        {"n_embd": 64, "n_layer": 3, "n_head": 4, "rotary_dim": 8, "n_positions": CONTEXT},
        reason=_OTHER,
        training=_PACKED,
    ),
    "windows as a mask that is made once": AttentionKind(
        "GPTNeoConfig",
        {
            "num_hidden_layers": None,
            "num_layers": 2,
            "num_heads": 4,
            "window_size": EARLY,
            "attention_types": [[["global", "local"], 1]],
        },
        reason=_OTHER,
        training=_PACKED,
    ),
    "differences of two attentions": AttentionKind("DiffLlamaConfig", reason=_OTHER),
    # States.
    "states alone": AttentionKind("MambaConfig", {"state_size": 8}, reason=_OTHER, training=_PACKED),
    "states of another kind": AttentionKind(
        "RwkvConfig", {"context_length": CONTEXT}, reason=_OTHER, training=_PACKED, slow=True
    ),
    "states and attention": AttentionKind(
        "JambaConfig",
        {**_EXPERTS, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 8, "use_mamba_kernels": False},
        reason=_OTHER,
        training=_PACKED,
        slow=True,
    ),
    "states beside attention": AttentionKind(
        "FalconH1Config",
        {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16, "head_dim": 16},
        reason=_OTHER,
        training=_PACKED,
        slow=True,
    ),
    "windows and a recurrence": AttentionKind(
        "RecurrentGemmaConfig",
        {"attention_window_size": EARLY, "lru_width": 64, "head_dim": 16},
        reason=_OTHER,
        training=_UNKNOWN,
        slow=True,
    ),
    "short convolutions": AttentionKind(
        "Lfm2Config", {"layer_types": ["conv", "full_attention", "conv"]}, reason=_OTHER, training=_PACKED
    ),
    "linear attention": AttentionKind(
        "MiniMaxConfig",
        {**_EXPERTS, "layer_types": _LINEAR_FULL, "head_dim": 16, "block_size": 32},
        reason=_OTHER,
        training=_PACKED,
    ),
    "gated deltas": AttentionKind(
        "Qwen3NextConfig",
        {
            **_EXPERTS,
            "head_dim": 16,
            "layer_types": _LINEAR_FULL,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "shared_expert_intermediate_size": 32,
        },
        reason=_OTHER,
        training=_PACKED,
    ),
}


def save_kind(folder: Path, kind: AttentionKind, **settings: Any) -> Path:
    """A random model of a kind with a tokenizer that knows the words of the tests, as a transformers folder."""
    import torch
    import transformers

    words = tiny_models.tokenizer(texts=_prompts())
    shape = {**_SHAPE, **kind.settings, **settings}
    shape = {name: value for name, value in shape.items() if value is not None}
    ends = {"eos_token_id": words.eos_token_id, "bos_token_id": words.bos_token_id, "pad_token_id": words.pad_token_id}
    config = getattr(transformers, kind.config)(vocab_size=len(words), **ends, **shape)
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():  # Wide, so that the greedy token is far from a tie; nothing is 0 or 1 either.
            parameter.add_(torch.randn_like(parameter) * (0.3 if parameter.dim() > 1 else 0.1))
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def _prompts() -> list[str]:
    from tests.hf_agents import SHORT, state

    messages = [message for turns in range(3) for message in SHORT.messages(state(turns, "cot").dialogue, "cot")]
    return [message.content for message in messages] + ["assistant user system <think></think> <action></action>"]
