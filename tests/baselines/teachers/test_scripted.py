"""The scripted teacher in households: it wins, it names what was seen, and it recovers from its own slips."""

import dataclasses
from pathlib import Path

import pytest

from cotbench.agents.registry import make_agent
from cotbench.baselines.data.demonstration import Demonstration, read_demonstrations
from cotbench.baselines.teachers import scripted
from cotbench.baselines.teachers.alfworld_wordings import WORDINGS
from cotbench.baselines.teachers.facts import unseen
from cotbench.baselines.teachers.scripted import Scripted
from cotbench.cli import run_cli
from cotbench.envs.registry import env_entry
from cotbench.errors import UnknownNameError, UsageError
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.parsing import TAGS
from cotbench.prompting.query import Query
from cotbench.runs.manifest import RunConfig
from cotbench.runs.plan import make_plan
from cotbench.runs.resources import Resources
from cotbench.runs.runner import SilentObserver, run, start_run


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> list[Demonstration]:
    folder = tmp_path_factory.mktemp("taught") / "traces"
    command = ["traces", "--teacher", "scripted?slips=0.1&names=full", "--episodes", "40", "--out", str(folder)]
    assert run_cli(command) == 0
    return read_demonstrations(folder)


def _traces(taught: list[Demonstration]) -> list[tuple[Demonstration, int, str]]:
    return [(one, step, trace) for one in taught for step, trace in enumerate(one.traces) if trace is not None]


def test_no_trace_names_what_was_not_seen(taught: list[Demonstration]) -> None:
    traces = _traces(taught)
    assert len(traces) > 200
    for one, step, trace in traces:
        assert not unseen(one.dialogue(step), one.actions[step], trace, one.env), (one.task, step, trace)


def test_a_lie_is_found(taught: list[Demonstration]) -> None:
    one, step, trace = next(found for found in _traces(taught) if "mug 9" not in found[0].observations[0])
    assert unseen(one.dialogue(step), one.actions[step], f"{trace} I see mug 9.", one.env)


def test_traces_are_varied_first_person_and_plain(taught: list[Demonstration]) -> None:
    traces = [trace for _, _, trace in _traces(taught)]
    assert len(set(traces)) > len(traces) / 2
    assert sum(" I " in f" {trace}" for trace in traces) > 0.8 * len(traces)
    assert not any(tag in trace or "{" in trace for trace in traces for tag in TAGS)
    assert max(len(trace.split()) for trace in traces) <= 40


def test_a_slip_has_no_trace_and_is_made_good(taught: list[Demonstration]) -> None:
    slips = [(one, step) for one in taught for step, trace in enumerate(one.traces) if trace is None]
    steps = sum(len(one.actions) for one in taught)
    assert 0.04 * steps < len(slips) < 0.2 * steps
    refused = [(one, step) for one, step in slips if one.observations[step + 1 : step + 2] == ("Nothing happens.",)]
    spoken = [one.traces[step + 1] for one, step in refused if one.traces[step + 1]]
    assert spoken
    assert all(trace.startswith(("That did nothing.", "Nothing happened.", "That was not possible.")) for trace in spoken)


def test_a_level_of_names_begins_with_the_lower_one() -> None:
    for wording in (wording for wordings in WORDINGS for wording in wordings):
        assert wording.parts("full")[:2] == wording.parts("state") and wording.parts("state")[:1] == wording.parts("goal")
        assert all(part[0] in "{" or part[0].isupper() for part in wording.parts() if part)
        assert not any("{action}" in part or "{where}" in part for part in wording.parts("goal"))


