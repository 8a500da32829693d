"""Pretraining text of `tiny`. Invariant: transcripts of games outside every split, actions and observations without a trace; of
all task types, so that the language is known, and played mostly at random, so that the skill is not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.teachers.alfworld import expert_of
from cotbench.envs.alfworld.generator import BAND, KINDS, kinds_of
from cotbench.envs.base import TextEnv
from cotbench.envs.registry import env_entry
from cotbench.prompting.dialogue import Dialogue

ENV = "alfworld-gen"
_FIRST = 10_000
"""First seed of the corpus: in each band, every split lies before it."""

_SKILL = (0.0, 0.0, 0.0, 0.5, 1.0)
"""Probabilities with which a player takes the expert's action instead of a random one; one is drawn for each game."""

STEPS = 20
_NEW_ROOM = 5
"""One in this number of games is of the second band: the language of rooms that no training task shows."""


def tasks(count: int) -> list[str]:
    """Return the ids of the first `count` games of the corpus: all task types in turn."""
    found: list[str] = []
    seed = 0
    while len(found) < count:
        place = _FIRST + seed + (BAND if seed % _NEW_ROOM == _NEW_ROOM - 1 else 0)
        found += [f"alfworld/gen/{kind}/{place}" for kind in KINDS if kind in kinds_of(place)]
        seed += 1
    return found[:count]


def transcripts(count: int, seed: int = 0) -> Iterator[Demonstration]:
    """Yield one game after the other, each played for at most 20 steps.

    Args:
        count: number of games.
        seed: of the players.
    """
    env = env_entry(ENV).make(split="train", max_steps=STEPS, request=["admissible_actions"])
    try:
        for task in tasks(count):
            yield _play(env, task, random.Random(f"cotbench-tiny-{seed}-{task}"))
    finally:
        env.close()


def _play(env: TextEnv, task: str, rng: random.Random) -> Demonstration:
    observation, info = env.reset(options={"task": task})
    dialogue = Dialogue(env_entry(ENV).instructions(), (observation,))
    skill, over = rng.choice(_SKILL), False
    while not over:
        expertly = rng.random() < skill
        action = expert_of(dialogue).mind().action if expertly else rng.choice(info["admissible_actions"])
        observation, _, terminated, truncated, info = env.step(action)
        dialogue, over = dialogue.extended(action, None, observation), terminated or truncated
    return Demonstration(
        env=ENV,
        task=task,
        task_type=task.split("/")[2],
        teacher=f"wander {skill}",
        success=info["success"],
        observations=dialogue.observations[:-1],
        actions=dialogue.actions,
        traces=dialogue.traces,
    )
