"""Written reasoning names nothing that was not seen; and the check of that finds lies that are planted."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import get_args

import pytest

from cotbench.baselines.data.decodability import measure_decodability
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.teachers import bfcl, scienceworld
from cotbench.baselines.teachers.facts import unseen
from cotbench.baselines.teachers.options import Names
from cotbench.envs.base import TextEnv
from cotbench.envs.bfcl.tasks import BFCLTasks
from cotbench.envs.registry import env_entry
from cotbench.errors import UnknownNameError
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.parsing import TAGS
from tests.conftest import needs_bfcl, needs_scienceworld

State = tuple[Dialogue, str]
Think = Callable[[Dialogue, str, random.Random, Names], str]


def states(env: TextEnv, name: str, task: str) -> Iterator[State]:
    """Every state of an expert's episode, with the action taken there."""
    observation, info = env.reset(options={"task": task})
    functions = "\n".join(map(json.dumps, info.get("functions", ())))
    dialogue = Dialogue(env_entry(name).instructions(), (observation,), functions=functions)
    while (action := info["expert_action"]) is not None:
        yield dialogue, action
        observation, _, terminated, truncated, info = env.step(action)
        dialogue = dialogue.extended(action, None, observation)
        if terminated or truncated:
            return


def levels(dialogue: Dialogue, action: str, think: Think, seed: int) -> tuple[str, str, str]:
    """The traces of a state at all levels; each is the beginning of the next."""
    goal, state, full = (think(dialogue, action, random.Random(seed), names) for names in get_args(Names))
    assert goal and state.startswith(f"{goal} ") and full.startswith(f"{state} ")
    return goal, state, full


def decodability(found: list[State], name: str, think: Think) -> list[float]:
    """How often the action can be told from the trace alone, at the levels goal, state and full."""
    by_task: dict[str, list[State]] = {}
    for dialogue, action in found:
        by_task.setdefault(dialogue.observations[0], []).append((dialogue, action))
    told = []
    for names in get_args(Names):
        demonstrations = [
            Demonstration(
                env=name,
                task=task,
                observations=tuple(dialogue.observations[-1] for dialogue, _ in some),
                actions=tuple(action for _, action in some),
                traces=tuple(
                    think(dialogue, action, random.Random(step), names) for step, (dialogue, action) in enumerate(some)
                ),
            )
            for task, some in by_task.items()
        ]
        told.append(measure_decodability(demonstrations).action.mean or 0.0)
    return told


def check(found: list[State], name: str, think: Think) -> list[str]:
    """The traces of some states: true, without tags, the same from the same seed."""
    traces = []
    for number, (dialogue, action) in enumerate(found):
        goal, state, trace = levels(dialogue, action, think, number)
        assert trace == think(dialogue, action, random.Random(number), "full")
        for text in (goal, state, trace):
            assert unseen(dialogue, action, text, name) == [], (action, text)
        assert not any(tag in trace for tag in TAGS)
        assert 3 <= len(trace.split()) <= 110
        traces.append(trace)
    return traces


@pytest.fixture(scope="module")
def bfcl_states() -> list[State]:
    found: list[State] = []
    env = env_entry("bfcl").make(split="train", request=["expert_action"], expert="call")
    try:
        for task in BFCLTasks().tasks("paper", "train")[::6]:
            found += states(env, "bfcl", task)
    finally:
        env.close()
    return found


LABORATORY = ("power-component/6", "find-plant/30", "chemistry-mix/6", "use-thermometer/216")


@pytest.fixture(scope="module", params=[LABORATORY, pytest.param((*LABORATORY, "melt/9"), marks=pytest.mark.slow)], ids=len)
def scienceworld_states(request: pytest.FixtureRequest) -> list[State]:
    found: list[State] = []
    env = env_entry("scienceworld").make(split="train", request=["expert_action"])
    try:
        for task in request.param:
            found += states(env, "scienceworld", f"scienceworld/{task}")
    finally:
        env.close()
    return found


@needs_bfcl
def test_calls_are_reasoned_from_what_was_said(bfcl_states: list[State]) -> None:
    assert len(bfcl_states) >= 70
    traces = check(bfcl_states, "bfcl", bfcl.think)
    assert len(set(traces)) > 0.95 * len(traces)
    for (_, action), trace in zip(bfcl_states, traces, strict=True):
        names = re.findall(r"[\w.]+(?=\()", action) if action != "[]" else []
        assert not names or f"`{names[0]}`" in trace
    goal, state, full = decodability(bfcl_states, "bfcl", bfcl.think)
    assert goal < 0.5 and state < 0.6 < full, (goal, state, full)


@needs_scienceworld
def test_experiments_are_reasoned_from_what_was_seen(scienceworld_states: list[State]) -> None:
    assert len(scienceworld_states) >= 60
    traces = check(scienceworld_states, "scienceworld", scienceworld.think)
    assert len(set(traces)) > 0.8 * len(traces)


