"""Environments in worker processes: each with its own pace, its own failures."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from cotbench.agents.expert import ExpertAgent
from cotbench.envs import Instructions
from cotbench.envs.registry import env_entry
from cotbench.errors import EngineError
from cotbench.prompting.elicitation import Elicitation
from cotbench.runs.env_workers import EnvHandle, EnvSettings, LocalEnv, WorkerEnv, open_envs, wait_for_replies
from cotbench.runs.episode import Episode
from cotbench.runs.rollout import RolloutRules, RolloutSpec, play
from cotbench.runs.runner import SilentObserver

TASK = "alfworld/gen/pick/17"
SETTINGS = EnvSettings("alfworld-gen", {"request": ["expert_action"]})


@pytest.fixture
def four() -> Iterator[list[EnvHandle]]:
    envs = open_envs(SETTINGS, 4, 2)
    yield envs
    for env in envs:
        env.close()


def _process(env: EnvHandle) -> int:
    assert isinstance(env, WorkerEnv)
    pid = env._worker._process.pid
    assert isinstance(pid, int)
    return pid


def test_environments_share_processes_and_play_alike(four: list[EnvHandle]) -> None:
    here = LocalEnv(SETTINGS)
    for env in [*four, here]:
        env.ask_reset(TASK)
    first = [env.read() for env in [*four, here]]
    assert len({_process(env) for env in four}) == 2
    assert len({(reply.observation, str(reply.info)) for reply in first}) == 1
    for env in [*four, here]:
        env.ask_step(first[0].info["expert_action"])
    assert len({env.read().observation for env in [*four, here]}) == 1
    here.close()


def test_a_dead_process_costs_its_environments_alone(four: list[EnvHandle]) -> None:
    for env in four:
        env.ask_reset(TASK)
    action = next(iter([env.read() for env in four])).info["expert_action"]
    killed = _process(four[0])
    os.kill(killed, signal.SIGKILL)
    for env in four:
        env.ask_step(action)
    lost = []
    for env in four:
        try:
            env.read()
        except EngineError as error:
            assert "died (exit code -9)" in str(error)
            lost.append(env)
    assert [env for env in four if _process(env) == killed] == lost and len(lost) == 2
    for env in lost:
        env.ask_reset(TASK)
        assert env.read().observation
    assert {_process(env) for env in lost}.isdisjoint({killed})


def test_who_has_answered_is_told_at_once(four: list[EnvHandle]) -> None:
    for env in four:
        env.ask_reset(TASK)
        env.read()
    assert wait_for_replies(four, 0.05) == [], "nothing was asked"
    four[2].ask_step("look")
    assert wait_for_replies(four, 10) == [four[2]]
    here = LocalEnv(SETTINGS)
    four[2].read()
    begun = time.monotonic()
    assert wait_for_replies([four[0], here], 10) == [here]
    assert time.monotonic() - begun < 5


def test_closing_ends_the_processes() -> None:
    envs = open_envs(SETTINGS, 3, 1)
    for env in envs:
        env.ask_reset(TASK)
        env.read()
    pid = _process(envs[0])
    for env in envs:
        env.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_slow_environment_keeps_nobody_waiting() -> None:
    envs = open_envs(SETTINGS, 2, 2)
    for env in envs:
        env.ask_reset(TASK)
        env.read()
    frozen, finished, freed_by_others = _process(envs[0]), [], threading.Event()

    class Watch(SilentObserver):
        def finished(self, episode: Episode) -> None:
            finished.append(episode.task)
            if len(finished) == 3:  # Only the frozen one is left.
                freed_by_others.set()
                os.kill(frozen, signal.SIGCONT)

    units = [RolloutSpec(f"alfworld/gen/pick/{number}", "pick", "prompt") for number in (17, 18, 19, 20)]
    rules = RolloutRules(
        "alfworld-gen", Instructions("You act."), Elicitation(), 0, False, env_entry("alfworld-gen").canonical()
    )
    late = threading.Timer(60, os.kill, (frozen, signal.SIGCONT))
    late.start()
    os.kill(frozen, signal.SIGSTOP)
    try:
        play(units, ExpertAgent(), envs, rules, Watch())
    finally:
        late.cancel()
        for env in envs:
            env.close()
    assert freed_by_others.is_set() and finished[-1] == "alfworld/gen/pick/17"
