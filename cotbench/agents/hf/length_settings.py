"""Settings of a model that only sequences beyond some length feel: sliding windows, chunks, the length at which rotary
frequencies switch, how many tokens a sparse layer picks. Invariant: a shortened setting is what it was again afterwards.

A probe of a few tokens never reaches a window of 4,096. So the setting is lowered while the probe lasts, in the configuration
and in the layers that hold a copy: the very code and weights of the model then cross it within a few tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cotbench.agents.hf.pretrained import first_line

PROBE_TOKENS = 12
"""Tokens of the least probe: lengths below that are crossed by every probe."""

CROSSING_TOKENS = 24
"""Tokens of a probe beyond lowered settings: more than the product of two."""

SHORT = 4
"""What a setting is lowered to: a probe's first tokens stay below it, most of the others lie beyond."""

_EXACT = 1e-5
"""Relative difference between two computations in float32 that is rounding."""

_LENGTH = re.compile(
    r"window|chunk|block|floor|topk|keep|budget|length|compress|stride|extent|distance|local_attention|original_max"
)
"""Names of lengths."""

_CHOICE = re.compile(r"topk|keep|budget")
"""Names of how many tokens (or blocks of them) a layer chooses. Rounding decides between choices that are nearly as good."""

_LOCAL = re.compile(r"window|attention_chunk")
"""Names of how far the layers look that do not see everything."""

_NO_LENGTH = re.compile(
    r"^(num|n|d|dim|mamba|moe)_|^(model_)?max_(?!.*(window|chunk))|(^|_)(ids?|idxs?|indices|dims?|ranks?|theta|factor|heads?|"
    r"layers?|experts?|group|seed|pattern|interval|vocab_size|hidden_size|intermediate_size)$"
)
"""Names of what is no length, whatever else they say. `max_position_embeddings` bounds every sequence (`context`): none goes
beyond it."""


@dataclass(frozen=True, slots=True)
class LengthSetting:
    """A number in a model's configuration that may be a length in tokens.

    Attributes:
        name: its key.
        value: the number.
        certain: whether its name says that it is a length; else it may be anything.
    """

    name: str
    value: int
    certain: bool

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


def length_settings(model: Any, context: int) -> list[LengthSetting]:
    """Return what a model's configuration holds that may be a length which a sequence can reach.

    Args:
        model: a causal model of transformers.
        context: the longest sequence, in tokens.
    """
    shapes = {int(size) for parameter in model.parameters() for size in parameter.shape}
    found = {}
    for holder, key, name in _entries(model.config.get_text_config()):
        value = holder[key]
        certain = bool(_LENGTH.search(name))
        if certain:
            possible = value > SHORT or _CHOICE.search(name)
        else:
            possible = isinstance(value, int) and value >= PROBE_TOKENS and value not in shapes
        if possible and 0 < value <= context and not _NO_LENGTH.search(name):
            found[name, int(value)] = LengthSetting(name, int(value), certain)
    return list(found.values())


def crossings(settings: Sequence[LengthSetting]) -> list[tuple[LengthSetting, ...]]:
    """Return which settings to lower in a probe, one probe after the other.

    Each alone, and all together: a length may be the product of two (16 blocks of 128 tokens).
    """
    return [(setting,) for setting in settings] + ([tuple(settings)] if len(settings) > 1 else [])


@contextmanager
def shortened(model: Any, settings: Sequence[LengthSetting]) -> Iterator[None]:
    """Lower settings of a model to `SHORT`, and set them back.

    Args:
        model: a causal model of transformers.
        settings: some of its `length_settings`.
    """
    numbers = {(setting.name, setting.value) for setting in settings}
    values = {setting.value for setting in settings}
    places = []
    for config in {id(config): config for config in _configs(model)}.values():
        places += [(holder, key) for holder, key, name in _entries(config) if (name, holder[key]) in numbers]
    for module in model.modules():
        for name, value in vars(module).items():
            if _is_number(value) and ((name, value) in numbers or (_LENGTH.search(name) and value in values)):
                places.append((vars(module), name))
    before = [holder[key] for holder, key in places]
    try:
        for holder, key in places:
            holder[key] = type(holder[key])(SHORT)
        yield
    finally:
        for (holder, key), value in zip(places, before, strict=True):
            holder[key] = value


def crossing_error(
    model: Any,
    settings: Sequence[LengthSetting],
    found: Any,
    expected: Any,
    compute: Callable[[], Any],
    reference: Callable[[], Any],
) -> str | None:
    """Return why two computations that agree on a few tokens may part beyond some length; None where they agree there too.

    Args:
        model: a causal model of transformers.
        settings: the lengths; both are computed with these lowered.
        found, expected: tensors, the results of `compute` and `reference` with the settings as they are.
        compute: the computation that is to be trusted.
        reference: how the model itself computes the same.
    """
    names = " and ".join(map(str, settings))
    if any(_CHOICE.search(setting.name) for setting in settings):
        return f"beyond {names} rounding decides which tokens a layer chooses"
    with shortened(model, settings):
        try:
            wanted = reference()
        except Exception as error:  # What breaks the shapes is a shape, unless its name says otherwise.
            certain = any(setting.certain for setting in settings)
            return f"no probe can lower {names} ({first_line(error)})" if certain else None
        try:
            result = compute()
        except Exception as error:  # Whatever a model's code does with arguments that it does not know.
            return f"beyond {names}: {first_line(error)}"
    # As near to what is wanted as with the settings as they are, and nearer than what comes out where they are ignored.
    rounding = max(float((found - expected).norm()), _EXACT * float(expected.norm()))
    effect, distance = float((wanted - expected).norm()), float((result - wanted).norm())
    if effect <= rounding and any(_LOCAL.search(setting.name) for setting in settings) and _has_local_layers(model):
        return f"no probe feels {names}"  # It was made into something else when the model was made.
    if distance <= 4 * rounding and (distance <= effect / 2 or effect <= rounding):
        return None
    return f"something else is computed beyond {names}"


def _has_local_layers(model: Any) -> bool:
    """Return whether some layers may not see everything, as far as the configuration says."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None)
    return kinds is None or any(kind != "full_attention" for kind in kinds)


def _configs(model: Any) -> Iterator[Any]:
    """Return the configurations that a model and its layers hold."""
    yield model.config.get_text_config()
    for module in model.modules():
        if hasattr(getattr(module, "config", None), "get_text_config"):
            yield module.config


def _entries(holder: Any, name: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Return the numbers in a configuration and what is nested in it, each as a container, the key in it, and its name."""
    if hasattr(holder, "per_layer_overrides") or hasattr(holder, "get_text_config"):
        holder = vars(holder)
    if isinstance(holder, dict):
        for key, value in list(holder.items()):
            own = key if isinstance(key, str) else name
            if _is_number(value):
                yield holder, key, own
            else:
                yield from _entries(value, own)
    elif isinstance(holder, list):
        for index, value in enumerate(holder):
            if _is_number(value):
                yield holder, index, name


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and float(value).is_integer()
