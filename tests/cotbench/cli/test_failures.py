"""What fails is told apart on the command line: an agent's bug, an environment's, infrastructure; each in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from cotbench.agents import registry as agents
from cotbench.cli import run_cli
from cotbench.envs import registry as envs
from cotbench.probes import probe as probes
from cotbench.runs.episode import Episode, read_episodes
from cotbench.runs.results import load_run
from cotbench.runs.runner import RunConfig
from cotbench.runs.runner import run as play_run
from tests.small_split import small_split

TOYS = """
import json
import cotbench
from cotbench.agents.decisions import tagged_decision
from cotbench.envs.base import EnvOutcome, TextEnv
from cotbench.envs.tasks import ListedTasks
from cotbench.probes.numbers import ProbeNumbers, ProbeRow
from cotbench.probes.probe import Probe, ProbeOptions
from cotbench.prompting.query import Decision

SWITCH = {"broken": True}  # Tests turn it off: the bug is mended.


class Toy:
    needs = frozenset({"expert_action"})

    def decide(self, queries):
        return [self.one(query) for query in queries]

    def one(self, query):
        if query.expert_action is None:
            return tagged_decision(query, "A", None)
        return tagged_decision(query, query.expert_action, "because")

    def close(self): pass


def toy(name, **parts):
    cotbench.register_agent(name)(type("Broken", (Toy,), {"name": name, "__module__": __name__, **parts}))


def typo(self, query):
    return quary.task  # the typo


def leaves(self, query):
    raise SystemExit(3)


def odd(self, query):
    if SWITCH["broken"] and query.task.endswith("/2") and query.step == 1:
        raise ValueError("an odd query")
    return Toy.one(self, query)


def gone(self, query):
    if SWITCH["broken"]:
        raise ConnectionError("the server is gone")
    return Toy.one(self, query)


def revises(self, query):
    hasty = query.mode == "prompt" and query.step % 2 == 0
    return tagged_decision(query, "look", None) if hasty else Toy.one(self, query)


def closes(self):
    raise RuntimeError("cannot close")


toy("toy-fine")
toy("toy-asks", uses_elicitation=True)
toy("toy-typo", one=typo)
toy("toy-key", one=lambda self, query: {}["answer"])
toy("toy-leaves", one=leaves)
toy("toy-none", needs=(), decide=lambda self, queries: None)
toy("toy-short", decide=lambda self, queries: [])
toy("toy-text", decide=lambda self, queries: ["look"] * len(queries))
toy("toy-number", one=lambda self, query: Decision(5))
toy("toy-nan", one=lambda self, query: Decision("look", action_logprob=float("nan")))
toy("toy-minus", one=lambda self, query: Decision("look", trace_tokens=-1))
toy("toy-stream", batch=2, submit=lambda self, key, query: None, collect=lambda self, wait: [None])
toy("toy-odd", one=odd)
toy("toy-gone", one=gone)
toy("toy-revises", one=revises)
toy("toy-closes", close=closes)
toy("toy-describes", describe=lambda self: {"model": object()})
toy("toy-describes-key", describe=lambda self: {}["model"])
toy("toy-requires", require=lambda self, elicitation: elicitation.nothing)
toy("toy-refuses", require=lambda self, elicitation: (_ for _ in ()).throw(cotbench.CotbenchError("not asked that way")))


