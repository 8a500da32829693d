"""Runs over games in the spelling from before ALFWorld 0.4: what is recorded, compared, submitted and learned from."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cotbench.baselines.data.demonstration import read_demonstrations
from cotbench.baselines.data.traces import write_traces
from cotbench.baselines.teachers.facts import unseen
from cotbench.envs.alfworld.tasks import official_ids
from cotbench.envs.registry import env_entry
from cotbench.errors import GameFileError, RunFolderError, SubmissionError
from cotbench.leaderboard.submission.bundle import pack, unpack
from cotbench.leaderboard.submission.checks import check
from cotbench.leaderboard.submission.details import Details
from cotbench.leaderboard.verification.verify import verify_bundle
from cotbench.probes.folder import run_probe
from cotbench.probes.probe import probe_named
from cotbench.probes.states import read_states
from cotbench.prompting.query import Decision, Query
from cotbench.runs.comparison import elicitation_differences
from cotbench.runs.manifest import RunConfig
from cotbench.runs.resources import Resources
from cotbench.runs.results import Run, load_run
from cotbench.runs.runner import SilentObserver, resume_run, run
from cotbench.runs.tables import run_table
from tests.leaderboard.made import edited, setting
from tests.old_games import write_old_game

TASKS = tuple(task for task in official_ids("valid_seen") if "pick_and_place_simple" in task)[:2]
TRAINED = next(task for task in official_ids("train") if "pick_and_place_simple" in task)
"""A task that may be learned from; its game is that of a scored one here."""


def _file(task: str) -> Path:
    return Path("json_2.1.1", task.removeprefix("alfworld/"), "game.tw-pddl")


Play = Callable[..., Run]


class Mover:
    """Agent that follows the expert, in the spelling of the games of today."""

    name = "mover"
    needs = frozenset({"expert_action"})

    def decide(self, queries: Any) -> list[Decision]:
        return [self._decide(query) for query in queries]

    def _decide(self, query: Query) -> Decision:
        action = (query.expert_action or "").replace("put ", "move ").replace(" in/on ", " to ")
        return Decision(action, "" if query.mode == "cot" else None)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def folders(real_games: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Data folders with two games: as they are, as they were before 0.4, and one of each."""
    root = tmp_path_factory.mktemp("games")
    write_old_game(real_games / _file(TASKS[0]), root / "put" / _file(TRAINED))
    for task in TASKS:
        file = _file(task)
        write_old_game(real_games / file, root / "put" / file)
        (root / "mixed" / file).parent.mkdir(parents=True)
        shutil.copy((real_games if task == TASKS[0] else root / "put") / file, root / "mixed" / file)
    return {"move": real_games, "put": root / "put", "mixed": root / "mixed"}


@pytest.fixture
def play(folders: dict[str, Path], tmp_path: Path) -> Play:
    """Plays the two games of a data folder."""

    def played(agent: str, games: str = "put", *, out: str = "", player: Any = None, **changes: Any) -> Run:
        config = RunConfig(**{"agent": agent, "env": "alfworld", "tasks": TASKS, **changes})
        return run(config, out=tmp_path / (out or f"{agent}_{games}"), workers=0, data=folders[games], agent=player)

    return played


def _printed(outcome: Run) -> str:
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(run_table(outcome.summary))
    return console.export_text()


@pytest.mark.parametrize("player", [None, Mover()])
def test_a_run_wins_old_games_and_records_their_spelling(play: Play, player: Any) -> None:
    outcome = play("expert", player=player)
    assert outcome.manifest.dialect == outcome.summary.dialect == "put"
    for episode in outcome.records:
        assert episode.success and episode.error is None
        assert any(step.action.startswith("put ") and " in/on " in step.action for step in episode.trajectory)
        assert not any(step.action.startswith("move ") for step in episode.trajectory)
        assert all(step.action == step.expert_action for step in episode.trajectory), "known, whoever words it"
    assert outcome.summary.consistency is not None and outcome.summary.consistency.consistency.mean == 1.0
    assert "DIALECT 'put': these data spell actions differently from dialect 'move'" in _printed(outcome)


def test_a_random_player_is_never_refused_what_was_listed(play: Play) -> None:
    outcome = play("random")
    assert all(step.invalid_action is None for episode in outcome.records for step in episode.trajectory)


def test_games_of_today_are_as_they_were(play: Play) -> None:
    outcome = play("expert", "move")
    assert outcome.manifest.dialect == "move"
    assert outcome.manifest.entry.instructions() == env_entry("alfworld").instructions()
    assert "DIALECT" not in _printed(outcome)


def test_both_spellings_in_one_run_are_refused_and_nothing_is_left(play: Play, tmp_path: Path) -> None:
    with pytest.raises(GameFileError, match="in 2 ways"):
        play("expert", "mixed", out="mixed")
    assert not (tmp_path / "mixed").exists()


