"""Environments in worker processes: each with its own pace, its own failures."""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cotbench.agents.expert import ExpertAgent
from cotbench.envs import Instructions
from cotbench.envs.registry import env_entry
from cotbench.errors import EngineError
from cotbench.failure import failure_of
from cotbench.plugins import load_plugins
from cotbench.prompting.elicitation import Elicitation
from cotbench.runs.env_workers import EnvHandle, EnvReply, EnvSettings, LocalEnv, WorkerEnv, open_envs, wait_for_replies
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
    assert env._worker.process is not None
    return env._worker.process.pid


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


def test_texts_that_no_file_can_hold_are_replaced() -> None:
    info = {"score": 0.0, "raw_score": 0.0, "success": False, "invalid_action": None, "steps": 0}

    class Odd:
        def reset(self, options: Any) -> Any:
            return "a\ud800", {**info, "goal": "b\udfff", "admissible_actions": ["c\udc80"]}

        def step(self, action: str) -> Any:
            raise ValueError(f"no {action}")

    env = LocalEnv(cast(EnvSettings, SimpleNamespace(name="odd", make=Odd)))
    env.ask_reset(TASK)
    assert env.read() == EnvReply("a?", False, False, {**info, "goal": "b?", "admissible_actions": ["c?"]})
    env.ask_step("\ud800")
    with pytest.raises(EngineError) as caught:
        env.read()
    fields = failure_of(caught.value).fields
    assert re.fullmatch(r"environment odd failed: ValueError: no \? \(test_env_workers\.py:\d+\)", fields["error"])
    assert fields["traceback"].endswith("ValueError: no ?")


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


def test_a_process_that_does_not_start_says_why(tmp_path: Path) -> None:
    plugin = tmp_path / "my_env.py"
    plugin.write_text("raise ValueError('no licence')\n")
    env = open_envs(EnvSettings("alfworld-gen", {}, plugins=(str(plugin),)), 1, 1)[0]
    for _ in range(2):
        env.ask_reset(TASK)
        with pytest.raises(
            EngineError, match=r"environment alfworld-gen ended while it started .*: no licence \(my_env.py:1\)$"
        ):
            env.read()
    env.close()


def test_a_process_that_cannot_be_started_costs_an_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    env = open_envs(SETTINGS, 1, 1)[0]
    monkeypatch.setattr("sys.executable", "/nothing/python")
    env.ask_reset(TASK)
    assert wait_for_replies([env], 10) == [env]
    with pytest.raises(EngineError, match="cannot start a process"):
        env.read()
    env.close()


def test_settings_carry_the_plugins_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cotbench.plugins._loaded", {})
    plugin = tmp_path / "my_other_env.py"
    plugin.touch()
    load_plugins([str(plugin)])
    assert EnvSettings("alfworld-gen", {}).plugins == (str(plugin),)


def test_an_environment_that_only_the_script_knows_is_explained() -> None:
    env = open_envs(EnvSettings("of-the-script", {}), 1, 1)[0]
    env.ask_reset(TASK)
    with pytest.raises(EngineError, match=r"unknown environment 'of-the-script'.* give the registration a file of its own"):
        env.read()
    env.close()


ODD = """
import sys

from cotbench.envs.alfworld.env import ALFWorldEnv

before = ALFWorldEnv.step


def step(self, action):
    if action == "leave":
        sys.exit("left")
    *answer, info = before(self, action)
    return *answer, {**info, "odd": lambda: None} if action == "look" else info


ALFWorldEnv.step = step
"""


def test_an_odd_environment_costs_its_episode_alone(tmp_path: Path) -> None:
    plugin = tmp_path / "odd_env.py"
    plugin.write_text(ODD)
    env = open_envs(EnvSettings("alfworld-gen", {}, plugins=(str(plugin),)), 1, 1)[0]
    for action, message in (("leave", "SystemExit: left"), ("look", "cannot be sent to another process: .*lambda")):
        env.ask_reset(TASK)
        env.read()
        env.ask_step(action)
        with pytest.raises(EngineError, match=message):
            env.read()
    env.ask_reset(TASK)
    assert env.read().observation
    env.close()
