"""Reduced action supervision: exact counts, and a choice that depends on nothing but what it says."""

import json
from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotbench.baselines.data.examples import Example, Span
from cotbench.baselines.training.masks import MaskConfig, Masks, MaskSelect, Score, fraction_at, rank, weights
from cotbench.errors import UnknownNameError, UsageError

KS = ["0", "0.1", "0.25", "0.3", "0.5", "0.7", "1"]

pairs = st.lists(
    st.tuples(st.text("abc", max_size=2), st.integers(0, 9)).map(lambda pair: (f"{pair[0]}#{pair[1]}", pair[0])),
    unique=True,
    min_size=1,
    max_size=40,
)
scored = st.floats(-50, 0, allow_nan=False)


def data(count: int, tasks: int = 5) -> list[tuple[str, str]]:
    return [(f"t{index % tasks}#{index}", f"t{index % tasks}") for index in range(count)]


def masked(masks: Masks, epoch: int = 0, progress: float = 0.0) -> set[str]:
    return {id_ for id_, _ in masks.examples if masks.masked(id_, epoch, progress)}


def choose(examples: list[tuple[str, str]], k: float, scores: dict[str, Score] | None = None, **more: object) -> set[str]:
    return masked(Masks(MaskConfig(mask_fraction=k, **more), tuple(examples), scores))


@given(pairs, st.sampled_from(KS), st.integers(0, 99), st.sampled_from(["random", "confident", "likely", "revised"]))
def test_exactly_the_rounded_share_is_masked(examples: list[tuple[str, str]], k: str, seed: int, select: str) -> None:
    scores = {id_: Score(-float(len(id_)), -1.0, len(id_) % 2 == 0) for id_, _ in examples}
    count = len(choose(examples, float(k), scores, seed=seed, mask_select=select))
    assert count == int(Fraction(k) * len(examples) + Fraction(1, 2)), "k n, rounded half up"


@given(pairs, st.floats(0, 1), st.integers(0, 9))
def test_any_share_is_met_within_half_an_example(examples: list[tuple[str, str]], k: float, seed: int) -> None:
    assert abs(len(choose(examples, k, seed=seed)) - k * len(examples)) <= 0.5 + 1e-9


@given(pairs, st.floats(0, 1), st.floats(0, 1), st.sampled_from(["random", "per-task", "confident", "likely", "revised"]))
def test_what_a_smaller_fraction_masks_a_larger_one_masks(
    examples: list[tuple[str, str]], one: float, other: float, select: str
) -> None:
    if select == "per-task" and len({task for _, task in examples}) == 1:
        return
    scores = {id_: Score(-float(index), -1.0, index % 3 == 0) for index, (id_, _) in enumerate(examples)}
    few, many = (choose(examples, k, scores, mask_select=select) for k in sorted((one, other)))
    assert few <= many


@given(pairs, st.randoms(use_true_random=False), st.sampled_from(["random", "per-task", "confident", "revised"]))
def test_the_order_of_the_data_does_not_matter(examples: list[tuple[str, str]], shuffled: object, select: MaskSelect) -> None:
    if select == "per-task" and len({task for _, task in examples}) == 1:
        return
    scores = {id_: Score(-float(len(task)), -1.0, len(task) == 1) for id_, task in examples}
    other = list(examples)
    shuffled.shuffle(other)  # type: ignore[attr-defined]
    assert list(rank(examples, select, 3, 1, scores).items()) == list(rank(other, select, 3, 1, scores).items())


def test_the_draw_is_the_same_on_every_machine() -> None:
    # Recorded, so that the masks of an old training can be drawn again.
    recorded = ["t0#5", "t1#6", "t0#0", "t3#3", "t2#7", "t4#4", "t2#2", "t1#1"]
    assert list(rank(data(8), "random", 0)) == recorded
    assert list(rank(data(8), "random", 0, epoch=1)) != recorded
    assert list(rank(data(8), "random", 1)) != recorded


@pytest.mark.parametrize("n", [10, 300])
def test_chance_prefers_nobody(n: int) -> None:
    rounds = 400
    counts = Counter(id_ for seed in range(rounds) for id_ in choose(data(n), 0.3, seed=seed))
    assert len(counts) == n
    assert all(abs(count / rounds - 0.3) < 0.115 for count in counts.values())  # 5 standard errors.


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.sampled_from(KS))
def test_confident_masks_the_examples_whose_action_is_the_prompt_action(matches: list[bool], k: str) -> None:
    examples = data(len(matches))
    scores = {id_: Score(matches=match) for (id_, _), match in zip(examples, matches, strict=True)}
    chosen = choose(examples, float(k), scores, mask_select="confident")
    assert sum(bool(scores[id_].matches) for id_ in chosen) == min(len(chosen), sum(matches))


