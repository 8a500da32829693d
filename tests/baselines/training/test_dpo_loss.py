"""The DPO loss: by hand, with and without masks, and beside TRL's on the same batch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.preference_pair import PreferencePair
from cotbench.baselines.training.dpo_loss import PairLogprobs, dpo_loss, dpo_margin
from cotbench.baselines.training.masks import MaskConfig, Masks
from cotbench.baselines.training.model import load_trainable
from cotbench.baselines.training.pair_rows import (
    WeightedPair,
    answer_sums,
    in_order,
    pair_row,
    reference_logprobs,
    weigh,
)
from tests.baselines.preference_pairs import pairs_of

CHOSEN, REFERENCE_CHOSEN = (-2.0, -1.0), (-2.5, -1.2)
REJECTED, REFERENCE_REJECTED = (-1.5, -3.0), (-1.4, -2.0)


def by_hand(weights: tuple[float, float], *, equal_traces: bool = False) -> PairLogprobs:
    """The issue's log-probabilities (trace, action), summed with these weights."""
    import torch

    rejected = (CHOSEN[0], REJECTED[1]) if equal_traces else REJECTED
    reference = (REFERENCE_CHOSEN[0], REFERENCE_REJECTED[1]) if equal_traces else REFERENCE_REJECTED
    sums = [
        torch.tensor([math.fsum(w * x for w, x in zip(weights, one, strict=True))], requires_grad=number < 2)
        for number, one in enumerate((CHOSEN, rejected, REFERENCE_CHOSEN, reference))
    ]
    return PairLogprobs(*sums)


@pytest.mark.parametrize(
    "weights, equal_traces, margin, loss",
    [((1, 1), False, 0.18, 0.6072), ((1, 0), False, 0.06, 0.6636), ((1, 0), True, 0.0, 0.6931)],
    ids=["whole answers", "masked actions", "masked, equal traces"],
)
def test_margin_and_loss_are_those_of_the_hand_computation(
    weights: tuple[float, float], equal_traces: bool, margin: float, loss: float
) -> None:
    pairs = by_hand(weights, equal_traces=equal_traces)
    assert dpo_margin(pairs, 0.1).item() == pytest.approx(margin, abs=1e-6)
    assert dpo_loss(pairs, 0.1).item() == pytest.approx(loss, abs=5e-5)


def test_the_gradient_moves_both_sums_apart_by_beta_times_the_error() -> None:
    pairs = by_hand((1, 1))
    dpo_loss(pairs, 0.1).sum().backward()
    error = 1 / (1 + math.exp(0.18))  # sigmoid(-margin)
    assert float(pairs.chosen.grad) == pytest.approx(-0.1 * error)
    assert float(pairs.rejected.grad) == pytest.approx(0.1 * error)


def test_label_smoothing_mixes_the_losses_of_both_labels() -> None:
    pairs = by_hand((1, 1))
    swapped = PairLogprobs(pairs.rejected, pairs.chosen, pairs.reference_rejected, pairs.reference_chosen)
    mixed = 0.9 * dpo_loss(pairs, 0.1).item() + 0.1 * dpo_loss(swapped, 0.1).item()
    assert dpo_loss(pairs, 0.1, 0.1).item() == pytest.approx(mixed)


def masks_of(pairs: list[PreferencePair], **options: Any) -> Masks:
    return Masks.of(MaskConfig(**options), [pair.examples()[0] for pair in pairs])


def sums_of(trainable: Any, weighted: list[list[WeightedPair]]) -> tuple[Any, Any]:
    row = pair_row(weighted)
    return answer_sums(in_order(*trainable.losses(trainable.model, row, "cpu")), row)


def plain_sums(model: Any, pair: PreferencePair, labels: set[str]) -> list[float]:
    """The sums of both answers, with the model's own attention and one sequence at a time."""
    import torch

    found = []
    for example in pair.examples():
        logits = model(input_ids=torch.tensor([example.ids]), use_cache=False).logits[0].float().log_softmax(-1)
        places = [at for span in example.spans if span.label in labels for at in range(span.start, span.end)]
        found.append(float(sum(logits[at - 1, example.ids[at]] for at in places)))
    return found


EVERYTHING = {"think_open", "trace", "think_close", "action_open", "action", "closing"}


