"""A model's tokenizer without its weights. Invariant: it is the one that `loading.load` puts beside the weights."""

from __future__ import annotations

from typing import Any

from cotbench.agents.hf import loading
from cotbench.agents.hf.pretrained import first_line, load_config, quiet, require_transformers
from cotbench.errors import AgentError


def load_tokenizer(target: str) -> tuple[Any, int]:
    """Load a model's tokenizer.

    Args:
        target: as `loading.load` takes it.

    Returns:
        The tokenizer, and the longest sequence that the model takes, in tokens.

    Raises:
        AgentError: the model or its tokenizer cannot be had.
        MissingExtraError: transformers is not installed.
    """
    require_transformers()
    import transformers

    quiet(transformers)
    folder = loading.adapter_folder(target)
    name, revision = (target, None) if folder is None else loading.base_of(folder)
    source, tokenizer = loading.base_tokenizer(name, revision)
    try:
        config = load_config(source, revision)
    except AgentError:
        raise
    except Exception as error:
        raise AgentError(f"cannot load the configuration of {name!r} ({first_line(error)})") from error
    return tokenizer if folder is None else loading.own_tokenizer(folder, tokenizer), context_of(config)


def context_of(config: Any) -> int:
    """Return the longest sequence that a model of this configuration takes, in tokens; very many where it names no limit."""
    return getattr(config.get_text_config(), "max_position_embeddings", None) or 2**31
