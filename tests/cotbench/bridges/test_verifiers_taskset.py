"""verifiers plays a run's episodes: with the official verdict as reward, and an error for whatever else failed."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "verifiers.v1", reason="verifiers is not installed: pip install 'cotbench[verifiers]', in an environment of its own"
)

from cotbench.bridges.hosted_run import HostedRun, hosted_config
from cotbench.bridges.verifiers_taskset import CotbenchTaskset, CotbenchTasksetConfig, episode_of
from cotbench.envs.alfworld.env import ALFWorldEnv
from cotbench.errors import EngineError
from tests.cotbench.bridges.examples import example
from tests.cotbench.bridges.expert_model import ExpertModel, served


def _expert() -> ExpertModel:
    return ExpertModel(HostedRun.of(hosted_config("test", "alfworld-gen", episodes=1)).plan)


def _played(model: ExpertModel, *words: str, **choice: Any) -> Any:
    with served(model, **choice) as url:
        (trace,) = example("bridge_verifiers").main(["--model", "expert", "--base-url", url, "--episodes", "1", *words])
    return trace


def test_the_reward_is_the_verdict() -> None:
    model = _expert()
    trace = _played(model, "--mode", "cot")
    assert (trace.ok, trace.reward, trace.metrics["score"]) == (True, 1.0, 1.0)
    episode = episode_of(trace)
    assert episode.success and episode.trajectory[0].decision.trace == "It is next."
    assert len(trace.calls) == len(model.chats) == episode.steps
    # Byte for byte the prompts of a run.
    elicitation = hosted_config("x", "alfworld-gen").elicitation
    assert model.chats[0][0].content.endswith(elicitation.instruction("cot"))


def test_what_is_lost_is_a_zero() -> None:
    trace = _played(_expert(), "--mode", "prompt", "--max-steps", "1")
    assert (trace.ok, trace.reward, trace.metrics["steps"]) == (True, 0.0, 1.0)


def test_a_lost_engine_is_an_error_and_no_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _expert()

    def broken(self: Any, action: str) -> Any:
        raise EngineError("the engine is gone")

    monkeypatch.setattr(ALFWorldEnv, "_act", broken)
    trace = _played(model)
    assert not trace.ok
    assert "the engine is gone" in trace.errors[-1].message
    assert not any(trace.rewards.values())


def test_a_refusal_is_an_error_and_no_reward() -> None:
    trace = _played(_expert(), finish_reason="content_filter")
    assert not trace.ok and trace.errors
    assert not any(trace.rewards.values())


def test_the_tasks_are_those_of_a_run(tmp_path: Path) -> None:
    config = CotbenchTasksetConfig(id="bridge_verifiers", split="ood", episodes=3, seed=5, mode="both")
    run = HostedRun.of(hosted_config("test", "alfworld-gen", split="ood", episodes=3, seed=5, mode="both"))
    assert [task.data.name for task in CotbenchTaskset(config)] == [one.key for one in run.episodes]
