"""An entry's agent, played again. Invariant: only a model whose name stands in the entry is loaded, never an address, a key or
a file that the entry names; it is compared only where its weights are those of the entry.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cotbench.agents.base import Agent, describe_agent
from cotbench.agents.registry import parse_spec
from cotbench.errors import UsageError
from cotbench.leaderboard.verification.reproduction import Reproduction
from cotbench.prompting.query import Decision
from cotbench.runs.episode import Episode, Step
from cotbench.runs.manifest import Manifest, RunConfig
from cotbench.stats import estimates

if TYPE_CHECKING:
    from cotbench.leaderboard.submission.bundle import Bundle

OPEN: Final = ("hf", "frodo")
"""The agents that are played again: models that anyone can load. A server answers as whoever runs it likes."""
OPTIONS: Final = frozenset({"dtype", "revision", "quantize", "attn"})
"""Options of a spec that say how a model is computed, and name nothing that is read."""
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")
_WEIGHTS: Final = ("weights_sha256", "adapter_sha256", "revision")
"""Fields of an agent's description that say which weights it has."""
_MACHINE: Final = ("device", "dtype")


def rerun_spec(manifest: Manifest) -> str:
    """Return the spec of the agent of an entry, where it may be loaded on the word of a stranger.

    Raises:
        UsageError: it is no open model with a name, or it names a file, an address or a key.
    """
    given = manifest.config.agent
    spec = parse_spec(given)
    hint = "give --agent with the same model on this machine"
    if spec.name not in OPEN:
        names = " and ".join(f"{name}:" for name in OPEN)
        raise UsageError(f"the entry was played by {given!r}: only {names} agents with public weights can be played again")
    models = [spec.target] if spec.name == "hf" else spec.target.split(",")
    if (spec.name == "frodo" and len(models) != 2) or any(
        not _HUB_NAME.fullmatch(model) or Path(model).exists() for model in models
    ):
        raise UsageError(f"the entry's agent {given!r} names no model of the hub: {hint}")
    others = spec.options.keys() - OPTIONS
    if others:
        raise UsageError(f"the entry's agent {given!r} has the option {min(others)}, which is not taken from an entry: {hint}")
    return given


def rerun_options(manifest: Manifest, spec: str) -> dict[str, str]:
    """Return further options of the agent: the recorded revision, for the hub may have another one by now.

    Agent frodo has none, for its two models have two; their weights are compared all the same.
    """
    revision, parsed = manifest.agent.get("revision"), parse_spec(spec)
    return (
        {"revision": revision} if parsed.name == "hf" and isinstance(revision, str) and "revision" not in parsed.options else {}
    )


def weights_of(recorded: Mapping[str, Any], agent: Agent) -> str:
    """Return the digest of the agent's weights, after comparing them with those that an entry was played with.

    Of an agent of two models both are compared, and the digests of both are returned, the writer's last.

    Args:
        recorded: what the entry's manifest says of its agent.
        agent: the loaded one.

    Raises:
        UsageError: the entry names no weights, or other ones, or has another number of models.
    """
    here = describe_agent(agent)
    ours, theirs = _further_models(here), _further_models(recorded)
    if ours != theirs:
        raise UsageError(
            f"other models: the entry was played with {_models(theirs)}, here is {_models(ours)}: give the same as --agent"
        )
    digests = [_compared(recorded, here, "")]
    digests += [_compared(recorded[name], here[name], f"the {name}'s ") for name in ours]
    return ", ".join(digests)


def _further_models(description: Mapping[str, Any]) -> list[str]:
    """Return the names under which a description describes models beside the agent's first: agent frodo's writer."""
    return sorted(name for name, one in description.items() if isinstance(one, Mapping) and any(key in one for key in _WEIGHTS))


def _models(further: Sequence[str]) -> str:
    return " and ".join(("one model", *(f"a {name}" for name in further)))


