import multiprocessing

import pytest
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory

from cotbench.envs.space import SHARED_BYTES, AnyText


@pytest.mark.parametrize("text", ["", "go to desk 1", "ünïcode ✓", "a\x00b", "\ud800", "x" * 100_000])
def test_contains_every_string(text: str) -> None:
    assert text in AnyText()


@pytest.mark.parametrize("other", [None, 1, b"look", ["look"]])
def test_contains_nothing_else(other: object) -> None:
    assert other not in AnyText()


def test_samples_are_seeded_and_inside() -> None:
    one, two = AnyText(seed=3), AnyText(seed=3)
    drawn = [one.sample() for _ in range(20)]
    assert drawn == [two.sample() for _ in range(20)]
    assert all(text in one for text in drawn)
    assert len(set(drawn)) > 1


def test_shared_memory_carries_strings() -> None:
    space, texts = AnyText(), ["", "ünïcode ✓", "long " * 1000]
    memory = create_shared_memory(space, n=3, ctx=multiprocessing)
    for index, text in enumerate(texts):
        write_to_shared_memory(space, index, text, memory)
    assert list(read_from_shared_memory(space, memory, n=3)) == texts


def test_shared_memory_refuses_what_does_not_fit() -> None:
    memory = create_shared_memory(AnyText(), n=1, ctx=multiprocessing)
    with pytest.raises(ValueError, match="shared_memory=False"):
        write_to_shared_memory(AnyText(), 0, "x" * (SHARED_BYTES + 1), memory)
