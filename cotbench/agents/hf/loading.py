"""Find and load a model. Invariant: what cannot be loaded is an error of one line with a way out; no code from a model
repository is ever run; the description names what was loaded by its content.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cotbench.agents.hf.bundled import BUNDLED, SMOLLM2
from cotbench.agents.hf.model_files import (
    ADAPTER,
    CONFIG,
    ModelFiles,
    check_unchanged,
    list_files,
    require_safetensors,
    snapshot_folder,
)
from cotbench.agents.hf.pretrained import (
    first_line,
    hushed,
    load_adapter,
    load_causal_model,
    load_tokenizer,
    quiet,
    require_transformers,
)
from cotbench.agents.tokenization.chat_template import describe_template
from cotbench.envs.cache import write_failure
from cotbench.errors import AgentError, MissingExtraError, UnknownNameError
from cotbench.json_text import parse_json

ALIASES = {
    "qwen": "Qwen/Qwen3-0.6B",
    "qwen-4b": "Qwen/Qwen3-4B",
    "qwen-8b": "Qwen/Qwen3-8B",
    "qwen-14b": "Qwen/Qwen3-14B",
    "llama-8b": "meta-llama/Llama-3.1-8B-Instruct",
}
"""Short names of hub models; the last four are the paper's."""

_DTYPES = ("float32", "bfloat16", "float16")
_QUANTIZED = ("4bit", "8bit")
_IDENTITY = ("model", "revision", "weights_sha256", "settings_sha256", "base")
"""What of a base's description an adapter's repeats."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """Hold a model ready to answer: the weights, the tokenizer, and what the manifest says of them."""

    model: Any
    tokenizer: Any
    description: dict[str, Any]


def load(
    target: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    attn: str | None = None,
    revision: str | None = None,
    adapter: str | None = None,
    quantize: str | None = None,
) -> LoadedModel:
    """Load a model for evaluation.

    Args:
        target: `smollm2`, an alias, a local folder, or a hub name; a folder that holds an adapter alone is loaded with its
            base.
        device: "auto", "cpu", "cuda", "cuda:1".
        dtype: "auto" (float32 on a CPU, bfloat16 on a GPU, float16 on one that has no bfloat16) or a torch dtype's name.
        attn: transformers' `attn_implementation`.
        revision: branch, tag or commit on the hub.
        adapter: a LoRA adapter, folder or hub name; it is merged into the weights, unless they are quantised.
        quantize: "4bit" (NF4) or "8bit", with bitsandbytes.

    Raises:
        AgentError: the model, its tokenizer or the adapter cannot be had.
        MissingExtraError: peft or bitsandbytes is not installed.
    """
    require_transformers()
    _require_extras(adapter, quantize)
    if (folder := adapter_folder(target)) is not None:
        _require_extras(target, quantize)
        name, at = base_of(folder)
        base = load(name, device=device, dtype=dtype, attn=attn, revision=at, quantize=quantize)
        return _with_adapters(base, folder, target, adapter, merge=quantize is None)
    import torch
    import transformers

    quiet(transformers)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise AgentError(f"device={device}: this machine has no GPU that torch can use; omit the option for the CPU")
    if dtype == "auto":
        dtype = _usual_dtype(device)
    if dtype not in _DTYPES:
        raise UnknownNameError("dtype", dtype, _DTYPES)
    name = ALIASES.get(target, target)
    source, tokenizer = base_tokenizer(target, revision)
    options: dict[str, Any] = {}
    if quantize:
        # Without a dtype its products would be computed in float32.
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            **{f"load_in_{quantize}": True}, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, dtype)
        )
        options["device_map"] = {"": device}  # Quantised weights cannot be moved once they are loaded.
    folder = Path(source)
    before = list_files(folder) if folder.is_dir() else None
    if before is not None:
        require_safetensors(folder)
    try:
        model = load_causal_model(source, revision, attn=attn, dtype=getattr(torch, dtype), **options)
        model = model.eval() if quantize else model.to(device).eval()
    except AgentError:
        raise
    except Exception as error:
        raise AgentError(_why_not(target, name, "model", error)) from error
    if before is not None:
        check_unchanged(before)
    elif getattr(model, "_hf_peft_config_loaded", False):
        raise AgentError(f"{name} on the hub is an adapter: name its base model, as in hf:BASE?adapter={name}")
    files = before or _fetched(source, getattr(model.config, "_commit_hash", None) or revision)
    described = {} if adapter is None else _describe_adapter(adapter)
    if adapter:
        model = _adapted(model, adapter, merge=quantize is None)
    description = {
        "model": BUNDLED[target].title if target in BUNDLED else name,
        "revision": getattr(model.config, "_commit_hash", None),
        **_content(files),
        **described,
        **({"quantize": quantize} if quantize else {}),
        **_describe(model, tokenizer, device, dtype),
    }
    return LoadedModel(model, tokenizer, description)


def _usual_dtype(device: str) -> str:
    """Return the number format of a model's weights on a device, where none is asked for."""
    import torch

    if device == "cpu":
        return "float32"
    if not device.startswith("cuda"):
        return "bfloat16"
    with torch.cuda.device(device):
        # Before Ampere GPUs only emulate bfloat16.
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def base_tokenizer(target: str, revision: str | None) -> tuple[str, Any]:
    """Return the folder or hub name that a model is loaded from, and its tokenizer.

    Args:
        target: `smollm2`, `tiny`, `tiny-cot`, an alias, a local folder with a whole model, or a hub name.
        revision: branch, tag or commit on the hub.

    Raises:
        AgentError: there is no such model, or its tokenizer cannot be loaded.
    """
    name = ALIASES.get(target, target)
    source = str(BUNDLED[target].folder()) if target in BUNDLED else _source(name)
    if not Path(source).is_dir():
        require_hub(target, name, revision)
    try:
        return source, load_tokenizer(source, revision)
    except AgentError:
        raise
    except Exception as error:
        raise AgentError(_why_not(target, name, "tokenizer", error)) from error


