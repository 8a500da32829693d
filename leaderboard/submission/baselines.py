"""Agents that are no models. Invariant: their runs are there to compare with, and have no rank."""

from __future__ import annotations

from typing import Final

BASELINES: Final = frozenset({"expert", "random", "human", "replay"})


def is_baseline(agent: str) -> bool:
    """Return whether the agent of a spec is no model."""
    return agent.partition("?")[0].partition(":")[0] in BASELINES