def test_a_comparison_names_the_dialect_and_not_another_version(play: Play) -> None:
    one, two = (load_run(play("random", games, max_steps=3).path) for games in ("move", "put"))
    found = elicitation_differences(one, two)
    assert found[0] == "the dialect of the data is 'move' in the first and 'put' in the second"
    assert not any("another version" in line for line in found)
    assert elicitation_differences(one, one) == []


def test_a_run_from_before_dialects_were_recorded(play: Play, folders: dict[str, Path]) -> None:
    def aged(outcome: Run) -> Run:
        manifest = json.loads((outcome.path / "manifest.json").read_text())
        del manifest["dialect"], manifest["expert"]
        if outcome.manifest.dialect == "put":
            before = play("random", "move", out="before", max_steps=3).manifest
            manifest["instructions_sha256"] = before.instructions_sha256
        (outcome.path / "manifest.json").write_text(json.dumps(manifest))
        lines = (outcome.path / "episodes.jsonl").read_text().splitlines(keepends=True)
        (outcome.path / "episodes.jsonl").write_text("".join(lines[:-1]))
        return load_run(outcome.path)

    new, old = aged(play("random", "move", max_steps=3)), aged(play("random", "put", max_steps=3))
    player, resources = _random(), {name: Resources(workers=0, data=folder) for name, folder in folders.items()}
    resumed = resume_run(new.path, agent=player, resources=resources["move"], observer=SilentObserver())
    assert len(resumed.records) == 4
    # On old games it asked for what no game of today spells: it cannot go on.
    with pytest.raises(RunFolderError, match="its instructions is"):
        resume_run(old.path, agent=player, resources=resources["put"], observer=SilentObserver())


def _random() -> Any:
    from cotbench.agents.registry import make_agent

    return make_agent("random")


def test_a_submission_is_checked_and_replayed_in_its_dialect(play: Play, folders: dict[str, Path]) -> None:
    data = pack(play("random", max_steps=8).path, Details(name="Old"))
    bundle = unpack(data)
    assert "data of dialect 'put' instead of 'move'" in check(bundle), "models were shown other texts than on the board"
    assert verify_bundle(bundle, data=folders["put"]).difference is None
    with pytest.raises(SubmissionError, match="unknown dialect 'pat'"):
        check(unpack(edited(data, manifest=setting("dialect", to="pat"))))
    with pytest.raises(SubmissionError, match="expert is 'mine', which alfworld does not have"):
        check(unpack(edited(data, manifest=setting("expert", to="mine"))))
    with pytest.raises(SubmissionError, match="instructions_sha256"):
        check(unpack(edited(data, manifest=setting("dialect", to="move"))))
    forged = unpack(edited(data, manifest=setting("dialect", to="move")))
    found = verify_bundle(forged, data=folders["put"]).difference
    assert found is not None and (found.field, found.submitted, found.found) == ("dialect", "move", "put")


def test_an_older_submission_is_read(play: Play, folders: dict[str, Path]) -> None:
    def older(manifest: dict[str, Any]) -> None:
        del manifest["dialect"], manifest["expert"]

    data = pack(play("expert", "move").path, Details(name="Old"))
    bundle = unpack(edited(data, manifest=older))
    check(bundle)
    assert verify_bundle(bundle, data=folders["move"]).difference is None
    assert bundle.digest == unpack(data).digest


def test_the_teacher_and_what_is_learned_from_it_are_in_the_games_spelling(play: Play) -> None:
    outcome = play("scripted", mode="cot", split="train", tasks=(TRAINED,))
    assert all(episode.success for episode in outcome.records)
    write_traces(outcome)
    for one in read_demonstrations(outcome.path):
        put = [place for place, action in enumerate(one.actions) if action.startswith("put ")]
        assert put and not any(action.startswith("move ") for action in one.actions)
        assert "I have" in (one.traces[put[0]] or "") or "I hold" in (one.traces[put[0]] or "") or "carry" in str(one.traces)
        assert "put mug 2 in/on shelf 3" in one.dialogue(0).instructions.examples
        for step, (action, trace) in enumerate(zip(one.actions, one.traces, strict=True)):
            assert trace is not None and not unseen(one.dialogue(step), action, trace, "alfworld")


def test_a_probe_asks_in_the_games_spelling(play: Play, tmp_path: Path) -> None:
    reference = play("scripted", mode="cot")
    states = read_states(reference.path)
    assert states.dialect == "put"
    assert all("put mug 2 in/on shelf 3" in state.dialogue.instructions.examples for state in states.states)
    probe = probe_named("alignment")
    measured = run_probe(
        probe,
        tmp_path / "probe",
        agent=Mover(),
        spec="mover",
        states=states,
        elicitation=reference.manifest.config.elicitation,
        options=probe.options(),
    )
    assert measured.numbers.errors == 0
    assert measured.numbers.estimates["cot exact"].mean == 1.0, "the other spelling of the same action"