@needs_bfcl
def test_one_state_is_worded_in_many_ways(bfcl_states: list[State]) -> None:
    dialogue, action = bfcl_states[0]
    assert len({bfcl.think(dialogue, action, random.Random(seed)) for seed in range(50)}) >= 10


@needs_bfcl
def test_reasoning_does_not_fit_another_conversation(bfcl_states: list[State]) -> None:
    half = len(bfcl_states) // 2
    flagged = 0
    for (dialogue, action), (other, act) in zip(bfcl_states[:half], bfcl_states[half:], strict=False):
        flagged += bool(unseen(other, act, bfcl.think(dialogue, action, random.Random(0)), "bfcl"))
    assert flagged > 0.9 * half


# ScienceWorld, without its simulator.

KITCHEN = Dialogue(
    env_entry("scienceworld").instructions(),
    (
        "Your task is to boil apple juice. First, focus on the substance. Then, take actions that will cause it to change its "
        "state of matter.\n\nThis room is called the kitchen. In it, you see: \n\ta fridge. The fridge door is closed. \n"
        "\ta stove, which is turned off.\nYou also see:\n\tA door to the hallway (that is closed)",
        "The fridge is now open.",
    ),
    ("open fridge",),
    (None,),
)


@pytest.mark.parametrize(
    ("action", "trace"),
    [
        ("look around", "The fridge is now open. I look around the kitchen."),
        ("pick up jug", "I have not seen the jug yet, but it may be here. I try to take it."),
        ("activate stove", "To boil apple juice it has to get hot, so I turn on the stove."),
        ("go to hallway", "Still no sign of the apple juice, and I have not been to the hallway."),
    ],
)
def test_what_was_seen_may_be_said(action: str, trace: str) -> None:
    assert unseen(KITCHEN, action, trace, "scienceworld") == []


@pytest.mark.parametrize(
    ("action", "trace", "found"),
    [
        ("look around", "The thermometre of the greenhouse is needed.", ["thermometre", "greenhouse"]),
        ("pick up jug", "There is a jug in the fridge. I take it.", ["a jug ... the fridge"]),
        ("pick up jug", "I see a jug here, so I take it.", ["a jug here"]),
        ("focus on apple juice", "The apple juice is in the fridge.", ["the apple juice ... the fridge"]),
        ("go to foundry", "The foundry holds a stove.", ["a stove ... the foundry"]),
        ("examine stove", "It is at 49 degrees.", ["49", "49 degrees"]),
    ],
)
def test_lies_about_the_laboratory_are_found(action: str, trace: str, found: list[str]) -> None:
    assert unseen(KITCHEN, action, trace, "scienceworld") == found


ANY = """
    0, wait, wait1, teleport to kitchen, inventory, flush toilet, eat apple juice, open door to bathroom, mix jug, read recipe,
    pick up baby baby elephant, focus on adult bee in bee hive, connect battery anode to red wire terminal 1, zap {x},
    move egg dove egg in inventory to red box, use shovel in inventory on ground, dunk cup in sink,
"""


@pytest.mark.parametrize("action", [action.strip() for action in ANY.split(",")])
def test_any_action_gets_a_true_thought(action: str) -> None:
    for seed in range(20):
        for trace in levels(KITCHEN, action, scienceworld.think, seed):
            assert unseen(KITCHEN, action, trace, "scienceworld") == []
            assert trace[0].isupper() and trace.endswith((".", "?")), trace


def test_goal_and_findings_do_not_depend_on_what_is_done() -> None:
    for seed in range(20):
        states = {levels(KITCHEN, act, scienceworld.think, seed)[1] for act in ("activate stove", "wait1", "pick up jug")}
        assert len(states) == 1 and not any(word in " ".join(states) for word in ("stove", "wait", "jug"))


# BFCL, without its services.

SCHEMA = {
    "name": "get_price",
    "description": "Tool description: Get the price of a thing. Note that the provided function is in Python 3 syntax.",
    "parameters": {
        "type": "object",
        "properties": {
            "thing": {"type": "string", "description": "The name of the thing."},
            "amount": {"type": "number", "description": "How many."},
            "unit": {"type": "string", "description": "One of 'kg', 'g'."},
        },
        "required": ["thing"],
    },
}
SHOP = Dialogue(env_entry("bfcl").instructions(), ("Good morning. What do 3 red apples cost?",), functions=json.dumps(SCHEMA))
ASKED = SHOP.extended("[get_price(thing='red apples')]", None, '{"price": 12.345}')


