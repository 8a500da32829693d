"""A model prepared for training. Invariant: what is trained is what evaluation loads: the same tokenizer, the same template,
and an attention that is compared with the model's own before it is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cotbench.agents.hf import loading
from cotbench.agents.hf.length_settings import CROSSING_TOKENS, SHORT, crossing_error, crossings, length_settings
from cotbench.agents.hf.pretrained import first_line
from cotbench.agents.hf.tokenizer import context_of
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.baselines.training import packing
from cotbench.baselines.training.lora import LoraOptions, add_adapter
from cotbench.baselines.training.loss import Losses, TreeLosses, losses, plain_losses
from cotbench.baselines.training.options import TrainingDtype
from cotbench.baselines.training.processes import weights_are_sharded
from cotbench.baselines.training.sequence_tree import Branch, Tree
from cotbench.baselines.training.tree_attention import install_tree_attention
from cotbench.errors import WriteError

_log = logging.getLogger(__name__)

_IDENTITY = ("model", "revision", "weights_sha256", "settings_sha256", "parameters")
"""What of a model's description a training's record repeats."""

_BUCKETS = tuple(2**power for power in range(10, 16))
"""Lengths that rows are padded to before a training has chosen its own."""

_NATS = 1e-3
"""Tolerance (nats) between two computations of a token's loss."""
_NOT_WRITTEN = ("os error", "No space left on device", "PytorchStreamWriter", "inline_container")
"""In the errors of safetensors and torch where a file does not fit onto the disk."""


@dataclass(slots=True)
class TrainableModel:
    """Model to be trained.

    Attributes:
        model: with `lora` wrapped by peft.
        context: the longest sequence that the model takes, in tokens.
        packed: whether an attention of ours is installed.
        losses: computes the losses of a row with the attention that is installed.
        own_attention: name of the attention that the model came with.
        description: what identifies the weights that the training began with; where our attention is not installed, also
            the reason why.
    """

    model: Any
    tokenizer: Any
    chat: Chat
    context: int
    packed: bool
    losses: Losses
    own_attention: str
    description: dict[str, Any]


def load_trainable(
    target: str,
    *,
    device: str = "auto",
    revision: str | None = None,
    lora: LoraOptions | None = None,
    dtype: TrainingDtype = "auto",
) -> TrainableModel:
    """Load a model for training, in float32: what the training computes in is `trainer_arguments`'s to say.

    Args:
        target: hub name, alias, local folder, smollm2 or tiny.
        device: auto, cpu or cuda.
        revision: of the hub's model.
        lora: the adapter; None trains all weights.
        dtype: as `make_trainable` takes it.

    Raises:
        AgentError: it cannot be loaded.
        MissingExtraError: an adapter is wanted, and peft is not installed.
    """
    loaded = loading.load(target, device=device, dtype="float32", attn=None, revision=revision)
    description = {name: loaded.description[name] for name in _IDENTITY}
    if not any(parameter.requires_grad for parameter in loaded.model.parameters()):
        loaded.model.requires_grad_(True)  # A checkpoint that is an adapter was merged, which leaves the weights frozen.
    return make_trainable(loaded.model, loaded.tokenizer, description, lora, dtype=dtype)


def make_trainable(
    model: Any,
    tokenizer: Any,
    description: dict[str, Any],
    lora: LoraOptions | None = None,
    *,
    dtype: TrainingDtype = "auto",
    flex: bool | None = None,
) -> TrainableModel:
    """Return a model in memory, prepared for training; see `load_trainable`.

    Args:
        model: a transformers model, in float32.
        tokenizer: its tokenizer, with a chat template.
        description: identifies the weights, for the card.
        lora: the adapter; None trains all weights.
        dtype: `bfloat16` casts the weights; else they stay as they are, except that those which an adapter leaves frozen become
            bfloat16 where a training of dtype `auto` computes in it anyway.
        flex: whether attention is `tree_attention`; default: on a GPU.
    """
    limit, own_attention = context_of(model.config), str(model.config._attn_implementation)
    compute, reason = _install_attention(model, limit, model.device.type == "cuda" if flex is None else flex)
    if reason is not None:
        _log.warning("each decision is computed on its own: %s", reason)
        description = {**description, "attention_reason": reason}
    if dtype == "bfloat16" or (dtype == "auto" and lora is not None and mixes_precision(dtype, model.device)):
        import torch

        model = model.to(torch.bfloat16)
    if lora is not None:
        model = add_adapter(model, lora)
    chat = Chat(tokenizer)
    _stop_at_turn_end(model, chat)
    return TrainableModel(model, tokenizer, chat, limit, reason is None, compute, own_attention, description)


