"""Submissions that claim more than they are: real bundles, forged, sent and replayed for real. None becomes a figure that is
called checked and is not, or a rank that is another's.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: pip install -e '.[leaderboard]'")

from cotbench import plugins
from cotbench.agents import registry as agents
from cotbench.cli import run_cli
from cotbench.envs import registry as envs
from cotbench.errors import ReplayTimeoutError, SubmissionError, UsageError
from cotbench.leaderboard.boards.view import Standing, board_view
from cotbench.leaderboard.store.board import Board
from cotbench.leaderboard.store.entry import Entry
from cotbench.leaderboard.store.levels import FIGURES
from cotbench.leaderboard.store.store import Store, accept_submission
from cotbench.leaderboard.submission.bundle import unpack
from cotbench.leaderboard.verification import budget
from cotbench.leaderboard.verification.difference import Difference
from cotbench.leaderboard.verification.verify import verify_bundle
from cotbench.prompting.elicitation import Elicitation
from tests.conftest import needs_hf
from tests.leaderboard.made import JSON, edited, packed, setting

CORRIDOR = Path(__file__).parents[1] / "leaderboard" / "corridor.py"
COT = Board("corridor", "paper", "id", "cot")
PROMPT = Board("corridor", "paper", "id", "prompt")
N = 12


@pytest.fixture(scope="module", autouse=True)
def corridor() -> Iterator[None]:
    """The environment and the agent of that file, for these tests alone."""
    plugins.load_plugins([str(CORRIDOR)])
    yield
    envs._registry._registered.pop("corridor")
    agents._registry._registered.pop("walker")
    plugins._loaded.pop(str(CORRIDOR))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "board.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store.open(path) as opened:
        yield opened


def _run(agent: str = "walker", **changes: Any) -> bytes:
    """A whole run on the corridor."""
    return packed(**{"agent": agent, "env": "corridor", "episodes": None, "max_steps": None, **changes})


def _sent(store: Store, data: bytes, name: str = "An entry", team: str = "A team", *, replay: bool = True) -> Entry:
    """Submit and replay as the command line does."""
    entry, _ = accept_submission(store, io.BytesIO(data), name=name, team=team)
    if not replay:
        return entry
    verdict = verify_bundle(unpack(store.bundle(entry.id)))
    return store.settle(entry.id, verdict.difference, with_versions={}, expert=verdict.expert)


def _row(store: Store, entry: Entry, board: Board = COT) -> Standing:
    return next(row for row in board_view(store, board, None).rows if row.entries == (entry.id,))


def _as_model(manifest: JSON) -> None:
    manifest["config"]["agent"] = "hf:some/model"
    manifest["agent"] = {"name": "hf:some/model"}


def test_an_honest_entry_has_a_rank(store: Store) -> None:
    entry = _sent(store, _run())
    row = _row(store, entry)
    assert (entry.state, entry.level, entry.unranked, row.rank) == ("replayed", "replayed", (), 1)
    assert entry.expert and not any(share.plays_expert for share in entry.expert)


# Prompt actions that nobody executed.


def _looks(rows: list[JSON]) -> None:
    for row in rows:
        for step in row["trajectory"]:
            if step["prompt_decision"] is not None:
                step["prompt_action"] = step["prompt_decision"]["action"] = "look"


def test_figures_of_prompt_actions_are_self_reported_wherever_they_stand(store: Store, path: Path, tmp_path: Path) -> None:
    entry = _sent(store, edited(_run(), episodes=_looks))
    row = _row(store, entry)
    assert row.consistency is not None and row.consistency.mean == 0
    assert entry.state == "replayed"
    claimed = ("consistency", "revisions", "tokens", "computed", "agent", "name", "team")
    assert {entry.figures[name] for name in claimed} == {"self-reported"}
    assert {entry.figures[name] for name in ("success", "score", "gap", "behind", "rank")} == {"replayed"}

    from cotbench.leaderboard.web.board_table import board_csv

    head = next(csv.reader(io.StringIO(board_csv(board_view(store, COT).rows))))
    assert {"consistency (self-reported)", "tokens (self-reported)", "agent (self-reported)", "success", "score"} <= set(head)
    listed = json.loads(_output(path, "list", "--mode", "cot", "--json"))[0]
    assert listed["figures"]["consistency"] == {"replay": False, "rerun": True} and listed["rows"][0]["level"] == "replayed"
    text = " ".join(_output(path, "list", "--mode", "cot").split())
    assert "success ●" in text and "name ○" in text and "○ self-reported: as submitted: no replay can check it" in text
    page = " ".join(_output(path, "show", entry.id).split())
    replayed, claims = page[page.index("● replayed") :].split("○ self-reported")
    assert "success" in replayed and "consistency" not in replayed and "consistency" in claims and "revisions" in claims

    pytest.importorskip("jinja2")
    from cotbench.leaderboard.web.site import write_site

    write_site(store, tmp_path / "site")
    page = (tmp_path / "site" / "entries" / f"{entry.id}.html").read_text()
    assert "○ Consistency" in page and "○ Revisions" in page and "● success" in page and "○ tokens generated" in page
    assert "erified" not in page + (tmp_path / "site" / "index.html").read_text()


def test_every_column_and_row_says_what_can_check_it() -> None:
    pytest.importorskip("jinja2")
    from dataclasses import fields

    from cotbench.leaderboard.boards.terminal import TERMINAL_COLUMNS
    from cotbench.leaderboard.store.levels import OURS
    from cotbench.leaderboard.web.board_table import BOARD_COLUMNS, CSV_COLUMNS
    from cotbench.leaderboard.web.entry_sections import NUMBERS

    known = FIGURES.keys() | OURS
    figures = {column.figure for column in BOARD_COLUMNS} | set(CSV_COLUMNS.values()) | TERMINAL_COLUMNS.keys() | NUMBERS.keys()
    of_rows = {field.name for field in fields(Standing)} - {"details"}
    assert figures | of_rows <= known
    assert not FIGURES.keys() & OURS


def _output(path: Path, *arguments: str) -> str:
    import contextlib

    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        run_cli(["leaderboard", *arguments, "--db", str(path)])
    return output.getvalue()


# Another's actions.


COPIES: dict[str, Callable[[bytes], bytes]] = {
    "one token count": lambda data: edited(data, episodes=setting(0, "trajectory", 0, "decision", "action_tokens", to=7)),
    "the agent and the seed": lambda data: edited(data, manifest=lambda m: (_as_model(m), m["config"].update(seed=5))),
    "the traces": lambda data: edited(data, episodes=setting(1, "trajectory", 0, "decision", "trace", to="I thought.")),
    "the prompt actions": lambda data: edited(data, episodes=_looks),
    "the seconds": lambda data: edited(data, episodes=setting(0, "restarts", to=3)),
}


@pytest.mark.parametrize("what", COPIES)
def test_a_copy_has_no_rank_whatever_else_is_changed(store: Store, what: str) -> None:
    first = _sent(store, _run(), "The first", "One team")
    copy = _sent(store, COPIES[what](_run()), "The copy", "Another team")
    assert copy.state == "replayed"
    for board in (COT, PROMPT):
        assert _row(store, first, board).rank == 1
        row = _row(store, copy, board)
        assert row.rank is None
        assert row.unranked == (f"a duplicate of entry {first.id} in {N} of {N} tasks",)


def test_a_copy_loses_its_rank_to_what_was_there_before_it_and_to_nothing_else(store: Store) -> None:
    first = _sent(store, _run(), "The first", replay=False)
    copy = _sent(store, COPIES["one token count"](_run()), "The copy", "Another team")
    # While nobody knows whether the first one holds, it takes nothing from others.
    assert _row(store, copy).rank == 1 and f"the same actions as entry {first.id}" in " ".join(copy.notes)
    store.settle(first.id, None, with_versions={})
    assert (_row(store, first).rank, _row(store, copy).rank) == (1, None)
    store.settle(first.id, Difference.at("score", 1, 0), with_versions={})
    assert _row(store, copy).rank == 1 and store.entry(copy.id).overlaps == ()
    store.settle(first.id, None, with_versions={})
    store.remove(first.id)
    assert _row(store, copy).rank == 1


def test_a_part_of_a_run_takes_nothing_from_the_whole_one(store: Store) -> None:
    """As when a run with errors is submitted, then resumed, and submitted again."""
    part = _sent(store, edited(_run(), episodes=lambda rows: _failed(rows[0])), "With an error")
    whole = _sent(store, _run(), "Whole")
    assert (_row(store, part).rank, _row(store, whole).rank) == (None, 1)
    assert f"the same actions as entry {part.id} in 12 of 12 tasks" in whole.notes


def test_one_mode_of_another_entry_is_a_copy_too(store: Store) -> None:
    first = _sent(store, _run(), "The first")

    def alone(rows: list[JSON]) -> None:
        rows[:] = [row for row in rows if row["mode"] == "cot"]
        for row in rows:
            for step in row["trajectory"]:
                step["prompt_action"] = step["prompt_decision"] = None

    def cot(manifest: JSON) -> None:
        manifest["config"]["mode"] = "cot"

    copy = _sent(store, edited(_run(), manifest=cot, episodes=alone), "The copy", "Another team")
    assert (_row(store, first).rank, _row(store, copy).rank) == (1, None)


def test_a_part_of_another_entry_is_shown(store: Store) -> None:
    """Three of twelve tasks are the sender's own: no copy, but everybody sees what it has in common with the other."""
    own, others = _run("walker?number=2"), _run()
    first = _sent(store, others, "The first")
    rows = [json.loads(line) for line in _lines(others)]

    def mixed(mine: list[JSON]) -> None:
        mine[6:] = rows[6:]

    entry = _sent(store, edited(own, episodes=mixed), "The other", "Another team")
    assert _row(store, entry).rank is not None
    assert f"the same actions as entry {first.id} in 9 of 12 tasks" in " ".join(entry.notes)
    assert {(one.mode, one.same, one.tasks) for one in entry.overlaps} == {("prompt", 9, 12), ("cot", 9, 12)}


