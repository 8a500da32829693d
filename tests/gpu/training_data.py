"""Synthetic training data in the sizes of alfworld-gen's: no environment, no game, no tokenizer is needed to make it.

Under SmolLM2's tokenizer an episode as one tree has 1,216 tokens and 8.1 decisions on average: prompts of 761, traces of 22,
actions of 7, and the tags and the end of the turn around them; decision by decision it has 6,485.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from cotbench.baselines.data.examples import Example, Span
from cotbench.baselines.training.batching import ExampleUnit, TrainingStep, make_steps

FIRST_PROMPT, TURN, ANSWER = (
    620,
    39,
    {"think_open": 3, "trace": 22, "think_close": 3, "action_open": 3, "action": 7, "closing": 5},
)


def episodes(count: int, vocabulary: int, *, seed: int = 0, scale: float = 1.0) -> list[tuple[Example, ...]]:
    """Return episodes of random tokens; later prompts begin with earlier ones. `scale` makes them shorter."""
    drawing = random.Random(seed)

    def ids(mean: float) -> tuple[int, ...]:
        size = max(1, round(scale * mean * drawing.uniform(0.7, 1.3)))
        return tuple(drawing.randrange(10, vocabulary) for _ in range(size))

    made = []
    for number in range(count):
        prompt, turns = ids(FIRST_PROMPT), []
        for step in range(drawing.randint(4, 12)):
            text, spans = prompt, [Span("prompt", 0, len(prompt))]
            for label, mean in ANSWER.items():
                piece = ids(mean)
                spans.append(Span(label, len(text), len(text) + len(piece)))  # type: ignore[arg-type]
                text += piece
            turns.append(Example(f"made/{number}", step, text, tuple(spans)))
            prompt += ids(TURN)
        made.append(tuple(turns))
    return made


def steps_of(made: Sequence[Sequence[Example]], unit: ExampleUnit, *, batch: int, tokens: int, epochs: float) -> Any:
    """Return the schedule of a training on them."""
    sizes = [
        [len(one.answer) if unit == "episode" and one is not episode[-1] else len(one.ids) for one in episode]
        for episode in made
    ]
    found: list[TrainingStep] = make_steps(sizes, unit=unit, batch=batch, epochs=epochs, seed=0, tokens=tokens)
    return found
