"""Construction of `tiny`. Invariant: its base weights follow from the package alone: generated games outside every split, one
seed, no download; and its fine-tuning data comes from split train alone.

Two stages, as with a real model: the base reads transcripts (`corpus`), some of whose actions stand behind a trace, and then
learns what to do by recipe `sft`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.teachers.alfworld_wordings import WORDINGS
from cotbench.baselines.tiny import corpus
from cotbench.baselines.tiny.tokenizer import make_tokenizer
from cotbench.envs.alfworld.household_statistics import rooms
from cotbench.envs.registry import env_entry
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation

NAME = "base"

_PHRASES = (
    "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. Looking quickly around you, you see",
    "\n\nYour task is to:",
    "You arrive at",
    ", you see",
    " On the",
    " In it, you see",
    " is closed.",
    " is open.",
    "Nothing happens.",
    "You open the",
    "You close the",
)
"""Fixed phrases of the engine: one token each."""


def tiny_elicitation() -> Elicitation:
    """Return the elicitation of `tiny`: the default of its environment, as for any model."""
    return Elicitation.for_env(corpus.ENV)


def new_tokenizer(transcripts: Iterable[Demonstration]) -> Any:
    """Return a tokenizer of the words of the corpus, of the scripted traces and of every household; the instructions are one
    token.

    Args:
        read: the transcripts of the corpus.
    """
    instructions = env_entry(corpus.ENV).instructions()
    system_text = tiny_elicitation().system_text(Dialogue(instructions, ("",)), "cot")
    things = {name.lower() for room in rooms().values() for name in (*room.objects, *(n for s in room.scenes for n in s))}
    texts = [text for one in transcripts for text in (*one.observations, *one.actions)]
    texts += [" ".join(wording).format_map(_Named()) for wordings in WORDINGS for wording in wordings]
    texts += [f"a {name} 1, a {name}, the {name} 1.\n{name} 1" for name in sorted(things)]
    return make_tokenizer(texts, [system_text, *_PHRASES], smallest=1)


class _Named(dict[str, str]):
    """Mapping that fills any field of a wording with the same thing."""

    def __missing__(self, key: str) -> str:
        return "mug 1"


def new_model(*, hidden: int, layers: int, vocabulary: int, seed: int) -> Any:
    """Return a model with new weights: Qwen3's architecture, some two million parameters.

    Args:
        hidden: hidden size, a multiple of the head size 32.
        layers: number of layers.
        vocabulary: number of tokens.
        seed: of the weights.
    """
    import transformers

    transformers.set_seed(seed)
    heads = hidden // 32
    shape = transformers.Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=32,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
    )
    return transformers.AutoModelForCausalLM.from_config(shape)
