"""What the tests of training share: a little data by the scripted teacher, and small random models that know its words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cotbench.agents.registry import make_agent
from cotbench.baselines.data.demonstration import Demonstration, read_demonstrations
from cotbench.baselines.data.traces import write_traces
from cotbench.prompting.elicitation import Elicitation
from cotbench.runs import runner
from cotbench.runs.manifest import RunConfig
from cotbench.runs.plan import make_plan
from cotbench.runs.resources import Resources
from tests import tiny_models

ENV = "alfworld-gen"


@pytest.fixture(scope="session")
def some_traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A traces folder of three games."""
    folder = tmp_path_factory.mktemp("traces") / "t"
    agent = make_agent("scripted?slips=0.05")
    plan = make_plan(RunConfig(agent="scripted?slips=0.05", env=ENV, split="train", mode="cot", episodes=3))
    write_traces(runner.start_run(plan, folder, agent=agent, resources=Resources(), observer=runner.SilentObserver()))
    return folder


@pytest.fixture(scope="session")
def some_played(some_traces: Path) -> list[Demonstration]:
    """The demonstrations in it."""
    return read_demonstrations(some_traces)


@pytest.fixture(scope="session")
def some_words(some_played: list[Demonstration]) -> Any:
    """A tokenizer that has a token for each word of the data and one for the instructions, so that examples are short."""
    pytest.importorskip("transformers")
    from cotbench.baselines.tiny.tokenizer import make_tokenizer

    told = Elicitation.for_env(ENV).system_text(some_played[0].dialogue(0), "cot")
    texts = [text or "" for one in some_played for text in (*one.observations, *one.actions, *one.traces)]
    return make_tokenizer(texts, [told], smallest=1)


@pytest.fixture(scope="session")
def learners(some_words: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random models that know these words, by kind."""
    folder = tmp_path_factory.mktemp("models")
    return {kind: tiny_models.save_model(folder / kind, kind, words=some_words) for kind in ("qwen", "llama", "gemma")}
