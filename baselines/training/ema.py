"""Exponential moving average of a model's weights. Invariant: it is a function of the weights after each step and of nothing
else, so a resumed training averages the same.

At a constant learning rate the weights oscillate around a minimum; their average lies nearer to it, as after a decay, but at
every step alike. So checkpoints show progress, and not how far a schedule had come.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RAW_WEIGHTS = "raw.safetensors"
"""The weights that training goes on with, in the folder of a checkpoint whose model is the average."""

_EARLY = 10.0


class WeightEMA:
    """Exponential moving average of the trainable weights.

    Args:
        model: whose weights.
        decay: weight of the old average at each step, in the long run; at first the average is a mean of all so far.
    """

    def __init__(self, model: Any, decay: float) -> None:
        self._weights = {name: one for name, one in model.named_parameters() if one.requires_grad}
        self._decay = decay
        self._means = {name: one.detach().clone() for name, one in self._weights.items()}

    def update(self, step: int) -> None:
        """Update the average with the weights after the step of this number, counted from 1."""
        import torch

        decay = min(self._decay, step / (step + _EARLY))
        with torch.no_grad():
            torch._foreach_lerp_(list(self._means.values()), [one.detach() for one in self._weights.values()], 1 - decay)

    @contextmanager
    def averaged_weights(self) -> Iterator[Mapping[str, Any]]:
        """Put the average into the model for the block; yield the raw weights, which are put back afterwards."""
        raw = {name: one.detach().clone() for name, one in self._weights.items()}
        self._set(self._means)
        try:
            yield raw
        finally:
            self._set(raw)

    def save(self, folder: Path, raw: Mapping[str, Any]) -> None:
        """Write the raw weights beside a checkpoint.

        Args:
            folder: the checkpoint, whose model is the average.
            raw: name -> tensor, as `averaged_weights` yields them.
        """
        from safetensors.torch import save_file

        save_file({name: one.contiguous() for name, one in raw.items()}, str(folder / RAW_WEIGHTS))

    def restore(self, folder: Path) -> None:
        """Take a checkpoint's weights, just loaded into the model, as the average, and load its raw weights into the model.

        Args:
            folder: the checkpoint.
        """
        from safetensors.torch import load_file

        self._means = {name: one.detach().clone() for name, one in self._weights.items()}
        self._set(load_file(str(folder / RAW_WEIGHTS)))

    def _set(self, values: Mapping[str, Any]) -> None:
        import torch

        with torch.no_grad():
            for name, one in self._weights.items():
                one.copy_(values[name])
