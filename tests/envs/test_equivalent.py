"""Which actions come to the same, however they are worded."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from cotbench.envs.bfcl import data, meaning
from cotbench.envs.bfcl.upstream import SERVICES, STATELESS
from cotbench.envs.registry import env_entry, env_names
from cotbench.envs.scienceworld.env import ScienceWorldEnv
from tests.conftest import needs_bfcl, needs_scienceworld
from tests.envs.scienceworld import simulators

SAME = {
    "alfworld": [
        ("take mug 1 from desk 1", "Take mug 2 from desk 1."),
        ("put mug 1 in/on shelf 2", "move mug 3 to shelf 2"),
        ("clean soapbar 1 with sinkbasin 1", "clean soapbar 2 with sinkbasin 1"),
        ("use desklamp 1", "use desklamp 2"),
        ("slice apple 1 with knife 1", "slice apple 2 with knife 1"),
    ],
    "scienceworld": [
        ("take thermometer", "pick up thermometer"),
        ("drop thermometer", "put down thermometer"),
        ("look", "Look around."),
        ("examine sink", "look at sink"),
        ("go kitchen", "go to kitchen"),
        ("put metal pot in sink", "move metal pot to sink"),
        ("pour cup in beaker", "pour cup into beaker"),
        ("turn on stove", "activate stove"),
        ("use thermometer with water", "use thermometer on water"),
        ("stir beaker", "mix beaker"),
    ],
    "bfcl": [
        ("[f(a=1, b='x')]", "[f(b='x', a=1)]"),
        ("[f(a=1), g(b=2)]", "[g(b=2), f(a=1)]"),
        (
            "[cd(folder='x'), trading_login(username='u', password='p'), ls()]",
            "[trading_login(password='p', username='u'), cd(folder='x'), ls()]",
        ),
        ("[mean(numbers=[1, 2]), cd(folder='x')]", "[cd(folder='x'), mean(numbers=[1, 2])]"),
        ('[{"name": "f", "arguments": {"a": 1}}]', "[f(a=1)]"),
        ("I am done.", "[]"),
    ],
}
OTHER = {
    "alfworld": [
        ("take mug 1 from desk 1", "take mug 1 from desk 2"),
        ("take mug 1 from desk 1", "take cup 1 from desk 1"),
        ("go to desk 1", "go to desk 2"),
        ("open drawer 1", "open drawer 2"),
        ("move mug 1 to shelf 1", "move mug 1 to shelf 2"),
        ("heat egg 1 with microwave 1", "cool egg 1 with microwave 1"),
        ("examine desk 1", "examine desk 2"),
        ("take mug 1 from desk 1", "take mug from desk 1"),
    ],
    "scienceworld": [
        ("look in sink", "look at sink"),
        ("look in sink", "look around in sink"),
        ("wait", "wait1"),
        ("put down cup", "put cup"),
        ("open door to kitchen", "close door to kitchen"),
        ("focus on seed", "look at seed"),
        ("move cup to sink", "pour cup into sink"),
        ("move cup in box to sink", "move cup to box in sink"),
        ("activate sink", "deactivate sink"),
    ],
    "bfcl": [
        ("[cd(folder='x'), ls()]", "[ls(), cd(folder='x')]"),
        ("[f(a=1)]", "[f(a=2)]"),
        ("[f(a=1)]", "[f(a='1')]"),
        ("[f(a=1)]", "[f(a=1), f(a=1)]"),
        ("[f(a=1)]", "[]"),
        ("[f(a=g(b=1)), g(b=1)]", "[g(b=1), f(a=g(b=1))]"),
        ("[dance(", "[dance(("),
    ],
}


@pytest.mark.parametrize("kind", SAME)
def test_same_and_other(kind: str) -> None:
    equivalent = env_entry(kind).equivalent()
    for first, second in SAME[kind]:
        assert equivalent(first, second) and equivalent(second, first), (first, second)
    for first, second in OTHER[kind]:
        assert not equivalent(first, second) and not equivalent(second, first), (first, second)


@pytest.mark.parametrize("kind", env_names())
def test_what_has_one_spelling_is_equivalent(kind: str) -> None:
    entry = env_entry(kind)
    equivalent, canonical = entry.equivalent(), entry.canonical()
    for action in entry.instructions().examples:
        assert equivalent(action, canonical(f"  {action}\n"))
    for first, second in itertools.combinations(entry.instructions().examples, 2):
        assert not equivalent(first, second), (first, second)


@needs_bfcl
def test_the_services_functions_are_those_of_the_wheel() -> None:
    described = {service: {one["name"] for one in data._documents(service)} for service in SERVICES if service not in STATELESS}
    assert {service: set(names.split()) for service, names in meaning._FUNCTIONS.items()} == described


@needs_scienceworld
@pytest.mark.slow
@pytest.mark.ci
def test_the_simulator_answers_synonyms_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cotbench.envs.scienceworld.env.Server", simulators.Lent)
    kitchen = "teleport to kitchen"
    groups: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
        ((), ("go to kitchen", "walk through kitchen", "move into kitchen")),
        ((kitchen,), ("pick up thermometer", "get thermometer", "take thermometer")),
        ((kitchen, "pick up thermometer"), ("put down thermometer", "drop thermometer")),
        ((kitchen, "open cupboard"), ("move metal pot to sink", "put metal pot into sink", "put metal pot on sink")),
    ]
    env: Any = ScienceWorldEnv(simplifications=("easy",))
    try:
        for before, group in groups:
            told = set()
            for action in group:
                env.reset(options={"task": "scienceworld/boil/3"})
                for one in before:
                    env.step(one)
                observation, *outcome, info = env.step(action)
                assert info["invalid_action"] is None, action
                assert env.equivalent(group[0], action), action
                told.add((observation, *outcome))
            assert len(told) == 1, (group, told)
    finally:
        env.close()