def own_tokenizer(folder: Path, base: Any) -> Any:
    """Return the tokenizer of an adapter: the folder's own where it has one, else the base's."""
    return load_tokenizer(str(folder)) if (folder / "tokenizer_config.json").is_file() else base


def describe_live(model: Any, tokenizer: Any, name: str) -> dict[str, Any]:
    """Return what a manifest says of a model that is in memory: no digest, for its weights may change."""
    device, dtype = str(model.device), str(model.dtype).removeprefix("torch.")
    return {"model": name, "weights": "live", **_describe(model, tokenizer, device, dtype)}


def _content(files: ModelFiles | None) -> dict[str, str | None]:
    """Return the digests of a model's files for its description; None where they were not found."""
    return {
        "weights_sha256": None if files is None else files.weights_sha256,
        "settings_sha256": None if files is None else files.settings_sha256,
    }


def _fetched(name: str, revision: str | None, file: str = CONFIG) -> ModelFiles | None:
    """Return the files of a model of the hub, in the hub's cache."""
    folder = snapshot_folder(name, revision, file)
    return None if folder is None else list_files(folder)


def _describe_adapter(adapter: str) -> dict[str, Any]:
    """Return name and content of an adapter that is put on top of a model."""
    folder = Path(adapter).expanduser()
    found = _content(list_files(folder) if folder.is_dir() else _fetched(adapter, None, ADAPTER))
    return {
        "adapter": adapter,
        "adapter_sha256": found["weights_sha256"],
        "adapter_settings_sha256": found["settings_sha256"],
    }


def _describe(model: Any, tokenizer: Any, device: str, dtype: str) -> dict[str, Any]:
    import torch

    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **describe_template(tokenizer),
        "dtype": dtype,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "torch_threads": torch.get_num_threads(),
    }


def _require_extras(adapter: str | None, quantize: str | None) -> None:
    if quantize is not None and quantize not in _QUANTIZED:
        raise UnknownNameError("quantize", quantize, _QUANTIZED)
    if adapter and find_spec("peft") is None:
        raise MissingExtraError(f"adapter={adapter}", "adapter")
    if quantize and find_spec("bitsandbytes") is None:
        raise MissingExtraError(f"quantize={quantize}", "quantize")


def adapter_folder(target: str) -> Path | None:
    """Return the folder of a target that holds an adapter alone; None for any other target."""
    folder = Path(target).expanduser()
    return folder if (folder / ADAPTER).is_file() and not (folder / "config.json").is_file() else None