class Room(TextEnv):
    instructions = "You act."
    examples = ("open door",)
    default_max_steps = 3

    @staticmethod
    def canonical(action):
        if action == "unspelled":
            raise KeyError("no spelling")
        return 5 if action == "misspelled" else action

    def _split_tasks(self):
        return TASKS.tasks(self.scheme, self.split)

    def _start(self, task):
        self._kind = task.rsplit("/", 1)[1]
        if self._kind == "start":
            raise KeyError("the door")
        return EnvOutcome("A door. Your task is to: open it."), "open it."

    def _act(self, action):
        if self._kind == "act":
            return {}["the handle"]
        if self._kind == "none":
            return None
        if self._kind == "exit":
            raise SystemExit(4)
        score = {"score": 5.0, "nan": float("nan")}.get(self._kind, 1.0)
        observation = 5 if self._kind == "number" else "Open."
        return EnvOutcome(observation, score, 1.0, True, True)

    def _admissible_actions(self):
        return ["open door"]

    def _expert_action(self):
        return {"canonical": "unspelled", "spelled": "misspelled"}.get(self._kind, "open door")

    def close(self):
        if SWITCH.get("close"):
            raise RuntimeError("it stays open")


KINDS = ("act", "canonical", "exit", "fine", "nan", "none", "number", "score", "spelled", "start")
TASKS = ListedTasks({"paper": {"id": [f"toy-room/door/{kind}" for kind in KINDS]}})
cotbench.register_env("toy-room", task_source=lambda: TASKS)(Room)


class Cellar(Room):
    def __init__(self, **arguments):
        raise KeyError("the stairs")


cotbench.register_env("toy-cellar", task_source=lambda: TASKS)(Cellar)


def rows(agent, states, setting, options):
    if options.mistake == "key":
        return {}["rows"]
    found = [ProbeRow(task=state.task, step=state.step) for state in states]
    if options.mistake == "kind":
        return iter(["row", *found])
    if options.mistake == "fewer":
        return iter(found[1:])
    return iter([*found, found[0]])


class ToyOptions(ProbeOptions):
    mistake: str = "key"


def numbers(rows, options):
    return ProbeNumbers(states=len(rows), tasks=len({row.task for row in rows}), errors=0)


cotbench.register_probe(Probe("toy-probe", "with bugs", ToyOptions, ProbeRow, rows, numbers))
"""
GAMES = [word for number in (1, 2, 3) for word in ("--task", f"alfworld/gen/look/{number}")]


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file of the toys; what it registers is gone after these tests."""
    file = tmp_path_factory.mktemp("toys") / "toys_with_bugs.py"
    file.write_text(TOYS)
    with pytest.MonkeyPatch.context() as patch:
        for module in (agents, envs, probes):
            patch.setattr(module._registry, "_registered", dict(module._registry._registered))
        ids = set(gymnasium.registry)
        yield file
        for gym_id in set(gymnasium.registry) - ids:
            del gymnasium.registry[gym_id]


@pytest.fixture
def switch(toys: Path) -> Any:
    import sys

    found = sys.modules["cotbench_plugin_toys_with_bugs"].SWITCH
    yield found
    found.clear()
    found["broken"] = True


