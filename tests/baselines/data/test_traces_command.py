"""`cotbench traces`: what is kept and what is counted, folders that survive a kill, nothing scored, one-line errors."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import cotbench
from cotbench import plugins
from cotbench.agents import registry
from cotbench.baselines.data.demonstration import read_demonstrations
from cotbench.baselines.data.traces import keep_successes
from cotbench.cli import run_cli
from cotbench.installation import install_command
from cotbench.prompting.query import Decision
from cotbench.runs.episode import Episode, Step
from tests.conftest import needs_pyarrow

TRACES = ["traces", "--teacher", "expert"]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs a command line in an empty folder: (exit code, output, last line of the errors)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry._registry, "_registered", dict(registry._registry._registered))

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run_cli(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, (captured.err.strip().splitlines() or [""])[-1]

    return call


def _episode(task: str, traces: tuple[str | None, ...], **changes: Any) -> Episode:
    steps = tuple(
        Step(action=f"a{turn}", decision=Decision(f"A{turn}", trace), observation=f"o{turn + 1}", score=0.0)
        for turn, trace in enumerate(traces)
    )
    fields = {"mode": "cot", "success": True, "steps": len(steps), "first_observation": "o0", "trajectory": steps}
    return Episode(task=task, task_type="t", **{**fields, **changes})


def test_every_episode_is_kept_or_counted() -> None:
    episodes = [
        _episode("whole", ("x", "y z")),
        _episode("half", ("x", None, "", "y")),
        _episode("silent", ("x", None, " ")),
        _episode("nothing", ()),
        _episode("lost", ("x",), success=False),
        _episode("broken", ("x",), success=False, error="503"),
        _episode("prompt", ("x",), mode="prompt"),
    ]
    successes = keep_successes(episodes, "alfworld-gen", "me")
    assert [one.task for one in successes.demonstrations] == ["whole", "half"]
    assert (successes.failed, successes.errors, successes.without_trace, successes.episodes) == (1, 1, 2, 6)
    assert (successes.decisions, successes.traces) == (6, ["x", "y z", "x", "y"])
    half = successes.demonstrations[1]
    assert (half.observations, half.actions) == (("o0", "o1", "o2", "o3"), ("a0", "a1", "a2", "a3"))
    assert half.traces == ("x", None, None, "y")
    assert (half.env, half.teacher, half.task_type) == ("alfworld-gen", "me", "t")


def test_a_folder_is_a_run_with_training_data_beside(cli: Any) -> None:
    code, out, _ = cli(*TRACES, "-n", "4", "--out", "t")
    folder = Path("t")
    read = read_demonstrations(folder)
    decisions = sum(len(one.actions) for one in read)
    words = [len(trace.split()) for one in read for trace in one.traces if trace]
    numbers = f"kept 4 of 4 episodes (0 failed, 0 without traces, 0 errors), {decisions} decisions"
    assert code == 0
    lines = [f"{numbers}, {sum(words) / len(words):.1f} words per trace", "traces: t/traces.jsonl"]
    assert out.splitlines() == [*lines, "decodability: not measured; it needs traces of at least 10 tasks"]
    loaded = cotbench.load_run(folder)
    config = loaded.manifest.config
    assert (config.mode, config.split, config.agent, config.env) == ("cot", "train", "expert", "alfworld-gen")
    assert [one.task for one in read] == list(loaded.manifest.task_list)
    summary = json.loads((folder / "traces.json").read_text())
    assert summary["traces_sha256"] == hashlib.sha256((folder / "traces.jsonl").read_bytes()).hexdigest()
    assert summary["elicitation_fingerprint"] == loaded.manifest.elicitation_fingerprint
    assert (summary["kept"], summary["examples"], summary["decisions"]) == (4, decisions, decisions)
    assert summary["tasks"] == list(loaded.manifest.task_list)
    assert {path.name for path in folder.iterdir() if not path.name.startswith(".")} == {
        "manifest.json",
        "episodes.jsonl",
        "summary.json",
        "traces.jsonl",
        "traces.json",
        "README.md",
    }


def test_the_same_command_writes_the_same_traces(cli: Any) -> None:
    assert cli(*TRACES, "-n", "3", "--out", "one")[0] == cli(*TRACES, "-n", "3", "--out", "two", "-w", "2")[0] == 0
    assert Path("one/traces.jsonl").read_bytes() == Path("two/traces.jsonl").read_bytes()
    assert Path("one/traces.json").read_bytes() == Path("two/traces.json").read_bytes()
    assert cli(*TRACES, "-n", "3", "--seed", "1", "--out", "three")[0] == 0
    assert Path("one/traces.jsonl").read_bytes() != Path("three/traces.jsonl").read_bytes()


def test_as_json(cli: Any) -> None:
    code, out, _ = cli(*TRACES, "-n", "1", "--json")
    assert code == 0
    assert json.loads(out) == json.loads(Path("runs/expert_alfworld-gen_train_cot_seed0/traces.json").read_text())


def test_where_nothing_is_won_nothing_is_kept_and_that_is_a_failure(cli: Any) -> None:
    code, out, error = cli("traces", "--teacher", "random", "-n", "2", "--max-steps", "2", "--out", "t")
    assert code == 1
    assert out.startswith("kept 0 of 2 episodes (2 failed, 0 without traces, 0 errors), 0 decisions\n")
    assert error.startswith("error: none of the 2 episodes by random was kept")
    assert json.loads(Path("t/traces.json").read_text())["mean_trace_words"] is None
    code, out, error = cli("traces", "--from", "t", "--out", "x.jsonl")
    assert (code, error) == (2, "error: t/traces.jsonl is empty: make demonstrations with cotbench traces")


SICK = """
import cotbench
from cotbench.agents.expert import ExpertAgent
from cotbench.prompting.query import Decision
from pathlib import Path

