"""Numbers that the paper reports. Invariant: they are as published, without n or interval, and never mixed with numbers that
were measured here.

Source: "Where Do CoT Training Gains Land in LLM based Agents?" (arXiv:2606.26935v1, 25 June 2026), by public summaries of it.
They give no episode counts, no errors, and do not say in which mode success was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

SOURCE = "arXiv:2606.26935v1, by public summaries of it; reported, not ours"
SCHEME = "paper"
MODELS = ("Qwen3-4B", "Qwen3-8B", "Qwen3-14B", "Llama-3.1-8B-Instruct")
ENVS = ("alfworld", "scienceworld", "bfcl")
"""Those of our environments that the paper uses; generated ALFWorld games are not among them."""
ATTENTION_SHARE_ON_PROMPT = 0.80
"""Approximate share of the attention of action tokens."""

Split = Literal["id", "ood"]


@dataclass(frozen=True, slots=True)
class Success:
    """A success rate.

    Attributes:
        model: None where our source names none.
        method: GRPO, SFT, ...; + is with reduced action supervision.
        env: by our name.
    """

    model: str | None
    method: str
    env: str
    split: Split
    value: float


@dataclass(frozen=True, slots=True)
class GradientShare:
    """Share of the gradient norm of the action-only loss, along the value path, that lands on prompt tokens."""

    model: str
    env: str
    value: float


@dataclass(frozen=True, slots=True)
class MaskedSuccess:
    """Out-of-domain success by the fraction of examples without action supervision; our source names no model."""

    mask_fraction: float
    env: str
    value: float


_TRAINED: dict[tuple[str, str], tuple[tuple[float, float], ...]] = {
    ("Qwen3-4B", "GRPO"): ((0.82, 0.44), (0.46, 0.22), (0.69, 0.61)),
    ("Qwen3-4B", "GRPO+"): ((0.83, 0.52), (0.49, 0.24), (0.71, 0.64)),
    ("Qwen3-8B", "GRPO"): ((0.95, 0.86), (0.57, 0.40), (0.74, 0.63)),
    ("Qwen3-8B", "GRPO+"): ((0.95, 0.89), (0.61, 0.44), (0.77, 0.69)),
}
_BASELINES = {
    "SFT": (0.55, 0.25, 0.58),
    "DPO": (0.59, 0.29, 0.62),
    "FRODO": (0.61, 0.30, 0.64),
    "SFT+": (0.63, 0.27, 0.62),
    "DPO+": (0.65, 0.35, 0.67),
}
_GRADIENT_SHARES = {
    "alfworld": (0.732, 0.727, 0.735),
    "scienceworld": (0.765, 0.789, 0.792),
    "bfcl": (0.844, 0.846, 0.827),
}
_MASKED = {
    0.1: (0.61, 0.26, 0.61),
    0.3: (0.63, 0.27, 0.62),
    0.5: (0.61, 0.24, 0.59),
    0.7: (0.60, 0.27, 0.61),
}
_SPLITS: tuple[Split, Split] = ("id", "ood")

SUCCESS: tuple[Success, ...] = (
    *(
        Success(model, method, env, split, value)
        for (model, method), row in _TRAINED.items()
        for env, pair in zip(ENVS, row, strict=True)
        for split, value in zip(_SPLITS, pair, strict=True)
    ),
    *(
        Success(None, method, env, "ood", value)
        for method, row in _BASELINES.items()
        for env, value in zip(ENVS, row, strict=True)
    ),
)
GRADIENT_SHARES: tuple[GradientShare, ...] = tuple(
    GradientShare(model, env, value) for env, row in _GRADIENT_SHARES.items() for model, value in zip(MODELS, row, strict=False)
)
MASKED_SUCCESS: tuple[MaskedSuccess, ...] = tuple(
    MaskedSuccess(fraction, env, value) for fraction, row in _MASKED.items() for env, value in zip(ENVS, row, strict=True)
)


def paper_success(model: str | None, method: str, env: str, split: str, scheme: str = SCHEME) -> float | None:
    """Return the success that the paper reports, or None where it reports none.

    Args:
        model: one of the paper's models; None: the baselines of a model that our source does not name.
        method: such as `SFT` or `GRPO`.
        env: name of the environment.
        split: name of the split.
        scheme: the family of splits.
    """
    return next((one.value for one in reported(model, env, split, scheme) if one.method == method), None)


def reported(model: str | None, env: str, split: str, scheme: str = SCHEME) -> list[Success]:
    """Return the success of every method that the paper reports for a model on an environment's split.

    Args:
        model: one of the paper's models; None: a model that our source does not name.
        env: name of the environment.
        split: name of the split.
        scheme: the family of splits.
    """
    if scheme != SCHEME:
        return []
    return [one for one in SUCCESS if (one.model, one.env, one.split) == (model, env, split)]


BENEFITS: tuple[float, ...] = tuple(
    round(plus - plain, 2) for plain, plus in zip(_BASELINES["SFT"], _BASELINES["SFT+"], strict=True)
)
"""What reduced action supervision adds to supervised fine-tuning out of domain, in each of `ENVS`."""


def paper_benefit(env: str, split: str, scheme: str = SCHEME) -> float | None:
    """Return what reduced action supervision adds to the success of supervised fine-tuning in the paper, or None.

    Args:
        env: name of the environment.
        split: name of the split; only `ood` is reported.
        scheme: the family of splits.
    """
    plain, plus = (paper_success(None, method, env, split, scheme) for method in ("SFT", "SFT+"))
    return None if plain is None or plus is None else round(plus - plain, 2)


def paper_gradient_share(model: str, env: str) -> float | None:
    """Return the gradient share on the prompt that the paper reports, or None."""
    return next((one.value for one in GRADIENT_SHARES if (one.model, one.env) == (model, env)), None)


def paper_masked_success(mask_fraction: float, env: str) -> float | None:
    """Return the out-of-domain success that the paper reports for a mask fraction, or None.

    Args:
        mask_fraction: share of the examples without action supervision.
        env: name of the environment.
    """
    return next((one.value for one in MASKED_SUCCESS if (one.mask_fraction, one.env) == (mask_fraction, env)), None)


def paper_model(spec: str, description: Mapping[str, Any], aliases: Mapping[str, str]) -> str | None:
    """Return the paper's model that an agent is, or was trained from; None where it is none of them.

    Args:
        spec: of the agent; an alias counts as its name.
        description: the agent's description in the manifest, with the base model below an adapter.
        aliases: short names of models -> their names on the hub.
    """
    target = spec.partition(":")[2].partition("?")[0].partition("@")[0]
    names = [str(aliases.get(target, target))]
    layer: Any = description
    while isinstance(layer, Mapping):
        names.append(str(layer.get("model", "")))
        layer = layer.get("base")
    found = {name.rstrip("/").rpartition("/")[2].lower() for name in names}
    return next((model for model in MODELS if model.lower() in found), None)