@given(st.lists(scored, min_size=1, max_size=30), st.sampled_from(KS))
def test_likely_masks_the_likeliest_actions(logprobs: list[float], k: str) -> None:
    examples = data(len(logprobs))
    scores = {id_: Score(logprob) for (id_, _), logprob in zip(examples, logprobs, strict=True)}
    chosen = choose(examples, float(k), scores, mask_select="likely")
    left = set(scores) - chosen
    assert not chosen or not left or min(scores[id_].prompt for id_ in chosen) >= max(scores[id_].prompt for id_ in left)


def test_revised_masks_where_the_trace_made_the_action_likelier() -> None:
    examples = [(name, "t") for name in "abcd"]
    scores = {"a": Score(-1, -0.5), "b": Score(-9, -1), "c": Score(-2, -7), "d": Score(-5, -1)}
    assert list(rank(examples, "revised", 0, scores=scores)) == ["b", "d", "a", "c"]
    assert choose(examples, 0.5, scores, mask_select="revised") == {"b", "d"}
    assert choose(examples, 0.5, scores, mask_select="likely") == {"a", "c"}


def test_equal_scores_are_drawn() -> None:
    examples = data(40)
    scores = {id_: Score(matches=index < 20) for index, (id_, _) in enumerate(examples)}
    first, second = (choose(examples, 0.25, scores, mask_select="confident", seed=seed) for seed in (0, 1))
    assert first != second
    assert all(scores[id_].matches for id_ in first | second)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=8), st.floats(0, 1), st.integers(0, 9))
def test_per_task_masks_whole_tasks_as_near_as_they_come(sizes: list[int], k: float, seed: int) -> None:
    examples = [(f"t{task}#{step}", f"t{task}") for task, size in enumerate(sizes) for step in range(size)]
    chosen = choose(examples, k, mask_select="per-task", seed=seed)
    tasks = {id_.split("#")[0] for id_ in chosen}
    assert chosen == {id_ for id_, task in examples if task in tasks}
    order = list(dict.fromkeys(id_.split("#")[0] for id_ in rank(examples, "per-task", seed)))
    reachable = [sum(sizes[int(task[1:])] for task in order[:count]) for count in range(len(order) + 1)]
    assert len(chosen) in reachable
    assert abs(len(chosen) - k * len(examples)) <= min(abs(count - k * len(examples)) for count in reachable) + 1e-9


def test_constant_masks_the_same_throughout() -> None:
    masks = Masks(MaskConfig(mask_fraction=0.3), tuple(data(50)))
    assert masked(masks) == masked(masks, 4, 1.0)
    assert len(masked(masks)) == 15


def test_per_epoch_draws_anew_each_epoch() -> None:
    masks = Masks(MaskConfig(mask_fraction=0.3, mask_schedule="per-epoch"), tuple(data(50)))
    epochs = [frozenset(masked(masks, epoch, epoch / 5)) for epoch in range(5)]
    assert {len(chosen) for chosen in epochs} == {15}
    assert len(set(epochs)) == 5
    assert epochs[0] == masked(masks, 0, 0.1)
    again = Masks(masks.config, tuple(reversed(masks.examples)))
    assert masked(again, 4) == epochs[4], "an epoch's draw does not depend on the epochs before it"


def test_warmup_and_anneal_are_lines_between_nothing_and_the_fraction() -> None:
    examples = tuple(data(100))
    rising = Masks(MaskConfig(mask_fraction=0.4, mask_schedule="warmup"), examples)
    falling = Masks(MaskConfig(mask_fraction=0.4, mask_schedule="anneal"), examples)
    assert [len(masked(rising, 0, progress)) for progress in (0.0, 0.25, 0.5, 1.0)] == [0, 10, 20, 40]
    assert [len(masked(falling, 0, progress)) for progress in (0.0, 0.25, 0.5, 1.0)] == [40, 30, 20, 0]
    assert masked(rising, 0, 0.25) < masked(rising, 3, 0.5) < masked(rising, 4, 1.0) == masked(falling)
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match="share of the training"):
            fraction_at("warmup", 0.4, wrong)


def test_what_was_masked_can_be_read_off_the_record() -> None:
    masks = Masks(MaskConfig(mask_fraction=0.3, mask_schedule="per-epoch", seed=5), tuple(data(20)))
    record = json.loads(json.dumps(masks.record(epochs=3)))
    config = MaskConfig(**record["config"])
    assert config == masks.config
    assert len(record["places"]) == 3
    for epoch, places in enumerate(record["places"]):
        fraction = fraction_at(config.mask_schedule, config.mask_fraction, epoch / 3)
        assert {id_ for id_, place in places.items() if place <= fraction} == masked(masks, epoch, epoch / 3)
        assert list(places)[:6] == [id_ for id_ in places if masks.masked(id_, epoch, 0)], "those masked first are in front"
    assert len(Masks(MaskConfig(mask_fraction=0.3), masks.examples).record(epochs=3)["places"]) == 1