@cotbench.register_agent("sick")
class Sick(ExpertAgent):
    name = "sick"
    def decide(self, queries):
        down = Path("down").exists()
        return [
            Decision("", error="503") if down and query.step == 2 and query.task.endswith("1511") else decision
            for query, decision in zip(queries, super().decide(queries))
        ]
"""


def test_errors_are_counted_and_played_again(cli: Any) -> None:
    Path("sick.py").write_text(SICK)
    Path("down").touch()
    command = ("traces", "--teacher", "sick", "--import", "sick.py", "--out", "t")
    code, out, error = cli(*command, "-n", "3")
    assert code == 1
    assert out.startswith("kept 2 of 3 episodes (0 failed, 0 without traces, 1 errors)")
    assert "1 of 3 episodes failed, the first is alfworld/gen/pick/1511#cot: 503" in error
    assert error.endswith("retry with: cotbench traces --resume t --import sick.py")
    Path("down").unlink()
    plugins._loaded.clear()  # As in another process.
    registry._registry._registered.pop("sick")
    code, out, _ = cli("traces", "--resume", "t", "--import", "sick.py")
    assert code == 0 and out.startswith("kept 3 of 3 episodes")
    assert cli(*TRACES, "-n", "3", "--out", "whole")[0] == 0
    ours, theirs = read_demonstrations(Path("t")), read_demonstrations(Path("whole"))
    assert [one.model_copy(update={"teacher": "expert"}) for one in ours] == theirs


@pytest.mark.slow  # Of a run, on the same kind of folder: tests/faults/test_waits.py.
def test_killed_at_random_moments_and_resumed_it_is_the_same(tmp_path: Path) -> None:
    start = [sys.executable, "-P", "-c", "from cotbench.cli import main; main()", *TRACES, "-n", "40"]
    subprocess.run([*start, "--out", "whole"], check=True, capture_output=True, cwd=tmp_path)
    rng, journal = random.Random(3), tmp_path / "killed" / "episodes.jsonl"
    command = [*start, "--out", "killed"]
    for more in (2, 9):
        before = len(journal.read_bytes().splitlines()) if journal.exists() else 0
        resumed = ["--resume"] if journal.exists() else []
        process = subprocess.Popen([*command, *resumed], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
        while process.poll() is None and not (journal.exists() and len(journal.read_bytes().splitlines()) >= before + more):
            time.sleep(rng.uniform(0.001, 0.02))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was still running"
        assert not (journal.parent / "traces.jsonl").exists()
    kept = journal.read_bytes().splitlines()[:5]
    done = subprocess.run([*command, "--resume"], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("traces.jsonl", "traces.json", "summary.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert set(kept) <= set(journal.read_bytes().splitlines()), "what was played before the kill was not played again"


@needs_pyarrow
def test_parquet_beside_and_by_conversion(cli: Any) -> None:
    assert cli(*TRACES, "-n", "2", "--out", "t", "--parquet")[0] == 0
    read = read_demonstrations(Path("t"))
    assert read_demonstrations(Path("t/traces.parquet")) == read
    code, out, _ = cli("traces", "--from", "t", "--out", "new/x.parquet")
    assert code == 0
    assert out == f"wrote 2 demonstrations, {sum(len(one.actions) for one in read)} decisions: new/x.parquet\n"
    assert cli("traces", "--from", "new/x.parquet", "--out", "y.jsonl")[0] == 0
    assert Path("y.jsonl").read_bytes() == Path("t/traces.jsonl").read_bytes()


def test_parquet_is_asked_for_before_anything_is_played(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, error = cli(*TRACES, "-n", "1", "--out", "t", "--parquet")
    assert (code, error) == (1, f"error: a .parquet file needs the extra 'train': {install_command('train')}")
    assert not Path("t").exists()


def test_foreign_data_that_is_scored_is_not_converted(cli: Any) -> None:
    chat = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "<action>a</action>"}]
    Path("f.jsonl").write_text(json.dumps({"messages": chat, "task": "bfcl/multi_turn_base_150"}))
    code, _, error = cli("traces", "--from", "f.jsonl", "--out", "x.jsonl")
    assert code == 2 and "bfcl/multi_turn_base_150 is scored (bfcl paper/ood_domain has its scenario)" in error
    assert not Path("x.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--split", "id"], 2, "is scored (alfworld-gen paper/id): it must not be trained on; use tasks of split train"),
        (["--split", "ood"], 2, "is scored (alfworld-gen paper/ood)"),
        (["--task", "alfworld/gen/pick/0"], 2, "alfworld/gen/pick/0 is scored (alfworld-gen paper/id)"),
        (["--env", "alfworld", "--scheme", "official", "--split", "valid_seen"], 2, "is scored (alfworld paper/"),
        (["--env", "scienceworld", "--scheme", "official", "--split", "dev"], 2, "is for tuning (scienceworld paper/dev)"),
        (["--env", "bfcl", "--task", "bfcl/multi_turn_base_0"], 2, "bfcl/multi_turn_base_0 is scored (bfcl paper/id has its"),
        (["--env", "bfcl", "--scheme", "official", "--split", "live_simple"], 2, "is scored (bfcl official/live_simple)"),
        (["--split", "tarin"], 2, "unknown split 'tarin' of alfworld-gen in scheme 'paper'; did you mean 'train'"),
        (["--env", "alfworld-gen,bfcl"], 2, "unknown environment 'alfworld-gen,bfcl'"),
        (["--env", "alfworld"], 1, "the ALFWorld games are not on this machine"),
        (["--teacher", "exprt"], 2, "unknown agent 'exprt'; did you mean 'expert"),
        (["--resume"], 2, "--resume needs a folder"),
        (["--resume", "nowhere"], 2, "nowhere is not a run folder"),
        (["--from", "nowhere"], 2, "--from plays nothing: omit --teacher"),
    ],
)
def test_errors_are_one_line(cli: Any, arguments: list[str], code: int, message: str) -> None:
    got, out, error = cli(*TRACES, *arguments)
    assert got == code, error
    assert error.startswith("error: ") and message in error
    assert out == "" and not list(Path().iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "nowhere"], "--from needs --out FILE.jsonl or --out FILE.parquet"),
        (["--from", "nowhere", "--out", "x.jsonl"], "no file or folder nowhere"),
        (["--from", "nowhere", "--out", "there"], "there exists: choose another --out"),
        (["--from", "t", "--out", "x.csv"], "x.csv is neither a .jsonl nor a .parquet file: name it so"),
        (["--from", "t", "--out", "x.jsonl", "--elicitation-style", "template"], "omit --elicitation-style"),
        (["--from", "t", "--out", "x.jsonl", "--max-steps", "3"], "omit --max-steps"),
        (["--out", "t", "--teacher", "expert"], "t is not empty; resume with: cotbench traces --resume t, or choose another"),
        (["--resume", "t", "--seed", "4"], "t holds another run: its seed is 0, not 4"),
        (["--resume", "t", "--teacher", "random"], "its agent is 'expert', not 'random'"),
        (
            ["--resume", "both"],
            "both holds a run that is not on one environment in mode cot: resume with: cotbench run --resume",
        ),
        (["--resume", "scored"], "is scored (alfworld-gen paper/id)"),
    ],
)
def test_folders_and_files_are_not_mixed(cli: Any, arguments: list[str], message: str) -> None:
    Path("there").mkdir()
    assert cli(*TRACES, "-n", "1", "--out", "t")[0] == 0
    assert cli("run", "--agent", "expert", "--split", "train", "-n", "1", "--out", "both")[0] == 0
    assert cli("run", "--agent", "expert", "--mode", "cot", "-n", "1", "--out", "scored")[0] == 0
    before = Path("t/traces.jsonl").read_bytes()
    code, out, error = cli("traces", *arguments)
    assert (code, out) == (2, "")
    assert message in error
    assert Path("t/traces.jsonl").read_bytes() == before and not Path("x.csv").exists()


def test_a_dry_run_starts_nothing(cli: Any) -> None:
    code, out, _ = cli(*TRACES, "-n", "2", "--dry-run")
    assert code == 0
    assert out.splitlines()[:3] == [
        "expert on alfworld-gen paper/train, seed 0",
        "tasks: 2 of 8000",
        "episodes: 2 cot",
    ]
    assert not list(Path().iterdir())
