"""Replaying what was submitted: honest runs agree, and of a single forged value the exact place is told."""

import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotbench.child_process import ChildProcess
from cotbench.envs.registry import env_entry
from cotbench.errors import EngineError, MissingDataError, ReplayTimeoutError, UsageError
from cotbench.installation import install_version
from cotbench.leaderboard.submission.bundle import Bundle
from cotbench.leaderboard.submission.details import Details
from cotbench.leaderboard.verification import budget, replay
from cotbench.leaderboard.verification.budget import Budget
from cotbench.leaderboard.verification.difference import Difference
from cotbench.leaderboard.verification.replay import MAX_ACTION, Replayer, ReplayRules
from cotbench.leaderboard.verification.verify import verify_bundle, versions
from cotbench.runs.env_workers import EnvReply, EnvSettings
from cotbench.runs.episode import Episode, Step
from cotbench.runs.manifest import Manifest, RunConfig
from cotbench.runs.runner import run
from tests.conftest import needs_bfcl, needs_scienceworld

ONE, TWO = "alfworld/gen/pick/0", "alfworld/gen/heat/1"
EXPERT_STEPS = 20

Parts = tuple[Manifest, list[Episode]]


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[ChildProcess]:
    """The processes that this test has started."""
    started: list[ChildProcess] = []
    start = ChildProcess.__init__

    def started_and_listed(self: ChildProcess, *arguments: Any, **options: Any) -> None:
        start(self, *arguments, **options)
        started.append(self)

    monkeypatch.setattr(ChildProcess, "__init__", started_and_listed)
    return started


def _bundle(manifest: Manifest, episodes: list[Episode]) -> Bundle:
    return Bundle.of(Details(name="Mine"), manifest, episodes)


def _played(folder: Path, agent: str, **changes: Any) -> Bundle:
    config = RunConfig(**{"agent": agent, "tasks": (ONE, TWO), "max_steps": EXPERT_STEPS, **changes})
    outcome = run(config, out=folder / agent)
    assert all(mode.errors == 0 for mode in outcome.summary.modes.values())
    return _bundle(outcome.manifest, outcome.records)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def expert(folder: Path) -> Bundle:
    """Two tasks won in both modes."""
    bundle = _played(folder, "expert")
    assert all(episode.success and episode.terminated for episode in bundle.episodes)
    return bundle


@pytest.fixture(scope="module")
def drawn(folder: Path) -> Bundle:
    """The same tasks at random: lost, cut off, off the expert's path."""
    bundle = _played(folder, "random", max_steps=8)
    assert all(episode.truncated and not episode.success for episode in bundle.episodes)
    return bundle


def test_honest_runs_agree_in_one_process_and_in_two(expert: Bundle, drawn: Bundle, children: list[ChildProcess]) -> None:
    for bundle in (expert, drawn):
        for jobs in (1, 2):
            told: list[tuple[int, int]] = []
            verdict = verify_bundle(bundle, jobs=jobs, progress=lambda done, of, told=told: told.append((done, of)))
            assert verdict.difference is None
            assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert children and not any(child.alive for child in children)


@needs_scienceworld
def test_an_honest_run_of_scienceworld_agrees(tmp_path: Path) -> None:
    task = "scienceworld/lifespan-shortest-lived/0"
    bundle = _played(tmp_path, "expert", env="scienceworld", tasks=(task,), mode="cot")
    assert all(episode.success and episode.trajectory[0].expert_action is not None for episode in bundle.episodes)
    assert verify_bundle(bundle).difference is None


@pytest.mark.slow
@needs_scienceworld
def test_more_honest_runs_of_scienceworld_agree(tmp_path: Path) -> None:
    tasks = ("scienceworld/lifespan-longest-lived/0", "scienceworld/chemistry-mix/0")
    for agent, steps in (("expert", 40), ("random", 30)):
        bundle = _played(tmp_path, agent, env="scienceworld", tasks=tasks, max_steps=steps)
        assert verify_bundle(bundle).difference is None
        assert verify_bundle(bundle, jobs=2).difference is None
        forged = _edited(bundle.episodes, 1, raw_score=bundle.episodes[1].raw_score - 1)
        assert _place(verify_bundle(_bundle(bundle.manifest, forged)).difference) == f"{tasks[0]}#cot: raw_score"


