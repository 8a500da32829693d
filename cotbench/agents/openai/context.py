"""The context of a served model, where its server tells it. Invariant: it is the length that the server works with, which is
often shorter than the model's own; where a server tells several lengths, the shortest one holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cotbench.agents.openai.client import CompletionClient

_NAMES = (
    "max_model_len",
    "n_ctx",
    "loaded_context_length",
    "max_context_length",
    "context_length",
    "context_window",
    "max_total_tokens",
)
"""The names of that length: in vLLM and SGLang, in llama.cpp, in LM Studio (two), in Ollama and OpenRouter, in Groq, in TGI."""

_PLACES = ("props", "info", "api/ps", "api/v0/models")
"""Where servers tell it outside the list of models, below their root: llama.cpp, TGI, Ollama, LM Studio."""


def find_context(connection: CompletionClient, model: str, entry: Mapping[str, Any]) -> int | None:
    """Return the longest prompt and answer together, in tokens; None where the server does not tell.

    Ask after a test request: some servers tell it of a loaded model alone.

    Args:
        connection: to the server.
        model: the server's name for the model.
        entry: the model in the server's list.
    """
    root = connection.url.removesuffix("/v1")
    lengths = list(_lengths(entry, model))
    for place in _PLACES:
        if lengths:
            break
        lengths = list(_lengths(connection.look_up(f"{root}/{place}"), model))
    return min(lengths, default=None)


def find_entry(entries: object, model: str) -> Mapping[str, Any]:
    """Return the entry of a model in a list of models: the one with its name, or the only one; else an empty one.

    Args:
        entries: the decoded list.
        model: the name to find.
    """
    listed = [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []
    named = [entry for entry in listed if model in (entry.get("id"), entry.get("name"), entry.get("model"))]
    return next(iter(named or listed), {}) if named or len(listed) == 1 else {}


def _lengths(node: object, model: str) -> Iterator[int]:
    """Yield the lengths in a decoded description of a model, at any depth; of a list of models those of the model alone."""
    if isinstance(node, list):
        node = find_entry(node, model)
    if not isinstance(node, Mapping):
        return
    for name, value in node.items():
        if name in _NAMES and isinstance(value, int) and value > 0:
            yield value
        yield from _lengths(value, model)