def test_the_record_of_a_recipe_holds_its_masks_alone() -> None:
    class Recipe(MaskConfig):
        epochs: int = 5

    masks = Masks(Recipe(mask_fraction=0.5), tuple(data(4)))
    assert masks.record(epochs=5)["config"] == MaskConfig(mask_fraction=0.5).model_dump()


@pytest.mark.parametrize("select", ["random", "confident", "likely", "revised", "per-task"])
def test_without_a_fraction_nothing_is_masked_nor_asked_for(select: MaskSelect) -> None:
    config = MaskConfig(mask_select=select)
    assert not config.needs_scores
    masks = Masks(config, (("a#0", "a"),))
    assert masked(masks) == set()
    assert masks.record(epochs=2)["places"] == [{}]


def test_only_the_action_of_a_masked_example_weighs_less() -> None:
    labels = (
        ("prompt", 3),
        ("think_open", 2),
        ("trace", 2),
        ("think_close", 1),
        ("action_open", 2),
        ("action", 3),
        ("closing", 2),
    )
    spans, at = [], 0
    for label, size in labels:
        spans.append(Span(label, at, at + size))  # type: ignore[arg-type]
        at += size
    example = Example("t", 0, tuple(range(at)), tuple(spans))

    def found(masked: bool, **options: Any) -> list[float]:
        counts = weights(example, masked, MaskConfig(mask_fraction=1.0, **options))
        assert len(counts) == len(example.answer)
        return list(counts)

    # <think> 2, trace 2, </think> 1, <action> 2, action 3, </action> and the end of the turn 2.
    assert found(False) == [1.0] * 12
    assert found(True) == [1] * 7 + [0] * 3 + [1] * 2
    assert found(True, action_weight=0.5) == [1] * 7 + [0.5] * 3 + [1] * 2
    assert found(True, action_weight=2.5) == [1] * 7 + [2.5] * 3 + [1] * 2
    assert found(True, mask_closing=True) == [1] * 7 + [0] * 5
    assert found(False, mask_closing=True) == [1] * 12
    assert found(False, trace_weight=0.3) == [1] * 2 + [0.3] * 2 + [1] * 8
    assert found(True, trace_weight=0, action_weight=2, mask_closing=True) == [1] * 2 + [0] * 2 + [1] * 3 + [2] * 5
    masks = Masks.of(MaskConfig(mask_fraction=1.0, action_weight=0.25), [example])
    assert masks.examples == (("t#0", "t"),)
    assert masks.masked("t#0", 0, 0.0) and masks.weights(example, 0, 0.0) == tuple(found(True, action_weight=0.25))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mask_fraction": 1.5}, r"^mask_fraction=1.5: give a number from 0 to 1$"),
        ({"mask_fraction": -0.1}, r"^mask_fraction=-0.1: give a number from 0 to 1$"),
        ({"mask_fraction": float("nan")}, r"^mask_fraction=nan: give a number from 0 to 1$"),
        ({"action_weight": -1}, r"^action_weight=-1.0: give a number of at least 0$"),
        ({"trace_weight": float("inf")}, r"^trace_weight=inf: give a number of at least 0$"),
        (
            {"mask_schedule": "per-epoch", "mask_select": "confident"},
            "mask_schedule=per-epoch draws at random, but .*=confident",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(given: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        MaskConfig(**given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "name", "meant"),
    [
        ("mask_select", "confidant", "confident"),
        ("mask_schedule", "warmpu", "warmup"),
        ("loss_normalisation", "remainin", "remaining"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(field: str, name: str, meant: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown {field} '{name}'; did you mean '{meant}'"):
        MaskConfig(**{field: name})


@pytest.mark.parametrize(
    ("select", "scores", "message"),
    [
        ("confident", None, "mask_select=confident needs .* t0#0 has none"),
        ("revised", {"t0#0": Score(-1, -1)}, "mask_select=revised needs .* t1#1 has none"),
        ("revised", {"t0#0": Score(-1, -1), "t1#1": Score(-1)}, "needs another score of every action, t1#1 has none"),
        ("confident", {"t0#0": Score(-1, None, True), "t1#1": Score(-1)}, "needs another score of every action, t1#1 has none"),
        ("likely", {"t0#0": Score(-1), "t1#1": Score(float("nan"))}, "the score of t1#1 is not a number"),
    ],
)
def test_missing_scores_are_named_before_the_training(select: str, scores: dict[str, Score] | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose(sorted(data(2)) if scores else data(1), 0.5, scores, mask_select=select)


def test_examples_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(UsageError, match="two examples have the id t0#0"):
        choose([*data(3), ("t0#0", "t0")], 0.5)
    with pytest.raises(UsageError, match="all examples are of task 't0'; use mask_select=random"):
        choose(data(3, tasks=1), 0.5, mask_select="per-task")
