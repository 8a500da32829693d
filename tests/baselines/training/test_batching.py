"""Steps and the feed: properties over sizes, units, epochs, token limits and processes."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotbench.baselines.training.batching import ExampleUnit, TrainingStep, make_steps
from cotbench.baselines.training.dataset import PackedDataset, PartTrees
from cotbench.baselines.training.sequence_tree import Branch, Tree

sizes = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=6), min_size=1, max_size=6)
units = st.sampled_from(["decision", "episode"])


def decisions(step: TrainingStep) -> list[tuple[int, int]]:
    return [(episode, one) for part in step.parts for episode, some in part for one in some]


def all_of(lengths: list[list[int]]) -> set[tuple[int, int]]:
    return {(episode, one) for episode, own in enumerate(lengths) for one in range(len(own))}


@given(sizes, units, st.integers(1, 9), st.integers(1, 3), st.integers(0, 3), st.integers(64, 90), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_every_decision_once_an_epoch(
    lengths: list[list[int]], unit: ExampleUnit, batch: int, epochs: int, seed: int, tokens: int, processes: int
) -> None:
    steps = make_steps(lengths, unit=unit, batch=batch, epochs=epochs, seed=seed, tokens=tokens, processes=processes)
    assert [step.progress for step in steps] == [index / len(steps) for index in range(len(steps))]
    assert [step.epoch for step in steps] == sorted(step.epoch for step in steps)
    for epoch in range(epochs):
        own = [step for step in steps if step.epoch == epoch]
        assert Counter(one for step in own for one in decisions(step)) == Counter(all_of(lengths))
        counts = [len(decisions(step)) for step in own]
        if unit == "decision":
            assert all(count == batch for count in counts[:-1]) and counts[-1] <= batch
        else:
            assert all(count >= batch for count in counts[:-1])
    for step in steps:
        assert len(step.parts) % processes == 0
        for part in step.parts:
            load = sum(lengths[episode][one] for episode, some in part for one in some)
            assert load <= tokens or len(part) == 1, "only a single unit may be longer"
            assert unit == "decision" or all(some == tuple(range(len(lengths[episode]))) for episode, some in part)


@given(sizes, units, st.integers(1, 9), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_which_decisions_make_a_step_depends_on_neither_processes_nor_memory(
    lengths: list[list[int]], unit: ExampleUnit, batch: int, seed: int
) -> None:
    made = [
        make_steps(lengths, unit=unit, batch=batch, epochs=2, seed=seed, tokens=tokens, processes=processes)
        for tokens, processes in ((10_000, 1), (64, 1), (64, 2), (10_000, 3))
    ]
    assert len({tuple(frozenset(decisions(step)) for step in steps) for steps in made}) == 1


@given(sizes, units, st.floats(0.01, 3.0))
@settings(max_examples=60, deadline=None)
def test_a_fraction_of_epochs_is_the_beginning_of_whole_ones(
    lengths: list[list[int]], unit: ExampleUnit, epochs: float
) -> None:
    options = {"unit": unit, "batch": 3, "seed": 0, "tokens": 64}
    whole = make_steps(lengths, epochs=3, **options)  # type: ignore[arg-type]
    some = make_steps(lengths, epochs=epochs, **options)  # type: ignore[arg-type]
    assert [step.parts for step in some] == [step.parts for step in whole[: len(some)]]
    # Episodes are packed anew in every epoch, so one may have a step more than another.
    each = [sum(step.epoch == epoch for step in whole) for epoch in range(3)]
    full = min(int(epochs), 2)
    assert abs(len(some) - sum(each[:full]) - (epochs - full) * each[full]) <= 1


def test_less_than_a_step_is_a_step() -> None:
    assert len(make_steps([[5, 5]], unit="decision", batch=1, epochs=1e-4, seed=0, tokens=64)) == 1


def test_another_seed_is_another_order() -> None:
    orders = {
        tuple(map(tuple, map(decisions, make_steps([[1] * 20], unit="decision", batch=4, epochs=1, seed=seed, tokens=64))))
        for seed in range(3)
    }
    assert len(orders) == 3


def tree(episode: int, decision: int) -> Tree:
    """Names a decision by its tokens: the answer of one token, one of an action beside it."""
    return Tree((1, 100 + episode), (Branch(2, (200 + decision, 7), (1.0, 1.0)),))


def trees(step: TrainingStep, part: tuple[tuple[int, tuple[int, ...]], ...]) -> PartTrees:
    made = [tree(episode, one) for episode, some in part for one in some]
    return PartTrees(made, len(made), float(len(made)))


@pytest.mark.parametrize("processes", [1, 2, 3])
@given(sizes, units, st.integers(1, 9), st.integers(64, 90))
@settings(max_examples=30, deadline=None)
def test_the_portions_of_all_processes_hold_the_steps_decisions(
    processes: int, lengths: list[list[int]], unit: ExampleUnit, batch: int, tokens: int
) -> None:
    steps = make_steps(lengths, unit=unit, batch=batch, epochs=1, seed=0, tokens=tokens, processes=processes)
    feed = PackedDataset(steps, trees, processes)
    assert len(feed) == len(steps) * processes
    for number, step in enumerate(steps):
        portions = [feed[number * processes + process] for process in range(processes)]
        fed = Counter(one for portion in portions for packed in portion.passes for one in packed.trees)
        assert fed == Counter(tree(*one) for one in decisions(step))
        assert {portion.count for portion in portions} == {2 * len(decisions(step))}
        assert sum(portion.actions for portion in portions) == len(decisions(step))
        assert sum(portion.others for portion in portions) == len(decisions(step))
        passes = {len(portion.passes) + len(portion.padding) for portion in portions}
        assert len(passes) == 1 and 0 not in passes, "every process computes as often, or the others would wait for it"
