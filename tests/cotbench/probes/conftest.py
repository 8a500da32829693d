"""A reference run that probes draw their states from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cotbench.agents import Agent, make_agent
from cotbench.prompting.query import Decision, Query
from cotbench.runs.manifest import RunConfig
from cotbench.runs.runner import run


@dataclass
class Reference:
    """The folder of a run, and what its agent was asked and said."""

    folder: Path
    agent: Agent
    name: str = "scripted"
    needs: frozenset[str] = frozenset({"expert_action"})
    said: list[tuple[Query, Decision]] = field(default_factory=list)

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        decisions = self.agent.decide(queries)
        self.said += zip(queries, decisions, strict=True)
        return decisions

    def close(self) -> None: ...


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Five generated households, played by the scripted teacher."""
    made = Reference(tmp_path_factory.mktemp("reference") / "run", make_agent("scripted"))
    config = RunConfig(agent="scripted", mode="cot", split="id", episodes=5)
    run(config, out=made.folder, workers=1, agent=made)
    return made
