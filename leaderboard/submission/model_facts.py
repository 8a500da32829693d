"""What an entry says of its model: its size, and whether its weights are to be had. Invariant: taken from the manifest as
submitted, so self-reported; what the manifest does not say stays unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cotbench.leaderboard.submission.baselines import is_baseline

Weights = Literal["open", "own", ""]
"""Of a public model, as its name says; of files of the submitter; unknown, as behind a server."""
_MOST = 10**15


class ModelFacts(BaseModel):
    """A model as a board shows it.

    Attributes:
        parameters: how many, of two models of one agent together; None where it is unknown, or the agent is no model.
        weights: whether they are to be had.
    """

    model_config = ConfigDict(frozen=True)

    parameters: int | None = None
    weights: Weights = ""


def model_facts(agent: str, description: Mapping[str, Any]) -> ModelFacts:
    """Return what a manifest says of its agent's model.

    Args:
        agent: its spec, as in `hf:Qwen/Qwen3-4B?dtype=bfloat16`.
        description: the manifest's record of the agent; of any form, as submitted.
    """
    if is_baseline(agent):
        return ModelFacts()
    models = [description, *(one for one in description.values() if isinstance(one, Mapping) and "weights_sha256" in one)]
    counts = [one.get("parameters") for one in models]
    numbers = [one for one in counts if isinstance(one, int) and not isinstance(one, bool) and 0 < one < _MOST]
    known = len(numbers) == len(models) and sum(numbers) < _MOST
    targets = agent.partition(":")[2].partition("?")[0].split(",")
    weights: Weights = ""
    if all(isinstance(one.get("weights_sha256"), str) for one in models):
        weights = "own" if any(target.strip().startswith((".", "/", "~")) for target in targets) else "open"
    return ModelFacts(parameters=sum(numbers) if known else None, weights=weights)


def size_text(parameters: int | None) -> str:
    """Return a number of parameters as text, such as `4.0 B` or `135 M`; a dash where it is unknown."""
    if parameters is None:
        return "–"
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if parameters >= size:
            count = parameters / size
            return f"{count:.1f} {unit}" if count < 10 else f"{count:.0f} {unit}"
    return str(parameters)