def test_levels_of_names_on_the_same_states(taught: list[Demonstration]) -> None:
    found: dict[str, list[str]] = {}
    chosen = 0
    for names in ("goal", "state", "full"):
        agent = make_agent(f"scripted?names={names}")
        assert isinstance(agent, Scripted)
        for one, step, _ in _traces(taught):
            dialogue = one.dialogue(step)
            query = Query(one.task, one.env, one.task, step, "cot", dialogue, Elicitation(), seed=step)
            (decision,) = agent.decide([query])
            trace = decision.trace or ""
            assert not unseen(dialogue, decision.action, trace, one.env), (one.task, step, trace)
            found.setdefault(names, []).append(trace)
            if decision.action.startswith("go to "):
                chosen += decision.action.removeprefix("go to ") in trace
        if names != "full":
            # A place to go to is named below `full` only where the thing was seen there.
            assert chosen < len(found[names]) / 10
    refusals = ("That did nothing. ", "Nothing happened. ", "That was not possible. ")
    for goal, state, full in zip(found["goal"], found["state"], found["full"], strict=True):
        assert full.startswith(state) and not goal.startswith(refusals)
        assert any(state.removeprefix(refusal).startswith(goal) for refusal in ("", *refusals))
    assert found["goal"] != found["state"] != found["full"]


def test_an_unknown_level_of_names() -> None:
    with pytest.raises(UnknownNameError, match="unknown names 'stat' of agent 'scripted'; did you mean 'state'"):
        make_agent("scripted?names=stat")


def test_it_wins_real_games(real_games: Path, tmp_path: Path) -> None:
    config = RunConfig(agent="scripted", env="alfworld", split="id", mode="cot", episodes=12)
    plan = make_plan(config, real_games)
    agent = make_agent("scripted?order=shuffled")
    outcome = start_run(plan, tmp_path / "run", agent=agent, resources=Resources(data=real_games), observer=SilentObserver())
    assert sum(episode.success for episode in outcome.records) >= 11
    for episode in outcome.records:
        one = Demonstration(
            env="alfworld",
            task=episode.task,
            observations=(episode.first_observation, *(step.observation for step in episode.trajectory[:-1])),
            actions=tuple(step.action for step in episode.trajectory),
            traces=tuple(step.decision.trace for step in episode.trajectory),
        )
        for step, trace in enumerate(one.traces):
            assert not unseen(one.dialogue(step), one.actions[step], trace or "", "alfworld")


def test_one_wording_says_the_same_of_the_same(tmp_path: Path) -> None:
    config = RunConfig(agent="scripted?variety=1", mode="cot", split="train", episodes=6)
    one = run(config, out=tmp_path / "one")
    two = run(config.model_copy(update={"seed": 0, "agent": "scripted"}), out=tmp_path / "two")
    thoughts = [[step.decision.trace for episode in made.records for step in episode.trajectory] for made in (one, two)]
    firsts = [{(trace or "").split()[1] for trace in made if not (trace or "").startswith("That")} for made in thoughts]
    assert firsts[0] <= {"need", "have", "hold"} and len(firsts[1]) > len(firsts[0])


def test_in_prompt_mode_it_says_nothing(tmp_path: Path) -> None:
    outcome = run(RunConfig(agent="scripted", mode="prompt", episodes=2), out=tmp_path / "run")
    decisions = [step.decision for episode in outcome.records for step in episode.trajectory]
    assert all(decision.trace is None for decision in decisions)
    assert all(episode.success for episode in outcome.records)


@pytest.mark.parametrize("option", ["slips=1", "slips=-0.1", "variety=0", "order=upwards"])
def test_wrong_options(option: str) -> None:
    with pytest.raises(UsageError, match=option.split("=", maxsplit=1)[0]):
        make_agent(f"scripted?{option}")


def test_a_level_that_a_teacher_lacks_is_one_clear_word(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = dataclasses.replace(env_entry("alfworld-gen"), trace_levels=("goal", "full"))
    monkeypatch.setattr(scripted, "env_entry", lambda name: entry)
    dialogue = Dialogue(entry.instructions(), ("o",))
    query = Query("e", "alfworld-gen", "t", 0, "cot", dialogue, Elicitation())
    (decision,) = Scripted(names="state").decide([query])
    assert decision.error is not None
    assert "no traces of level 'state' for 'alfworld-gen', only goal, full: use --teacher scripted?names=full" in decision.error
