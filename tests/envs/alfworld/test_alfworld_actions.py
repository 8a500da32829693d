import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotbench.envs.alfworld.actions import canonical, why_invalid
from cotbench.envs.alfworld.walkthrough import Walkthrough

NAMES = {"box 1", "mug 1", "desk 1", "shelf 1", "drawer 1", "fridge 1"}
AT_DESK = [
    "close box 1",
    "examine box 1",
    "examine desk 1",
    "examine mug 1",
    "go to shelf 1",
    "help",
    "inventory",
    "look",
    "take mug 1 from desk 1",
]


@pytest.mark.parametrize(
    ("said", "executed"),
    [
        ("put mug 1 in/on shelf 1", "move mug 1 to shelf 1"),
        ("put mug 1 in shelf 1", "move mug 1 to shelf 1"),
        ("put mug 1 on shelf 1", "move mug 1 to shelf 1"),
        ("put mug 1 into shelf 1.", "move mug 1 to shelf 1"),
        ("  Go   TO desk 1. ", "go to desk 1"),
        ("move mug 1 to shelf 1", "move mug 1 to shelf 1"),
        ("put mug 1", "put mug 1"),
        ("go to desk 1\nlook", "go to desk 1"),
        ("", ""),
    ],
)
def test_one_spelling(said: str, executed: str) -> None:
    assert canonical(said) == executed


@given(st.text())
def test_spelling_is_settled_after_once(text: str) -> None:
    assert canonical(canonical(text)) == canonical(text)


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("", "empty action"),
        ("fly to desk 1", "unknown verb 'fly'"),
        ("look around", "'look' takes no argument"),
        ("take mug 1", "expected 'take OBJECT from RECEPTACLE'"),
        ("go to", "expected 'go to RECEPTACLE'"),
        ("take mug 7 from desk 1", "nothing here is called 'mug 7'"),
        ("go to desk 1", "already at desk 1"),
        ("open fridge 1", "fridge 1 is not within reach"),
        ("take mug 1 from fridge 1", "fridge 1 is not within reach"),
        ("close desk 1", "desk 1 cannot be closed"),
        ("open desk 1", "desk 1 cannot be opened"),
        ("open box 1", "box 1 is opened already"),
        ("go to mug 1", "already at mug 1"),
        ("go to fridge 1", "fridge 1 is not a place to go to"),
        ("move mug 1 to desk 1", "not held"),
        ("heat mug 1 with desk 1", "heat is not possible with mug 1 and desk 1"),
    ],
)
def test_reasons(action: str, reason: str) -> None:
    assert reason in why_invalid(action, NAMES, AT_DESK)


@given(st.text())
def test_every_invalid_action_has_a_reason(text: str) -> None:
    assert why_invalid(canonical(text), NAMES, AT_DESK)


def test_walkthrough_follows_and_falls_silent() -> None:
    expert = Walkthrough(["go to desk 1", "put mug 1 in/on shelf 1"])
    assert expert.next_action() == "go to desk 1"
    expert.observe("look", True)
    expert.observe("go to nowhere", False)
    assert expert.next_action() == "go to desk 1", "what changes nothing leaves the path as it is"
    expert.observe("go to desk 1", True)
    assert expert.next_action() == "move mug 1 to shelf 1"
    expert.observe("go to shelf 1", True)
    assert expert.next_action() is None, "off the path the expert is silent"