def mixes_precision(dtype: TrainingDtype, device: Any) -> bool:
    """Tell whether a training has weights in float32 and computes in bfloat16.

    Args:
        dtype: of the training's options.
        device: that it runs on.
    """
    import torch

    # Cards before Ampere emulate it: slowly, and FlexAttention's kernel refuses it there.
    return dtype == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _stop_at_turn_end(model: Any, chat: Chat) -> None:
    """Let the saved model stop where its training ends a turn, whoever generates with it."""
    ends = model.generation_config.eos_token_id
    known = set(ends if isinstance(ends, list) else [] if ends is None else [ends])
    if not known.issuperset(chat.turn_end[-1:]):
        model.generation_config.eos_token_id = sorted(known.union(chat.turn_end[-1:]))


def _install_attention(model: Any, context: int, flex: bool) -> tuple[Losses, str | None]:
    """Install an attention of ours where one computes what the model's own does.

    The probe of `tree_attention` has masks over the whole row instead of FlexAttention's kernel: it is the model that is
    probed, and nothing has to be compiled for it.

    Args:
        model: a transformers model.
        context: the longest sequence, in tokens.
        flex: whether `tree_attention` is tried first.

    Returns:
        How losses are computed then, and why not with our attention, or None.
    """
    if flex:
        reason = _try_install(model, context, install_tree_attention, TreeLosses(dense=True))
        if reason is None:
            return TreeLosses(_BUCKETS, dense=model.device.type == "cpu", own_head=weights_are_sharded()), None
        _log.warning("attention is computed sequence by sequence: %s", reason)
    reason = _try_install(model, context, packing.install_packed_attention, losses)
    return (losses if reason is None else plain_losses), reason


def _try_install(model: Any, context: int, install: Callable[[Any], None], compute: Losses) -> str | None:
    """Install an attention where it computes what the model's own does, and return None; else return why it does not.

    Args:
        model: a transformers model.
        context: the longest sequence, in tokens.
        install: installs it.
        compute: the losses with it.
    """
    own = model.config._attn_implementation
    row = packing.pack(_probe_trees(model))

    def packed_losses() -> Any:
        install(model)
        try:
            return _sorted_losses(compute, model, row)
        finally:
            model.set_attn_implementation(own)

    def own_losses() -> Any:
        return _sorted_losses(plain_losses, model, row)

    training = model.training
    model.eval()
    try:
        expected, found = own_losses(), packed_losses()
        if not float((found - expected).abs().max()) <= _NATS:
            return "the packed attention computes something else than the model's own"
        for lowered in crossings(length_settings(model, context)):
            difference = crossing_error(model, lowered, found, expected, packed_losses, own_losses)
            if difference is not None:
                return f"the packed attention: {difference}"
    except Exception as error:  # Whatever a model's code does with arguments that it does not know.
        return first_line(error)
    finally:
        model.train(training)
    install(model)
    return None


def _probe_trees(model: Any) -> list[Tree]:
    """Return trees whose branches leave the trunk below `SHORT` and beyond it."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = tuple((7 * index + 3) % vocabulary for index in range(CROSSING_TOKENS + 5))
    branches = tuple(Branch(at, ids[at - 1 : at + 4], (1.0,) * 5) for at in (SHORT - 1, SHORT, 9, CROSSING_TOKENS))
    return [Tree(ids[:CROSSING_TOKENS], branches), Tree(ids[12:24], (), (1.0,) * 12), Tree(ids[5:8], (), (1.0,) * 3)]


def _sorted_losses(compute: Any, model: Any, row: packing.Packed) -> Any:
    """Return the losses of a row's supervised tokens, sorted: the two ways to compute them have the tokens in another order."""
    import torch

    with torch.inference_mode():
        return compute(model, row, model.device)[0].sort().values


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer where `hf:FOLDER` finds them.

    Args:
        model: a transformers or peft model.
        tokenizer: its tokenizer.
        folder: where both are written.
    """
    with writing(folder):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Name the folder where what others' code writes into it does not fit onto the disk.

    Args:
        folder: of a model or a checkpoint.

    Raises:
        WriteError: it does not.
    """
    try:
        yield
    except Exception as error:  # safetensors and torch raise classes of their own.
        if isinstance(error, OSError) or any(sign in str(error) for sign in _NOT_WRITTEN):
            raise WriteError(f"cannot write {folder} ({' '.join(str(error).split())[:160]})") from error
        raise