@needs_bfcl
def test_honest_runs_of_bfcl_agree(tmp_path: Path) -> None:
    tasks = tuple(env_entry("bfcl").source().tasks("paper", "id")[:2])
    for agent in ("expert", "random"):
        bundle = _played(tmp_path, agent, env="bfcl", tasks=tasks, max_steps=None if agent == "expert" else 3)
        assert verify_bundle(bundle).difference is None
    forged = _edited(bundle.episodes, 1, functions=bundle.episodes[1].functions.replace('"type"', '"kind"', 1))
    assert _place(verify_bundle(_bundle(bundle.manifest, forged)).difference) == f"{tasks[0]}#cot: functions"


# One forged value


def _edited(
    episodes: tuple[Episode, ...] | list[Episode], index: int, step: int | None = None, **changes: Any
) -> list[Episode]:
    """The episodes, with fields of one episode or of one of its steps changed."""
    edited = list(episodes)
    one = edited[index]
    if step is not None:
        trajectory = list(one.trajectory)
        trajectory[step] = trajectory[step].model_copy(update=changes)
        changes = {"trajectory": tuple(trajectory)}
    edited[index] = one.model_copy(update=changes)
    return edited


def _another_action(episode: Episode, step: int) -> Step:
    """The step with another action that does something in that state, decision and all, and what followed left as it was."""
    env = env_entry("alfworld-gen").make(request=["admissible_actions"])
    _, info = env.reset(options={"task": episode.task})
    for before in episode.trajectory[:step]:
        *_, info = env.step(before.action)
    one = episode.trajectory[step]
    action = next(action for action in info["admissible_actions"] if action != one.action and action.startswith("go to"))
    return one.model_copy(update={"action": action, "decision": _worded(one, action)})


def _worded(step: Step, action: str) -> Any:
    import dataclasses

    return dataclasses.replace(step.decision, action=action)


def _with_steps(episode: Episode, trajectory: tuple[Step, ...], **changes: Any) -> Episode:
    return episode.model_copy(update={"trajectory": trajectory, "steps": len(trajectory), **changes})


def _swapped(episodes: list[Episode], one: int, other: int) -> list[Episode]:
    """Two episodes under each other's task, each in the other's place, so that the list of tasks is kept."""
    edited = list(episodes)
    edited[one] = episodes[other].model_copy(update={"task": episodes[one].task, "task_type": episodes[one].task_type})
    edited[other] = episodes[one].model_copy(update={"task": episodes[other].task, "task_type": episodes[other].task_type})
    return edited


def _replaced(episodes: list[Episode], index: int, episode: Episode) -> list[Episode]:
    return [*episodes[:index], episode, *episodes[index + 1 :]]


def _change(index: int, step: int | None = None, /, **changes: Any) -> Callable[[Manifest, list[Episode]], Parts]:
    return lambda manifest, episodes: (manifest, _edited(episodes, index, step, **changes))


def _rebuild(index: int, build: Callable[[Episode], Episode]) -> Callable[[Manifest, list[Episode]], Parts]:
    return lambda manifest, episodes: (manifest, _replaced(episodes, index, build(episodes[index])))


def _other_list(manifest: Manifest, episodes: list[Episode]) -> Parts:
    return manifest.model_copy(update={"task_list": (ONE, "alfworld/gen/heat/2")}), episodes


