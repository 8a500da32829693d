"""Hostile actions in BFCL: none raises, none takes long, none fills the memory, none changes another episode.

The long form prints the number of actions, the outcomes, the peak memory of this process and of the executor, and the time.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotbench.envs.bfcl import calls, data
from cotbench.envs.bfcl.env import BFCLEnv
from cotbench.envs.bfcl.host import MAX_EPISODE, MAX_OBSERVATION, TOO_LARGE, TOO_LONG
from cotbench.envs.bfcl.meaning import meaning
from tests.conftest import needs_bfcl

pytestmark = needs_bfcl

FILES, POSTS, MATHS, TRIPS = (f"bfcl/multi_turn_base_{number}" for number in (1, 30, 15, 152))
VALUES = (
    "None", "True", "-1", "0", "1e309", "-1e309", "1e-320", "10**4000", "0x" + "f" * 3500, "''", "'\\x00'", "'\\ud800'",
    "'../../../../etc/passwd'", "'%s%n{0.__class__}'", "'\\x1b[2J\\x1b]0;x\\x07'", "'x' * 16000", "[]", "[[[[[[]]]]]]",
    "[None]",
    "[1, 'a', None, 2.5]", "{}", "{'a': {'b': {'c': 1}}}", "{'a': []}", "()", "b'x'", "1j", "...", "nan", "__import__",
    "self.__class__", "[0] * 15000", "'\\u202e\\u0000e\\u0301'", "f(a=1)", "ls", "x[0]", "x[0x" + "f" * 3700 + "]",
)  # fmt: skip
FUNCTIONS = (
    (FILES, "ls", "a"), (FILES, "cd", "folder"), (FILES, "cat", "file_name"), (FILES, "mkdir", "dir_name"),
    (FILES, "echo", "content"), (FILES, "find", "name"), (FILES, "rm", "file_name"),
    (POSTS, "post_tweet", "content"), (POSTS, "get_tweet", "tweet_id"), (POSTS, "search_tweets", "keyword"),
    (MATHS, "mean", "numbers"), (MATHS, "max_value", "numbers"), (MATHS, "absolute_value", "number"),
    (TRIPS, "get_nearest_airport_by_city", "location"), (TRIPS, "cancel_booking", "booking_id"),
)  # fmt: skip
TWEET = "post_tweet(content={0}, tags={0}, mentions={0})"


def _nested(form: str, inner: str, depth: int) -> str:
    for _ in range(depth):
        inner = form.format(inner)
    return inner


def _states() -> Iterator[tuple[str, list[str]]]:
    """Calls that make the state or a result grow."""
    login = "authenticate_twitter(username='tech_guru', password='securePass123')"
    for depth in range(2, 12):
        yield POSTS, [f"[{login}]", f"[{_nested(TWEET, 'get_tweet(tweet_id=0)', depth) if depth < 7 else TWEET.format('1')}]"]
        same = "comment(tweet_id=0, comment_content={})"
        yield (
            POSTS,
            [f"[{login}]", *[f"[{same.format('get_tweet_comments(tweet_id=0)')}]"] * depth, "[search_tweets(keyword='')]"],
        )
        more = TWEET.format("search_tweets(keyword='')")
        yield POSTS, [f"[{login}]", *[f"[{more}]"] * depth, "[search_tweets(keyword='')]"]
        yield POSTS, [f"[{login}]", "[" + ", ".join([more] * depth) + "]"]
        yield FILES, [f"[{_nested('echo(content={})', 'ls(a=True)', 4 * depth)}]"]
        yield (
            FILES,
            [
                f"[touch(file_name='f'), echo(content='{'x' * 50_000}', file_name='f')]",
                *["[" + ", ".join(["cat(file_name='f')"] * 6 * depth) + "]"] * 3,
            ],
        )
        backslashes = "'" + "\\\\" * 1000 * depth + "'"
        yield FILES, [f"[{_nested('echo(content=echo(content={}))', backslashes, depth)}]"]
        text = repr("\x01\U0001f600" * 1000 * depth)
        yield FILES, [f"[echo(content={text}, file_name='g'), cat(file_name='g'), wc(file_name='g', mode='c')]"]
        yield POSTS, [f"[{login}]", "[mention(tweet_id=0, mentioned_usernames='" + "x" * 5000 * depth + "')]"] * 2


def _numbers() -> Iterator[tuple[str, list[str]]]:
    for precision in (-1, 0, 1, 10**3, 36_500, 37_500, 38_500, 39_500, 10**5, 10**6, 10**9, 10**18, 10**30):
        yield MATHS, [f"[logarithm(value=2, base=10, precision={precision})]", "[mean(numbers=[1, 2])]"]
        yield MATHS, [f"[square_root(number=2, precision={precision}), mean(numbers=[1])]"]
    for exponent in (4299, 4300, 10**5, 10**7, 2 * 10**7, 10**9, -(10**9)):
        yield MATHS, [f"[power(base=10, exponent={exponent})]"]
        yield MATHS, [f"[mean(numbers=[1]), power(base=10, exponent=power(base=10, exponent={exponent}))]"]
    for operation in ("add", "multiply", "divide", "subtract"):
        yield MATHS, [f"[{operation}(a={value}, b={value})]" for value in ("10**4000", "1e308", "'x'", "[0] * 9999")]


def _texts() -> Iterator[tuple[str, list[str]]]:
    """Texts that are hard to read."""
    for piece in "([{-~.,='\"`\\\n\x00é\ud800\u202e\U0001f600#@%":
        for size in (199, 5_000, 99_000):
            yield FILES, [piece * size]
            yield FILES, [f"[ls(a={piece * size})]"]
    for size in (300, 3_600, 20_000, 99_000):
        yield FILES, [f"[ls(a=0x{'f' * size})]", f"[ls(a={'9' * size})]", f"[ls(a=-0b{'1' * size})]"]
        yield (
            FILES,
            [f"[f(a={{'x': {{}}, 'y': {{'z': 0x{'f' * size}}}}})]", '[{"name": "ls", "arguments": {"a": %s}}]' % ("9" * size)],
        )
        yield FILES, ["[" + ", ".join(["a()"] * (size // 5)) + "]", "[" + ", ".join(["ls(a=True)"] * (size // 12)) + "]"]
        yield FILES, ["[ls(" + ", ".join(f"a{n}='x'*9999" for n in range(size // 15)) + ")]"]
        yield FILES, ["[ls(" + ", ".join(f"a{n}={n}" for n in range(size // 9)) + ")]", "[" + "ls(a=" * (size // 5)]
        yield FILES, ["[ls(a=" + "1+" * (size // 2) + "1)]", "[ls(a=" + "[1]+" * (size // 4) + "[1])]"]
        yield FILES, ["[ls" + ".x" * (size // 2) + "()]", "[" + "f(" * (size // 2) + ")" * (size // 2) + "]"]
        yield (
            FILES,
            ["[{" * (size // 2), '[{"name": "ls", "arguments": ' + '{"a": ' * (size // 7) + "1" + "}" * (size // 7) + "}]"],
        )
        yield FILES, ["[ls(a=f'" + "{x!r:>{y}}" * (size // 12) + "')]", "[ls(a=" + "not " * (size // 4) + "1)]"]
        yield FILES, ["[ls(a=lambda: " + "x, " * (size // 3) + "1)]", "[ls(a=" + "x if y else " * (size // 12) + "1)]"]


def hostile() -> list[tuple[str, list[str]]]:
    """Return episodes: a task, and actions."""
    values = [(task, [f"[{name}({argument}={value})]"]) for task, name, argument in FUNCTIONS for value in VALUES]
    episodes = [*_states(), *_numbers(), *_texts(), *values]
    random.Random(20).shuffle(episodes)
    return episodes


def _peak(process: int | str) -> int:
    """Return the largest size that a process has had, in bytes."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def _played(env: BFCLEnv, task: str) -> list[object]:
    """Return all that is seen on the expert's way."""
    observation, info = env.reset(options={"task": task})
    seen: list[object] = [observation]
    ended = False
    while not ended:
        observation, reward, ended, _, info = env.step(info["expert_action"])
        seen += [observation, reward, info["score"], info["turns_passed"], info["invalid_action"]]
    assert info["success"]
    return seen


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize("share", [25, pytest.param(1, marks=pytest.mark.slow)])
def test_hostile_actions_cost_their_own_episode_alone(share: int) -> None:
    episodes = hostile()[::share]
    env = BFCLEnv(request=["expert_action"])
    watched = (POSTS, "bfcl/multi_turn_long_context_60", MATHS)
    outcomes: Counter[str] = Counter()
    longest, largest, executor, count = (0.0, ""), 0, 0, 0
    try:
        before = [_played(env, task) for task in watched]
        memory, start = _peak("self"), time.monotonic()
        for number, (task, actions) in enumerate(episodes):
            env.reset(options={"task": task})
            whole, ended = 0, False
            for action in actions:
                if ended:
                    break
                began = time.monotonic()
                observation, _, terminated, truncated, info = env.step(action)
                longest = max(longest, (time.monotonic() - began, action[:70]))
                ended, count, whole = terminated or truncated, count + 1, whole + len(observation)
                assert not info["success"] and info["restarts"] == 0, action[:100]
                assert len(observation) <= MAX_OBSERVATION + len(data.turns(task)) * 5_000, action[:100]
                outcomes[_outcome(observation, info["invalid_action"])] += 1
                executor = max(executor, _peak(env._host._process.pid) if env._host._process is not None else 0)
            largest = max(largest, whole)
            if number % 60 == 0:
                assert [_played(env, task) for task in watched] == before
        seconds, memory = time.monotonic() - start, _peak("self") - memory
        assert [_played(env, task) for task in watched] == before
    finally:
        env.close()
    print(
        f"\n{count} actions in {len(episodes)} episodes, {seconds:.0f} s, longest {longest}, {dict(outcomes)}; "
        f"this process grew by {memory / 1e6:.0f} MB, the executor's largest size was {executor / 1e6:.0f} MB, "
        f"the longest episode has {largest:,} characters"
    )
    assert share > 1 or count >= 500
    assert longest[0] < 20 and memory < 400e6 and largest < MAX_EPISODE + MAX_OBSERVATION