def _lines(data: bytes) -> list[bytes]:
    from tests.leaderboard.made import members

    return members(data)["episodes.jsonl"].splitlines()


def test_prompt_actions_copied_from_cot_are_told(store: Store) -> None:
    def copied(rows: list[JSON]) -> None:
        cot = {row["task"]: row for row in rows if row["mode"] == "cot"}
        for index, row in enumerate(rows):
            if row["mode"] == "prompt":
                rows[index] = json.loads(json.dumps({**cot[row["task"]], "mode": "prompt"}))
                for step in rows[index]["trajectory"]:
                    step["prompt_action"] = step["prompt_decision"] = step["decision"]["trace"] = None
            else:
                for step in row["trajectory"]:
                    step["prompt_action"] = step["prompt_decision"]["action"] = step["action"]

    entry = _sent(store, edited(_run(), episodes=copied))
    steps = sum(len(json.loads(line)["trajectory"]) for line in _lines(_run())) // 2
    assert f"the prompt-mode episodes take the actions of the CoT episodes in {N} of {N} tasks" in entry.notes
    assert f"the prompt actions equal the CoT actions in {steps} of {steps} states" in entry.notes
    assert not store.entry(_sent(store, _run("walker?number=3"), "Honest", "B").id).notes


# What is no model.


