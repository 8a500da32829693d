"""No episode depends on another: played after any other, it is what it is alone, to the last entry of every `info`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from cotbench.envs.base import REQUESTS, TextEnv
from cotbench.envs.bfcl import data
from cotbench.envs.registry import env_entry
from cotbench.errors import MissingExtraError
from tests.conftest import needs_bfcl

STEPS = 14
REQUEST = {"scienceworld": ()}
"""What is requested; everything, where it is not slow as in ScienceWorld."""
HOSTILE = {
    "alfworld-gen": ("dance", "go to nowhere 1", "look", "inventory", "", "put all in all", "\x00\ud800"),
    "scienceworld": ("dance", "reset task", "0", "1", "look around", "focus on agent", "close door to door", "\x00"),
    "bfcl": (
        "[dance()]",
        "[logarithm(value=2, base=10, precision=77), square_root(number=2, precision=3)]",
        "[mean(numbers=[1, 2]), pwd(), ls(a=True), rm(file_name='*')]",
        "[post_tweet(content='x'), "
        + ", ".join(f"mention(tweet_id={number}, mentioned_usernames=['@a', '@b'])" for number in range(12))
        + ", get_tweet(tweet_id=0)]",
        "[book_flight(access_token='1', card_id='1', travel_date='2024-11-11', travel_from='SFO', travel_to='LAX', "
        "travel_class='economy')]",
        "[get_outside_temperature_from_google(), displayCarStatus(option='fuel'), get_current_speed()]",
        "[get_stock_info(symbol='AAPL'), add_to_watchlist(stock='AAPL'), get_watchlist(), get_transaction_history()]",
        "[add_contact(user_name='x'), send_message(receiver_id='USR001', message='x'), view_messages_sent()]",
        "[verify_traveler_information(first_name='a', last_name='b', date_of_birth='2007-01-01', passport_number='US1')]",
        "[create_ticket(title='x', priority=5), get_ticket(ticket_id=1)]",
        "[power(base=10, exponent=20000000)]",
        "[broken(",
    ),
}


def _episode(env: TextEnv, name: str, task: str) -> list[Any]:
    """Return everything that is seen in an episode: the expert's actions, some random ones and some hostile ones.

    The choices depend on the task and on what is seen, so a difference anywhere leads to others.
    """
    rng = random.Random(task)
    observation, info = env.reset(options={"task": task})
    seen: list[Any] = [(observation, info)]
    for _ in range(STEPS):
        plausible = rng.choice(info.get("admissible_actions") or env.examples)
        expert = info.get("expert_action") or plausible
        *rest, info = env.step(rng.choice((expert, expert, plausible, rng.choice(HOSTILE[name]))))
        seen.append((*rest, info))
        if rest[2] or rest[3]:
            break
    return seen


def _tasks(name: str, count: int) -> list[str]:
    """Return random tasks, next to each other every pair of them; from a fixed seed."""
    rng = random.Random(20)
    if name == "bfcl":
        conversations = [task for category in data.MULTI_TURN for task in data.ids(category)]
        single = [task for category in data.CATEGORIES if category not in data.MULTI_TURN for task in data.ids(category)]
        return [rng.choice(conversations if rng.random() < 0.85 else single) for _ in range(count)]
    source = env_entry(name).source()
    return rng.sample(list(source.tasks("paper", "train")), count)


def _check(name: str, tasks: Sequence[str]) -> None:
    entry, request = env_entry(name), REQUEST.get(name, REQUESTS)
    try:
        entry.require()
    except MissingExtraError as error:
        pytest.skip(str(error))
    one_after_the_other = entry.make(split="train", request=request)
    try:
        _episode(one_after_the_other, name, tasks[0])
        for task in tasks[1:]:
            alone = entry.make(split="train", request=request)
            try:
                expected = _episode(alone, name, task)
            finally:
                alone.close()
            assert _episode(one_after_the_other, name, task) == expected, task
    finally:
        one_after_the_other.close()


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("alfworld-gen", 3),
        ("scienceworld", 1),
        ("bfcl", 3),
        pytest.param("alfworld-gen", 20, marks=pytest.mark.slow),
        pytest.param("scienceworld", 20, marks=pytest.mark.slow),
        pytest.param("bfcl", 200, marks=pytest.mark.slow),
    ],
)
def test_an_episode_after_another_is_the_same_as_alone(name: str, pairs: int) -> None:
    _check(name, _tasks(name, pairs + 1))


@needs_bfcl
def test_a_default_value_that_one_episode_changes_is_new_in_the_next() -> None:
    """`post_tweet(mentions=[])` stores its default list, and `mention` extends it.

    A right answer with an empty list of its own was lost after that, for the reference answers with the default.
    """
    env = env_entry("bfcl").make()
    try:
        env.reset(options={"task": "bfcl/multi_turn_base_68"})
        env.step("[post_tweet(content='x')]")
        mentioned, *_ = env.step("[" + ", ".join(f"mention(tweet_id={n}, mentioned_usernames=['@x'])" for n in range(12)) + "]")
        assert "mention_status" in mentioned or "mentioned" in mentioned
        env.reset(options={"task": "bfcl/multi_turn_base_30"})
        for turn in data.ground_truth("bfcl/multi_turn_base_30"):
            if turn:
                explicit = [text.replace("post_tweet(", "post_tweet(tags=[], mentions=[], ") for text in turn]
                env.step(f"[{', '.join(explicit)}]")
            *_, info = env.step("[]")
        assert info["success"], info["turns_passed"]
    finally:
        env.close()
