"""Estimated cost of a study, before it is begun. Invariant: an estimate, from sizes that were measured once; no result depends
on it.
"""

from __future__ import annotations

import re

from cotbench.envs.registry import env_entry

CPU_FLOPS, GPU_FLOPS = 3e10, 2e14
"""Sustained operations a second of one job: on a core of a laptop; on a large GPU."""

_STARTING = 4.0
"""Seconds until a stage has loaded its model and its environment."""


_TOKENIZER = {"tiny": 0.45}
"""Tokens of a model for one token of a usual tokenizer; below 1 for a vocabulary of whole words."""

_PARAMETERS = {"tiny": 1.9e6, "smollm2": 1.35e8, "qwen": 6e8}


def episode_tokens(env: str, max_steps: int) -> float:
    """Return the tokens of one played episode that uses its whole step budget, as most do.

    Args:
        env: name of the environment.
        max_steps: step budget.
    """
    size = env_entry(env).sizes
    return size.first_prompt + max_steps * (size.step + size.answer)


def tokenizer(model: str) -> float:
    """Return the model's tokens for one token of a usual tokenizer."""
    return _TOKENIZER.get(model, 1.0)


def parameters(model: str) -> float | None:
    """Return the number of a model's weights, read from its name; None where the name does not say."""
    short = model.rstrip("/").rpartition("/")[2].lower()
    if short in _PARAMETERS:
        return _PARAMETERS[short]
    found = re.search(r"(\d+(?:\.\d+)?)\s*(b|m)\b", short.replace("-", " ").replace("_", " "))
    return float(found[1]) * (1e9 if found[2] == "b" else 1e6) if found else None


def flops(model: str, tokens: float, trained: bool) -> float | None:
    """Return the floating-point operations: 2 a weight and token, 6 where the model is trained (Kaplan et al. 2020).

    Args:
        model: name of the model.
        tokens: tokens that it reads and writes.
        trained: whether it is trained on them.

    Returns:
        None where the size of the model is unknown.
    """
    weights = parameters(model)
    return None if weights is None else (6 if trained else 2) * weights * tokens


def seconds(operations: float, speed: float) -> float:
    """Return the duration of a stage in seconds.

    Args:
        operations: floating-point operations.
        speed: operations a second.
    """
    return _STARTING + operations / speed


def usual_speed(model: str) -> float:
    """Return the usual speed in operations a second: a laptop's for small models, a GPU's for others."""
    return CPU_FLOPS if (parameters(model) or 1e9) < 3e8 else GPU_FLOPS
