"""Passes before a training: in its numerics, without a compiler where that fails, and without a trace in the gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.baselines.training import model as models
from cotbench.baselines.training.loss import Losses, TreeLosses, losses
from cotbench.baselines.training.model import TrainableModel, load_trainable
from cotbench.baselines.training.start_pass import start_pass, try_kernels
from cotbench.baselines.training.token_logprobs import TokenRow, token_logprobs
from cotbench.baselines.training.tree_attention import install_tree_attention
from tests.baselines.broken_kernels import REASON, BrokenLosses


@pytest.fixture
def trainable(learners: dict[str, Path]) -> TrainableModel:
    return load_trainable(str(learners["qwen"]), device="cpu")


def test_what_the_compiler_cannot_do_is_computed_without_it(
    trainable: TrainableModel, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [TokenRow((1, 2, 3), (4, 5), (True, True)), TokenRow((1, 2, 3), (6,), (True,))]

    def measure(compute: Losses) -> list[float]:
        return list(token_logprobs(trainable.model, rows, compute=compute).tolist())

    expected = start_pass(trainable, measure)
    trainable.losses = BrokenLosses()
    assert start_pass(trainable, measure) == pytest.approx(expected, abs=1e-6)
    assert f"sequence by sequence: RuntimeError: {REASON}" in caplog.text
    assert trainable.losses is losses, "the training does not try it again"


@pytest.mark.parametrize("error", [RuntimeError, "memory"])
def test_other_failures_are_raised(trainable: TrainableModel, error: Any) -> None:
    import torch

    raised = torch.OutOfMemoryError if error == "memory" else error
    if error == "memory":
        trainable.losses = BrokenLosses()

    def measure(compute: Losses) -> None:
        raise raised("too much")

    with pytest.raises(raised, match="too much"):
        start_pass(trainable, measure)


def test_a_reference_is_computed_as_the_training_computes(trainable: TrainableModel, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def measure(compute: Losses) -> bool:
        return bool(torch.is_autocast_enabled("cpu"))

    assert not start_pass(trainable, measure, "auto"), "a CPU computes in float32"
    monkeypatch.setattr(models, "mixes_precision", lambda dtype, device: dtype == "auto")
    monkeypatch.setattr("cotbench.baselines.training.start_pass.mixes_precision", models.mixes_precision)
    assert start_pass(trainable, measure, "auto")
    assert not start_pass(trainable, measure, "float32") and not start_pass(trainable, measure)


class BrokenBackward(TreeLosses):
    """Losses of a card whose compiler fails at the gradients."""

    def __call__(self, model: Any, packed: Any, device: Any = "cpu") -> tuple[Any, Any]:
        import torch

        class Failing(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, given: Any) -> Any:
                return given.clone()

            @staticmethod
            def backward(ctx: Any, *grads: Any) -> Any:
                raise RuntimeError("no gradients on this card")

        nll, weights = losses(model, packed, device)
        return Failing.apply(nll), weights


@pytest.mark.parametrize("broken", [BrokenLosses(), BrokenBackward()], ids=["forward", "backward"])
def test_kernels_are_tried_forward_and_backward(
    broken: TreeLosses, trainable: TrainableModel, caplog: pytest.LogCaptureFixture
) -> None:
    trainable.losses = broken
    try_kernels(trainable, "auto")
    assert "attention is computed sequence by sequence: RuntimeError: no" in caplog.text and trainable.losses is losses
    assert all(one.grad is None for one in trainable.model.parameters())


def test_kernels_that_work_stay(trainable: TrainableModel, caplog: pytest.LogCaptureFixture) -> None:
    install_tree_attention(trainable.model)
    trainable.losses = original = TreeLosses(dense=True)
    try_kernels(trainable, "auto")
    assert trainable.losses is original and not caplog.records
    assert all(one.grad is None for one in trainable.model.parameters())
