"""The scripted teacher in households: it wins, it names what was seen, and it recovers from its own slips."""

from pathlib import Path

import pytest

from cotbench.agents.registry import make_agent
from cotbench.baselines.data.demonstration import Demonstration, read_demonstrations
from cotbench.baselines.teachers.alfworld import WORDINGS
from cotbench.baselines.teachers.facts import unseen
from cotbench.cli import run_cli
from cotbench.errors import UsageError
from cotbench.prompting.parsing import TAGS
from cotbench.runs.manifest import RunConfig
from cotbench.runs.plan import make_plan
from cotbench.runs.resources import Resources
from cotbench.runs.runner import SilentObserver, run, start_run


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> list[Demonstration]:
    folder = tmp_path_factory.mktemp("taught") / "traces"
    command = ["traces", "--teacher", "scripted?slips=0.1", "--episodes", "40", "--out", str(folder)]
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


def test_every_wording_can_be_said() -> None:
    assert all(wording[0].isupper() for wordings in WORDINGS for wording in wordings)


def test_it_wins_real_games(real_games: Path, tmp_path: Path) -> None:
    config = RunConfig(agent="scripted", env="alfworld", split="id", mode="cot", episodes=12)
    plan = make_plan(config, real_games)
    agent = make_agent("scripted?order=shuffled")
    outcome = start_run(plan, tmp_path / "run", agent=agent, resources=Resources(data=real_games), observer=SilentObserver())
    assert sum(episode.success for episode in outcome.episodes) >= 11
    for episode in outcome.episodes:
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
    thoughts = [[step.decision.trace for episode in made.episodes for step in episode.trajectory] for made in (one, two)]
    firsts = [{(trace or "").split()[1] for trace in made if not (trace or "").startswith("That")} for made in thoughts]
    assert firsts[0] <= {"need", "have", "hold"} and len(firsts[1]) > len(firsts[0])


def test_in_prompt_mode_it_says_nothing(tmp_path: Path) -> None:
    outcome = run(RunConfig(agent="scripted", mode="prompt", episodes=2), out=tmp_path / "run")
    decisions = [step.decision for episode in outcome.episodes for step in episode.trajectory]
    assert all(decision.trace is None for decision in decisions)
    assert all(episode.success for episode in outcome.episodes)


@pytest.mark.parametrize("option", ["slips=1", "slips=-0.1", "variety=0", "order=upwards"])
def test_wrong_options(option: str) -> None:
    with pytest.raises(UsageError, match=option.split("=", maxsplit=1)[0]):
        make_agent(f"scripted?{option}")
