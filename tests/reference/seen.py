"""The expert that sees what a player sees, in games whose outcome the engine judges."""

from __future__ import annotations

from cotbench.envs.alfworld.expert import Expert
from cotbench.envs.alfworld.game import Game
from cotbench.envs.alfworld.native_engine import NativeEngine


def play(game: Game, seed: int = 0, limit: int = 50) -> int | None:
    """The number of steps to the win, or None."""
    engine = NativeEngine(game)
    expert = Expert(engine.reset(), seed)
    for step in range(1, limit + 1):
        action = expert.mind().action
        feedback = engine.step(action)
        if feedback.won:
            return step
        expert.observe(action, feedback.text)
    return None
