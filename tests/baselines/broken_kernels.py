"""A model on a card that the compiler does not know: the losses that need a kernel fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cotbench.baselines.training.loss import TreeLosses

REASON = "no kernel for this card"


class BrokenLosses(TreeLosses):
    """Losses of a card whose compiler fails."""

    def __call__(self, model: Any, packed: Any, device: Any = "cpu") -> tuple[Any, Any]:
        raise RuntimeError(REASON)


def break_kernels(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the models that a recipe loads have losses that fail."""
    load_start: Callable[[Any], Any] = recipe.load_start

    def load(config: Any) -> Any:
        trainable = load_start(config)
        trainable.losses = BrokenLosses()
        return trainable

    monkeypatch.setattr(recipe, "load_start", load)
