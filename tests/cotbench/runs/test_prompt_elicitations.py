"""Runs whose prompt actions are elicited otherwise: after an empty trace, by rank, with admissible actions shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cotbench.errors import UsageError
from cotbench.prompting.elicitation import Elicitation
from cotbench.runs.manifest import RunConfig
from cotbench.runs.runner import run
from tests.conftest import needs_hf


@needs_hf
@pytest.mark.parametrize("way", ["empty", "ranked"])
def test_a_run_acts_as_its_elicitation_says(tmp_path: Path, way: str) -> None:
    from tests.hf_agents import hf_agent

    agent = hf_agent(tmp_path)
    elicitation = Elicitation.model_validate(
        {"prompt_action": way, "trace_tokens": 4, "action_tokens": 4, "show_admissible": way == "empty", "history": "traces"}
    )
    config = RunConfig(agent="made", mode="both", split="id", episodes=1, max_steps=2, elicitation=elicitation)
    done = run(config, out=tmp_path / "run", workers=0, num_envs=2, agent=agent)
    assert done.manifest.elicitation_fingerprint == elicitation.fingerprint != Elicitation().fingerprint
    prompt, cot = sorted(done.records, key=lambda episode: episode.mode, reverse=True)
    for step in prompt.trajectory:
        if way == "ranked":
            assert step.invalid_action is None and step.decision.format_ok and step.decision.action_tokens == 0
        else:
            assert step.decision.raw.startswith("<think></think>\n<action>") and step.decision.trace is None
    # The recorded prompt action of a CoT episode is elicited so too: at its first state it is the prompt episode's own.
    assert cot.trajectory[0].prompt_action == prompt.trajectory[0].action
    assert cot.trajectory[0].decision.trace is not None
    assert all(episode.error is None for episode in done.records)


@needs_hf
def test_actions_are_ranked_only_where_all_are_listed(tmp_path: Path) -> None:
    from tests.hf_agents import hf_agent

    elicitation = Elicitation.for_env("bfcl", prompt_action="ranked")
    config: Any = RunConfig(agent="made", env="bfcl", mode="prompt", split="id", episodes=1, elicitation=elicitation)
    with pytest.raises(UsageError, match="bfcl does not list all of its admissible actions"):
        run(config, out=tmp_path / "run", workers=0, agent=hf_agent(tmp_path))
    assert not (tmp_path / "run" / "manifest.json").exists()
