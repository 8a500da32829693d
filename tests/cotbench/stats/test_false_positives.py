"""Simulated studies in which two arms are the same: how often their difference is called significant at 5 %.

Over tasks alone it is found far too often, because another seed gives another model; over tasks and seeds it is 3 to 7 %.
"""

import numpy as np
import pytest

from cotbench.stats.crossed import crossed_mean
from cotbench.stats.trend import CheckpointSeries, level


def _arms(rng: np.random.Generator, seeds: int, tasks: int, seed_sd: float, paired: float, kind: str) -> np.ndarray:
    """Outcomes of two arms of the same quality, [arms, seeds, tasks].

    Args:
        seed_sd: standard deviation of an arm's rate between its seeds.
        paired: correlation of the two arms' seeds.
        kind: binary successes; `shares` of five states a task; `by task`: arms that differ at tasks, but not on average.
    """
    shared, own = rng.normal(size=(seeds, 1)), rng.normal(size=(2, seeds, 1))
    chances = rng.beta(1, 1, size=tasks) + seed_sd * (paired**0.5 * shared + (1 - paired) ** 0.5 * own)
    if kind == "by task":
        chances = chances + rng.normal(0, 0.2, size=tasks) * np.array([0.5, -0.5])[:, None, None]
    chances = np.clip(chances, 0, 1)
    return rng.binomial(5, chances) / 5 if kind == "shares" else (rng.random(chances.shape) < chances).astype(float)


def _found(rounds: int, *setting: object, seed: int = 0) -> tuple[float, float]:
    """Return how often the difference is significant, over tasks alone and over tasks and seeds."""
    rng, over_tasks, over_both = np.random.default_rng(seed), 0, 0
    for _ in range(rounds):
        first, second = _arms(rng, *setting)  # type: ignore[arg-type]
        difference = second - first
        by_task = difference.mean(axis=0)
        over_tasks += abs(by_task.mean()) > 1.98 * by_task.std(ddof=1) / len(by_task) ** 0.5
        p = crossed_mean(difference).p()
        over_both += p is not None and p < 0.05
    return over_tasks / rounds, over_both / rounds


@pytest.mark.parametrize("seed_sd", [0.0, 0.03])
def test_five_seeds_in_short(seed_sd: float) -> None:
    over_tasks, over_both = _found(1500, 5, 300, seed_sd, 0.0, "binary")
    assert 0.025 <= over_both <= 0.075
    if seed_sd > 0:
        assert over_tasks > 0.15  # What is found where seeds are taken for the truth.


def test_the_table_of_differences_is_of_that_kind() -> None:
    rng, found, rounds = np.random.default_rng(1), 0, 40
    for _ in range(rounds):
        sides = [
            CheckpointSeries((1.0,), side[:, None].tolist(), np.ones((5, 1, 100)).tolist())
            for side in _arms(rng, 5, 100, 0.05, 0.0, "binary")
        ]
        one = level(sides[0], -1, "both", sides[1])
        found += one.p < 0.05
        assert (one.p < 0.05) == (one.estimate.low > 0 or one.estimate.high < 0)
    assert found / rounds <= 0.15


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["binary", "shares", "by task"])
@pytest.mark.parametrize("paired", [0.0, 0.5])
@pytest.mark.parametrize("tasks", [100, 300, 1000])
@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("seed_sd", [0.0, 0.01, 0.02, 0.03])
def test_at_length(seed_sd: float, seeds: int, tasks: int, paired: float, kind: str) -> None:
    _, over_both = _found(4000, seeds, tasks, seed_sd, paired, kind, seed=7)
    assert 0.028 <= over_both <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("seed_sd", [0.0, 0.01, 0.02, 0.03])
def test_three_seeds_at_length(seed_sd: float) -> None:
    # The false positives of the issue, 6 / 9 / 21 / 35 % over tasks alone; few seeds are cautious, not bold.
    over_tasks, over_both = _found(4000, 3, 600, seed_sd, 0.0, "binary", seed=7)
    assert over_both <= 0.07
    assert over_tasks == pytest.approx({0.0: 0.05, 0.01: 0.09, 0.02: 0.21, 0.03: 0.33}[seed_sd], abs=0.03)