def _outcome(observation: str, invalid: str | None) -> str:
    if TOO_LONG in observation:
        return "too long"
    if TOO_LARGE in observation:
        return "too large"
    return "executed" if invalid is None else "an error" if observation == invalid else "not readable, or an error"


def test_results_are_bounded_and_the_verdict_still_has_them() -> None:
    env = BFCLEnv(request=["expert_action"])
    try:
        _, info = env.reset(options={"task": FILES})
        text = "x" * 90_000
        env.step(f"[touch(file_name='big'), echo(content='{text}', file_name='big')]")
        response = "[" + ", ".join(["cat(file_name='big')"] * 12) + "]"
        observation, *_, info = env.step(response)
        assert observation.split("\n") == [json.dumps({"file_content": text})] * 11 + [TOO_LARGE]
        assert info["invalid_action"] == TOO_LARGE
        sizes = [len(env.step(response)[0]) for _ in range(12)]
        assert sum(sizes) < MAX_EPISODE and sizes[-1] < 100_000
        # What was not passed on was executed: the file is there, and the verdict of a right turn knows its results.
        env.reset(options={"task": FILES})
        truth = data.ground_truth(FILES)[0]
        listed = ", ".join([f"cat(file_name={json.dumps('big')})"] * 12)
        written = f"touch(file_name='big'), echo(content='{text}', file_name='big')"
        env.step(f"[{written}, {listed}, rm(file_name='big'), {', '.join(truth)}]")
        assert env.step("[]")[-1]["turns_passed"] == [True]
    finally:
        env.close()


