"""BFCL as an environment: turns, functions, limits, and the process that executes calls."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cotbench.envs import wheels
from cotbench.envs.bfcl import calls, data
from cotbench.envs.bfcl.env import MORE_FUNCTIONS, OVER, TURN_STEPS, BFCLEnv
from cotbench.envs.bfcl.tasks import LINKED, UNPASSABLE, BFCLTasks, scenario
from cotbench.envs.registry import env_entry
from cotbench.errors import EpisodeOverError, MissingDataError, UnknownNameError
from tests.conftest import needs_bfcl

pytestmark = needs_bfcl

TASK = "bfcl/multi_turn_base_1"
MATHS = "bfcl/multi_turn_base_15"


@pytest.fixture
def make() -> Iterator[Any]:
    made: list[BFCLEnv] = []

    def maker(**kwargs: Any) -> BFCLEnv:
        made.append(BFCLEnv(**kwargs))
        return made[-1]

    yield maker
    for env in made:
        env.close()


def _follow(env: BFCLEnv, info: dict[str, Any]) -> list[Any]:
    """What was seen on the expert's way to the end; the last `info` at its end."""
    seen, ended = [], False
    while not ended:
        observation, _, ended, _, info = env.step(info["expert_action"])
        seen.append(observation)
    return [*seen, info]


def test_progress_and_functions_are_in_info(make: Any) -> None:
    env = make(request=["expert_action"])
    observation, info = env.reset(options={"task": TASK})
    said = data.turns(TASK)
    assert observation == said[0] and (info["turn"], info["turns"], info["turns_passed"]) == (1, len(said), [])
    schema = next(one for one in info["functions"] if one["name"] == "ls")
    assert schema["parameters"]["type"] == "object" and schema["parameters"]["properties"]["a"]["type"] == "boolean"
    env.step(info["expert_action"])
    observation, *_, info = env.step("That is all.")
    assert observation == said[1] and (info["turn"], info["turns_passed"]) == (2, [True])
    *_, info = env.step("[]")
    assert info["turns_passed"] == [True, False]


def test_what_fails_on_plain_values_is_not_listed_and_trying_it_changes_nothing(make: Any) -> None:
    tried, plain = make(request=["admissible_actions"]), make()
    for task in ("bfcl/multi_turn_base_150", "bfcl/multi_turn_base_60", "bfcl/multi_turn_base_120"):
        _, info = tried.reset(options={"task": task})
        plain.reset(options={"task": task})
        names = {action.partition("(")[0].strip("[") for action in info["admissible_actions"]}
        described = {schema["name"] for schema in info["functions"]}
        assert names - {"]"} <= described
        for response in data.ground_truth(task)[0]:
            # The same results, random numbers among them, whether everything else was tried before or not.
            assert tried.step(f"[{response}]")[0] == plain.step(f"[{response}]")[0]
    _, info = tried.reset(options={"task": "bfcl/multi_turn_base_150"})
    assert not any(action.startswith("[get_flight_cost(") for action in info["admissible_actions"])
    *_, info = plain.step("[get_flight_cost(travel_from='text', travel_to='text', travel_date='text', travel_class='text')]")
    assert "No available route" in info["invalid_action"] or info["invalid_action"]


def test_a_call_that_ends_the_process_when_it_is_tried_is_not_possible(make: Any) -> None:
    env = make()
    env.reset(options={"task": MATHS})
    env.step("[mean(numbers=[1, 2])]")
    texts = ["power(base=10, exponent=2)", "power(base=10, exponent=20000000)", "mean(numbers=[3])", "nothing()"]
    assert env._host.possible(texts) == [True, False, True, False]
    assert env.restarts == 0
    assert env.step("[mean(numbers=[3])]")[0] == '{"result": 3.0}'


def test_right_answers_where_nothing_is_to_be_called_are_told_apart() -> None:
    kind = BFCLEnv.leniently_judged
    task = "bfcl/live_irrelevance_0-0-0"
    assert [kind(task, text) for text in ("[]", "", "I cannot.", "[dance(")] == [
        "the empty list",
        "an empty text",
        "words",
        "calls that cannot be read",
    ]
    assert kind("bfcl/live_relevance_0-0-0", "[]") is None and kind(TASK, "Done.") is None


