"""Small random models and a tokenizer, built on the spot, with chat templates that misbehave the way real ones do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

WORDS = [
    "you",
    "are",
    "in",
    "a",
    "room",
    "go",
    "to",
    "desk",
    "1",
    "take",
    "mug",
    "from",
    "look",
    "open",
    "close",
    "fridge",
    "think",
    "action",
    "cabinet",
    "put",
    "clean",
    "your",
    "task",
    "is",
]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STRIPS_THINKING = (  # Qwen3: thinking of past turns is cut out.
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and '</think>' in m.content %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPENS_THINKING = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
NO_SYSTEM = (  # Gemma: the system role is refused, the assistant is called model, contents are trimmed.
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}<|im_start|>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)
CLOSES_THINKING = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n\n</think>\n\n{% endif %}")
EMPTY_PAST_THINKING = (  # GLM, Nemotron: a past turn begins with an empty thinking block; a turn ends where the next begins.
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think></think>\n{% endif %}{{ m.content }}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
THINKING_OFF = (  # DeepSeek-V3.1: a closing tag alone, in past turns and before the answer.
    "{% for m in messages %}{% if m.role == 'assistant' %}</think>{{ m.content }}<|im_end|>"
    "{% else %}{{ m.content }}<|im_start|>{% endif %}{% endfor %}{% if add_generation_prompt %}</think>{% endif %}"
)
CHANNELS = (  # Harmony: the generation prompt ends within the header, the model writes the rest of it.
    "{% for m in messages %}<|im_start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>"
    "{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
SYSTEM_LAST = (  # Mistral v0.3: the system text stands before the last user turn; blanks around past answers.
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {% if loop.last and messages[0].role == 'system' %}"
    "{{ messages[0].content }}\n\n{% endif %}{{ m.content }}[/INST]{% elif m.role == 'assistant' %} {{ m.content }}"
    "{{ eos_token }}{% endif %}{% endfor %}"
)
TWO_ENDS = (  # Phi-3.5, Gemma: a turn ends with another token than a text does.
    "{% for m in messages %}<|user|>{{ m.role }}\n{{ m.content }}<|im_start|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|user|>assistant\n{% else %}{{ eos_token }}{% endif %}"
)
DATED = "{{ strftime_now('%d %B %Y') }}\n" + CHATML
TEMPLATES = {
    "chatml": CHATML,
    "strips thinking": STRIPS_THINKING,
    "opens thinking": OPENS_THINKING,
    "no system": NO_SYSTEM,
    "none": None,
}
"""Templates of which every part of the suite is tried."""

UNUSUAL_TEMPLATES = {
    "closes thinking": CLOSES_THINKING,
    "empty past thinking": EMPTY_PAST_THINKING,
    "thinking off": THINKING_OFF,
    "channels": CHANNELS,
    "system last": SYSTEM_LAST,
    "two ends": TWO_ENDS,
    "dated": DATED,
}


def tokenizer(template: str | None = CHATML, texts: Sequence[str] = (" ".join(WORDS),)) -> Any:
    """A byte-level BPE tokenizer with ChatML's control tokens; it knows the words of some texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([*texts] * 20, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    made.chat_template = template
    return made


def save_model(
    folder: Path,
    kind: str = "llama",
    template: str | None = CHATML,
    context: int = 4096,
    words: Any = None,
    head_dim: int = 16,
) -> Path:
    """A random model of two layers, saved as a transformers folder; `words` is another tokenizer than the usual one."""
    import torch
    import transformers

    made = words or tokenizer(template)
    torch.manual_seed(7)
    shape = {
        "vocab_size": len(made),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": head_dim,
        "max_position_embeddings": context,
        "eos_token_id": made.eos_token_id,
        "bos_token_id": made.bos_token_id,
        "pad_token_id": made.pad_token_id,
        "tie_word_embeddings": False,
        "initializer_range": 0.4,  # Wide, so that the greedy token is far from a tie.
    }
    if kind == "gemma":
        config: Any = transformers.Gemma2Config(**shape, sliding_window=64, query_pre_attn_scalar=16)
    elif kind == "gemma3":
        config = transformers.Gemma3TextConfig(
            **shape, sliding_window=48, query_pre_attn_scalar=16, layer_types=["sliding_attention", "full_attention"]
        )
    elif kind == "mamba":
        config = transformers.MambaConfig(
            **{name: shape[name] for name in ("vocab_size", "hidden_size", "num_hidden_layers", "initializer_range")},
            eos_token_id=made.eos_token_id,
            pad_token_id=made.pad_token_id,
        )
    elif kind == "qwen":
        config = transformers.Qwen3Config(**shape)
    else:
        config = transformers.LlamaConfig(**shape)
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder
