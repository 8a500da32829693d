"""Pretraining text of `tiny`. Invariant: transcripts of games outside every split; of all task types, so that the language is
known, and played mostly at random, so that the skill is not.

At some states the player's action also stands behind a trace, as an alternative to the same action without one. A trace says
what is sought or held and what was found, true at its state; the action is the player's all the same, so that traces are read
and written before training, and are no conclusions.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.teachers.alfworld import slip, think
from cotbench.envs.alfworld.expert import Expert, Mind
from cotbench.envs.alfworld.generator import BAND, KINDS, kinds_of
from cotbench.envs.base import TextEnv
from cotbench.envs.registry import env_entry
from cotbench.prompting.dialogue import Dialogue

ENV = "alfworld-gen"
_FIRST = 10_000
"""First seed of the corpus: in each band, every split lies before it."""

_SKILL = (0.0, 0.0, 0.0, 0.5, 1.0)
"""Probabilities with which a player takes the expert's action instead of a random one; one is drawn for each game."""

_PASSIVE = frozenset(("go", "look", "examine", "inventory", "help"))
"""Verbs of actions that change nothing but where the player stands."""

_CHANGING = 0.5
"""Probability that a random action is one of those that change something."""

_SLIPS = 0.1
"""Probability that a random action is a mistake such as players make; mostly the game refuses it."""

_LENGTHS = (10, 20, 20, 50)
"""Steps after which a game is left unless it is won before; one is drawn for each game. Some are as long as in evaluation."""

STEPS = 20
"""About how many steps a game has."""

TRACES = 0.5
"""Probability that an action has a trace too."""

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
    """Yield one game after the other, each played for at most 50 steps; some of its decisions have a trace.

    Args:
        count: number of games.
        seed: of the players.
    """
    env = env_entry(ENV).make(split="train", max_steps=max(_LENGTHS), request=["admissible_actions"])
    try:
        for task in tasks(count):
            yield _play(env, task, random.Random(f"cotbench-tiny-{seed}-{task}"))
    finally:
        env.close()


def _play(env: TextEnv, task: str, rng: random.Random) -> Demonstration:
    observation, info = env.reset(options={"task": task})
    dialogue, expert = Dialogue(env_entry(ENV).instructions(), (observation,)), Expert(observation, None)
    skill, length, over = rng.choice(_SKILL), rng.choice(_LENGTHS), False
    minds: list[Mind] = []
    while not over:
        minds.append(expert.mind())
        action = _action(dialogue, minds[-1], info["admissible_actions"], skill, rng)
        observation, _, terminated, truncated, info = env.step(action)
        expert.observe(action, observation)
        dialogue = dialogue.extended(action, None, observation)
        over = terminated or truncated or len(minds) == length
    one = Demonstration(
        env=ENV,
        task=task,
        task_type=task.split("/")[2],
        teacher=f"wander {skill}",
        success=info["success"],
        observations=dialogue.observations[:-1],
        actions=dialogue.actions,
        traces=dialogue.traces,
    )
    traces = (
        think(mind, one.dialogue(step), rng, names="state") if rng.random() < TRACES else None
        for step, mind in enumerate(minds)
    )
    return one.model_copy(update={"traces": tuple(traces)})


def _action(dialogue: Dialogue, mind: Mind, admissible: Sequence[str], skill: float, rng: random.Random) -> str:
    """Return the player's next action: the expert's, or now and then a mistake, or an admissible one; of those every other time
    one that changes something, because most only go somewhere.
    """
    if rng.random() < skill:
        return mind.action
    if rng.random() < _SLIPS:
        return slip(dialogue, mind, rng)
    changes = [action for action in admissible if action.partition(" ")[0] not in _PASSIVE]
    return rng.choice(changes if changes and rng.random() < _CHANGING else admissible)
