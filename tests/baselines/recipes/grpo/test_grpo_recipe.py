"""Recipe `grpo`: a training from its start model to a folder with cards; resumed, stopped early, stopped with a clear word."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.baselines.recipes.grpo import batch, dev_check, rollouts
from cotbench.baselines.recipes.grpo.dev_check import best_checkpoint, best_step, checks_since_best
from cotbench.baselines.recipes.grpo.policy import EnginePolicy
from cotbench.baselines.recipes.grpo.recipe import GRPO, GRPO_PLUS, copy_model, elicitation_of, train
from cotbench.baselines.recipes.grpo.rewards import EpisodeReward, episode_reward
from cotbench.baselines.recipes.grpo.rollouts import task_batches
from cotbench.baselines.recipes.start import check_start
from cotbench.baselines.training.model import load_trainable
from cotbench.errors import CotbenchError, UsageError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import derive_seed
from cotbench.recipes import recipe_named
from cotbench.runs.episode import Episode
from cotbench.study.folder import checkpoint
from tests.baselines.broken_kernels import REASON, break_kernels
from tests.baselines.conftest import ENV

SMALL = {
    "env": ENV,
    "train_tasks": 6,
    "updates": 3,
    "groups": 2,
    "group_size": 2,
    "max_episode_steps": 2,
    "dev_episodes": 2,
    "learning_rate": 1e-3,
    "checkpoints": (1 / 3, 2 / 3),
    "device": "cpu",
    "threads": 1,
    "workers": 0,
    "elicitation": {"trace_tokens": 8, "action_tokens": 6},
}


def _config(model: Path, **options: Any) -> Any:
    return GRPO.resolve({**SMALL, "model": str(model), **options})


@pytest.fixture
def lucky(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewards that a random model gets too: by what it wrote."""

    def reward(episode: Episode, outcome: Any, penalty: float) -> EpisodeReward:
        own = episode_reward(episode, outcome, penalty)
        wrote = "".join(step.decision.raw for step in episode.trajectory)
        return EpisodeReward(float(derive_seed(wrote) % 2), own.malformed, penalty)

    monkeypatch.setattr(batch, "episode_reward", reward)


def _weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def _log(folder: Path) -> list[dict[str, float]]:
    found: list[dict[str, float]] = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return found


