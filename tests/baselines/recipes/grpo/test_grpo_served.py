"""Rollouts by a vLLM server: it answers with the weights in training, and is gone when the training ends."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf, needs_openai

pytest_plugins = ("tests.serve",)
pytestmark = [
    needs_hf,
    needs_openai,
    pytest.mark.usefixtures("served_alone"),
    pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM itself is installed here"),
]

from cotbench.agents.trust import concerns
from cotbench.baselines.recipes.grpo import batch
from cotbench.baselines.recipes.grpo.recipe import GRPO, train
from cotbench.baselines.recipes.grpo.rewards import EpisodeReward, episode_reward
from cotbench.errors import AgentError, CotbenchError, UsageError
from cotbench.prompting.query import derive_seed
from cotbench.runs.episode import Episode
from tests.baselines.conftest import ENV

SCRIPT = """#!{python}
import os, sys
from pathlib import Path
Path(os.environ["FAKE_VLLM_LOG"] + ".pid").write_text(str(os.getpid()))
sys.path.append({root!r})
from tests.fake_vllm import main
main(sys.argv[1:])
"""

SMALL = {
    "env": ENV,
    "rollouts": "vllm",
    "train_tasks": 4,
    "updates": 3,
    "groups": 2,
    "group_size": 2,
    "max_episode_steps": 2,
    "dev_episodes": 1,
    "learning_rate": 5e-3,
    "checkpoints": (1 / 3,),
    "device": "cpu",
    "threads": 1,
    "workers": 0,
    "elicitation": {"trace_tokens": 8, "action_tokens": 6},
}


@pytest.fixture
def requests_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command `vllm` with a real model, and rewards that a random model gets; gives the file of its requests."""
    root, folder = Path(__file__).resolve().parents[4], tmp_path / "bin"
    folder.mkdir()
    (folder / "vllm").write_text(SCRIPT.format(python=f"{sys.executable} -P", root=str(root)))
    (folder / "vllm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_VLLM_LOG", str(tmp_path / "requests.jsonl"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")

    def reward(episode: Episode, outcome: Any, penalty: float) -> EpisodeReward:
        own = episode_reward(episode, outcome, penalty)
        wrote = "".join(step.decision.raw for step in episode.trajectory)
        return EpisodeReward(float(derive_seed(wrote) % 2), own.malformed, penalty)

    monkeypatch.setattr(batch, "episode_reward", reward)
    return tmp_path / "requests.jsonl"


def _config(model: Path, **options: Any) -> Any:
    return GRPO.resolve({**SMALL, "model": str(model), **options})


def _requests(requests_log: Path) -> list[tuple[str, dict[str, Any]]]:
    return [(path, body) for path, body in map(json.loads, requests_log.read_text().splitlines())]


def _learned(out: Path) -> list[dict[str, float]]:
    log = json.loads((out / "checkpoint-3/trainer_state.json").read_text())["log_history"]
    return [one for one in log if "sampling_gap" in one]


def _gone(requests_log: Path) -> bool:
    return not Path(f"/proc/{Path(f'{requests_log}.pid').read_text()}").exists()


def test_the_server_plays_with_the_weights_in_training(learners: dict[str, Path], requests_log: Path, tmp_path: Path) -> None:
    result = train(_config(learners["qwen"], vllm_gpus="6,7", vllm_args="--dtype=float32"), tmp_path / "o")
    assert result.steps == 3 and result.seen["episodes"] == 12
    assert all(one["sampling_gap"] < 1e-3 for one in _learned(tmp_path / "o")) and len(_learned(tmp_path / "o")) == 3
    (serve, started), *rest = _requests(requests_log)
    assert serve == "serve" and started["CUDA_VISIBLE_DEVICES"] == "6,7" and started["RANK"] is None
    assert started["TORCHELASTIC_USE_AGENT_STORE"] is None
    assert started["VLLM_SERVER_DEV_MODE"] == "1" and "--dtype=float32" in started["flags"]
    # Split dev before the training and after the first and the last update, a batch before each: four sets of weights.
    loads = [body["kwargs"]["weights_path"] for path, body in rest if path == "/collective_rpc"]
    assert [Path(path).name for path in loads] == ["step-1", "step-2", "step-3"]
    assert [path for path, _ in rest] == ["/collective_rpc", "/reset_prefix_cache"] * 3
    assert _gone(requests_log) and not (tmp_path / "o/policy").exists()


@pytest.mark.slow
@pytest.mark.ci
def test_an_adapter_is_handed_over_as_an_adapter(learners: dict[str, Path], requests_log: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    train(_config(learners["llama"], lora_rank=4, learning_rate=5e-2, dev_episodes=0), tmp_path / "o")
    learned = _learned(tmp_path / "o")
    assert all(one["sampling_gap"] < 1e-3 for one in learned) and learned[-1]["kl"] > 0
    (_, started), *rest = _requests(requests_log)
    assert {"--enable-lora", "--max-lora-rank=8"} <= set(started["flags"])
    loads = [body for path, body in rest if path == "/v1/load_lora_adapter"]
    assert [Path(body["lora_path"]).name for body in loads] == ["step-0", "step-1", "step-2"]
    assert {body["lora_name"] for body in loads} == {"policy"}
    assert _gone(requests_log)


@pytest.mark.parametrize(
    ("flag", "kind", "options", "error", "message"),
    [
        ("--stale", "qwen", {"learning_rate": 0.3}, CotbenchError, "the rollouts are not of the weights in training"),
        (
            "--refuse",
            "qwen",
            {},
            AgentError,
            "vLLM does not take the weights of the training: status 400, these weights do",
        ),
    ],
)
@pytest.mark.slow
@pytest.mark.ci
def test_a_server_that_does_not_take_the_weights_stops_the_training(
    learners: dict[str, Path],
    requests_log: Path,
    tmp_path: Path,
    flag: str,
    kind: str,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    config = _config(learners[kind], vllm_args=flag, dev_episodes=0, updates=6, patience=9, **options)
    with pytest.raises(error, match=message):
        train(config, tmp_path / "o")
    assert _gone(requests_log)


def test_arguments_that_a_folder_names_are_confirmed(learners: dict[str, Path]) -> None:
    assert not concerns(_config(learners["qwen"]).model_dump(mode="json"))
    found = concerns(_config(learners["qwen"], vllm_args="--middleware x.y").model_dump(mode="json"))
    assert found == ("vllm_args='--middleware x.y'",)


def test_what_cannot_be_served_is_refused(learners: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="add --rollouts vllm"):
        _config(learners["qwen"], rollouts="hf", vllm_gpus="1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AgentError, match="pip install vllm"):
        train(_config(learners["qwen"]), tmp_path / "o")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError, match="--rollouts hf needs all of them in each: add --rollouts vllm"):
        train(_config(learners["qwen"], rollouts="hf"), tmp_path / "p")