def test_baselines_stand_beside_the_ranks(store: Store) -> None:
    model = _sent(store, _run(), "A model")
    rows = [_row(store, _sent(store, _run(agent), f"As {agent}")) for agent in ("expert", "random")]
    assert _row(store, model).rank == 1
    assert [(row.rank, row.baseline, row.unranked) for row in rows] == [(None, True, ("a baseline, not a model",))] * 2
    assert [row.details.name for row in board_view(store, COT).rows] == ["A model", "As expert", "As random"]


def _silent(manifest: JSON) -> None:
    _as_model(manifest)
    manifest["config"]["expert_actions"] = False


def _silenced(rows: list[JSON]) -> None:
    for row in rows:
        for step in row["trajectory"]:
            step["expert_action"] = None


@pytest.mark.parametrize("silent", [False, True])
def test_the_expert_under_a_models_name_has_no_rank(store: Store, silent: bool) -> None:
    """Also where the forger leaves the expert's actions out of what is submitted."""
    data = (
        edited(_run("expert"), manifest=_silent, episodes=_silenced) if silent else edited(_run("expert"), manifest=_as_model)
    )
    entry = _sent(store, data, "A model")
    steps = 5 * (N if not silent else 10)  # What was not recorded is compared on ten tasks.
    assert entry.state == "replayed" and not entry.baseline
    for board in (COT, PROMPT):
        row = _row(store, entry, board)
        assert (row.rank, row.unranked) == (None, (f"plays the actions of the expert at {steps} of {steps} steps",))