LAST = -1
TAMPERED: dict[str, tuple[Callable[[Manifest, list[Episode]], Parts], str]] = {
    "a score": (_change(1, score=0.5), f"{ONE}#cot: score"),
    "a raw score": (_change(3, raw_score=0.0), f"{TWO}#cot: raw_score"),
    "a success": (_change(0, success=False), f"{ONE}#prompt: success"),
    "a task type": (_change(2, task_type="cool"), f"{TWO}#prompt: task_type"),
    "a goal": (_change(1, goal="find a cup"), f"{ONE}#cot: goal"),
    "a first observation": (_change(2, first_observation="You are in a room."), f"{TWO}#prompt: first_observation"),
    "functions": (_change(0, functions='{"name": "f"}'), f"{ONE}#prompt: functions"),
    "terminated": (_change(1, terminated=False), f"{ONE}#cot: terminated"),
    "truncated": (_change(1, truncated=True), f"{ONE}#cot: truncated"),
    "a number of steps": (_change(0, steps=1), f"{ONE}#prompt: steps"),
    "an observation": (_change(2, 1, observation="You win."), f"{TWO}#prompt, step 1: observation"),
    "a step's score": (_change(0, 0, score=1.0), f"{ONE}#prompt, step 0: score"),
    "a reason": (_change(3, 2, invalid_action="empty action"), f"{TWO}#cot, step 2: invalid_action"),
    "an expert's action": (_change(1, 1, expert_action="look"), f"{ONE}#cot, step 1: expert_action"),
    "an expert's silence": (_change(1, 1, expert_action=None), f"{ONE}#cot, step 1: expert_action"),
    "a prompt action": (_change(3, 1, prompt_action="look"), f"{TWO}#cot, step 1: prompt_action"),
    "an action, not its decision": (_change(3, 1, action="look"), f"{TWO}#cot, step 1: action"),
    "an action, spelled otherwise": (_change(3, 1, action="LOOK"), f"{TWO}#cot, step 1: action"),
    "an endless action": (_change(0, 0, action="x" * (MAX_ACTION + 1)), f"{ONE}#prompt, step 0: action"),
    "another admissible action": (
        lambda manifest, episodes: (
            manifest,
            _replaced(
                episodes,
                3,
                episodes[3].model_copy(
                    update={"trajectory": (_another_action(episodes[3], 0), *episodes[3].trajectory[1:])},
                ),
            ),
        ),
        f"{TWO}#cot, step 0: observation",
    ),
    "two episodes under each other's task": (
        lambda manifest, episodes: (manifest, _swapped(episodes, 0, 2)),
        f"{ONE}#prompt: first_observation",
    ),
    "a task": (_change(2, task="alfworld/gen/heat/2"), "alfworld/gen/heat/2#prompt: episode"),
    "the list of tasks": (_other_list, f"{TWO}#prompt: episode"),
    "a mode": (_change(0, mode="cot"), f"{ONE}#cot: episode"),
    "an episode left out": (lambda manifest, episodes: (manifest, episodes[:3]), f"{TWO}#cot: episode"),
    "an episode twice": (lambda manifest, episodes: (manifest, [*episodes, episodes[0]]), f"{ONE}#prompt: episode"),
    "the order": (lambda manifest, episodes: (manifest, [*episodes[2:], *episodes[:2]]), f"{TWO}#prompt: episode"),
    "the budget": (
        lambda manifest, episodes: (
            manifest.model_copy(update={"config": manifest.config.model_copy(update={"max_steps": 2})}),
            episodes,
        ),
        f"{ONE}#prompt, step 2: steps",
    ),
    "an action too many": (
        _rebuild(0, lambda one: _with_steps(one, (*one.trajectory, one.trajectory[LAST]))),
        f"{ONE}#prompt, step {{steps}}: steps",
    ),
    "an action too few": (
        _rebuild(0, lambda one: _with_steps(one, one.trajectory[:LAST])),
        f"{ONE}#prompt, step {{steps-1}}: steps",
    ),
    "an episode that was stopped": (
        _rebuild(0, lambda one: _with_steps(one, one.trajectory[:LAST], terminated=False, success=False, score=0.0)),
        f"{ONE}#prompt, step {{steps-1}}: steps",
    ),
    "an episode of nothing": (
        _rebuild(1, lambda one: _with_steps(one, ())),
        f"{ONE}#cot, step 0: steps",
    ),
}


def _place(difference: Difference | None) -> str:
    return "all agrees" if difference is None else difference.place


