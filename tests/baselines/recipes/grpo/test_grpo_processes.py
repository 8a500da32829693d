"""Recipe `grpo` in several processes: they play and learn together what one does, and end together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.baselines.conftest import ENV
from tests.conftest import needs_hf

pytestmark = [needs_hf, pytest.mark.slow]

PLUGIN = """
import json, os, signal
from cotbench.baselines.recipes.grpo import batch, rollouts, trainer
from cotbench.prompting.query import derive_seed

RANK, FAIL, LOG = int(os.environ.get("RANK", "0")), os.environ.get("FAIL"), os.environ.get("LOG")
reward, groups, weighed = batch.episode_reward, rollouts.Player.groups, trainer.GRPOTrainer._share

def lucky(episode, outcome, penalty):
    own = reward(episode, outcome, penalty)
    wrote = "".join(step.decision.raw for step in episode.trajectory)
    return batch.EpisodeReward(float(derive_seed(wrote) % 2), own.malformed, penalty)

def played(self, tasks, size):
    if RANK == 1 and tasks.update == 1 and FAIL == "raise":
        raise MemoryError("as if its memory were full")
    if RANK == 1 and tasks.update == 1 and FAIL == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return groups(self, tasks, size)

def share(self, one):
    with open(f"{LOG}-{RANK}.jsonl", "a") as file:
        file.write(json.dumps([[row.prompt, row.answer] for row in one.rows] + [one.advantage, one.sampled]) + chr(10))
    return weighed(self, one)

batch.episode_reward, rollouts.Player.groups, trainer.GRPOTrainer._share = lucky, played, share
"""

OPTIONS = {
    "--env": ENV,
    "--train-tasks": "6",
    "--updates": "2",
    "--groups": "3",
    "--group-size": "3",
    "--max-episode-steps": "3",
    "--max-tokens-per-forward": "128",
    "--dev-episodes": "3",
    "--lr": "1e-3",
    "--checkpoints": "0.5",
    "--mask-fraction": "0.5",
    "--device": "cpu",
    "--threads": "1",
    "--workers": "0",
    "--trace-tokens": "8",
    "--action-tokens": "6",
}


def _train(count: int, model: Path, out: Path, *more: str, fail: str = "") -> subprocess.CompletedProcess[str]:
    """Train in `count` processes, with rewards that a random model gets too."""
    plugin = out.parent / "plugin.py"
    plugin.write_text(PLUGIN)
    command = [sys.executable, "-P"]
    if count > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    command += ["-m", "cotbench", "train", "--import", str(plugin), "--recipe", "grpo", "--model", str(model)]
    command += [word for pair in OPTIONS.items() for word in pair] if "--resume" not in more else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "FAIL": fail, "LOG": str(out.parent / f"{out.name}-log")}
    # Elsewhere than in the checkout, which would shadow what is installed.
    return subprocess.run([*command, *more], check=False, cwd=out.parent, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def one(learners: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training in one process."""
    out = tmp_path_factory.mktemp("one") / "out"
    done = _train(1, learners["qwen"], out, "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out


def _weights(folder: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def _farthest(one: Path, other: Path) -> float:
    ours, theirs = _weights(one), _weights(other)
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def _card(folder: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((folder / "recipe.json").read_text())
    return card


def _log(folder: Path) -> list[dict[str, float]]:
    found: list[dict[str, float]] = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return found


def test_two_processes_play_and_learn_what_one_does(one: Path, learners: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = _train(2, learners["qwen"], out, "--out", str(out))
    assert done.returncode == 0, done.stderr
    first, *rest = [(tmp_path / f"out-log-{rank}.jsonl").read_text().splitlines() for rank in (0, 1)]
    alone = (one.parent / "out-log-0.jsonl").read_text().splitlines()
    assert rest == [first], "both know the whole batch"
    assert len(first) == len(alone) == 2 and first[0] == alone[0], "the rollouts are the same, exactly"
    # What is played after an update that differs by rounding has log-probabilities that do.
    assert json.loads(first[1])[:-1] == json.loads(alone[1])[:-1]
    assert _farthest(one, out) < 1e-5 < _farthest(one, learners["qwen"])
    ours, theirs = _card(out), _card(one)
    seen = [{name: value for name, value in card["seen"].items() if name != "tokens"} for card in (ours, theirs)]
    assert seen[0] == seen[1] and ours["dev"] == theirs["dev"] and ours["seen"]["tokens"] == theirs["seen"]["tokens"]
    names = ("loss", "grad_norm", "reward", "kl", "clip_share", "tokens_learned", "sampling_gap", "entropy", "dev_cot")
    for mine, other in zip(_log(out / "checkpoint-2"), _log(one / "checkpoint-2"), strict=True):
        assert set(mine) == set(other)
        assert {name: mine[name] for name in names if name in mine} == pytest.approx(
            {name: other[name] for name in names if name in other}, rel=1e-3, abs=2e-5
        )


@pytest.mark.parametrize("fail", ["raise", "kill"])
def test_what_ends_one_process_ends_all_and_it_goes_on(one: Path, learners: dict[str, Path], tmp_path: Path, fail: str) -> None:
    out = tmp_path / "out"
    done = _train(2, learners["qwen"], out, "--out", str(out), fail=fail)
    assert done.returncode != 0
    if fail == "raise":
        assert "process 1 of 2 failed, so this one ends too: MemoryError: as if its memory were full" in done.stderr
    assert {path.name for path in out.glob("*-*")} == {"checkpoint-1"}
    done = _train(2, learners["qwen"], out, "--resume", str(out))
    assert done.returncode == 0, done.stderr
    assert _farthest(one, out) < 1e-5
    assert _card(out)["seen"]["episodes"] == 18 and [result["step"] for result in _card(out)["dev"]] == [0, 1, 2]