def base_of(folder: Path) -> tuple[str, str | None]:
    """Return name and revision of the base model of the adapter in a folder.

    Raises:
        AgentError: the adapter names none, or one that is gone.
    """
    try:
        config = dict(parse_json((folder / ADAPTER).read_bytes()))
    except (ValueError, TypeError) as error:
        raise AgentError(f"{folder / ADAPTER} is damaged ({first_line(error)}): save the adapter again") from error
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base:
        raise AgentError(f"{folder} holds an adapter without a base model: write base_model_name_or_path into its {ADAPTER}")
    if base.startswith((".", "/", "~")) and not Path(base).expanduser().is_dir():
        raise AgentError(
            f"{folder} holds an adapter whose base model {base} is gone: put it back, or name another place for it in "
            f"{ADAPTER} (base_model_name_or_path)"
        )
    return base, revision if isinstance(revision, str) else None


def _with_adapters(base: LoadedModel, folder: Path, target: str, more: str | None, *, merge: bool) -> LoadedModel:
    """Return a base with a folder's adapter and perhaps another one on top; the tokenizer is the folder's where it has one."""
    before = list_files(folder)
    model = _adapted(base.model, str(folder), merge=merge)
    model.name_or_path = str(folder.resolve())  # What is trained on top of it finds all of it again.
    tokenizer = own_tokenizer(folder, base.tokenizer)
    description = {
        **base.description,
        "model": target,
        **_content(before),
        "base": {name: base.description[name] for name in _IDENTITY if name in base.description},
        **describe_template(tokenizer),
    }
    check_unchanged(before)
    if more:
        described = _describe_adapter(more)
        model = _adapted(model, more, merge=merge)
        description |= described
    return LoadedModel(model, tokenizer, description)


def _adapted(model: Any, adapter: str, *, merge: bool) -> Any:
    folder = Path(adapter).expanduser()
    try:
        with hushed():
            adapted = load_adapter(model, str(folder) if folder.is_dir() else adapter)
            return (adapted.merge_and_unload() if merge else adapted.get_base_model()).eval()
    except AgentError:
        raise
    except Exception as error:
        raise AgentError(
            f"cannot load the adapter {adapter} ({first_line(error)}): give a folder that peft's save_pretrained wrote, for "
            "this very model"
        ) from error


def _source(name: str) -> str:
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise AgentError(f"{name} is not a model folder: it has no config.json")
        return str(path)
    if name.startswith((".", "/", "~")):
        raise AgentError(
            f"no model folder {name}: give a folder that save_pretrained wrote, or a hub name such as Qwen/Qwen3-0.6B"
        )
    return name


def require_hub(target: str, name: str, revision: str | None) -> None:
    """Fail at once when the model is neither cached nor the hub within reach: its client would retry for a minute."""
    import huggingface_hub
    from huggingface_hub.utils import get_session

    huggingface_hub.utils.logging.set_verbosity_error()
    try:
        if isinstance(huggingface_hub.try_to_load_from_cache(name, "config.json", revision=revision), str):
            return
        get_session().head(huggingface_hub.constants.ENDPOINT, timeout=10)
    except Exception as error:  # A name that no hub has, or whatever the HTTP client raises.
        raise AgentError(_why_not(target, name, "model", error)) from error


def _why_not(target: str, name: str, part: str, error: Exception) -> str:
    if Path(name).expanduser().is_dir():
        return f"cannot load the {part} in {name} ({first_line(error)}): save model and tokenizer there with save_pretrained"
    if name == SMOLLM2:
        return f"cannot load the {part} of {name} ({first_line(error)})"
    alias = f" (alias {target!r})" if name != target else ""
    if (failure := write_failure(error)) is not None:
        from huggingface_hub.constants import HF_HUB_CACHE

        return (
            f"cannot load the {part} of {name!r}{alias}: the hub's cache {HF_HUB_CACHE} cannot be written to "
            f"({failure.strerror}): free some space there, or set HF_HOME to a folder that can be written to"
        )
    return (
        f"cannot load the {part} of {name!r}{alias} ({first_line(error)}); without the hub use a local folder (hf:./folder) "
        f"or hf:{SMOLLM2}; aliases: {', '.join(ALIASES)}"
    )