def test_a_training_leaves_cards_checkpoints_and_a_log(learners: dict[str, Path], lucky: None, tmp_path: Path) -> None:
    result = train(_config(learners["qwen"]), tmp_path / "o")
    card = json.loads((tmp_path / "o/recipe.json").read_text())
    assert card["recipe"] == "grpo" and card["progress"] == 1.0 and card["step"] == card["steps"] == 3
    assert card["seen"]["episodes"] == 12 and card["seen"]["groups"] == 6
    assert [one["step"] for one in card["dev"]] == [0, 1, 2, 3] and set(card["dev"][0]["success"]) == {"prompt", "cot"}
    assert {path.name for path in (tmp_path / "o").glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2", "checkpoint-3"}
    assert _weights(tmp_path / "o") == _weights(tmp_path / "o/checkpoint-3") != _weights(tmp_path / "o/checkpoint-1")
    logged = [one for one in _log(tmp_path / "o/checkpoint-3") if "reward" in one]
    assert [one["step"] for one in logged] == [1, 2, 3]
    assert [one["step"] for one in _log(tmp_path / "o/checkpoint-3") if "dev_cot" in one] == [0, 1, 2, 3]
    for one in logged:
        assert {"loss", "success", "kl", "entropy", "clip_share", "zero_variance_groups", "malformed", "episode_steps"} <= set(
            one
        )
        assert one["sampling_gap"] < 1e-3, "the engine that samples and the pass that trains compute the same"
        assert one["clip_share"] == 0, "one update on each batch: every ratio is 1"
    assert logged[0]["kl"] == pytest.approx(0, abs=1e-6) and logged[-1]["kl"] > 0
    assert result.summary_line.startswith("trained 3 steps on 12 episodes")


def test_interrupted_and_resumed_it_ends_with_the_same_weights(
    learners: dict[str, Path], lucky: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(learners["qwen"], num_iterations=2, mask_fraction=0.5)
    train(config, tmp_path / "whole")
    play = rollouts.Player.groups

    def fails(self: Any, tasks: Any, size: int) -> Any:
        if tasks.update == 1:
            raise MemoryError("as if it were killed here")
        return play(self, tasks, size)

    with monkeypatch.context() as patch:
        patch.setattr(rollouts.Player, "groups", fails)
        with pytest.raises(MemoryError):
            train(config, tmp_path / "o")
    assert {path.name for path in (tmp_path / "o").glob("checkpoint-*")} == {"checkpoint-2"}
    train(config, tmp_path / "o", resume=True)
    for name in (".", "checkpoint-2", "checkpoint-4", "checkpoint-6"):
        assert _weights(tmp_path / "o" / name) == _weights(tmp_path / "whole" / name), name
        ours, theirs = (json.loads((tmp_path / folder / name / "recipe.json").read_text()) for folder in ("o", "whole"))
        assert ours["seen"] == theirs["seen"] and ours["dev"] == theirs["dev"]


def test_the_second_update_on_a_batch_has_other_ratios(learners: dict[str, Path], lucky: None, tmp_path: Path) -> None:
    train(_config(learners["qwen"], num_iterations=2, updates=1, learning_rate=2e-2, dev_episodes=0), tmp_path / "o")
    first, second = [one for one in _log(tmp_path / "o/checkpoint-2") if "kl" in one]
    assert first["clip_share"] == 0 < second["clip_share"]
    assert "reward" in first and "reward" not in second
    assert checkpoint(tmp_path / "o", 1 / 3).name == "checkpoint-2", (
        "a study takes the end of the batch in which a share is done"
    )


def test_nothing_to_learn_stops_with_a_clear_word(learners: dict[str, Path], tmp_path: Path) -> None:
    config = _config(learners["qwen"], patience=2, updates=9, malformed_penalty=0.0)
    with pytest.raises(
        CotbenchError, match="in 2 batches in a row, up to batch 1, no group had two different rewards"
    ) as raised:
        train(config, tmp_path / "o")
    assert "success 0.00, 100% of the episodes not finished" in str(raised.value)
    assert "begin with a checkpoint that wins something" in str(raised.value)


def test_early_stopping_keeps_the_best_on_dev(
    learners: dict[str, Path], lucky: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    successes = iter([0.1, 0.5, 0.4, 0.3])
    monkeypatch.setattr(rollouts.Player, "dev_success", lambda self: {"prompt": 0.9, "cot": next(successes)})
    config = _config(learners["qwen"], updates=6, checkpoints=(1 / 6, 2 / 6, 3 / 6, 4 / 6), early_stop=2)
    result = train(config, tmp_path / "o")
    assert result.steps == 3 and result.dev == {"prompt": 0.9, "cot": 0.5}
    assert _weights(tmp_path / "o") == _weights(tmp_path / "o/checkpoint-1") != _weights(tmp_path / "o/checkpoint-3")
    card = json.loads((tmp_path / "o/recipe.json").read_text())
    assert card["kept_step"] == 1 and card["step"] == 3


def test_the_best_checkpoint_is_the_model_where_the_start_wins_most(
    learners: dict[str, Path], lucky: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    successes = iter([0.5, 0.4, 0.3])
    monkeypatch.setattr(rollouts.Player, "dev_success", lambda self: {"prompt": 0.0, "cot": next(successes)})
    config = _config(learners["qwen"], updates=4, checkpoints=(1 / 4, 2 / 4, 3 / 4), early_stop=2)
    result = train(config, tmp_path / "o")
    assert result.steps == 2 and result.dev == {"prompt": 0.0, "cot": 0.4}
    assert _weights(tmp_path / "o") == _weights(tmp_path / "o/checkpoint-1") != _weights(tmp_path / "o/checkpoint-2")
    assert json.loads((tmp_path / "o/recipe.json").read_text())["kept_step"] == 1


def test_interrupted_where_it_stops_early_it_learns_nothing_more(
    learners: dict[str, Path], lucky: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    successes = iter([0.1, 0.5, 0.4, 0.9])

    def dev_success(self: Any) -> dict[str, float]:
        found = next(successes)
        if found == 0.4:
            signal.raise_signal(signal.SIGINT)  # While split dev is played for the last time.
        return {"prompt": 0.0, "cot": found}

    monkeypatch.setattr(rollouts.Player, "dev_success", dev_success)
    config = _config(learners["qwen"], updates=4, checkpoints=(1 / 4, 2 / 4, 3 / 4), early_stop=1)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "o")
    assert not (tmp_path / "o/recipe.json").exists()
    result = train(config, tmp_path / "o", resume=True)
    assert result.steps == 2 and result.dev["cot"] == 0.5 and result.seen["episodes"] == 8
    assert {path.name for path in (tmp_path / "o").glob("checkpoint-*")} == {"checkpoint-1", "checkpoint-2"}
    assert _weights(tmp_path / "o") == _weights(tmp_path / "o/checkpoint-1") != _weights(tmp_path / "o/checkpoint-2")
    card = json.loads((tmp_path / "o/recipe.json").read_text())
    assert (card["step"], card["kept_step"]) == (2, 1) and [one["step"] for one in card["dev"]] == [0, 1, 2]


def test_of_the_best_checkpoint_the_model_alone_is_copied(tmp_path: Path) -> None:
    state = ("optimizer.pt", "optimizer.bin", "rng_state_0.pth", "latest", "trainer_state.json", "training_args.bin")
    for folder in ("checkpoint-2", "checkpoint-2/optimizer_0", "o"):
        (tmp_path / folder).mkdir()
    for name in ("model.safetensors", "config.json", "recipe.json", *state):
        (tmp_path / "checkpoint-2" / name).write_text("best")
    (tmp_path / "o/recipe.json").write_text("last")
    copy_model(tmp_path / "checkpoint-2", tmp_path / "o")
    copied = {path.name: path.read_text() for path in (tmp_path / "o").iterdir()}
    assert copied == {"model.safetensors": "best", "config.json": "best", "recipe.json": "last"}
    with pytest.raises(CotbenchError, match="is missing"):
        copy_model(tmp_path / "checkpoint-1", tmp_path / "o")


def test_the_best_is_the_earliest_of_equals() -> None:
    def result(step: int, cot: float) -> dev_check.DevResult:
        return {"step": step, "success": {"prompt": 0.0, "cot": cot}}

    results = [result(0, 0.2), result(5, 0.6), result(10, 0.6)]
    assert best_step(results) == 5 and checks_since_best(results) == 1
    assert best_step([]) is None and checks_since_best([]) == 0
    worse = [result(0, 0.7), *results[1:]]
    assert best_step(worse) == 0 and checks_since_best(worse) == 2 and best_checkpoint(worse) == 5
    assert best_checkpoint([result(0, 0.7)]) is None


def test_the_rollouts_of_a_group_differ_and_the_same_batch_comes_again(learners: dict[str, Path]) -> None:
    config = _config(learners["qwen"])
    plan = rollouts.train_plan(config, elicitation_of(config))
    assert plan.config.elicitation.temperature == plan.config.elicitation.top_p == 1.0
    trainable = load_trainable(str(learners["qwen"]), device="cpu")
    attention = trainable.model.config._attn_implementation
    player = rollouts.Player(EnginePolicy(trainable), plan, None, seed=0, workers=0)
    tasks = task_batches(plan.tasks, 2, 1, seed=0)[0]

    def answers(batch: rollouts.TaskBatch) -> list[list[str]]:
        return [
            ["".join(step.decision.raw for step in episode.trajectory) for episode in group]
            for group in player.groups(batch, 3)
        ]

    first = answers(tasks)
    assert all(len(set(group)) == 3 for group in first)
    assert answers(tasks) == first != answers(replace(tasks, update=1))
    assert trainable.model.config._attn_implementation == attention, "it can be trained again"
    player.close()


def test_batches_go_through_all_tasks_before_any_comes_again() -> None:
    tasks = [f"t{number}" for number in range(7)]
    batches = task_batches(tasks, 3, 5, seed=1)
    assert [one.epoch for one in batches] == [0, 0, 1, 1, 2]
    assert all(len(set(one.tasks)) == 3 for one in batches)
    assert len({*batches[0].tasks, *batches[1].tasks}) == 6
    assert batches[:4] != task_batches(tasks, 3, 5, seed=2)[:4]
    assert [one.tasks for one in task_batches(tasks[::-1], 3, 5, seed=1)] == [one.tasks for one in batches]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 1}, "group_size=1: an advantage compares the rollouts of a task"),
        ({"groups": 7}, "7 groups are more than the 6 tasks"),
        ({"mask_select": "confident"}, "mask_select=confident ranks the actions of training data"),
        ({"early_stop": 1, "dev_episodes": 0}, "early_stop needs episodes of split dev"),
        ({"reward": "sucess"}, "did you mean 'success'"),
        ({"elicitation": {"think_tag": "reason"}}, "answers are trained only in the tags"),
    ],
)
def test_bad_input_is_an_error_of_one_line(
    learners: dict[str, Path], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        train(_config(learners["qwen"], **options), tmp_path / "o")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "o").exists()