def test_admissible_actions_do_not_tell_the_ground_truth(make: Any) -> None:
    alone, beside = make(request=["admissible_actions"]), make(request=["admissible_actions", "expert_action"])
    for task in ("bfcl/live_simple_0-0-0", TASK):
        listed = alone.reset(options={"task": task})[1]["admissible_actions"]
        info = beside.reset(options={"task": task})[1]
        assert info["admissible_actions"] == listed and info["expert_action"] not in listed
        assert "[]" in listed and len(listed) > 1


def test_held_out_functions_come_with_their_turn(make: Any) -> None:
    env = make(request=["expert_action"])
    for task in data.ids("multi_turn_miss_func")[::20]:
        (turn, names), *_ = data.held_out(task).items()
        _, info = env.reset(options={"task": task})
        while info["turn"] <= turn:
            assert not set(names) & {one["name"] for one in info["functions"]}
            observation, *_, info = env.step("[]")
        assert set(names) <= {one["name"] for one in info["functions"]}
        assert observation.endswith(MORE_FUNCTIONS) and all(f'"{name}"' in observation for name in names)


def test_both_spellings_are_one_action() -> None:
    python = "[ls(a=True), cd(folder='x')]"
    plain = '[{"name": "ls", "arguments": {"a": true}}, {"name": "cd", "arguments": {"folder": "x"}}]'
    tools = (
        '[{"id": "1", "type": "function", "function": {"name": "ls", "arguments": "{\\"a\\": true}"}}, '
        '{"id": "2", "type": "function", "function": {"name": "cd", "arguments": "{\\"folder\\": \\"x\\"}"}}]'
    )
    assert {calls.canonical(text) for text in (python, plain, tools)} == {python}


def test_a_call_whose_name_no_file_can_hold_is_recorded_and_read_again() -> None:
    text = '[{"name": "\\ud800", "arguments": {"folder": "\\udfff"}}]'
    spelled = env_entry("bfcl").canonical()(text)
    assert spelled.encode() and env_entry("bfcl").canonical()(spelled) == spelled


def test_an_unreadable_response_ends_the_turn_and_says_why(make: Any) -> None:
    env = make()
    env.reset(options={"task": TASK})
    *_, info = env.step("[ls(")
    assert info["turn"] == 2 and "not readable" in info["invalid_action"]
    *_, info = env.step("[ls(a=[x for x in y])]")
    assert info["turn"] == 3 and "not readable" in info["invalid_action"]


@pytest.mark.parametrize("call", ["no_such_function(a=1)", "cd()", "cd(folder='x', surplus=1)", "cd(folder=3, x=[])"])
def test_wrong_calls_have_upstreams_error_for_a_result(make: Any, call: str) -> None:
    env = make()
    env.reset(options={"task": TASK})
    observation, *_, info = env.step(f"[{call}]")
    assert observation.startswith("Error during execution: ") and info["invalid_action"] == observation
    assert info["turn"] == 1


def test_the_21st_response_of_a_turn_ends_the_conversation(make: Any) -> None:
    env = make()
    _, info = env.reset(options={"task": TASK})
    for _ in range(TURN_STEPS):
        *_, terminated, truncated, info = env.step("[pwd()]")
        assert not terminated and not truncated
    observation, _, terminated, _, info = env.step("[pwd()]")
    assert terminated and not info["success"] and observation.endswith(OVER)
    with pytest.raises(EpisodeOverError):
        env.step("[pwd()]")


def test_a_wrong_episode_leaves_no_trace_on_the_next(make: Any) -> None:
    env = make(request=["expert_action"])
    _, info = env.reset(options={"task": TASK})
    undisturbed = _follow(env, info)
    env.reset(options={"task": TASK})
    env.step("[mkdir(dir_name='wrong'), touch(file_name='wrong.txt')]")
    _, info = env.reset(options={"task": TASK})
    assert _follow(env, info) == undisturbed and undisturbed[-1]["success"]