def _compared(recorded: Mapping[str, Any], here: Mapping[str, Any], whose: str) -> str:
    """Return the digest of a model's weights, after comparing them with the recorded ones.

    Args:
        recorded, here: descriptions of the model.
        whose: of an agent's further model, its name.

    Raises:
        UsageError: no weights are recorded, or other ones.
    """
    named = {name: recorded[name] for name in _WEIGHTS if recorded.get(name) is not None}
    if not named:
        raise UsageError(f"the entry does not say with which {whose}weights it was played, so it cannot be played again")
    for name, value in named.items():
        if here.get(name) != value and not (name == "revision" and "weights_sha256" in named):
            raise UsageError(
                f"other weights: the entry was played with {whose}{name} {str(value)[:64]!r}, here is {here.get(name)!r}"
            )
    return str(here.get("weights_sha256") or here.get("revision") or "")


def rerun_config(bundle: Bundle, tasks: int, seed: int) -> RunConfig:
    """Return the config of the entry's run on a sample of its tasks.

    Args:
        bundle: the entry's.
        tasks: how many; all where there are fewer.
        seed: of the draw.
    """
    scored = {episode.task for episode in bundle.episodes if episode.error is None}
    known = [task for task in bundle.manifest.task_list if task in scored]
    drawn = set(random.Random(seed).sample(known, min(tasks, len(known))))
    sample = tuple(task for task in known if task in drawn)
    return bundle.manifest.config.model_copy(update={"tasks": sample, "episodes": None, "available_only": False})


@dataclass(slots=True)
class _Count:
    """Compared decisions, and how many of them agree.

    Attributes:
        parts: where the first episode that differs parts.
    """

    decisions: int = 0
    same: int = 0
    answers: int = 0
    parts: str = ""

    def episode(self, before: Episode, now: Episode) -> bool:
        """Compare two plays of a task, and return whether all of it agrees."""
        agreed = True
        for number, (one, other) in enumerate(zip(before.trajectory, now.trajectory, strict=False)):
            for name, given, found in _pairs(one, other):
                same = given[0] == found[0]
                self.decisions += 1
                self.same += same
                self.answers += same and _answer(given[1]) == _answer(found[1])
                if not same:
                    agreed = False
                    at = f"{before.key}, step {number + 1}"
                    self.parts = self.parts or f"{at}: {name} {given[0]!r:.100}, here {found[0]!r:.100}"
            if one.action != other.action:
                break
        return agreed


_Answered = tuple[str | None, Decision]


def _pairs(one: Step, other: Step) -> list[tuple[str, _Answered, _Answered]]:
    pairs: list[tuple[str, _Answered, _Answered]] = [("action", (one.action, one.decision), (other.action, other.decision))]
    if one.prompt_decision is not None and other.prompt_decision is not None:
        prompts = (one.prompt_action, one.prompt_decision), (other.prompt_action, other.prompt_decision)
        pairs.insert(0, ("prompt_action", *prompts))
    return pairs


def _answer(decision: Decision) -> tuple[object, ...]:
    return decision.trace, decision.generated_tokens


def compare_rerun(bundle: Bundle, manifest: Manifest, episodes: Sequence[Episode], *, seed: int, weights: str) -> Reproduction:
    """Compare a rerun with what was submitted.

    Args:
        bundle: the entry's.
        manifest, episodes: of the rerun.
        seed: of the draw of its tasks.
        weights: the digest that both have.

    Raises:
        UsageError: an episode of the rerun ended in an error.
    """
    before = {episode.key: episode for episode in bundle.episodes if episode.error is None}
    count, whole = _Count(), list[bool]()
    for now in episodes:
        if now.error is not None:
            raise UsageError(f"{now.key} ended in an error here, so nothing was compared: {now.error}")
        if now.key in before:
            whole.append(count.episode(before[now.key], now))
    agent = {name: str(manifest.agent[name]) for name in _MACHINE if name in manifest.agent}
    packages = {name: manifest.packages[name] for name in ("cotbench", "torch", "transformers") if name in manifest.packages}
    return Reproduction(
        when=datetime.now(UTC).replace(microsecond=0),
        seed=seed,
        tasks=len(manifest.task_list),
        of=len({episode.task for episode in before.values()}),
        episodes=len(whole),
        episodes_agreeing=estimates.rate(sum(whole), len(whole)),
        decisions=count.decisions,
        decisions_agreeing=count.same,
        answers_agreeing=count.answers,
        first=count.parts,
        weights=weights,
        machine={**agent, **packages, "python": manifest.python, "machine": str(manifest.hardware.get("machine", ""))},
    )