@pytest.mark.parametrize(
    "options, labels",
    [
        ({}, EVERYTHING),
        ({"mask_fraction": 1.0}, EVERYTHING - {"action"}),
        ({"mask_fraction": 1.0, "mask_closing": True}, EVERYTHING - {"action", "closing"}),
    ],
    ids=["all tokens", "without actions", "without actions and closing tags"],
)
def test_sums_of_a_row_are_those_of_each_answer_on_its_own(
    options: dict[str, Any], labels: set[str], some_played: list[Demonstration], some_words: Any, learners: dict[str, Path]
) -> None:
    import torch

    pairs = pairs_of(some_played, some_words)[:6]
    masks = masks_of(pairs, **options)
    trainable = load_trainable(str(learners["qwen"]), device="cpu")
    trainable.model.eval()
    with torch.no_grad():
        for episodes in ([pairs], [[pair] for pair in pairs]):  # As branches of one episode's tree, and each by itself.
            weighted = [[weigh(pair, masks, 0, 0.0) for pair in episode] for episode in episodes]
            found = [list(map(float, both)) for both in zip(*sums_of(trainable, weighted), strict=True)]
            trainable.model.set_attn_implementation(trainable.own_attention)
            expected = [plain_sums(trainable.model, pair, labels) for pair in pairs]
            trainable.model.set_attn_implementation("cotbench_trees")
            for one, other in zip(found, expected, strict=True):
                assert one == pytest.approx(other, abs=2e-3)


def test_at_the_start_every_margin_is_zero(
    some_played: list[Demonstration], some_words: Any, learners: dict[str, Path]
) -> None:
    import torch

    pairs = pairs_of(some_played, some_words)[:4]
    trainable = load_trainable(str(learners["llama"]), device="cpu")
    trainable.model.eval()
    reference = reference_logprobs(trainable.model, pairs, compute=trainable.losses, device="cpu", tokens=300)
    row = pair_row([[weigh(pair, masks_of(pairs), 0, 0.0)] for pair in pairs], reference)
    with torch.no_grad():
        sums = answer_sums(in_order(*trainable.losses(trainable.model, row, "cpu")), row)
    margins = dpo_margin(PairLogprobs(*sums, *answer_sums(torch.tensor(row.reference), row)), 0.1)
    assert float(margins.abs().max()) < 1e-4


def test_a_masked_pair_of_equal_traces_is_not_in_the_loss(some_played: list[Demonstration], some_words: Any) -> None:
    pairs = pairs_of(some_played, some_words, identical=(1,))[:3]
    assert [pair.identical_traces for pair in pairs] == [False, True, False]
    assert [weigh(pair, masks_of(pairs, mask_fraction=1.0), 0, 0.0).counted for pair in pairs] == [True, False, True]
    assert all(weigh(pair, masks_of(pairs), 0, 0.0).counted for pair in pairs)
    soft = masks_of(pairs, mask_fraction=1.0, action_weight=0.5)
    assert all(weigh(pair, soft, 0, 0.0).counted for pair in pairs)


def test_both_answers_of_a_pair_are_masked_or_neither(some_played: list[Demonstration], some_words: Any) -> None:
    pairs = pairs_of(some_played, some_words)
    masks = masks_of(pairs, mask_fraction=0.5)
    masked = 0
    for pair in pairs:
        weighted = weigh(pair, masks, 0, 0.0)
        zeros = [weights.count(0.0) for weights in weighted.weights]
        assert zeros in ([0, 0], [len(pair.chosen.part("action")), len(pair.rejected.part("action"))])
        masked += zeros[0] > 0
    assert masked == round(0.5 * len(pairs) + 1e-9) or abs(masked - 0.5 * len(pairs)) <= 0.5


def test_the_loss_equals_that_of_trl_on_the_same_batch(
    some_played: list[Demonstration], some_words: Any, learners: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("trl")
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    pairs = pairs_of(some_played, some_words)[:3]
    # The reference is another model, so that the margins are not zero.
    model, other = (AutoModelForCausalLM.from_pretrained(learners["qwen"]) for _ in range(2))
    with torch.no_grad():
        torch.manual_seed(1)
        for weight in other.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    args = DPOConfig(output_dir=str(tmp_path), beta=0.1, report_to="none", use_cpu=True, bf16=False, max_length=None)
    trainer = DPOTrainer(
        model=model, ref_model=other, args=args, train_dataset=Dataset.from_list(rows), processing_class=some_words
    )
    features = [
        {
            "prompt_ids": list(pair.prompt_ids),
            "chosen_ids": list(pair.chosen.ids),
            "rejected_ids": list(pair.rejected.ids),
        }
        for pair in pairs
    ]
    batch = trainer.data_collator(features)
    trainer.model.eval()
    with torch.no_grad():
        expected = float(trainer.compute_loss(trainer.model, batch))
    trainable = load_trainable(str(learners["qwen"]), device="cpu")
    reference_model = load_trainable(str(learners["qwen"]), device="cpu")
    reference_model.model.load_state_dict(other.state_dict())
    reference = reference_logprobs(reference_model.model, pairs, compute=reference_model.losses, device="cpu", tokens=8192)
    row = pair_row([[weigh(pair, masks_of(pairs), 0, 0.0)] for pair in pairs], reference)
    trainable.model.eval()
    with torch.no_grad():
        sums = answer_sums(in_order(*trainable.losses(trainable.model, row, "cpu")), row)
        found = dpo_loss(PairLogprobs(*sums, *answer_sums(torch.tensor(row.reference), row)), 0.1).mean()
    assert abs(expected - math.log(2)) > 0.01
    assert float(found) == pytest.approx(expected, abs=1e-4)