def test_off_the_path_the_expert_is_silent(make: Any) -> None:
    env = make(request=["expert_action"])
    env.reset(options={"task": TASK})
    *_, info = env.step("[touch(file_name='wrong.txt')]")
    assert info["expert_action"] is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_process_is_replaced_and_the_episode_goes_on(make: Any, number: int) -> None:
    task = "bfcl/multi_turn_long_context_2"
    env = make(request=["expert_action"], expert="call", seconds=4.0)
    _, info = env.reset(options={"task": task})
    undisturbed = _follow(env, info)
    _, info = env.reset(options={"task": task})
    observation, _, _, _, info = env.step(info["expert_action"])
    lost = env._host._process.pid
    os.kill(lost, number)
    start = time.monotonic()
    seen = [observation, *_follow(env, info)]
    assert seen[:-1] == undisturbed[:-1]
    assert seen[-1]["success"] and (seen[-1]["restarts"], undisturbed[-1]["restarts"]) == (1, 0)
    assert time.monotonic() - start < 30
    assert not Path(f"/proc/{lost}/exe").exists()


def test_close_leaves_no_process_behind(make: Any) -> None:
    env = make()
    env.reset(options={"task": TASK})
    env.step("[pwd()]")
    process = env._host._process
    env.close()
    assert process.poll() is not None
    env.reset(options={"task": TASK})
    assert env.step("[pwd()]")[0]


def test_single_turn_tasks_take_one_step(make: Any) -> None:
    env = make(request=["expert_action"])
    for task in ("bfcl/simple_python_0", "bfcl/simple_java_1", "bfcl/live_parallel_0-0-0", "bfcl/irrelevance_0"):
        assert env.step_budget(task) == 1
        observation, info = env.reset(options={"task": task})
        assert observation == data.turns(task)[0]
        _, reward, terminated, _, info = env.step(info["expert_action"])
        assert (reward, terminated, info["success"]) == (1.0, True, True)
    env.reset(options={"task": "bfcl/simple_python_0"})
    *_, info = env.step("[calculate(")
    assert not info["success"] and "not readable" in info["invalid_action"]


def test_no_scored_scenario_is_trained_on() -> None:
    source = BFCLTasks()
    train = source.tasks("paper", "train")
    trained = {scenario(task) for task in train}
    truths = {repr(data.ground_truth(task)) for task in train}
    questions = {repr(data.turns(task)) for task in train}
    for split in source.schemes()["paper"]:
        tasks = source.tasks("paper", split)
        assert list(tasks) == sorted(set(tasks))
        if split != "train":
            assert not trained & {scenario(task) for task in tasks}
            assert not truths & {repr(data.ground_truth(task)) for task in tasks}
            assert not questions & {repr(data.turns(task)) for task in tasks}
    indices = {int(task.rsplit("_", 1)[1]) for task in train}
    assert all(group <= indices or not group & indices for group in LINKED)


def test_the_splits_hold_what_they_say() -> None:
    source = BFCLTasks()
    sizes = {split: len(source.tasks("paper", split)) for split in source.schemes()["paper"]}
    assert sizes == {"train": 60, "dev": 15, "id": 75, "ood": 75, "ood_miss": 150, "ood_domain": 50}
    held = {scenario(task) for task in source.tasks("paper", "id")}
    assert {scenario(task) for task in source.tasks("paper", "ood")} == held
    assert {scenario(task) for task in source.tasks("paper", "ood_miss")} == held
    everything = [task for split in source.schemes()["official"] for task in source.tasks("official", split)]
    assert len(everything) == len(set(everything)) == 800 + 3641
    assert set(source.unpassable(everything)) == UNPASSABLE and set(everything) >= UNPASSABLE


@pytest.mark.parametrize("task", ["bfcl/multi_turn_base_200", "bfcl/multi_turn_base_-1", "bfcl/nothing_0", "boil/0"])
def test_unknown_tasks_are_named(make: Any, task: str) -> None:
    with pytest.raises(UnknownNameError, match="task"):
        make().reset(options={"task": task})


def test_without_the_wheel_the_message_says_what_to_do(make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COTBENCH_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(MissingDataError, match="cotbench data fetch bfcl --from"):
        wheels.fetch("bfcl")


def test_reading_the_wheel_writes_nothing_beside_it(make: Any) -> None:
    folder = wheels.fetch("bfcl").parent
    before = sorted(folder.rglob("*"))
    env = make(request=["expert_action"])
    _, info = env.reset(options={"task": TASK})
    assert _follow(env, info)[-1]["success"]
    assert sorted(folder.rglob("*")) == before
