"""The loss of GRPO: the numbers that can be computed by hand, and TRL's loss on the same batch."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from cotbench.baselines.recipes.grpo.loss import (
    clipped,
    clipped_policy_loss,
    grpo_loss,
    k3,
    token_shares,
)


def _at_ratio(ratio: float, advantage: float) -> tuple[float, float, bool]:
    """Loss, gradient of the log-probability, and whether it was clipped, at a ratio."""
    logprob = torch.tensor([math.log(ratio) - 1.0], dtype=torch.float64, requires_grad=True)
    old, values = torch.tensor([-1.0], dtype=torch.float64), torch.tensor([advantage], dtype=torch.float64)
    loss = clipped_policy_loss(logprob, old, values, 0.2)
    loss.sum().backward()
    return float(loss.detach()), float(logprob.grad), bool(clipped(logprob, old, values, 0.2))


def test_the_clip_at_a_ratio_of_one_and_a_half() -> None:
    assert _at_ratio(1.5, 1.0) == (pytest.approx(-1.2), 0.0, True)
    assert _at_ratio(1.5, -1.0) == (pytest.approx(1.5), pytest.approx(1.5), False)


def test_the_clip_at_a_ratio_of_a_half() -> None:
    assert _at_ratio(0.5, 1.0) == (pytest.approx(-0.5), pytest.approx(-0.5), False)
    assert _at_ratio(0.5, -1.0) == (pytest.approx(0.8), 0.0, True)


@pytest.mark.parametrize("advantage", [2.4749, -0.3536])
def test_at_ratio_one_the_gradient_is_that_of_the_advantage_times_the_log_probability(advantage: float) -> None:
    assert _at_ratio(1.0, advantage) == (pytest.approx(-advantage), pytest.approx(-advantage), False)


def test_k3() -> None:
    found = k3(torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([-0.8, -1.2, -1.0]))
    assert found.tolist() == pytest.approx([0.02140, 0.01873, 0.0], abs=5e-6)


def test_k3_pulls_towards_the_reference() -> None:
    logprob = torch.tensor([-1.0, -1.0], requires_grad=True)
    k3(logprob, torch.tensor([-0.5, -1.5])).sum().backward()
    below, above = logprob.grad.tolist()
    assert below < 0 < above


def test_shares_of_the_mean_sum_to_one() -> None:
    assert token_shares([2, 6], "token") == (1 / 8, 1 / 8)
    assert token_shares([2, 6], "sequence") == (1 / 4, 1 / 12)
    assert token_shares([2, 0], "sequence") == (1 / 2, 0.0)


def _trl_loss(kind: str, batch: dict[str, Any], beta: float) -> float:
    """What TRL's GRPOTrainer computes from given log-probabilities."""
    trainer_module = pytest.importorskip("trl.trainer.grpo_trainer")
    logprobs = batch.pop("logprobs")
    self = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprobs, torch.zeros_like(logprobs), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=beta,
        loss_type=kind,
        epsilon_low=0.2,
        epsilon_high=0.2,
        use_vllm=False,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        accelerator=SimpleNamespace(num_processes=1, gather=lambda value: value, reduce=lambda value, reduction: value),
        _metrics={"train": _Anything()},
    )
    loss = trainer_module.GRPOTrainer._compute_loss(self, None, batch)
    return float(loss)


class _Anything(dict[str, list[float]]):
    """A place for what TRL logs."""

    def __missing__(self, key: str) -> list[float]:
        self[key] = []
        return self[key]


@pytest.mark.parametrize(("kind", "mean"), [("bnpo", "token"), ("dapo", "token"), ("grpo", "sequence")])
@pytest.mark.parametrize("beta", [0.0, 0.01])
def test_the_loss_is_trls_on_the_same_batch(kind: str, mean: Any, beta: float) -> None:
    drawing = torch.Generator().manual_seed(5)
    counts = [7, 3, 5]
    mask = torch.tensor([[place < count for place in range(7)] for count in counts])

    def around(scale: float) -> Any:
        return -1.5 + scale * torch.randn(3, 7, generator=drawing)

    logprobs, old, reference = around(0.4), around(0.4), around(0.2)
    values = torch.tensor([2.4749, -0.3536, -0.8])
    theirs = _trl_loss(
        kind,
        {
            "logprobs": logprobs,
            "prompt_ids": torch.zeros(3, 2, dtype=torch.long),
            "prompt_mask": torch.ones(3, 2, dtype=torch.long),
            "completion_ids": torch.zeros(3, 7, dtype=torch.long),
            "completion_mask": mask.long(),
            "advantages": values,
            "old_per_token_logps": old,
            "ref_per_token_logps": reference,
            "num_items_in_batch": mask.sum(),
        },
        beta,
    )
    weight = torch.tensor(
        [share for share, count in zip(token_shares(counts, mean), counts, strict=True) for _ in range(count)]
    )
    ours = grpo_loss(
        logprobs[mask],
        old[mask],
        reference[mask] if beta else None,
        advantage=values[:, None].expand(3, 7)[mask],
        policy_weight=weight,
        kl_weight=weight,
        epsilon=0.2,
        kl_coef=beta,
    )
    assert float(ours) == pytest.approx(theirs, abs=1e-6)
    assert abs(theirs) > 1e-3


def test_a_masked_token_leaves_the_policy_term_and_changes_no_other() -> None:
    logprob = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    arguments: dict[str, Any] = {"advantage": torch.tensor([1.0, 1.0, 1.0]), "epsilon": 0.2}
    weight = torch.full((3,), 1 / 3)
    masked = weight * torch.tensor([1.0, 0.0, 1.0])
    old = logprob.detach()
    grpo_loss(logprob, old, None, policy_weight=masked, kl_weight=weight, kl_coef=0.0, **arguments).backward()
    assert logprob.grad.tolist() == pytest.approx([-1 / 3, 0.0, -1 / 3])
    logprob.grad = None
    reference = old + 0.3
    grpo_loss(logprob, old, reference, policy_weight=masked, kl_weight=weight, kl_coef=0.5, **arguments).backward()
    assert logprob.grad[1] == pytest.approx((1 - math.exp(0.3)) * 0.5 / 3, abs=1e-6)