# Names.


@pytest.mark.parametrize(
    "team", ["a TEAM", "A  team", "A-team", "Ａ team", "\u0410 team", "A te\u0430m", "A team\ufe0f", "A t\u00e9am"]
)
def test_a_team_cannot_look_like_another(store: Store, team: str) -> None:
    _sent(store, _run(), "One", "A team", replay=False)
    with pytest.raises(SubmissionError, match=r"looks like 'A team'|mixes letters of two scripts|two in a row"):
        _sent(store, _run("walker?number=2"), "Two", team, replay=False)
    assert _sent(store, _run("walker?number=2"), "Two", "A team 2", replay=False).details.team == "A team 2"
    assert store.count() == 2


def test_a_token_cannot_look_like_another(store: Store) -> None:
    store.new_token("Ada")
    for name in ("ada", "\u0410d\u0430", "Ad\u0430", "A-da"):
        if name == "A-da":
            store.new_token(name)  # Two words are not one.
            continue
        with pytest.raises(UsageError, match=r"looks like 'Ada'|mixes letters"):
            store.new_token(name)


def test_names_that_look_alike_are_one_system() -> None:
    from cotbench.leaderboard.submission.look_alikes import fold_name

    assert len({fold_name(name) for name in ("Model I", "MODEL l", "model-1", "Ｍodel 1", "\u039codel 1")}) == 1
    pairs = (("SFT", "SFT+"), ("v1.1", "v11"), ("Qwen3-4B", "Qwen3-8B"), ("1e-3", "1e3"), ("\u05d0\u05d1", "\u05d0\u05d2"))
    assert all(fold_name(one) != fold_name(other) for one, other in pairs)


# Errors.


def _failed(row: JSON) -> None:
    row.update(error="503 from the server", success=False, score=0.0, raw_score=0.0, terminated=False, truncated=False)


def test_a_run_of_errors_alone_is_refused(store: Store) -> None:
    data = edited(_run(), episodes=lambda rows: [_failed(row) for row in rows])
    with pytest.raises(SubmissionError, match=r"every one of the 24 episodes ended in an error"):
        _sent(store, data)
    with pytest.raises(UsageError, match="has no episode to replay"):
        verify_bundle(unpack(data))
    assert store.count() == 0


def test_a_mode_of_errors_alone_was_not_replayed(store: Store) -> None:
    entry = _sent(store, edited(_run(), episodes=lambda rows: [_failed(row) for row in rows if row["mode"] == "cot"]))
    cot, prompt = _row(store, entry), _row(store, entry, PROMPT)
    assert (cot.level, cot.rank, prompt.level, prompt.rank) == ("self-reported", None, "replayed", None)
    assert cot.unranked == ("12 of 24 episodes ended in errors",)


# Time.


