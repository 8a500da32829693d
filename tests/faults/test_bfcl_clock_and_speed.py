"""Another day, a slower or a faster machine, little memory, a killed executor: none of them changes what an episode means.

The executor is started with a `sitecustomize` that moves its clock, scales the time that a call may take (a machine that is
`speed` times as fast), or takes its memory away.
"""

from __future__ import annotations

import json
import os
import signal
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cotbench.envs.bfcl import data
from cotbench.envs.bfcl.env import BFCLEnv
from cotbench.envs.bfcl.host import TOO_LONG, Host
from cotbench.envs.bfcl.upstream import NOW
from cotbench.envs.registry import env_entry
from cotbench.errors import EngineError
from cotbench.leaderboard.verification.budget import Budget
from cotbench.leaderboard.verification.replay import Replayer
from cotbench.prompting.query import Decision
from cotbench.runs.env_workers import EnvSettings
from cotbench.runs.episode import Episode, Step
from tests.conftest import needs_bfcl

pytestmark = needs_bfcl

MATHS, TRIPS, POSTS = "bfcl/multi_turn_base_15", "bfcl/multi_turn_base_154", "bfcl/multi_turn_base_30"
SITE = """
import datetime, resource, signal, time
set_timer, now = signal.setitimer, time.time
signal.setitimer = lambda which, seconds, *rest: set_timer(which, seconds * {speed}, *rest)
time.time = lambda: now() + 86400 * {days}
class Moved(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta({days})
    @classmethod
    def today(cls):
        return cls.now()
datetime.datetime = Moved
if {memory}:
    resource.setrlimit(resource.RLIMIT_DATA, ({memory}, {memory}))
"""
LOGARITHM = "logarithm(value=2, base=10, precision=12000)"
"""Takes a tenth of a second."""