@pytest.fixture
def cli(toys: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        code = run_cli([*words, "--import", str(toys)])
        found = capsys.readouterr()
        return code, found.out, found.err

    call("list", "agents")
    return call


@pytest.fixture(scope="module")
def recorded(toys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in mode both whose traces change actions at some states."""
    out = tmp_path_factory.mktemp("recorded") / "run"
    words = ["run", "--agent", "toy-revises", "--max-steps", "8", *GAMES[:4], "--out", str(out), "--import", str(toys)]
    assert run_cli(words) == 0
    return out


def _played(folder: Path) -> dict[str, Episode]:
    return {episode.key: episode for episode in read_episodes(folder)}


BUGS = {
    "toy-typo": r"failed: NameError: name 'quary' is not defined \(toys_with_bugs\.py:\d+\)",
    "toy-key": r"failed: KeyError: 'answer' \(toys_with_bugs\.py:\d+\)",
    "toy-leaves": r"failed: SystemExit: 3 \(toys_with_bugs\.py:\d+\)",
    "toy-none": "returned a NoneType from decide, not a list of decisions",
    "toy-short": r"answered 0 of \d queries",
    "toy-text": "returned a str, not a Decision",
    "toy-number": "returned a Decision with a bad action: Input should be a valid string",
    "toy-nan": "returned a Decision with a bad action_logprob: Input should be a finite number",
    "toy-minus": "returned a Decision with a bad trace_tokens: -1 is below 0",
}
HINT = r"(; --debug shows the traceback)?"


@pytest.mark.parametrize("agent", [*BUGS, "toy-stream"])
def test_a_broken_agent_ends_a_run_at_once_and_leaves_no_folder(cli: Any, tmp_path: Path, agent: str) -> None:
    code, out, err = cli("run", "--agent", agent, *GAMES, "--out", "here")
    problem = BUGS.get(agent, "returned a NoneType from collect, not a key with its decision")
    assert (code, out) == (1, "")
    loading, error = err.splitlines()[0], err.splitlines()[-1]
    assert loading == f"loading {agent}"
    assert re.fullmatch(rf"error: agent {agent} {problem}{HINT}", error)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["traces", "probe", "probe --reference", "judge", "suite", "resume"])
def test_every_command_that_asks_an_agent_says_its_bug_in_one_line(
    cli: Any, tmp_path: Path, recorded: Path, command: str
) -> None:
    words = {
        "traces": ("traces", "--teacher", "toy-typo", "--limit", "4", "--out", "here"),
        "probe": ("probe", "alignment", "--agent", "toy-typo", "--states", "3", "--out", "here"),
        "probe --reference": (
            *("probe", "conflict", "--agent", "toy-typo", "--states", "3"),
            *("--reference", str(recorded), "--out", "here"),
        ),
        "judge": ("judge", str(recorded), "--agent", "toy-none"),
        "suite": ("run", "--agent", "toy-typo", "--env", "alfworld-gen,toy-room", "--limit", "2", "--out", "here"),
        "resume": ("run", "--resume", "begun"),
    }[command]
    if command == "resume":
        play_run(RunConfig(agent="toy-fine", tasks=tuple(GAMES[1::2])), out=tmp_path / "begun")
        manifest = tmp_path / "begun" / "manifest.json"
        manifest.write_text(manifest.read_text().replace("toy-fine", "toy-typo"))
        lines = (tmp_path / "begun" / "episodes.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "begun" / "episodes.jsonl").write_text("".join(lines[:2]))
    before = {path: path.read_bytes() for path in recorded.rglob("*") if path.is_file()}
    with small_split():
        code, out, err = cli(*words)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith(
        "error: agent toy-none returned a" if command == "judge" else "error: agent toy-typo"
    )
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 1 and "Traceback" not in err
    if command == "resume":
        assert sum(episode.error is None for episode in _played(tmp_path / "begun").values()) == 2, "played episodes are kept"
    else:
        assert list(tmp_path.iterdir()) == []
    assert {path: path.read_bytes() for path in recorded.rglob("*") if path.is_file()} == before
    assert not (recorded / "judges").exists()


def test_a_late_bug_costs_its_episodes_alone_and_they_are_played_again(cli: Any, tmp_path: Path, switch: Any) -> None:
    code, out, err = cli("run", "--agent", "toy-odd", *GAMES, "--out", "here")
    assert code == 1
    problem = r"agent toy-odd failed: ValueError: an odd query \(toys_with_bugs\.py:\d+\)"
    again = r"retry with: cotbench run --resume here --import \S+ \(--debug shows the traceback\)"
    key = "alfworld/gen/look/2#prompt"
    assert re.fullmatch(rf"error: 2 of 6 episodes failed, the first is {key}: {problem}; {again}", err.splitlines()[-1])
    assert "ERRORS: 2 episodes failed (2 agent bug) and are excluded from all statistics" in out
    assert re.search(rf"agent bug, 2 of 2: {problem}", out)
    failed = {key: episode for key, episode in _played(tmp_path / "here").items() if episode.error is not None}
    assert sorted(failed) == ["alfworld/gen/look/2#cot", key]
    for episode in failed.values():
        assert episode.error_kind == "agent bug" and not episode.success and episode.score == 0.0
        assert (episode.traceback or "").endswith("ValueError: an odd query") and "in odd" in (episode.traceback or "")
        assert episode.steps == 1, "it is kept as far as it went"
    summary = load_run(tmp_path / "here").summary
    assert {kind: (count.n, count.same) for kind, count in summary.errors_by_kind.items()} == {"agent bug": (2, 2)}
    switch["broken"] = False
    assert cli("run", "--resume", "here")[0] == 0
    assert cli("run", "--agent", "toy-odd", *GAMES, "--out", "whole")[0] == 0
    for name in ("episodes.jsonl", "summary.json"):
        again_, whole = ((tmp_path / folder / name).read_text() for folder in ("here", "whole"))
        varies = r'"seconds":[0-9.]+|"sha256":"[0-9a-f]+"'
        assert re.sub(varies, "", again_) == re.sub(varies, "", whole)
        assert "error_kind" not in again_ and "traceback" not in again_ and "errors_by_kind" not in again_


def test_debug_shows_the_traceback_and_stops_at_the_first_bug(cli: Any, tmp_path: Path, switch: Any) -> None:
    code, _, err = cli("run", "--agent", "toy-odd", *GAMES, "--out", "here", "--debug")
    assert code == 1
    lines = err.splitlines()
    assert "Traceback (most recent call last):" in lines and "ValueError: an odd query" in lines
    assert 'raise ValueError("an odd query")' in err
    assert lines[-1].startswith("error: agent toy-odd failed") and "--debug" not in lines[-1]
    assert len(_played(tmp_path / "here")) == 3, "two were whole, the third has the bug"
    switch["broken"] = False
    assert cli("run", "--resume", "here", "--debug")[0] == 0
    assert all(episode.error is None for episode in _played(tmp_path / "here").values())
    code, _, err = cli("run", "--agent", "toy-typo", *GAMES, "--out", "there", "--debug")
    assert code == 1 and "# the typo" in err and not (tmp_path / "there").exists()


def test_infrastructure_is_no_bug(cli: Any, tmp_path: Path, switch: Any) -> None:
    code, out, err = cli("run", "--agent", "toy-gone", *GAMES, "--out", "here")
    assert code == 1
    assert (
        "error: 6 of 6 episodes failed, the first is alfworld/gen/look/1#prompt: ConnectionError: the server is gone; " in err
    )
    assert "ERRORS: 6 episodes failed for a reason outside the model and are excluded from all statistics" in out
    assert "infrastructure, 6 of 6: ConnectionError: the server is gone" in out
    episodes = _played(tmp_path / "here").values()
    assert {episode.error_kind for episode in episodes} == {"infrastructure"}
    switch["broken"] = False
    assert cli("run", "--resume", "here")[0] == 0


def test_folders_of_an_older_version_are_read_and_resumed(cli: Any, tmp_path: Path, switch: Any) -> None:
    cli("run", "--agent", "toy-gone", *GAMES, "--out", "here")
    file = tmp_path / "here" / "episodes.jsonl"
    old = []
    for line in file.read_text().splitlines():
        fields = json.loads(line)
        del fields["error_kind"], fields["traceback"], fields["sha256"]
        old.append(json.dumps(fields, separators=(",", ":")) + "\n")
    file.write_text("".join(old))
    manifest = tmp_path / "here" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 1'))
    (tmp_path / "here" / "summary.json").unlink()
    found = load_run(tmp_path / "here")
    assert found.summary.modes["cot"].errors == 3 and found.summary.errors_by_kind == {}
    assert "".join(episode.model_dump_json() + "\n" for episode in found.records) == "".join(old)
    code, _, err = cli("run", "--resume", "here")
    assert code == 1 and "6 of 6 episodes failed" in err
    switch["broken"] = False
    assert cli("run", "--resume", "here")[0] == 0


def test_an_agent_that_cannot_be_closed_is_a_warning(cli: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code, out, _ = cli("run", "--agent", "toy-closes", *GAMES, "--out", "here")
    assert code == 0 and "success" in out
    (record,) = caplog.records
    assert re.fullmatch(
        r"agent toy-closes failed while it was closed: RuntimeError: cannot close \(toys_with_bugs\.py:\d+\)",
        record.getMessage(),
    )


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        ("toy-describes", "agent toy-describes returned from describe what is no dict of plain data"),
        ("toy-describes-key", r"agent toy-describes-key failed: KeyError: 'model' \(toys_with_bugs\.py:\d+\)"),
        ("toy-requires", r"agent toy-requires failed: AttributeError: 'Elicitation' object has no attribute 'nothing' \(toys"),
        ("toy-refuses", "not asked that way$"),
    ],
)
@pytest.mark.parametrize("command", ["run", "probe"])
def test_the_other_parts_of_an_agent_are_its_code_too(
    cli: Any, tmp_path: Path, recorded: Path, command: str, agent: str, message: str
) -> None:
    words = {"run": ("run", *GAMES), "probe": ("probe", "alignment", "--states", "2", "--reference", str(recorded))}[command]
    code, _, err = cli(*words, "--agent", agent, "--out", "here")
    assert code == 1 and re.match(f"error: {message}", err.splitlines()[-1])
    assert list(tmp_path.iterdir()) == []


# Environments.

ROOM_BUGS = {
    "act": r"failed: KeyError: 'the handle' \(toys_with_bugs\.py:\d+\)",
    "exit": r"failed: SystemExit: 4 \(toys_with_bugs\.py:\d+\)",
    "nan": r"returned nan as score, not a number in \[0, 1\]",
    "none": r"failed: AttributeError: 'NoneType' object has no attribute 'ended' \(base\.py:\d+\)",
    "number": "returned 5 as observation, not a text",
    "score": r"returned 5\.0 as score, not a number in \[0, 1\]",
    "start": r"failed: KeyError: 'the door' \(toys_with_bugs\.py:\d+\)",
}


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_environments_bug_costs_its_episode_and_is_named(cli: Any, tmp_path: Path, workers: str) -> None:
    words = ("--env", "toy-room", "--mode", "prompt", "--workers", workers, "--out", "here")
    code, out, err = cli("run", "--agent", "toy-fine", *words)
    assert code == 1 and "ERRORS: 7 episodes failed (7 environment bug) and are excluded from all statistics" in out
    assert err.splitlines()[-1].startswith("error: 7 of 10 episodes failed")
    episodes = {key.partition("#")[0].rsplit("/", 1)[1]: episode for key, episode in _played(tmp_path / "here").items()}
    # An action without a spelling is no error, or a model could take its losses out of the figures: it counts as it stands.
    for kind, action in (("fine", "open door"), ("canonical", "unspelled"), ("spelled", "misspelled")):
        fine = episodes.pop(kind)
        assert fine.success and fine.error is None and fine.trajectory[0].action == action
    assert sorted(episodes) == sorted(ROOM_BUGS)
    for kind, episode in episodes.items():
        assert re.fullmatch(f"environment toy-room {ROOM_BUGS[kind]}", episode.error or ""), episode.error
        assert episode.error_kind == "environment bug" and episode.score == 0.0
        assert (episode.traceback is not None) == ("failed: " in (episode.error or ""))
    code, _, err = cli("run", "--agent", "toy-fine", *words[:-1], "there", "--debug")
    assert code == 1 and """{}["the handle"]""" in err and err.splitlines()[-1].startswith("error: environment toy-room failed")
    assert not (tmp_path / "there").exists(), "the first episode has the bug, before any action"


def test_an_environment_that_cannot_be_made_is_one_line(cli: Any, tmp_path: Path) -> None:
    located = r"environment toy-cellar failed: KeyError: 'the stairs' \(toys_with_bugs\.py:\d+\)"
    code, _, err = cli("run", "--agent", "toy-fine", "--env", "toy-cellar", "--out", "here")
    assert code == 1 and re.fullmatch(rf"error: {located}; --debug shows the traceback", err.splitlines()[-1])
    code, _, err = cli("play", "--env", "toy-cellar")
    assert code == 1 and re.fullmatch(rf"error: {located}; --debug shows the traceback", err.splitlines()[-1])
    code, _, err = cli("play", "--env", "toy-cellar", "--debug")
    assert code == 1 and 'raise KeyError("the stairs")' in err
    assert list(tmp_path.iterdir()) == []


def test_an_environment_that_cannot_be_closed_is_a_warning(cli: Any, switch: Any, caplog: pytest.LogCaptureFixture) -> None:
    switch["close"] = True
    words = ("--env", "toy-room", "--task", "toy-room/door/fine", "--workers", "0", "--out", "here")
    assert cli("run", "--agent", "toy-fine", *words)[0] == 0
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [
        "environment toy-room failed while it was closed: RuntimeError: it stays open"
    ]


# Probes and judges.


def test_a_probe_without_a_measured_state_says_why_and_leaves_no_folder(cli: Any, tmp_path: Path, recorded: Path) -> None:
    with small_split():
        for reference in ([], ["--reference", str(recorded)]):
            words = ("probe", "alignment", "--states", "4", *reference, "--out", "here")
            code, out, err = cli(*words, "--agent", "toy-gone")
            assert (code, out) == (1, "")
            assert err.splitlines()[-1] == "error: none of 4 states could be measured: ConnectionError: the server is gone"
            code, out, err = cli("probe", "attention", *words[2:], "--agent", "toy-fine")
            assert code == 2 and "needs access to the model itself, which toy-fine does not give" in err
            assert list(tmp_path.iterdir()) == []


def test_a_probe_with_some_errors_says_the_most_frequent_one(cli: Any, tmp_path: Path, recorded: Path, switch: Any) -> None:
    words = ("probe", "alignment", "--agent", "toy-odd", "--reference", str(recorded), "--out", "here")
    states = ("-o", "scores=false")
    code, out, err = cli(*words, *states)
    problem = r"agent toy-odd failed: ValueError: an odd query \(toys_with_bugs\.py:\d+\)"
    assert code == 1
    failed = rf"error: \d+ of \d+ states could not be measured, the first is step \d of \S+: {problem}; retry with"
    assert re.match(failed, err.splitlines()[-1])
    rows = [json.loads(line) for line in (tmp_path / "here" / "rows.jsonl").read_text().splitlines()]
    errors = [row for row in rows if row["error"] is not None]
    assert 0 < len(errors) < len(rows)
    assert all(row["error_kind"] == "agent bug" and "in odd" in row["traceback"] for row in errors)
    switch["broken"] = False
    assert cli("probe", "--resume", "here")[0] == 0
    assert "error_kind" not in (tmp_path / "here" / "rows.jsonl").read_text()
    assert "no elicitation settings (this agent does not use them)" in out


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("key", r"probe toy-probe failed: KeyError: 'rows' \(toys_with_bugs\.py:\d+\); --debug shows the traceback"),
        ("kind", "probe toy-probe yielded a str, not a ProbeRow"),
        ("fewer", r"probe toy-probe yielded no row for 1 states, the first is step \d of \S+"),
        ("more", r"probe toy-probe yielded a row of step \d of \S+, which it was not given"),
    ],
)
def test_a_probe_that_does_not_do_what_a_probe_has_to_is_one_line(cli: Any, recorded: Path, mistake: str, message: str) -> None:
    words = ("probe", "toy-probe", "--agent", "toy-fine", "--reference", str(recorded), "--states", "3", "--out", "here")
    code, _, err = cli(*words, "-o", f"mistake={mistake}")
    assert code == 1 and re.fullmatch(f"error: {message}", err.splitlines()[-1]), err


# The elicitation.


@pytest.mark.parametrize(("agent", "used"), [("toy-fine", False), ("random", False), ("expert", False), ("toy-asks", True)])
def test_a_fingerprint_is_printed_where_the_agent_uses_the_elicitation(
    cli: Any, tmp_path: Path, recorded: Path, agent: str, used: bool
) -> None:
    fingerprint = load_run(recorded).manifest.elicitation_fingerprint
    planned = cli("run", "--agent", agent, *GAMES[:2], "--dry-run")[1]
    code, out, _ = cli("run", "--agent", agent, *GAMES[:2], "--out", "here")
    assert code == 0
    for text in (planned, out):
        assert (fingerprint in text) is used
        assert ("no elicitation settings (this agent does not use them)" in text) is not used
    manifest, summary = ((tmp_path / "here" / name).read_text() for name in ("manifest.json", "summary.json"))
    assert ("uses_elicitation" in manifest) is ("uses_elicitation" in summary) is not used
    assert json.loads(manifest)["elicitation_fingerprint"] == fingerprint, "as data it stays"
    if agent != "random":
        code, out, _ = cli("probe", "alignment", "--agent", agent, "--reference", str(recorded), "--states", "2", "--out", "p")
        assert code == 0
        assert (f"elicitation {fingerprint}" in out) is used and ("no elicitation settings" in out) is not used


def test_models_use_the_elicitation_and_a_teacher_what_its_writer_does() -> None:
    from cotbench.agents.base import uses_elicitation
    from cotbench.agents.hf.agent import HFAgent
    from cotbench.agents.openai.agent import OpenAIAgent
    from cotbench.agents.registry import make_agent
    from cotbench.agents.vllm import VLLMAgent
    from cotbench.baselines.teachers.expert_fill import ExpertFill

    assert HFAgent.uses_elicitation and OpenAIAgent.uses_elicitation and VLLMAgent.uses_elicitation
    asks = make_agent("random")
    assert not uses_elicitation(ExpertFill(asks))
    asks.uses_elicitation = True  # type: ignore[attr-defined]
    assert uses_elicitation(ExpertFill(asks))


# What nobody expected.


def test_an_unexpected_exception_is_one_line_where_debug_can_show_it(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("our own bug")

    monkeypatch.setattr("cotbench.runs.plan.make_plan", broken)
    words = ("run", "--agent", "random", *GAMES)
    code, _, err = cli(*words)
    assert code == 1
    assert re.fullmatch(r"error: RuntimeError: our own bug \(test_failures\.py:\d+\); --debug shows the traceback\n", err)
    code, _, err = cli(*words, "--debug")
    assert (
        code == 1 and err.startswith("Traceback") and err.rstrip().splitlines()[-1].startswith("error: RuntimeError: our own")
    )
    monkeypatch.setattr("cotbench.agents.registry.agent_names", broken)
    with pytest.raises(RuntimeError, match="our own bug"):
        cli("list", "agents")


def test_a_study_s_processes_keep_the_traceback_in_the_log(cli: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["run", "--agent", "toy-typo", *GAMES, "--out", "here"], debug=True) == 1
    *above, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: agent toy-typo failed") and "    return quary.task  # the typo" in above


def test_a_file_that_cannot_be_imported_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "unfinished_toys.py"
    file.write_text("value = 1\nprint(valeu)\n")
    words = ["run", "--import", str(file), "--agent", "random"]
    assert run_cli(words) == 2
    error = capsys.readouterr().err
    assert error.endswith("NameError: name 'valeu' is not defined. Did you mean: 'value'? (unfinished_toys.py:2)\n") or (
        "NameError: name 'valeu' is not defined (unfinished_toys.py:2)" in error
    )
    assert run_cli([*words, "--debug"]) == 2
    assert "print(valeu)" in capsys.readouterr().err
