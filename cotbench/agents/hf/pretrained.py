"""Load the parts of a model with transformers and peft. Invariant: no code from a model's folder or repository is ever run,
and no weights are unpickled: this file alone calls `from_pretrained`, and it never lets transformers ask whether it may.
"""

from __future__ import annotations

import errno
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from cotbench.agents.hf.model_files import ADAPTER, require_safetensors, snapshot_folder
from cotbench.errors import AgentError, MissingExtraError
from cotbench.openmp import wait_passively

_OWN_CODE = ("trust_remote_code", "custom code")
"""Marks of transformers' error for a model that needs code of its own."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_SAYS = ("PytorchStreamWriter", "inline_container", *(f"os error {number}" for number in _FULL))
"""Marks of torch's and safetensors' errors on a full disk."""

_OUT_OF_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Signs of missing memory in errors of torch that have no type of their own: on a CPU, of the driver, of cuBLAS."""

_T = TypeVar("_T")


def require_transformers() -> None:
    """Fail in one line when the extra is not installed; else choose how torch's threads wait, before it is imported."""
    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            raise MissingExtraError("an hf: agent", "hf")
    wait_passively()


def load_config(source: str, revision: str | None = None) -> Any:
    """Load the configuration of a model.

    Args:
        source: a folder, or a name on the hub.
        revision: branch, tag or commit on the hub.

    Raises:
        AgentError: the model needs code of its own.
        Exception: whatever transformers raises where there is none.
    """
    from transformers import AutoConfig

    return _without_code(source, lambda: AutoConfig.from_pretrained(source, trust_remote_code=False, **_revision(revision)))


def load_tokenizer(source: str, revision: str | None = None, *, gguf_file: str | None = None) -> Any:
    """Load a tokenizer; `gguf_file` names a file in the folder to convert it from. See `load_config`."""
    from transformers import AutoTokenizer

    options = _revision(revision) | ({} if gguf_file is None else {"gguf_file": gguf_file})
    return _without_code(source, lambda: AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options))


def load_causal_model(source: str, revision: str | None = None, *, attn: str | None = None, **options: Any) -> Any:
    """Load a causal language model from safetensors.

    Args:
        source: a folder, or a name on the hub.
        revision: branch, tag or commit on the hub.
        attn: transformers' `attn_implementation`.
        options: further arguments of transformers' `from_pretrained`.

    Raises:
        AgentError: the model, or its attention, needs code of its own; or the attention cannot compute this model.
        Exception: whatever transformers raises where it cannot be loaded.
    """
    from transformers import AutoModelForCausalLM

    if attn is not None:
        options["attn_implementation"] = attn
    for kernel in [attn] if "gguf_file" in options else [attn, *_attentions(_raw_config(source, revision))]:
        if kernel is not None and "/" in kernel:
            raise AgentError(f"{source}: attention {kernel!r} is code from a repository, which cotbench never runs: ?attn=sdpa")
    model = _without_code(
        source,
        lambda: AutoModelForCausalLM.from_pretrained(
            source, trust_remote_code=False, use_safetensors=True, **_revision(revision), **options
        ),
    )
    _keep_softcap(model, source, attn)
    return model


def _keep_softcap(model: Any, source: str, attn: str | None) -> None:
    """Give a model whose attention scores have a soft cap (Gemma 2) an attention that computes it.

    Before 5.21 transformers chose `sdpa` for such models, which leaves the soft cap out without a word.

    Raises:
        AgentError: `sdpa` was asked for.
    """
    config = model.config.get_text_config()
    if getattr(config, "attn_logit_softcapping", None) is None or config._attn_implementation != "sdpa":
        return
    if attn == "sdpa":
        raise AgentError(f"{source}: attn=sdpa leaves out the soft cap of this model's attention scores: ?attn=eager")
    model.set_attn_implementation("eager")


def load_adapter(model: Any, source: str) -> Any:
    """Return a model with an adapter on top, from safetensors.

    Args:
        model: the base model.
        source: the adapter's folder, or its name on the hub.

    Raises:
        AgentError: the adapter is pickled, or asks for code of its own.
        Exception: whatever peft raises where it cannot be loaded.
    """
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(source)
    if getattr(config, "megatron_config", None):  # peft would import the module that the adapter names.
        raise AgentError(f"{source}: this adapter names a module to import (megatron_core), which is never run")
    if Path(source).is_dir():
        require_safetensors(Path(source))
    adapted = PeftModel.from_pretrained(model, source, config=config)
    if (fetched := snapshot_folder(source, file=ADAPTER)) is not None:  # peft reads a pickle as plain data alone.
        require_safetensors(fetched)
    return adapted


def first_line(error: Exception) -> str:
    """Return type and first line of an exception's message, shortened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {(lines or ['no message'])[0][:160]}"


def is_disk_full(error: Exception) -> bool:
    """Return whether an error means that the disk takes no more; torch and safetensors do not raise an OSError then."""
    return getattr(error, "errno", None) in _FULL or any(sign in str(error) for sign in _FULL_SAYS)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device, or the machine, has no memory left."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _OUT_OF_MEMORY)


def quiet(transformers: Any) -> None:
    """Keep transformers from writing to the terminal: neither notes nor progress bars."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@contextmanager
def hushed() -> Iterator[None]:
    """Suppress the warnings that peft and transformers print about each other's deprecations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        # peft, of a folder that it writes itself.
        warnings.filterwarnings("ignore", "Could not find a config file in", UserWarning)
        yield


def _raw_config(source: str, revision: str | None) -> Any:
    from transformers import PreTrainedConfig

    return PreTrainedConfig.get_config_dict(source, **_revision(revision))[0]


def _attentions(value: Any) -> Iterator[str]:
    """Yield the attention implementations that a configuration names, for the model or a part of it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            named = inner.values() if isinstance(inner, dict) else [inner]
            yield from (str(one) for one in named if name.lstrip("_").startswith("attn_implementation"))
            yield from _attentions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _attentions(inner)


def _revision(revision: str | None) -> dict[str, str]:
    return {"revision": revision} if revision else {}


def _without_code(source: str, load: Callable[[], _T]) -> _T:
    try:
        return load()
    except (ValueError, ImportError) as error:
        if any(mark in str(error) for mark in _OWN_CODE):
            raise AgentError(
                f"{source} needs custom code, which cotbench never runs: use a model that transformers supports itself, or "
                "serve it elsewhere and name the server (openai:MODEL@URL)"
            ) from error
        raise
