"""Decodability: 1 where traces spell the action, the floor where they belong to others, and a clear word without traces."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotbench.baselines.data.decodability import LEAST_TASKS, MOST_OF_TASK, has_enough_tasks, measure_decodability
from cotbench.baselines.data.demonstration import Demonstration, read_demonstrations, write_jsonl
from cotbench.baselines.teachers import alfworld
from cotbench.baselines.teachers.facts import unseen
from cotbench.baselines.teachers.options import Names
from cotbench.cli import run_cli
from cotbench.errors import UsageError
from cotbench.stats.estimates import Estimate

KINDS = ("mug", "pen", "book", "apple", "knife", "plate")
PLACES = ("desk", "drawer", "shelf", "fridge")


def _demonstrations(spoken: Callable[[str, random.Random], str | None], env: str = "alfworld-gen") -> list[Demonstration]:
    """24 tasks of 8 actions each, with names that no other task has, and a trace for each action."""
    rng = random.Random(0)
    found = []
    for number in range(24):
        thing, place = f"{rng.choice(KINDS)} {number + 1}", f"{rng.choice(PLACES)} {rng.randint(1, 60)}"
        actions = [f"go to {place}", f"open {place}", f"take {thing} from {place}", f"go to sinkbasin {number % 5}", "look"]
        actions += [f"clean {thing} with sinkbasin {number % 5}", f"go to {place}", f"move {thing} to {place}"]
        found.append(
            Demonstration(
                env=env,
                task=f"t/{number}" if env else "",
                observations=tuple(f"o{step}" for step in range(8)),
                actions=tuple(actions),
                traces=tuple(spoken(action, rng) for action in actions),
            )
        )
    return found


def _spelled(action: str, rng: random.Random) -> str:
    return f"{rng.choice(['Well', 'Good', 'So'])}, as I see it the thing to do is: {action}."


def _mean(estimate: Estimate) -> float:
    assert estimate.mean is not None and estimate.low is not None and estimate.high is not None
    assert estimate.low <= estimate.mean <= estimate.high
    return estimate.mean


def test_traces_that_spell_the_action_tell_all_of_it() -> None:
    found = measure_decodability(_demonstrations(_spelled))
    assert (found.decisions, found.tasks) == (24 * 8, 24)
    assert _mean(found.action) == _mean(found.arguments) == _mean(found.arguments_in_trace) == 1.0
    assert _mean(found.action_floor) == pytest.approx(1 / 8, abs=0.05), "`look` is the only action that tasks share"
    assert _mean(found.arguments_floor) < 0.2
    assert found == measure_decodability(_demonstrations(_spelled))


def test_traces_of_other_actions_tell_nothing() -> None:
    spelled = _demonstrations(_spelled)
    traces = [trace for one in spelled for trace in one.traces]
    random.Random(1).shuffle(traces)
    shuffled = [one.model_copy(update={"traces": tuple(traces[8 * n : 8 * n + 8])}) for n, one in enumerate(spelled)]
    found = measure_decodability(shuffled)
    assert _mean(found.action) <= _mean(found.action_floor) + 0.05
    assert _mean(found.arguments) <= _mean(found.arguments_floor) + 0.05
    assert _mean(found.arguments_in_trace) < 0.2


def test_the_verb_alone_tells_the_form_and_no_argument() -> None:
    found = measure_decodability(_demonstrations(lambda action, rng: f"I {action.split()[0]}."))
    assert 0.1 < _mean(found.action) < 0.35 and _mean(found.arguments_in_trace) == 0.0


def test_conversations_of_others_are_measured_too() -> None:
    """Of an environment that nobody knows, without task ids, and with actions that are taken apart word by word."""
    found = measure_decodability(_demonstrations(_spelled, env=""))
    assert found.tasks == 24 and _mean(found.action) > 0.9


def test_steps_without_a_trace_are_skipped_and_long_tasks_thinned() -> None:
    some = [one.model_copy(update={"traces": (None, *one.traces[1:])}) for one in _demonstrations(_spelled)]
    assert measure_decodability(some).decisions == 24 * 7
    long = [some[0].model_copy(update={name: getattr(some[0], name) * 20 for name in ("observations", "actions", "traces")})]
    assert measure_decodability(long + some[1:]).decisions - 23 * 7 <= MOST_OF_TASK


def test_nothing_to_measure_is_a_clear_word() -> None:
    mute = _demonstrations(lambda action, rng: None)
    with pytest.raises(UsageError, match="none of 24 demonstrations has a trace"):
        measure_decodability(mute)
    few = _demonstrations(_spelled)[: LEAST_TASKS - 1]
    with pytest.raises(
        UsageError, match="traces of 9 tasks are too few to hold some out: decodability needs at least 10 tasks"
    ):
        measure_decodability(few)
    assert not has_enough_tasks(few) and not has_enough_tasks(mute)


def test_the_command_measures_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "some.jsonl"
    write_jsonl(path, _demonstrations(_spelled))
    assert run_cli(["traces", "--decodability", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "decodability: told from the trace alone, 192 decisions of 24 tasks"
    assert lines[1].startswith("  action      1.00 [") and "floor 0.1" in lines[1]
    assert max(map(len, lines)) <= 80
    assert run_cli(["traces", "--decodability", str(path), "--seed", "1"]) == 2
    assert "--decodability plays nothing: omit --seed" in capsys.readouterr().err
    assert run_cli(["traces", "--decodability", str(tmp_path)]) == 2
    assert "is not a traces folder" in capsys.readouterr().err


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("played") / "traces"
    command = ["traces", "--teacher", "scripted?names=full", "-n", "15", "--workers", "0", "--out", str(folder)]
    assert run_cli(command) == 0
    return folder


def test_the_folder_keeps_its_decodability(played: Path) -> None:
    summary: dict[str, Any] = json.loads((played / "traces.json").read_text("utf-8"))
    measured = measure_decodability(read_demonstrations(played))
    assert summary["trace_level"] == "full"
    assert summary["decodability"] == measured.model_dump(mode="json")
    assert _mean(measured.action) > 0.95, "full traces spell their action"


def test_each_level_tells_less_and_is_the_beginning_of_the_next(played: Path) -> None:
    demonstrations = read_demonstrations(played)
    levels: dict[Names, list[Demonstration]] = {}
    for names in ("full", "state", "goal"):
        traces = [
            tuple(
                alfworld.think(alfworld.expert_of(one.dialogue(step)).mind(), one.dialogue(step), random.Random(step), 3, names)
                for step in range(len(one.actions))
            )
            for one in demonstrations
        ]
        levels[names] = [one.model_copy(update={"traces": own}) for one, own in zip(demonstrations, traces, strict=True)]
    for full, state, goal in zip(levels["full"], levels["state"], levels["goal"], strict=True):
        for step, (first, second, third) in enumerate(zip(goal.traces, state.traces, full.traces, strict=True)):
            assert first and second and third and third.startswith(second)
            assert second.startswith(first) or second.partition(". ")[2].startswith(first), (
                "a refusal is a finding, and stands first"
            )
            assert not unseen(state.dialogue(step), state.actions[step], second, state.env)
    told = {names: _mean(measure_decodability(some).action) for names, some in levels.items()}
    assert told["full"] > 0.95 and told["full"] - 0.3 > told["state"] > told["goal"]