def _waiting(hundredths: int) -> Callable[[list[JSON]], None]:
    """An edit after which a step of the first episode takes so long; nothing else differs from what a replay gives."""

    def edit(rows: list[JSON]) -> None:
        first = rows[0]["trajectory"][0]
        step = {**first, "observation": "Nothing happens.", "invalid_action": "not of the form door NUMBER", "score": 0.0}
        step["action"] = f"wait {hundredths}"
        step["decision"] = {**first["decision"], "action": step["action"]}
        rows[0]["trajectory"] = [step, *rows[0]["trajectory"]]
        rows[0]["steps"] += 1

    return edit


def test_what_takes_too_long_is_not_checked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = unpack(edited(_run(), episodes=_waiting(30)))
    assert verify_bundle(slow).difference is None, "it is an honest replay, given the time"
    monkeypatch.setattr(budget, "START_SECONDS", 0.0)
    monkeypatch.setattr(budget, "FAST", (0.01, 0.01))
    with pytest.raises(ReplayTimeoutError, match=r"corridor/long/0#prompt cannot be replayed: it took too long"):
        verify_bundle(slow)


def test_a_queue_goes_on_after_a_step_that_does_not_return(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "START_SECONDS", 4.0)
    monkeypatch.setattr(budget, "FAST", (0.02, 0.0))
    with Store.open(path) as store:
        slow = _sent(store, edited(_run(), episodes=_waiting(100_000)), "Slow", replay=False)
        other = _sent(store, _run("walker?number=2"), "Other", replay=False)
        begun = time.monotonic()
        output = _output(path, "verify", "--all", "--jobs", "1")
        assert time.monotonic() - begun < 60
        assert f"{slow.id} not checked: " in output and "it took too long" in output and f"{other.id} replayed" in output
        entry = store.entry(slow.id)
        assert (entry.state, entry.level) == ("unchecked", "self-reported") and "it took too long" in entry.unchecked
        assert (_row(store, entry).rank, _row(store, other).rank) == (None, 1)
        assert _output(path, "verify", "--all") == "", "it is not tried again and again"


def test_the_budget_grows_with_what_is_replayed_and_not_with_what_is_claimed() -> None:
    entry = envs.env_entry("corridor")
    episodes = list(unpack(_run()).episodes)
    one, all_, claimed = (
        budget.Budget.of(entry, some).seconds
        for some in (episodes[:1], episodes, [episode.model_copy(update={"seconds": 1e9}) for episode in episodes])
    )
    assert one < all_ == claimed


# Playing again.


@pytest.fixture
def tiny(store: Store) -> Entry:
    return _sent(store, _tiny())


def _tiny() -> bytes:
    short = Elicitation.for_env("corridor", trace_tokens=12, action_tokens=8)
    return _run("hf:tiny", episodes=2, max_steps=2, elicitation=short)


def _again(path: Path, entry: Entry, *more: str) -> tuple[int, str, str]:
    import contextlib

    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = run_cli(["leaderboard", "rerun", entry.id, "--db", str(path), *more])
    return code, output.getvalue(), errors.getvalue()


@needs_hf
def test_an_agent_that_answers_the_same_is_reproduced(store: Store, path: Path, tiny: Entry) -> None:
    code, output, errors = _again(path, tiny, "--trust")
    assert code == 0, errors
    assert output.startswith(f"{tiny.id} reproduced: ") and "(100.0%), on 2 of 2 tasks" in output
    entry = store.entry(tiny.id)
    found = entry.reproduction
    assert found is not None and (found.tasks, found.episodes) == (2, 4)
    assert found.decisions == found.decisions_agreeing == found.answers_agreeing == 2 * 2 * 2 + 2 * 2
    assert found.episodes_agreeing.mean == 1 and found.episodes_agreeing.low is not None and not found.first
    assert {"torch", "device", "dtype", "machine"} <= found.machine.keys() and len(found.weights) == 64
    assert (entry.state, entry.level) == ("replayed", "reproduced")
    assert {entry.figures[name] for name in ("success", "consistency", "tokens", "agent")} == {"reproduced"}
    assert {entry.figures[name] for name in ("computed", "name", "team")} == {"self-reported"}
    assert _row(store, entry).level == "reproduced" and "reproduced" in _output(path, "list")


