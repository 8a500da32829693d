"""A model prepared for training. Invariant: what is trained is what evaluation loads: the same tokenizer, the same template,
and an attention that is compared with the model's own before it is used.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotbench.agents.hf import loading
from cotbench.agents.hf.tokenizer import context_of
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.baselines.training import packing
from cotbench.baselines.training.lora import LoraOptions, add_adapter
from cotbench.baselines.training.loss import losses, plain_losses
from cotbench.baselines.training.sequence_tree import Branch, Tree

_log = logging.getLogger(__name__)

_NATS = 1e-3
"""Tolerance (nats) between two computations of a token's loss."""


@dataclass(slots=True)
class TrainableModel:
    """Model to be trained.

    Attributes:
        model: with `lora` wrapped by peft.
        end: the token that ends the assistant's turn, or None.
        context: the longest sequence that the model takes, in tokens.
        packed: whether our attention is installed.
        description: what identifies the weights that the training began with.
    """

    model: Any
    tokenizer: Any
    chat: Chat
    end: int | None
    context: int
    packed: bool
    description: dict[str, Any]


def load_trainable(
    target: str, *, device: str = "auto", revision: str | None = None, lora: LoraOptions | None = None
) -> TrainableModel:
    """Load a model for training, in float32: on a GPU the trainer computes in bfloat16 beside it.

    Args:
        target: hub name, alias, local folder, smollm2 or tiny.
        device: auto, cpu or cuda.
        revision: of the hub's model.
        lora: the adapter; None trains all weights.

    Raises:
        AgentError: it cannot be loaded.
        MissingExtraError: an adapter is wanted, and peft is not installed.
    """
    loaded = loading.load(target, device=device, dtype="float32", attn=None, revision=revision)
    description = {name: loaded.description[name] for name in ("model", "revision", "weights_sha256", "parameters")}
    return make_trainable(loaded.model, loaded.tokenizer, description, lora)


def make_trainable(model: Any, tokenizer: Any, description: dict[str, Any], lora: LoraOptions | None = None) -> TrainableModel:
    """Return a model in memory, prepared for training; see `load_trainable`.

    Args:
        model: a transformers model.
        tokenizer: its tokenizer, with a chat template.
        description: identifies the weights, for the card.
        lora: the adapter; None trains all weights.
    """
    mismatch = _try_install_packed_attention(model)
    if mismatch is not None:
        _log.warning("each decision is computed on its own: %s", mismatch)
    if lora is not None:
        model = add_adapter(model, lora)
    limit = context_of(model.config)
    return TrainableModel(model, tokenizer, Chat(tokenizer), tokenizer.eos_token_id, limit, mismatch is None, description)


def _try_install_packed_attention(model: Any) -> str | None:
    """Install our attention where it computes what the model's own does, and return None; else return why it does not."""
    import torch

    own = model.config._attn_implementation
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = tuple((7 * index + 3) % vocabulary for index in range(24))
    ones = (1.0,) * 5
    trees = [Tree(ids[:12], (Branch(4, ids[3:8], ones), Branch(9, ids[8:13], ones), Branch(12, ids[12:17], ones)))]
    trees.append(Tree(ids[12:], (), (1.0,) * 12))
    device = model.device
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            row = packing.pack(trees)
            expected, _ = plain_losses(model, row, device)
            packing.install_packed_attention(model)
            found, _ = losses(model, row, device)
        if float((found.sort().values - expected.sort().values).abs().max()) <= _NATS:
            return None
        mismatch = "the packed attention computes something else than the model's own"
    except Exception as error:  # Whatever a model's code does with arguments that it does not know.
        mismatch = loading.first_line(error)
    finally:
        model.train(training)
    model.set_attn_implementation(own)
    return mismatch


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer where `hf:FOLDER` finds them.

    Args:
        model: a transformers or peft model.
        tokenizer: its tokenizer.
        folder: where both are written.
    """
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