def test_a_start_checkpoint_of_another_elicitation_is_refused(tmp_path: Path) -> None:
    usual, other = Elicitation.for_env(ENV), Elicitation.for_env(ENV, trace_tokens=8)
    (tmp_path / "recipe.json").write_text(json.dumps({"elicitations": {ENV: other.fingerprint}}))
    check_start(str(tmp_path), {ENV: other.fingerprint})
    check_start(str(tmp_path), {"scienceworld": usual.fingerprint})
    with pytest.raises(UsageError, match="was trained for another elicitation"):
        check_start(str(tmp_path), {ENV: usual.fingerprint})
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(UsageError, match="is damaged"):
        check_start(str(tmp_path), {ENV: usual.fingerprint})


def test_grpo_plus_is_grpo_with_the_papers_fraction() -> None:
    assert recipe_named("grpo+") is GRPO_PLUS and recipe_named("grpo") is GRPO
    plain, masked = (recipe.resolve({"model": "m"}) for recipe in (GRPO, GRPO_PLUS))
    assert masked.mask_fraction == 0.3 and masked.model_copy(update={"mask_fraction": 0.0}) == plain
    assert (GRPO.paper_row(plain), GRPO_PLUS.paper_row(masked)) == ("GRPO", "GRPO+")
    assert GRPO.paper_row(masked.model_copy(update={"mask_schedule": "per-epoch"})) == "GRPO+", "each batch is drawn anew"
    for change in ({"trace_weight": 0.5}, {"reward": "score"}, {"advantage": "step"}):
        assert [GRPO.paper_row(one.model_copy(update=change)) for one in (plain, masked)] == [None, None], change
    rows = [GRPO.paper_row(one.model_copy(update={"kl_on_masked": False})) for one in (plain, masked)]
    assert rows == ["GRPO", None], "without masks the option changes nothing"
    assert "kl_on_masked" in GRPO.mask_options and not {"reward", "advantage", "seed"} & GRPO.mask_options
    need: Callable[[Any], Any] = GRPO.stages
    assert [(one.stage, one.option, one.recipe) for one in need(plain)] == [("checkpoint", "model", "sft")]


