"""The tokenizer of `tiny`. Invariant: every word of the corpus is a token; any other text falls apart into characters, so that
decoding gives back the encoded text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from cotbench.prompting.parsing import TAGS

END, USER, ASSISTANT = "<|end|>", "<|user|>", "<|assistant|>"
UNKNOWN = "<|unknown|>"

_CHUNK = r"(?:, and|,)? an?(?= [a-z])| ?[A-Za-z]+| ?[0-9]+|\n+| ?[^\sA-Za-z0-9]|\s"
"""A word, number or mark with the blank before it; the comma of a list goes with the article that follows."""

_TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}"
    "{% elif message.role == 'user' %}" + USER + "{{ message.content }}"
    "{% else %}" + ASSISTANT + "{% generation %}{{ message.content }}" + END + "{% endgeneration %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}" + ASSISTANT + "{% endif %}"
)
"""The markers say which tokens are the assistant's, for trainers that ask the template (`assistant_only_loss`)."""


def make_tokenizer(texts: Iterable[str], phrases: Iterable[str], smallest: int = 2) -> Any:
    """Return a tokenizer whose words are those of some texts.

    Args:
        texts: the corpus.
        phrases: texts that never vary, such as the environment's instructions: each becomes one token.
        smallest: how often a word must occur to be a token.

    Returns:
        A `PreTrainedTokenizerFast` with a chat template: system text, then turns, each after a token of its own.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fixed = [phrase for phrase in dict.fromkeys(phrases) if phrase]
    apart = re.compile("|".join(map(re.escape, sorted([*TAGS, *fixed], key=len, reverse=True))))
    counts = Counter(chunk for text in texts for piece in apart.split(text) for chunk in re.findall(_CHUNK, piece))
    characters = ["\n", *map(chr, range(32, 127))]
    words = sorted(chunk for chunk, count in counts.items() if count >= smallest and len(chunk) > 1)
    # These scores make the split with the fewest pieces the likeliest, words before characters.
    vocabulary = [(UNKNOWN, 0.0), *((char, -20.0) for char in characters), *((word, -1.0) for word in words)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_CHUNK), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast_tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END, unk_token=UNKNOWN)
    fast_tokenizer.add_special_tokens({"additional_special_tokens": [USER, ASSISTANT]})
    fast_tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in (*TAGS, *fixed)])
    fast_tokenizer.chat_template = _TEMPLATE
    return fast_tokenizer