@pytest.mark.parametrize("what", TAMPERED)
def test_a_single_forged_value_is_found_at_its_place(expert: Bundle, what: str) -> None:
    forge, place = TAMPERED[what]
    steps = expert.episodes[0].steps
    place = place.replace("{steps}", str(steps)).replace("{steps-1}", str(steps - 1))
    found = verify_bundle(_bundle(*forge(expert.manifest, list(expert.episodes)))).difference
    assert _place(found) == place
    assert found is not None and found.submitted != found.found


def test_a_failure_presented_as_a_success_is_found(drawn: Bundle) -> None:
    won = {"success": True, "score": 1.0, "raw_score": 1.0, "terminated": True, "truncated": False}
    found = verify_bundle(_bundle(drawn.manifest, _edited(drawn.episodes, 3, **won))).difference
    assert found is not None and found.place == f"{TWO}#cot: terminated"
    assert (found.submitted, found.found) == ("True", "False")


_FIELDS = ("first_observation", "goal", "functions", "task_type", "success", "score", "raw_score", "terminated", "truncated")
_STEP_FIELDS = ("action", "observation", "score", "invalid_action", "expert_action")


def _other(value: Any, data: st.DataObject) -> Any:
    """Any other value that the field may have."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, float | int):
        return data.draw(st.floats(0, 1).filter(lambda other: other != value))
    return data.draw(st.text(max_size=20).filter(lambda other: other != value))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_no_single_edit_goes_unseen(expert: Bundle, drawn: Bundle, data: st.DataObject) -> None:
    bundle = data.draw(st.sampled_from([expert, drawn]))
    index = data.draw(st.integers(0, 3))
    episode = bundle.episodes[index]
    step = data.draw(st.none() | st.integers(0, episode.steps - 1))
    field = data.draw(st.sampled_from(_FIELDS if step is None else _STEP_FIELDS))
    value = _other(getattr(episode if step is None else episode.trajectory[step], field), data)
    found = verify_bundle(_bundle(bundle.manifest, _edited(bundle.episodes, index, step, **{field: value}))).difference
    assert found is not None
    assert (found.episode, found.step, found.field) == (episode.key, step, field)


def test_expert_actions_are_checked_where_any_is_there(drawn: Bundle, tmp_path: Path) -> None:
    silent = _played(tmp_path, "random", max_steps=3, expert_actions=False)
    assert all(step.expert_action is None for episode in silent.episodes for step in episode.trajectory)
    assert verify_bundle(silent).difference is None
    expected = drawn.episodes[2].trajectory[0].expert_action
    # The right one alone: then it is missing elsewhere.
    forged = _edited(silent.episodes, 2, 0, expert_action=expected)
    assert _place(verify_bundle(_bundle(silent.manifest, forged)).difference) == f"{ONE}#prompt, step 0: expert_action"


def test_episodes_that_ended_in_errors_are_not_replayed(drawn: Bundle) -> None:
    failed = Episode(task=ONE, task_type="pick", mode="cot", error="503 from the server")
    told: list[tuple[int, int]] = []
    bundle = _bundle(drawn.manifest, _replaced(list(drawn.episodes), 1, failed))
    assert verify_bundle(bundle, progress=lambda *counts: told.append(counts)).difference is None
    assert told[-1] == (3, 3)


# Several processes


@pytest.fixture(scope="module")
def many(folder: Path) -> Bundle:
    """Forty episodes of twenty tasks."""
    tasks = tuple(f"alfworld/gen/pick/{seed}" for seed in range(20))
    outcome = run(RunConfig(agent="random", tasks=tasks, max_steps=5), out=folder / "many")
    return _bundle(outcome.manifest, outcome.records)


def test_the_first_difference_is_the_same_with_any_number_of_processes(many: Bundle, children: list[ChildProcess]) -> None:
    forged = list(many.episodes)
    for index in (37, 9, 8, 12):
        forged = _edited(forged, index, success=True)
    bundle = _bundle(many.manifest, forged)
    one, three = (verify_bundle(bundle, jobs=jobs).difference for jobs in (1, 3))
    assert one == three and one is not None
    assert one.place == f"{forged[8].key}: success"
    assert children and not any(child.alive for child in children)


def test_a_killed_process_is_replaced(many: Bundle, children: list[ChildProcess]) -> None:
    told: list[int] = []

    def kill_one(done: int, of: int) -> None:
        told.append(done)
        if done == 3:
            victim = random.Random(done).choice([child for child in children if child.alive])
            os.kill(victim.pid, signal.SIGKILL)

    assert verify_bundle(many, jobs=2, progress=kill_one).difference is None
    assert told == list(range(1, 41)), "each episode counts once"
    assert len(children) == 3


def test_processes_that_die_and_die_again_are_an_error_and_no_rejection(many: Bundle, children: list[ChildProcess]) -> None:
    over = threading.Event()

    def kill_all() -> None:
        while not over.wait(0.02):
            for child in [child for child in children if child.alive]:
                os.kill(child.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_all)
    killer.start()
    try:
        message = r"alfworld/gen/pick/\d+#prompt cannot be replayed: its process died twice; the second .*\(exit code -9\)"
        with pytest.raises(EngineError, match=message):
            verify_bundle(many, jobs=2)
    finally:
        over.set()
        killer.join()


def test_ctrl_c_ends_it_at_once_and_leaves_no_process(folder: Path, many: Bundle) -> None:
    # The whole group gets the signal, as from a terminal.
    code = f"""
        import signal

        from cotbench.leaderboard.submission.bundle import Bundle
        from cotbench.leaderboard.submission.details import Details
        from cotbench.leaderboard.verification.verify import verify_bundle
        from cotbench.runs.results import load_run

        def told(done, of):
            if done == 1:
                print("going", flush=True)

        # Whoever runs the tests in the background of a shell has it ignored, and that is inherited.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        read = load_run({str(folder / "many")!r})
        bundle = Bundle.of(Details(name="Mine"), read.manifest, read.records)
        while True:
            verify_bundle(bundle, jobs=2, progress=told).difference
    """
    script = folder / "verifying.py"
    script.write_text(textwrap.dedent(code))
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "going\n"
    begun = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - begun < 10
    assert errors.count("Traceback") == 1 and errors.strip().endswith("KeyboardInterrupt")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("a process was left behind")


# What is wrong on this machine


def _with(bundle: Bundle, **changes: Any) -> Bundle:
    return _bundle(bundle.manifest.model_copy(update=changes), list(bundle.episodes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"data": {"generator": "1"}},
            r"was played with alfworld_wheel_sha256 none, here is 29affbea28f6041d: .*\b\d[\d.]+.*, then verify it again",
        ),
        ({"packages": {"cotbench": "9.0; rm -rf /"}, "data": {}}, "it cannot be replayed, for it does not say which cotbench"),
        ({"data": {"evil\n\x1b[2J": "x"}}, r"was played with alfworld_wheel"),
    ],
)
def test_another_version_of_the_data_is_an_error(drawn: Bundle, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MissingDataError, match=message) as raised:
        verify_bundle(_with(drawn, **changes))
    assert str(raised.value).isprintable()


def test_missing_games_are_an_error(drawn: Bundle, tmp_path: Path) -> None:
    task = env_entry("alfworld").source().tasks("paper", "id")[0]
    config = drawn.manifest.config.model_copy(update={"env": "alfworld", "tasks": (task,)})
    manifest = drawn.manifest.model_copy(update={"config": config, "task_list": (task,)})
    episodes = [episode.model_copy(update={"task": task}) for episode in drawn.episodes[:2]]
    with pytest.raises(MissingDataError, match="the ALFWorld games are not on this machine"):
        verify_bundle(_bundle(manifest, episodes))
    (tmp_path / "json_2.1.1").mkdir()
    with pytest.raises(MissingDataError, match=rf"1 of 1 games are missing, the first is {task}"):
        verify_bundle(_bundle(manifest, episodes), data=tmp_path)


def test_a_difference_under_another_release_is_no_rejection(drawn: Bundle) -> None:
    packages = {**drawn.manifest.packages, "cotbench": "0.0.1"}
    assert verify_bundle(_with(drawn, packages=packages)).difference is None, "what agrees, agrees"
    forged = _bundle(drawn.manifest.model_copy(update={"packages": packages}), _edited(drawn.episodes, 0, score=1.0))
    remedy = re.escape(install_version("0.0.1"))
    with pytest.raises(MissingDataError, match=rf"differs here \(.*#prompt: score\), but .*: {remedy}, then verify"):
        verify_bundle(forged)


@needs_bfcl
def test_bfcl_is_told_in_pythons_words(drawn: Bundle) -> None:
    config = drawn.manifest.config.model_copy(update={"env": "bfcl"})
    manifest = drawn.manifest.model_copy(update={"config": config, "task_list": ()})
    assert {"cotbench", "mpmath", "python", "bfcl_wheel_sha256"} == set(versions(manifest))


class Frail:
    """An environment that fails at some of its resets."""

    def __init__(self, failing: int) -> None:
        self.failing = failing
        self.made = 0

    def ask_reset(self, task: str) -> None: ...

    def ask_step(self, action: str) -> None: ...

    def close(self) -> None: ...

    def read(self) -> EnvReply:
        if self.failing:
            self.failing -= 1
            raise EngineError("Java died")
        return EnvReply("You are here.", False, False, {"goal": "", "score": 0.0, "invalid_action": None})


@pytest.mark.parametrize("failing", [1, 2])
def test_an_environment_that_fails_is_replaced_once(monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    frail = Frail(failing)
    monkeypatch.setattr(replay, "LocalEnv", lambda settings: frail)
    replayer = Replayer(EnvSettings("alfworld-gen", {"request": []}), False, Budget.of(env_entry("alfworld-gen"), []))
    episode = Episode(task=ONE, task_type="pick", mode="prompt", first_observation="You are elsewhere.")
    if failing == 2:
        with pytest.raises(EngineError, match=f"{ONE}#prompt cannot be replayed: Java died"):
            replayer.difference(episode)
    else:
        assert _place(replayer.difference(episode)) == f"{ONE}#prompt: first_observation"


def test_an_episode_has_its_time(expert: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "FAST", (0.0, 0.0))
    monkeypatch.setattr(budget, "START_SECONDS", 0.0)
    late = f"{ONE}#prompt cannot be replayed: it took too long"
    with pytest.raises(ReplayTimeoutError, match=f"{late}: when time ran out it was at step 0"):
        verify_bundle(expert)
    with pytest.raises(ReplayTimeoutError, match=late):  # It may not even have started by then.
        verify_bundle(expert, jobs=1)


def test_hostile_actions_only_differ(expert: Bundle) -> None:
    hostile = [
        "\x00",
        "\u2028look",
        "go to " + "\u0130" * 10**5,
        "put " + "a in " * 10**5,
        "\U0010ffff" * 10**5,
        "." * 10**6,
        "",
    ]
    rules = ReplayRules(env_entry("alfworld-gen").canonical(), env_entry("alfworld-gen").source().task_type, True)
    for action in hostile:
        step = expert.episodes[0].trajectory[0]
        changes = {"action": rules.canonical(action), "decision": _worded(step, action)}
        begun = time.monotonic()
        found = verify_bundle(_bundle(expert.manifest, _edited(expert.episodes, 0, 0, **changes))).difference
        assert found is not None and found.step == 0
        assert time.monotonic() - begun < 2
    long = _with_steps(expert.episodes[0], expert.episodes[0].trajectory * 10_000)
    assert verify_bundle(_bundle(expert.manifest, _replaced(list(expert.episodes), 0, long))).difference is not None


def test_jobs_are_counted_from_one(drawn: Bundle) -> None:
    with pytest.raises(UsageError, match="--jobs must be at least 1, not -1"):
        verify_bundle(drawn, jobs=-1)
