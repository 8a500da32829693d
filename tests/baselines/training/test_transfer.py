"""What is made of lists comes to a GPU without waiting for it: checked without one, by the calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.baselines.training.packing import pack
from cotbench.baselines.training.sequence_tree import Branch, Tree
from cotbench.baselines.training.transfer import device_tensor, to_device


def test_a_copy_to_a_gpu_is_pinned_and_asynchronous(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    calls: list[tuple[Any, ...]] = []

    def pinned(host: Any) -> Any:
        calls.append(("pinned",))
        return host

    def copied(host: Any, device: Any, *, non_blocking: bool) -> Any:
        calls.append((device, non_blocking))
        return host

    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    monkeypatch.setattr(torch.Tensor, "to", copied)
    for device in ("cuda", torch.device("cuda:0")):
        assert to_device(torch.ones(2), device).tolist() == [1, 1]
        assert calls == [("pinned",), (device, True)]
        calls.clear()
    assert device_tensor([1.5, 2.0], "cpu", torch.float64).dtype == torch.float64 and calls == [("cpu", True)]


@pytest.fixture
def no_direct_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """No list becomes a tensor on a device at once, which waits."""
    import torch

    tensor = torch.tensor

    def of_list(values: Any, *, dtype: Any = None) -> Any:
        return tensor(values, dtype=dtype)

    monkeypatch.setattr(torch, "tensor", of_list)


def _frodo() -> Any:
    import torch

    from cotbench.baselines.recipes.frodo_loss import AnswererLoss
    from cotbench.baselines.training.branch_loss import group_losses

    branches = tuple(Branch(3, ids, weights) for ids, weights in (((4, 5), (1.0, 1.0)), ((6,), (1.0,)), ((7,), (0.0,))))
    packed = pack([Tree((1, 2, 3), branches)])
    return group_losses(AnswererLoss(), torch.ones(3), torch.ones(3), packed)[0]


def _dpo() -> Any:
    import torch

    from cotbench.baselines.training.dpo_trainer import DPOTrainer
    from cotbench.baselines.training.pair_rows import PairRow

    trainer = DPOTrainer.__new__(DPOTrainer)
    trainer._beta, trainer._smoothing, trainer._sums = 0.1, 0.0, None
    packed = pack([Tree((1, 2), (Branch(2, (3,), (1.0,)), Branch(2, (4,), (2.0,))))])
    row = PairRow(
        **{one.name: getattr(packed, one.name) for one in fields(packed)},
        answers=[0, 1],
        loss_weights=[1.0, 1.0],
        reference=[-1.0, -2.0],
        counted=[1.0],
    )
    return trainer.row_loss(torch.ones(2), torch.tensor([1.0, 2.0]), row, 1)


@pytest.mark.parametrize("loss", [_frodo, _dpo])
def test_losses_copy_their_numbers_so(loss: Callable[[], Any], no_direct_copies: None) -> None:
    import torch

    assert bool(torch.isfinite(loss()).all())


def test_masks_of_groups_stay_on_the_cpu() -> None:
    """What is picked by a mask on a GPU has a length that the CPU waits for. Device meta knows no lengths, and would refuse."""
    import torch

    from cotbench.baselines.recipes.frodo_loss import AnswererLoss

    logprobs = torch.zeros(2, 3, device="meta")
    loss, figures = AnswererLoss()(logprobs, logprobs, torch.tensor([[True, True, False], [True, True, True]]))
    assert loss.shape == (2,) and {tuple(numbers.shape) for numbers in figures.values()} == {(1,)}