@needs_hf
def test_forged_prompt_actions_are_not_reproduced(store: Store, path: Path) -> None:
    entry = _sent(store, edited(_tiny(), episodes=_looks))
    code, output, _ = _again(path, entry, "--trust")
    assert code == 1 and "prompt_action 'look', here " in output
    assert store.entry(entry.id).level == "replayed"


@needs_hf
def test_other_weights_are_told_before_anything_is_played(store: Store, path: Path) -> None:
    entry = _sent(store, edited(_tiny(), manifest=setting("agent", "weights_sha256", to="0" * 64)))
    code, _, errors = _again(path, entry, "--trust")
    assert code == 2 and "other weights: the entry was played with weights_sha256 '0000" in errors
    none = _sent(store, edited(_tiny(), manifest=setting("agent", to={"name": "x"})))
    code, _, errors = _again(path, none, "--trust")
    assert code == 2 and "does not say with which weights" in errors
    assert store.entry(entry.id).reproduction is None


@needs_hf
def test_both_models_of_frodo_are_compared_and_played_again(store: Store, path: Path) -> None:
    short = Elicitation.for_env("corridor", trace_tokens=12, action_tokens=8)
    made = _run("frodo:tiny-cot,tiny", episodes=2, max_steps=2, elicitation=short)
    entry = _sent(store, made)
    code, _, errors = _again(path, entry, "--trust")
    assert code == 0, errors
    found = store.entry(entry.id).reproduction
    assert found is not None and found.decisions == found.answers_agreeing > 0
    described = unpack(made).manifest.agent
    assert found.weights == f"{described['weights_sha256']}, {described['writer']['weights_sha256']}"
    for forged, message in (
        (setting("agent", "writer", "weights_sha256", to="0" * 64), "with the writer's weights_sha256 '0000"),
        (setting("agent", "writer", to={"name": "x"}), "played with one model, here is one model and a writer"),
    ):
        code, _, errors = _again(path, _sent(store, edited(made, manifest=forged)), "--trust")
        assert code == 2 and message in errors
    code, _, errors = _again(path, _sent(store, _tiny()), "--agent", "frodo:tiny,tiny")
    assert code == 2 and "here is one model and a writer" in errors


STRANGE = {
    "openai:m@http://10.0.0.1/v1?key_env=AWS_SECRET_ACCESS_KEY": "only hf: and frodo: agents",
    "replay:/etc": "only hf: and frodo: agents",
    "hf:/etc/model": "names no model of the hub",
    "hf:./model": "names no model of the hub",
    "hf:~/model": "names no model of the hub",
    "hf:../../model": "names no model of the hub",
    "frodo:tiny": "names no model of the hub",
    "frodo:./writer,./answerer": "names no model of the hub",
    "frodo:tiny,/etc/model": "names no model of the hub",
    "hf:tiny?adapter=/etc/adapter": "has the option adapter",
    "hf:tiny?cache_gb=1e9": "has the option cache_gb",
}


@pytest.mark.parametrize("spec", STRANGE)
def test_nothing_strange_is_loaded_on_an_entrys_word(
    store: Store, path: Path, spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("it was loaded")

    monkeypatch.setattr(agents, "resolve", never)
    entry = _sent(store, edited(_run(), manifest=setting("config", "agent", to=spec)))
    code, _, errors = _again(path, entry, "--trust")
    assert code == 2 and STRANGE[spec] in errors


def test_an_entry_is_played_again_after_a_yes_and_a_replay_alone(store: Store, path: Path) -> None:
    data = edited(_run(), manifest=setting("config", "agent", to="hf:tiny"))
    entry = _sent(store, data, replay=False)
    assert "is pending: replay it first" in _again(path, entry, "--trust")[2]
    store.settle(entry.id, None, with_versions={})
    code, _, errors = _again(path, entry)
    assert code == 2 and "names the model hf:tiny, which you did not type: add --trust" in errors