Machine = Callable[..., None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Sets what the executors that are started from now on run on."""

    def changed(*, speed: float = 1.0, days: int = 0, memory: int = 0) -> None:
        (tmp_path / "sitecustomize.py").write_text(SITE.format(speed=speed, days=days, memory=memory))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return changed


@pytest.fixture
def env() -> Iterator[BFCLEnv]:
    env = BFCLEnv()
    yield env
    env.close()


def _recorded(env: BFCLEnv, task: str, actions: Sequence[str]) -> Episode:
    first, info = env.reset(options={"task": task})
    functions = "\n".join(map(json.dumps, info["functions"]))
    steps, terminated, truncated = list[Step](), False, False
    for action in actions:
        observation, _, terminated, truncated, info = env.step(action)
        more = {"observation": observation, "score": info["score"], "invalid_action": info["invalid_action"]}
        steps.append(Step(action=BFCLEnv.canonical(action), decision=Decision(action), **more))
    assert terminated
    return Episode(
        task=task,
        task_type="multi_turn_base",
        mode="prompt",
        first_observation=first,
        goal=info["goal"],
        functions=functions,
        trajectory=tuple(steps),
        steps=len(steps),
        terminated=terminated,
        truncated=truncated,
        **{name: info[name] for name in ("success", "score", "raw_score")},
    )


def _difference(episode: Episode) -> Any:
    replayer = Replayer(EnvSettings("bfcl", {"request": []}), False, Budget.of(env_entry("bfcl"), [episode]))
    try:
        return replayer.difference(episode)
    finally:
        replayer.close()


def _ending(task: str) -> list[str]:
    return ["[]"] * len(data.turns(task))


ACTIONS = [f"[mean(numbers=[1, 2]), {LOGARITHM}, mean(numbers=[3])]", f"[{LOGARITHM}]", "[ls(a=True), mean(numbers=[1])]"]


@pytest.mark.parametrize(
    ("played", "replayed"),
    [
        (0.01, 1.0),
        (1.0, 0.15),
        pytest.param(0.01, 0.005, marks=pytest.mark.slow),
        pytest.param(1.0, 10.0, marks=pytest.mark.slow),
    ],
)
def test_a_run_agrees_on_a_machine_of_another_speed(machine: Machine, env: BFCLEnv, played: float, replayed: float) -> None:
    machine(speed=played)
    episode = _recorded(env, MATHS, [*ACTIONS, *_ending(MATHS)])
    seen = [step.observation.split("\n") for step in episode.trajectory]
    assert ([line == TOO_LONG for line in seen[0]], seen[1] == [TOO_LONG]) == ([False, played < 1, played < 1], played < 1)
    machine(speed=replayed)
    assert _difference(episode) is None


def test_what_took_long_is_not_hurried_when_it_is_repeated(machine: Machine, env: BFCLEnv) -> None:
    env.reset(options={"task": MATHS})
    before, *_ = env.step(f"[{LOGARITHM}, mean(numbers=[1, 2])]")
    assert TOO_LONG not in before
    _kill(env)
    machine(speed=0.15)  # It takes too long now, but not ten times too long.
    observation, *_, info = env.step("[mean(numbers=[1, 2])]")
    assert (observation, info["restarts"]) == ('{"result": 1.5}', 1)


def test_calls_that_cannot_be_repeated_lose_the_episode_and_are_no_error(machine: Machine, env: BFCLEnv) -> None:
    env.reset(options={"task": MATHS})
    env.step(f"[{LOGARITHM}]")
    _kill(env)
    machine(speed=0.002)
    assert [env.step("[mean(numbers=[1, 2])]")[0] for _ in range(2)] == [TOO_LONG] * 2
    assert env._host.possible(["pwd()", "ls()"]) == [False, False]
    for action in _ending(MATHS):
        *_, terminated, _, info = env.step(action)
    assert terminated and not info["success"] and not any(info["turns_passed"])
    machine()
    env.reset(options={"task": MATHS})
    assert env.step("[mean(numbers=[1, 2])]")[0] == '{"result": 1.5}'


def _kill(env: BFCLEnv) -> None:
    process = env._host._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)


def test_a_call_that_takes_too_much_memory_is_an_error_of_its_own(machine: Machine, env: BFCLEnv) -> None:
    machine(speed=1000, memory=60 << 20)
    login = "[authenticate_twitter(username='dr_smith', password='securePass123')]"
    grow = "post_tweet(content='x', tags=get_tweet(tweet_id={0}), mentions=get_tweet(tweet_id={0}))"  # Doubles each time.
    doubled = ", ".join(grow.format(number) for number in range(3, 30))
    actions = [login, "[post_tweet(content='x')]", f"[{doubled}]", "[post_tweet(content='y')]"]
    episode = _recorded(env, POSTS, [*actions, *_ending(POSTS)])
    assert env.restarts == 0
    assert episode.trajectory[2].observation == TOO_LONG
    assert json.loads(episode.trajectory[3].observation)["id"] == 4  # Nothing of the response before was executed.
    machine()
    assert _difference(episode) is None


@pytest.mark.parametrize("kills", [1, 2])
def test_a_call_at_which_the_executor_is_killed_twice_has_done_it(
    env: BFCLEnv, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    """As by a system that is out of memory."""
    left = [None] * kills
    send = Host._send

    def sent(process: Any, request: Any) -> None:
        if "power" in str(request) and left:
            left.pop()
            process.kill()
        send(process, request)

    monkeypatch.setattr(Host, "_send", staticmethod(sent))
    env.reset(options={"task": MATHS})
    env.step("[mean(numbers=[1, 2])]")
    observation, *_ = env.step("[power(base=2, exponent=3)]")
    assert observation == (TOO_LONG if kills == 2 else '{"result": 8}')
    assert env.step("[mean(numbers=[1, 2])]")[0] == '{"result": 1.5}'


def test_an_executor_that_is_lost_at_its_start_is_started_again(env: BFCLEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [None]
    send = Host._send

    def sent(process: Any, request: Any) -> None:
        if left:
            left.pop()
            process.kill()
        send(process, request)

    monkeypatch.setattr(Host, "_send", staticmethod(sent))
    env.reset(options={"task": MATHS})
    assert env.step("[mean(numbers=[1, 2])]")[0] == '{"result": 1.5}'


@pytest.mark.parametrize(
    "days", [3, pytest.param(-365 * 40, marks=pytest.mark.slow), pytest.param(365 * 40, marks=pytest.mark.slow)]
)
def test_the_services_have_the_same_date_on_any_day(machine: Machine, days: int) -> None:
    machine(days=days)
    env = BFCLEnv(request=["expert_action"])
    verify = "[verify_traveler_information(first_name='Michael', last_name='Smith', date_of_birth='{}', passport_number='US1')]"
    try:
        adult = NOW.date().replace(year=NOW.year - 18)
        env.reset(options={"task": TRIPS})
        seen = [env.step(verify.format(adult.replace(day=day)))[0] for day in (1, 2)]
        assert '"verification_status": true' in seen[0] and "at least 18 years old" in seen[1]
        for task in (task for category in data.MULTI_TURN for task in data.ids(category)):
            if "verify_traveler_information" in str(data.ground_truth(task)):
                _, info = env.reset(options={"task": task})
                ended = False
                while not ended:
                    *_, ended, _, info = env.step(info["expert_action"])
                assert info["success"], task
    finally:
        env.close()


def test_an_executor_that_writes_without_an_end_does_not_fill_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: BFCLEnv
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import json\njson.dumps = lambda value: 'x' * (50 << 20)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    tracemalloc.start()
    try:
        with pytest.raises(EngineError, match="lost at its start, twice"):
            env.reset(options={"task": MATHS})
        assert tracemalloc.get_traced_memory()[1] < 45e6
    finally:
        tracemalloc.stop()
