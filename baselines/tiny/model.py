"""How `tiny` comes to be. Invariant: its base weights follow from the package alone: generated games outside every split, one
seed, no download; and what it is then taught on comes from split train alone.

Two stages, as with a real model: the base reads transcripts (`corpus`), and then learns to reason by recipe `sft`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.teachers.alfworld import WORDINGS
from cotbench.baselines.tiny import corpus
from cotbench.baselines.tiny.base_config import BaseConfig
from cotbench.baselines.tiny.tokenizer import make_tokenizer
from cotbench.baselines.training.batching import make_steps
from cotbench.baselines.training.recipe_card import TrainingResult, prepare_folder
from cotbench.baselines.training.sequence_tree import Tree
from cotbench.envs.alfworld.household_statistics import rooms
from cotbench.envs.registry import env_entry
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation
from cotbench.runs.manifest import provenance

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
"""What the engine always says in the same words: a token each."""


def build_base(config: BaseConfig, out: Path, *, resume: bool, progress: Callable[[], Any] | None) -> TrainingResult:
    """Build the base: read transcripts, actions and observations alike.

    Raises:
        UsageError: `out` holds something else.
    """
    from cotbench.baselines.training.loop import run_base

    record = {
        "recipe": NAME,
        "config": config.model_dump(mode="json"),
        "data": {"games": config.games, "first": corpus.tasks(1)[0], "envs": {corpus.ENV: config.games}},
        "elicitations": {corpus.ENV: tiny_elicitation().fingerprint},
        **provenance(),
    }
    prepare_folder(out, record, resume=resume)
    return run_base(config, record, out, progress=progress)


def tiny_elicitation() -> Elicitation:
    """How `tiny` is asked: as any model is."""
    return Elicitation.for_env(corpus.ENV)


def new_tokenizer(read: Iterable[Demonstration]) -> Any:
    """The tokenizer: the words of the corpus, of the scripted traces and of every household; the instructions are one token."""
    instructions = env_entry(corpus.ENV).instructions()
    told = tiny_elicitation().system_text(Dialogue(instructions, ("",)), "cot")
    things = {name.lower() for room in rooms().values() for name in (*room.objects, *(n for s in room.scenes for n in s))}
    texts = [text for one in read for text in (*one.observations, *one.actions)]
    texts += [wording.format_map(_Named()) for wordings in WORDINGS for wording in wordings]
    texts += [f"a {name} 1, a {name}, the {name} 1.\n{name} 1" for name in sorted(things)]
    return make_tokenizer(texts, [told, *_PHRASES], smallest=1)


class _Named(dict[str, str]):
    """Fills any place of a wording with the same thing."""

    def __missing__(self, key: str) -> str:
        return "mug 1"


def new_model(config: BaseConfig, vocabulary: int) -> Any:
    """New weights: Qwen3's architecture, some two million parameters."""
    import transformers

    transformers.set_seed(config.seed)
    heads = config.hidden // 32
    shape = transformers.Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=config.hidden,
        intermediate_size=config.hidden * 8 // 3,
        num_hidden_layers=config.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=32,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
    )
    return transformers.AutoModelForCausalLM.from_config(shape)


def text_tree(one: Demonstration, chat: Any) -> Tree:
    """A transcript as the model is shown it, every token of it to be predicted but the instructions."""
    last = len(one.actions) - 1
    messages = tiny_elicitation().messages(one.dialogue(last), "cot")
    system = len(chat.encode(messages[0].content))
    ids = [*chat.prompt_ids(messages), *chat.encode(tiny_elicitation().past_answer(one.actions[last], None))]
    return Tree(tuple(ids), (), (0.0,) * (system + 1) + (1.0,) * (len(ids) - system - 1))


def base_steps(trees: list[Tree], config: BaseConfig) -> Any:
    """The order of reading."""
    sizes = [[tree.tokens] for tree in trees]
    return make_steps(
        sizes, unit="episode", batch=config.batch_size, epochs=config.epochs, seed=config.seed, tokens=16_384, processes=1
    )
