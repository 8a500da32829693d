"""Actions taken apart: the form with its places, and what stands in them."""

from __future__ import annotations

import pytest

from cotbench.envs import reading
from cotbench.envs.reading import ActionParts, read_parts, word_parts
from cotbench.envs.registry import env_entry

PARTS = {
    "alfworld": [
        ("take mug 2 from desk 1", "take {} from {}", ("mug 2", "desk 1")),
        ("put mug 2 in/on desk 1", "move {} to {}", ("mug 2", "desk 1")),
        ("go to sinkbasin 1", "go to {}", ("sinkbasin 1",)),
        ("look", "look", ()),
        ("fly to moon", "fly {} {}", ("to", "moon")),
        ("", "", ()),
    ],
    "scienceworld": [
        ("open door to living room", "open door to {}", ("living room",)),
        ("open cupboard", "open {}", ("cupboard",)),
        ("use thermometer in inventory on metal pot", "use {} in inventory on {}", ("thermometer", "metal pot")),
        ("move egg in inventory to red box", "move {} in inventory to {}", ("egg", "red box")),
        ("look around", "look around", ()),
        ("wait1", "wait1", ()),
        ("3", "{}", ("3",)),
    ],
    "bfcl": [
        ("[f(a=1, b='x y')]", "[f(a={}, b='{}')]", ("1", "x y")),
        ("[f(a=[1, 2]), g(b={'k': True})]", "[f(a=[{}, {}]), g(b={k: {}})]", ("1", "2", "True")),
        ("[]", "[]", ()),
        ("[f(", "[f(", ()),
    ],
}


@pytest.mark.parametrize(("env", "case"), [(env, case) for env, cases in PARTS.items() for case in cases])
def test_an_action_is_taken_apart(env: str, case: tuple[str, str, tuple[str, ...]]) -> None:
    entry = env_entry(env)
    action, form, arguments = case
    assert entry.action_parts()(entry.canonical()(action)) == ActionParts(form, arguments)


def test_code_that_fails_leaves_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_failed", set())

    def broken(action: str) -> ActionParts:
        raise ZeroDivisionError

    assert read_parts(broken, "take a b") == word_parts("take a b") == ActionParts("take {} {}", ("a", "b"))
