"""Forecasts on simulated schedules, with the numbers of steps and the times of a step of real runs."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import pytest

from cotbench.runs.forecast import EvenForecast, Forecast, SmoothedEnd, StepCounts, usual_steps

TINY = {
    "prompt": [30] * 40,
    "cot": [
        *(5, 6, 30, 30, 9, 30, 12, 4, 30, 30, 30, 30, 30, 30, 30, 10, 30, 4, 10, 30),
        *(30, 30, 7, 30, 30, 30, 30, 4, 15, 9, 30, 30, 4, 9, 30, 30, 6, 11, 30, 30),
    ],
}
"""Steps of hf:tiny-cot on 40 games of alfworld-gen, step budget 30."""
SCIENCE = {
    "cot": [
        *(17, 15, 96, 9, 5, 30, 100, 17, 31, 100, 5, 12, 100, 10, 32, 7, 5, 80, 14, 100, 12, 20, 7, 6, 14, 26, 20, 99, 33, 100),
        *(
            20,
            80,
            44,
            14,
            100,
            18,
            21,
            7,
            7,
            5,
            7,
            47,
            100,
            14,
            14,
            35,
            12,
            100,
            12,
            56,
            71,
            100,
            37,
            17,
            82,
            7,
            18,
            8,
            100,
            59,
        ),
    ]
}
"""Steps of the scripted expert on 60 tasks of ScienceWorld, step budget 100."""
PACE = {"prompt": 0.22, "cot": 0.62}
"""Seconds of a step of hf:tiny-cot, of all environments together; it varies by half of that."""


def events(
    lengths: Mapping[tuple[str, str], int], slots: int, shared: bool, seed: int
) -> Iterator[tuple[float, tuple[str, str], int, bool]]:
    """Play a schedule: (time, episode, its steps, whether it has ended). With `shared`, a step beside few others is faster."""
    rng, waiting = random.Random(seed), list(lengths)[::-1]
    steps: dict[tuple[str, str], int] = {}
    queue: list[tuple[float, int, tuple[str, str]]] = []

    def begin(now: float, key: tuple[str, str]) -> None:
        share = len(steps) / slots if shared else 1.0
        heapq.heappush(queue, (now + PACE[key[1]] * share * rng.lognormvariate(-0.08, 0.4), rng.getrandbits(60), key))

    for key in [waiting.pop() for _ in range(min(slots, len(waiting)))]:
        steps[key] = 0
    for key in steps:
        begin(0.0, key)
    while queue:
        now, _, key = heapq.heappop(queue)
        steps[key] += 1
        ended = steps[key] >= lengths[key]
        yield now, key, steps[key], ended
        if not ended:
            begin(now, key)
            continue
        del steps[key]
        if waiting:
            following = waiting.pop()
            steps[following] = 0
            begin(now, following)


def errors(
    steps: Mapping[str, Sequence[int]], most: int, tasks: int, slots: int, shared: bool, seed: int, known: int = 0
) -> dict[float, tuple[float, float]]:
    """Return what a forecast says in the course of a run: share of its time -> (error of the time left, of all of the time)."""
    rng = random.Random(seed)
    lengths = {(f"{task}", mode): rng.choice(some) for task in range(tasks) for mode, some in steps.items()}
    forecast = Forecast(
        waiting={f"{task}#{mode}": mode for task, mode in lengths},  # type: ignore[misc]
        max_steps=most,
        usual_steps=usual_steps(9, most),
        sharing=0.85 if shared else 0.15,
        now=0.0,
    )
    for key in list(lengths)[:known]:
        forecast.known("#".join(key), key[1], lengths.pop(key))  # type: ignore[arg-type]
    played = list(events(lengths, slots, shared, seed))
    total, smoothed = played[-1][0], SmoothedEnd()
    found: dict[float, tuple[float, float]] = {}
    asked = 0.0
    for now, (task, mode), at, ended in played:
        forecast.stepped(f"{task}#{mode}", mode, at, now)  # type: ignore[arg-type]
        if ended:
            forecast.ended(f"{task}#{mode}", mode, at, now)  # type: ignore[arg-type]
        if now >= asked:
            smoothed.update(now, forecast.seconds_left(now))
            asked = now + total / 50
        for share in (0.1, 0.25, 0.5, 0.75, 0.9):
            if share not in found and now >= share * total:
                left = smoothed.left(now)
                assert left is not None
                found[share] = ((left - (total - now)) / (total - now), (left - (total - now)) / total)
    return found


@pytest.mark.parametrize("shared", [True, False], ids=["shared processor", "server"])
@pytest.mark.parametrize(("steps", "most", "tasks", "slots"), [(TINY, 30, 60, 16), (TINY, 30, 40, 8), (SCIENCE, 100, 120, 16)])
def test_a_forecast_is_right_within_a_third_after_a_tenth(
    steps: Mapping[str, Sequence[int]], most: int, tasks: int, slots: int, shared: bool
) -> None:
    for seed in range(2):
        found = errors(steps, most, tasks, slots, shared, seed)
        assert all(abs(left) <= 1 / 3 for share, (left, _) in found.items() if share <= 0.5), (seed, found)
        assert all(abs(of_all) <= 0.1 for share, (_, of_all) in found.items() if share > 0.5), (seed, found)


def test_a_resumed_run_knows_the_lengths_and_counts_no_time_for_them() -> None:
    for shared in (True, False):
        found = errors(TINY, 30, 60, 16, shared, seed=1, known=70)
        assert all(abs(left) <= 1 / 3 for share, (left, _) in found.items() if share <= 0.5), found


def test_dividing_by_the_episodes_that_have_ended_would_not_do() -> None:
    """The tests above would fail: the episodes that end first are the short ones."""
    rng = random.Random(0)
    lengths = {(f"{task}", mode): rng.choice(some) for task in range(60) for mode, some in TINY.items()}
    played = list(events(lengths, 16, True, 0))
    total = played[-1][0]
    ended = [now for now, _, _, ends in played if ends and now <= 0.25 * total]
    left = 0.25 * total / len(ended) * (len(lengths) - len(ended))
    assert left > (1 + 1 / 3) * 0.75 * total


def test_nothing_is_said_before_something_is_known() -> None:
    forecast = Forecast(waiting={"a": "cot", "b": "cot"}, max_steps=10, usual_steps=5, sharing=0.5, now=0.0)
    assert forecast.seconds_left(0.0) is None
    forecast.stepped("a", "cot", 1, 1.0)
    assert forecast.seconds_left(1.0) is None  # Whether others have begun beside it is not known yet.
    forecast.stepped("a", "cot", 2, 2.0)
    assert forecast.seconds_left(2.0) is not None


def test_episodes_that_all_spend_their_budget_are_forecast_exactly() -> None:
    forecast = Forecast(waiting=dict.fromkeys(map(str, range(20)), "cot"), max_steps=10, usual_steps=10, sharing=0.5, now=0.0)
    for number in range(10):
        for step in range(1, 11):
            forecast.stepped(str(number), "cot", step, 10.0 * number + step)
        forecast.ended(str(number), "cot", 10, 10.0 * number + 10)
    assert forecast.seconds_left(100.0) == pytest.approx(100.0, rel=0.1)


def test_survival_counts_running_episodes_as_censored() -> None:
    counts = StepCounts(most=10, usual=5)
    for steps in (2, 2, 10, 10):
        counts.add(steps)
    alone, beside = counts.survival([]), counts.survival([5] * 40)
    assert alone[0] == 1.0 and alone[10] == 0.0 and all(a >= b for a, b in pairwise(alone))
    # The product limit, but for what is expected beforehand: half of four have ended after two steps; 2 of 44.
    assert alone[2] == pytest.approx(0.5, abs=0.12) and beside[2] == pytest.approx(1 - 2 / 44, abs=0.02)


def test_a_failed_episode_says_nothing_of_lengths() -> None:
    forecast = Forecast(waiting=dict.fromkeys(map(str, range(10)), "cot"), max_steps=10, usual_steps=10, sharing=0.5, now=0.0)
    for step in range(1, 3):
        forecast.stepped("0", "cot", step, float(step))
    before = forecast.seconds_left(2.0)
    forecast.ended("0", "cot", 2, 2.0, failed=True)
    after = forecast.seconds_left(2.0)
    assert before is not None and after is not None and after > 0.7 * before


def test_even_work_is_divided_evenly_and_a_slow_beginning_fades() -> None:
    work = EvenForecast(total=100, done=40, now=0.0)
    assert work.seconds_left() is None
    work.advance(41, 50.0)  # Something was loaded.
    for number in range(20):
        work.advance(42 + number, 51.0 + number)
    assert work.seconds_left() == pytest.approx(100 - 61, rel=0.25) or work.seconds_left() < 3.5 * 39  # type: ignore[operator]
    for number in range(20, 40):
        work.advance(42 + number, 51.0 + number)
    assert work.seconds_left() == pytest.approx(100 - 81, rel=0.1)


def test_the_end_moves_little_by_little() -> None:
    end = SmoothedEnd()
    assert end.left(0.0) is None
    end.update(0.0, 100.0)
    end.update(100.0, 100.0)
    end.update(101.0, 1000.0)
    assert 100.0 < (end.left(101.0) or 0.0) < 300.0
    assert end.left(10_000.0) == 0.0