_PIECES = (
    "[", "]", "(", ")", "{", "}", ",", "=", ":", "'", '"', "-", "*", "**", "<<", "f'", "{x}", "lambda:", "0x", "f" * 3600,
    "9" * 4400, "1e999", "\x00", "\ud800", "\u202e", "\x1b[2J", "ls", "a", "ls(a=", '"name"', '"arguments"', "`", "'x' * 9999",
    "(" * 150, "[" * 150, "-" * 2000, ".x" * 2000, "not ", " if x else ", "\\", "\n", "{'x': {}, 'y': ",
)  # fmt: skip


@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(_PIECES), max_size=14).map("".join)))
def test_any_text_has_an_answer_or_is_unreadable(text: str) -> None:
    _check_total(text)


@pytest.mark.parametrize("share", [25, pytest.param(1, marks=pytest.mark.slow)])
def test_every_hostile_text_has_an_answer_or_is_unreadable(share: int) -> None:
    for _, actions in hostile()[::share]:
        for action in actions:
            _check_total(action)


def _check_total(text: str) -> None:
    once = calls.canonical(text)
    assert calls.canonical(once) == once
    hash(meaning(once))
    assert BFCLEnv.equivalent(text, once)
    BFCLEnv.leniently_judged("bfcl/irrelevance_0", text)
    try:
        calls.read(text).texts()
    except calls.UnreadableError as error:
        assert str(error)
