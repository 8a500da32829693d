"""Bundles with chosen outcomes, as the store takes them: whole splits, without playing. What a replay would say of them does
not matter to the store, which is given only what was checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from cotbench.envs.registry import env_entry
from cotbench.envs.splits import digest
from cotbench.envs.tasks import first_tasks
from cotbench.leaderboard.submission.bundle import Bundle
from cotbench.leaderboard.submission.details import Details
from cotbench.prompting.elicitation import MODES, Elicitation, Mode
from cotbench.prompting.query import Decision
from cotbench.runs.episode import Episode, Step
from cotbench.runs.manifest import Manifest, RunConfig


def episode(
    task: str,
    mode: Mode,
    success: bool,
    *,
    both: bool = True,
    tokens: int = 10,
    env: str = "alfworld-gen",
    action: str = "look",
) -> Episode:
    """An episode of one step."""
    step = Step(
        action=action,
        decision=Decision(
            action,
            trace="I look." if mode == "cot" else None,
            trace_tokens=tokens if mode == "cot" else 0,
            action_tokens=2,
            prefilled_tokens=100,
        ),
        prompt_action=action if mode == "cot" and both else None,
        prompt_decision=Decision(action, action_tokens=2) if mode == "cot" and both else None,
        observation="You see nothing.",
        score=float(success),
    )
    return Episode(
        task=task,
        task_type=env_entry(env).source().task_type(task),
        mode=mode,
        goal="goal",
        success=success,
        score=float(success),
        raw_score=float(success),
        steps=1,
        terminated=success,
        truncated=not success,
        first_observation="You are here.",
        trajectory=(step,),
    )


def bundle(
    name: str,
    rate: float = 0.5,
    *,
    seed: int = 0,
    team: str = "",
    env: str = "alfworld-gen",
    split: str = "id",
    mode: Literal["prompt", "cot", "both"] = "both",
    won: Sequence[bool] | None = None,
    tasks: Sequence[str] | None = None,
    agent: str = "hf:made",
    action: str = "",
) -> Bundle:
    """A whole run with that success rate; `won` says it task by task, in sorted order, of both modes.

    Each has an action of its own, so none is a copy of another, where no `action` is given.
    """
    played = tuple(tasks if tasks is not None else first_tasks(env_entry(env).source(), "paper", split))
    rng = np.random.default_rng(seed)
    modes: Sequence[Mode] = MODES if mode == "both" else (mode,)
    lots = {one: list(won) if won is not None else list(rng.random(len(played)) < rate) for one in modes}
    config = RunConfig(agent=agent, env=env, split=split, mode=mode, seed=seed)
    manifest = Manifest(
        config=config,
        elicitation_fingerprint=Elicitation.for_env(env).fingerprint,
        instructions_sha256="0" * 64,
        task_list=played,
        task_list_sha256=digest(played),
        split_tasks=len(env_entry(env).source().tasks("paper", split)),
        partial=False,
        data={},
        agent={"name": agent},
        packages={},
        python="3.11",
        hardware={},
        git_commit=None,
        created="2026-01-01T00:00:00+00:00",
    )
    places = {task: place for place, task in enumerate(sorted(played))}
    digested = hashlib.sha256(repr((name if won is not None else "", seed, rate, env, split, mode, lots)).encode()).hexdigest()
    episodes = tuple(
        episode(
            task,
            one,
            bool(lots[one][places[task]]),
            both=mode == "both",
            env=env,
            action=action or f"go to {one} {digested[:8]}",
        )
        for task in played
        for one in modes
    )
    return Bundle(details=Details.checked(name, team), manifest=manifest, episodes=episodes, digest=digested)
