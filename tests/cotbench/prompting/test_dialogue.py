import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotbench.envs import Instructions
from cotbench.errors import ContextOverflowError
from cotbench.prompting.dialogue import DROP_BLOCK, ELIDED, Dialogue, fit_context


def _dialogue(turns: int, size: int = 20) -> Dialogue:
    dialogue = Dialogue(Instructions("system"), ("task" * size,))
    for turn in range(turns):
        dialogue = dialogue.extended(f"action {turn}", None, f"observation {turn} " + "x" * size)
    return dialogue


def _length(dialogue: Dialogue) -> int:
    return len(dialogue.instructions.text) + sum(map(len, dialogue.observations)) + sum(map(len, dialogue.actions))


def test_it_grows_at_its_end() -> None:
    short, long = _dialogue(3), _dialogue(4)
    assert long.observations[:4] == short.observations
    assert long.actions[:3] == short.actions


def test_its_parts_must_agree() -> None:
    with pytest.raises(ValueError, match="one observation more"):
        Dialogue(Instructions("system"), ("a", "b"))


def test_what_fits_is_left_alone() -> None:
    dialogue = _dialogue(5)
    assert fit_context(dialogue, _length, _length(dialogue)) == (dialogue, 0)


@given(turns=st.integers(0, 60), limit=st.integers(0, 4000))
def test_the_rule(turns: int, limit: int) -> None:
    dialogue = _dialogue(turns)
    try:
        shown, dropped = fit_context(dialogue, _length, limit)
    except ContextOverflowError:
        assert _length(dialogue.without_oldest(dialogue.droppable)) > limit
        return
    assert _length(shown) <= limit
    assert dropped == 0 or dropped % DROP_BLOCK == 0 or dropped == dialogue.droppable
    assert shown.instructions == dialogue.instructions
    assert shown.observations[0] == dialogue.observations[0], "the task is never dropped"
    assert shown.observations[-1] == dialogue.observations[-1], "nor what was just seen"
    assert shown.actions == dialogue.actions
    assert shown.observations[1 : 1 + dropped] == (ELIDED,) * dropped
    assert shown.observations[1 + dropped :] == dialogue.observations[1 + dropped :]
    fewer = dropped - DROP_BLOCK if dropped % DROP_BLOCK == 0 else dropped // DROP_BLOCK * DROP_BLOCK
    if dropped:
        assert _length(dialogue.without_oldest(fewer)) > limit, "no more is dropped than must be"


def test_an_impossible_context_says_what_to_do() -> None:
    with pytest.raises(ContextOverflowError, match="--max-steps"):
        fit_context(_dialogue(3), _length, 10)