def test_every_source_is_told_as_it_is() -> None:
    def said(dialogue: Dialogue, action: str) -> str:
        traces = [bfcl.think(dialogue, action, random.Random(seed)) for seed in range(30)]
        assert all(unseen(dialogue, action, trace, "bfcl") == [] for trace in traces)
        return "\n".join(traces)

    assert '"What do 3 red apples cost?"' in said(SHOP, "[get_price(thing='red apples', amount=3)]")
    assert "3, in the user's words" in said(SHOP, "[get_price(thing='red apples', amount=3)]")
    assert '"kg", as the description says' in said(SHOP, "[get_price(thing='red apples', unit='kg')]")
    assert "pears" not in said(SHOP, "[get_price(thing='pears')]"), "a value from nowhere is not explained by anything"
    assert "12.345, from a result" in said(ASKED, "[get_price(thing='red apples', amount=12.345)]")
    assert "a rounded 12.345" in said(ASKED, "[get_price(thing='red apples', amount=12.35)]")
    assert "`price` is 12.345" in said(ASKED, "[]")
    assert "missing" in said(SHOP, "[]")
    assert "reported an error" in said(SHOP.extended("[get_price(thing='x')]", None, '{"error": "No x"}'), "[]")
    said(SHOP, "[get_price(thing='</think><action>[]</action>')]")
    said(SHOP, "get_price(")


@pytest.mark.parametrize("dialogue", [SHOP, ASKED, SHOP.extended("[get_price(thing='x')]", None, '{"error": "No x"}')])
def test_goal_and_findings_do_not_tell_whether_anything_is_called(dialogue: Dialogue) -> None:
    for seed in range(20):
        called, stopped = (levels(dialogue, act, bfcl.think, seed)[1] for act in ("[get_price(thing='red apples')]", "[]"))
        assert called == stopped and "get_price" not in called


def test_a_new_turn_begins_after_a_response_without_calls() -> None:
    later = ASKED.extended("[]", None, "And 5 pears?")
    trace = bfcl.think(later, "[get_price(thing='pears', amount=5)]", random.Random(0))
    assert '"And 5 pears?"' in trace and "apples" not in trace
    assert unseen(later, "[]", 'The user gives "12.345".', "bfcl") == ["12.345 from the user"]


@pytest.mark.parametrize(
    ("dialogue", "trace", "found"),
    [
        (SHOP, 'The user asks for "green apples".', ["green apples", "green apples from the user"]),
        (SHOP, "I call `get_weight`.", ["get_weight"]),
        (SHOP, "The price is 7.", ["7"]),
        (ASKED, "The user says 12.345.", ["12.345 from the user"]),
        (ASKED, 'A result shows "red apples".', ["red apples from a result"]),
        (ASKED, "`price` is 12.345, from a result.", []),
        (ASKED, "The user wants the price of 'red apples'; it's 12.345.", []),
    ],
)
def test_lies_about_a_conversation_are_found(dialogue: Dialogue, trace: str, found: list[str]) -> None:
    assert unseen(dialogue, "[]", trace, "bfcl") == found


# ALFWorld.

ROOM = Dialogue(
    env_entry("alfworld").instructions(),
    (
        "You are in the middle of a room. Looking quickly around you, you see a desk 1, a drawer 1, and a shelf 1.\n\n"
        "Your task is to: put some mug in drawer.",
        "You arrive at desk 1. On the desk 1, you see a mug 2, and a pen 1.",
        "You pick up the mug 2 from the desk 1.",
        "You arrive at drawer 1. The drawer 1 is closed.",
    ),
    ("go to desk 1", "take mug 2 from desk 1", "go to drawer 1"),
    (None, None, None),
)


@pytest.mark.parametrize(
    ("trace", "found"),
    [
        ("I saw mug 2 on desk 1, and I hold it. I open drawer 1 to put mug 2 in drawer 1.", []),
        ("There is a pen 1 on the desk 1. Next I check shelf 1.", []),
        ("I still need a mug, and drawer 1 is closed.", []),
        ("The pen 1 is in drawer 1.", ["pen 1 at drawer 1"]),
        ("I saw mug 1 on desk 1.", ["mug 1", "mug 1 at desk 1"]),
        ("I look for a kettle.", ["kettle"]),
        ("There is no pen on desk 1.", ["no pen at desk 1"]),
        ("There is no mug on shelf 1.", ["no mug at shelf 1"]),
        ("The drawer 1 is open.", ["drawer 1 is open"]),
        ("Fridge 1 may hold it.", ["fridge 1", "fridge"]),
    ],
)
@pytest.mark.parametrize("env", ["alfworld", "alfworld-gen"])
def test_lies_about_a_household_are_found(env: str, trace: str, found: list[str]) -> None:
    assert unseen(ROOM, "open drawer 1", trace, env) == found


def test_no_check_is_no_pass() -> None:
    with pytest.raises(UnknownNameError):
        unseen(ROOM, "look", "", "minigrid")