def test_an_adapter_learns_and_its_base_is_the_reference(learners: dict[str, Path], lucky: None, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    train(_config(learners["llama"], lora_rank=4, updates=2, dev_episodes=0, learning_rate=5e-2), tmp_path / "o")
    logged = [one for one in _log(tmp_path / "o/checkpoint-2") if "kl" in one]
    assert logged[0]["kl"] == pytest.approx(0, abs=1e-6) and logged[1]["kl"] > 0
    assert all(one["sampling_gap"] < 1e-3 for one in logged)
    assert (tmp_path / "o/adapter_model.safetensors").is_file()


def test_a_card_that_the_compiler_does_not_know_trains_all_the_same(
    learners: dict[str, Path], lucky: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Model, reference and engine have the attention that needs no compiler, with the result of a training that begins so."""
    from cotbench.baselines.recipes.grpo import recipe

    config = _config(learners["qwen"], updates=1, checkpoints=(1.0,))
    train(config, tmp_path / "usual")
    break_kernels(recipe, monkeypatch)
    train(config, tmp_path / "o")
    assert f"sequence by sequence: RuntimeError: {REASON}" in caplog.text
    assert _weights(tmp_path / "o") == _weights(tmp_path / "usual")


def test_an_update_reads_its_numbers_once(
    learners: dict[str, Path], lucky: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a tensor waits for a GPU, which then has nothing to do: so not after each part of an update."""
    import torch

    from cotbench.baselines.recipes.grpo.trainer import GRPOTrainer

    parts: list[int] = []
    learn = GRPOTrainer._learn

    def watched(self: Any, model: Any, open_batch: Any, *, first: bool) -> Any:
        def refused(*_: Any) -> Any:
            raise AssertionError("a tensor was read")

        parts.append(len(open_batch.parts))
        with monkeypatch.context() as patched:
            for name in ("__float__", "__bool__", "item"):
                patched.setattr(torch.Tensor, name, refused)
            return learn(self, model, open_batch, first=first)

    monkeypatch.setattr(GRPOTrainer, "_learn", watched)
    train(_config(learners["qwen"], updates=1, max_tokens_per_forward=200, dev_episodes=0), tmp_path / "o")
    (number,), (logged,) = parts, [one for one in _log(tmp_path / "o/checkpoint-1") if "kl" in one]
    assert number > 1 and 0 <= logged["sampling_gap"] < 1e-3
