"""Recipe `dpo`: what is learned from pairs, masks as the loss saw them, resumed trainings, bad input."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.preference_pair import PreferencePair, write_pairs
from cotbench.baselines.recipes.dpo import DPO, DPO_PLUS, group_pairs, masked_identical, pair_steps, train
from cotbench.baselines.recipes.dpo_config import DPOConfig
from cotbench.baselines.training.masks import Masks
from cotbench.baselines.training.pair_rows import PairDataset
from cotbench.baselines.training.recipe_card import TrainingResult
from cotbench.baselines.training.trainer import TreeTrainer
from cotbench.errors import UsageError
from tests.baselines.broken_kernels import break_kernels
from tests.baselines.preference_pairs import pairs_of

FAST: dict[str, Any] = {
    "learning_rate": 1e-3,
    "warmup": 0,
    "checkpoints": (1.0,),
    "device": "cpu",
    "threads": 1,
    "batch_size": 4,
    "logging_steps": 1,
}


@pytest.fixture
def pairs(some_played: list[Demonstration], some_words: Any) -> list[PreferencePair]:
    return pairs_of(some_played, some_words)


@pytest.fixture
def dpo(pairs: list[PreferencePair], learners: dict[str, Path], tmp_path: Path) -> Callable[..., TrainingResult]:
    """Trains a small random model on pairs of three games."""

    def call(
        out: str = "out",
        kind: str = "qwen",
        some: list[PreferencePair] | None = None,
        resume: bool = False,
        progress: Any = None,
        **options: Any,
    ) -> TrainingResult:
        file = tmp_path / f"{out}.jsonl"
        if not file.exists():
            write_pairs(file, pairs if some is None else some)
        config = DPOConfig(**{**FAST, "model": str(learners[kind]), "data": (str(file),), **options})
        return train(config, tmp_path / out, resume=resume, progress=progress)

    return call


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, dict[str, Any]]]:
    """The loss of each step that is trained, and the gradients before they are clipped."""
    seen: list[tuple[float, dict[str, Any]]] = []
    step = TreeTrainer.training_step

    def spy(self: Any, model: Any, *rest: Any, **more: Any) -> Any:
        loss = step(self, model, *rest, **more)
        grads = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
        seen.append((float(loss), grads))
        return loss

    monkeypatch.setattr(TreeTrainer, "training_step", spy)
    return seen


def history(folder: Path) -> list[dict[str, float]]:
    (newest,) = folder.glob("checkpoint-*/trainer_state.json")
    return [entry for entry in json.loads(newest.read_text())["log_history"] if "loss" in entry]


def weights_of(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


def test_the_chosen_answers_become_more_probable_than_the_rejected_ones(dpo: Any, watched: Any) -> None:
    trained = dpo(epochs=6)
    assert watched[0][0] == pytest.approx(math.log(2), abs=1e-4), "before the first update the model is its own reference"
    logged = history(trained.folder)
    assert logged[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert logged[-1]["rewards/margins"] > 0.5 and logged[-1]["rewards/accuracies"] > 0.9
    assert logged[-1]["loss"] < 0.5 * logged[0]["loss"]
    for entry in logged:
        assert entry["rewards/chosen"] - entry["rewards/rejected"] == pytest.approx(entry["rewards/margins"], abs=1e-3)
        assert entry["logps/chosen"] < 0 and entry["logps/rejected"] < 0


def test_the_card_and_the_masks_are_stored(dpo: Any, pairs: list[PreferencePair]) -> None:
    trained = dpo(mask_fraction=0.5)
    card = json.loads((trained.folder / "recipe.json").read_text())
    assert card["recipe"] == "dpo" and card["data"]["pairs"] == len(pairs) == card["examples"]["examples"]
    assert card["data"]["rejected"] == {"model": len(pairs)} and card["data"]["chosen"] == {"teacher": len(pairs)}
    (places,) = json.loads((trained.folder / "masks.json").read_text())["places"]
    assert set(places) == {pair.id for pair in pairs}
    actions = {pair.id: len(pair.chosen.part("action")) + len(pair.rejected.part("action")) for pair in pairs}
    masked = sum(count for id_, count in actions.items() if places[id_] <= 0.5)
    assert card["seen"]["masked_share"] == pytest.approx(masked / sum(actions.values()), abs=1e-6)


def test_masks_are_those_of_any_recipe_and_do_not_depend_on_what_is_rejected(
    pairs: list[PreferencePair], some_played: list[Demonstration], some_words: Any
) -> None:
    config = DPOConfig(model="m", data=("d",), mask_fraction=0.3, seed=3)
    other = pairs_of(some_played, some_words, identical=range(0, len(pairs), 2))
    masks, same = (Masks.of(config, [pair.examples()[0] for pair in some]) for some in (pairs, other))
    assert masks.places(0) == same.places(0)
    assert Masks.of(config, [pair.examples()[1] for pair in pairs]).places(0) == masks.places(0)


@pytest.mark.parametrize("closing", [False, True], ids=["tags stay", "tags go too"])
def test_a_masked_pair_begins_without_a_preference(closing: bool, dpo: Any, watched: Any) -> None:
    """The reference's sums leave out what the model's do, so that both are the same before the first step."""
    dpo(max_steps=1, mask_fraction=0.5, mask_closing=closing, loss_normalisation="remaining")
    assert watched[0][0] == pytest.approx(math.log(2), abs=1e-5)


def test_label_smoothing_reaches_the_loss(dpo: Any, watched: Any) -> None:
    """At a margin of 0 the loss is log 2 with and without it; its slope is 1 - 2 epsilon times as steep."""
    import torch

    dpo("plain", max_steps=1)
    dpo("smooth", max_steps=1, label_smoothing=0.2)
    (plain, grads), (smooth, others) = watched
    assert smooth == pytest.approx(plain, abs=1e-5)
    for name, grad in grads.items():
        assert torch.allclose(others[name], 0.6 * grad, rtol=1e-3, atol=1e-6), name


def test_two_processes_share_the_pairs_of_a_step(pairs: list[PreferencePair]) -> None:
    config = DPOConfig(model="m", data=("d",), mask_fraction=0.5, batch_size=4, max_tokens_per_forward=256)
    episodes, _ = group_pairs(pairs, 4096)
    masks = Masks.of(config, [pair.examples()[0] for pair in pairs])
    reference = {pair.id: ((-1.0,) * len(pair.chosen.ids), (-2.0,) * len(pair.rejected.ids)) for pair in pairs}
    steps = pair_steps(config, episodes, processes=2)
    alone, shared = (PairDataset(steps, episodes, masks, reference, processes) for processes in (1, 2))
    assert len(shared) == 2 * len(alone) == 2 * len(steps)

    def answers(row: Any) -> list[list[int]]:
        return [list(branch.ids) for tree in row.trees for branch in tree.branches]

    for step in range(len(steps)):
        whole, portions = alone[step], [shared[2 * step + process] for process in (0, 1)]
        found = [one for portion in portions for row in portion.passes for one in answers(row)]
        assert sorted(found) == sorted(one for row in whole.passes for one in answers(row)) and found
        assert {portion.count for portion in portions} == {whole.count}
        assert sum(portion.actions for portion in portions) == whole.actions
        assert sum(portion.others for portion in portions) == pytest.approx(whole.others)
        assert len({len(portion.passes) + len(portion.padding) for portion in portions}) == 1


def test_masked_pairs_of_equal_traces_teach_nothing_and_are_counted(
    dpo: Any, watched: Any, some_played: list[Demonstration], some_words: Any
) -> None:
    import torch

    some = pairs_of(some_played, some_words, identical=range(1, 1000))
    step = {"max_steps": 1, "loss_normalisation": "remaining", "batch_size": len(some)}
    trained = dpo(some=some, mask_fraction=1.0, **step)
    card = json.loads((trained.folder / "recipe.json").read_text())
    assert card["examples"]["identical_traces"] == card["examples"]["masked_identical"] == len(some) - 1
    dpo("alone", some=some[:1], mask_fraction=1.0, **step)
    dpo("unmasked", some=some, **step)
    (loss, grads), (alone, expected), (_, others) = watched
    assert loss == pytest.approx(alone, abs=1e-5)
    for name, grad in grads.items():
        assert torch.allclose(grad, expected[name], rtol=1e-3, atol=1e-5), name
    assert not all(torch.allclose(others[name], grads[name], rtol=1e-3, atol=1e-5) for name in grads)


def test_pairs_that_are_all_left_out_are_refused(dpo: Any, some_played: list[Demonstration], some_words: Any) -> None:
    alike = pairs_of(some_played, some_words, identical=range(1000))
    with pytest.raises(UsageError, match=f"no pairs are left: the traces of all {len(alike)} are the same"):
        dpo(some=alike, mask_fraction=1.0)


def test_each_pair_that_is_left_out_is_counted_once_an_epoch(some_played: list[Demonstration], some_words: Any) -> None:
    some = pairs_of(some_played, some_words, identical=(0, 1, 2))
    config = DPOConfig(model="m", data=("d",), mask_fraction=1.0, epochs=2)
    episodes = [[pair] for pair in some]
    masks = Masks.of(config, [pair.examples()[0] for pair in some])
    assert masked_identical(episodes, pair_steps(config, episodes, processes=1), masks) == 6


def test_decisions_and_episodes_have_one_loss_and_one_gradient(dpo: Any, watched: Any, pairs: list[PreferencePair]) -> None:
    import torch

    whole = {"batch_size": len(pairs), "epochs": 1, "mask_fraction": 0.4}
    for out, options in (("d", {"unit": "decision"}), ("e", {"unit": "episode"}), ("s", {"max_tokens_per_forward": 256})):
        dpo(out, **whole, **options)
    (first, expected), *others = watched
    for loss, grads in others:
        assert loss == pytest.approx(first, abs=1e-5)
        for name, grad in grads.items():
            assert torch.allclose(grad, expected[name], rtol=1e-3, atol=1e-5 * max(1e-3, float(expected[name].abs().max())))


def test_layers_that_our_attention_does_not_know_learn_the_same_way(dpo: Any, watched: Any) -> None:
    trained = dpo(kind="gemma", epochs=2)
    assert watched[0][0] == pytest.approx(math.log(2), abs=1e-3)
    assert history(trained.folder)[-1]["rewards/margins"] > 0


@pytest.mark.parametrize("select", ["random", "likely"])
def test_passes_before_the_training_do_without_a_compiler_that_fails(
    select: str, dpo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from cotbench.baselines.recipes import dpo as recipe

    options = {"mask_fraction": 0.5, "mask_select": select, "max_steps": 2}
    whole = dpo("whole", **options)
    break_kernels(recipe, monkeypatch)
    one, other = weights_of(whole.folder), weights_of(dpo("broken", **options).folder)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_killed_and_resumed_it_ends_with_the_same_weights(dpo: Any) -> None:
    import torch
    import transformers

    class Killed(Exception):
        """As if the process had ended."""

    class Kill(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 4:
                raise Killed

    options = {"epochs": 2, "mask_fraction": 0.3, "checkpoints": (0.2, 1.0)}
    whole = dpo("whole", **options)
    with pytest.raises(Killed):
        dpo("killed", **options, progress=Kill)
    resumed = dpo("killed", **options, resume=True)
    one, other = weights_of(whole.folder), weights_of(resumed.folder)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert resumed.seen == whole.seen


def test_recipes_and_the_rows_of_the_paper() -> None:
    options = {"model": "m", "data": ("d",)}
    assert DPO.paper_row(DPO.resolve(options)) == "DPO"
    assert DPO_PLUS.paper_row(DPO_PLUS.resolve(options)) == "DPO+"
    assert DPO_PLUS.resolve(options).mask_fraction == 0.3 and DPO_PLUS.compares_with == "dpo"
    assert DPO.paper_row(DPO.resolve({**options, "mask_fraction": 0.5})) is None
    assert [(need.stage, need.option, need.recipe) for need in DPO.stages(DPO.resolve(options))] == [
        ("pairs", "data", "sft"),
        ("checkpoint", "model", "sft"),
    ]


def test_bad_input_is_said_in_one_line(
    dpo: Any, pairs: list[PreferencePair], learners: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="holds no pairs: sample more answers"):
        dpo("none", some=[])
    with pytest.raises(UsageError, match="two pairs are of the state"):
        dpo("twice", some=[pairs[0], pairs[0]])
    with pytest.raises(UsageError, match="was made for another elicitation"):
        dpo("other", some=[pairs[0].model_copy(update={"elicitation": "x"})])
    with pytest.raises(UsageError, match="all are longer than 64 tokens"):
        dpo("long", max_length=64)
    moved = pairs[0].chosen.model_copy(update={"action": pairs[0].chosen.trace})
    with pytest.raises(UsageError, match="was encoded by another tokenizer"):
        dpo("encoded", some=[pairs[0].model_copy(update={"chosen": moved})])
    with pytest.raises(UsageError, match="mask_select=confident asks the model at the states of demonstrations"):
        DPOConfig(model="m", data=("d",), mask_fraction=0.3, mask_select="confident")
    start = tmp_path / "start"
    start.mkdir()
    for file in learners["qwen"].iterdir():
        (start / file.name).write_bytes(file.read_bytes())
    (start / "recipe.json").write_text(json.dumps({"elicitations": {pairs[0].env: "another"}}))
    with pytest.raises(UsageError, match="was trained for another elicitation of alfworld-gen"):
        dpo("started", model=str(start))


@pytest.mark.parametrize("rank", [None, 2], ids=["all weights", "another adapter"])
def test_from_a_checkpoint_that_is_an_adapter(
    rank: int | None, dpo: Callable[..., TrainingResult], watched: list[tuple[float, dict[str, Any]]]
) -> None:
    """It is merged, and is the reference: the first loss is log 2, and there is a gradient."""
    pytest.importorskip("peft")
    start = dpo("start", max_steps=2, lora_rank=2).folder
    watched.clear()
    trained = dpo("next", model=str(start), max_steps=2, lora_rank=rank)
    assert watched[0][0] == pytest.approx(math.log(2), abs=1e-4)
    assert watched[0][1] and any(bool(grad.abs().max() > 0) for grad in watched[0][1].values())
    assert (trained.folder / "adapter_config.json").is_file() == (rank is not None)
