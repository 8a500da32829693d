"""TRL's GRPO trainer on whole episodes: what it is given is what was generated, and the reward is the environment's verdict."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cotbench.errors import CotbenchError, EngineError, UsageError
from tests.conftest import needs_hf
from tests.cotbench.bridges.examples import example

pytestmark = needs_hf
ELICITATION = {"trace_tokens": 6, "action_tokens": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_models import save_model

    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def trainer(folder: Path) -> Any:
    """What a rollout needs of TRL's trainer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return SimpleNamespace(
        model=AutoModelForCausalLM.from_pretrained(folder),
        processing_class=AutoTokenizer.from_pretrained(folder),
        args=SimpleNamespace(temperature=1.0, top_p=1.0),
        accelerator=SimpleNamespace(process_index=0, unwrap_model=lambda model: model),
    )


def _rollout(**options: Any) -> Any:
    from cotbench.bridges import TRLRollout

    return TRLRollout("alfworld-gen", episodes=2, **{"max_steps": 2, "elicitation": ELICITATION, **options})


def test_the_tokens_are_those_that_were_generated(trainer: Any) -> None:
    """A pass over prompt and completion gives every generated token the probability that it was sampled with."""
    import torch

    rollout = _rollout()
    task, other = rollout.plan.tasks
    found = rollout([task, task, task, other], trainer)
    assert all(len(values) == 4 for values in found.values())
    assert found["steps"] == [2] * 4
    for prompt, completion, logprobs, mask in zip(
        *(found[name] for name in ("prompt_ids", "completion_ids", "logprobs", "env_mask")), strict=True
    ):
        with torch.no_grad():
            logits = trainer.model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        own = torch.log_softmax(logits, -1).gather(-1, torch.tensor(completion)[:, None])[:, 0]
        written = torch.tensor(mask, dtype=torch.bool)
        assert written.any() and not written.all()
        torch.testing.assert_close(own[written], torch.tensor(logprobs)[written], rtol=1e-3, atol=1e-3)
    assert len({tuple(one) for one in found["completion_ids"][:3]}) > 1, "rollouts of one task differ"


def test_the_prompts_are_those_of_a_run(trainer: Any) -> None:
    from cotbench.agents.tokenization.chat_template import Chat
    from cotbench.prompting.dialogue import Dialogue
    from cotbench.runs.env_workers import LocalEnv

    rollout = _rollout(max_steps=1, mode="prompt")
    task = rollout.plan.tasks[0]
    found = rollout([task], trainer)
    env = LocalEnv(rollout.plan.env_settings((), None, dialect="move"))
    env.ask_reset(task)
    dialogue = Dialogue(rollout.plan.entry.instructions(), (env.read().observation,))
    messages = rollout.plan.config.elicitation.messages(dialogue, "prompt")
    assert found["prompt_ids"][0] == Chat(trainer.processing_class).prompt_ids(messages)


def test_the_reward_is_the_verdict() -> None:
    assert _rollout().success(["a", "b"], success=[1.0, 0.0], completions=["", ""]) == [1.0, 0.0]


def test_a_failure_is_an_error_and_no_reward(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cotbench.envs.alfworld.env import ALFWorldEnv

    def broken(self: Any, action: str) -> Any:
        raise EngineError("the engine is gone")

    monkeypatch.setattr(ALFWorldEnv, "_act", broken)
    rollout = _rollout()
    with pytest.raises(CotbenchError, match=f"{rollout.plan.tasks[0]}#cot: the engine is gone"):
        rollout([rollout.plan.tasks[0]], trainer)


def test_both_modes_at_once_cannot_be_trained() -> None:
    with pytest.raises(UsageError, match="give cot or prompt"):
        _rollout(mode="both")


def test_the_example_trains(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl", reason="trl is not installed: pip install 'cotbench[trl]'")
    monkeypatch.setattr(
        sys, "argv", ["bridge_trl.py", "--model", str(folder), *_words(steps=1, max_steps=1, out=tmp_path / "out")]
    )
    example("bridge_trl").main()
    assert (tmp_path / "out" / "model.safetensors").is_file()


def _words(**options: Any) -> Sequence[str]:
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
