"""`cotbench pairs`: from the command line to a folder, and what is said where something is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.baselines.data.pairs import read_summary
from cotbench.cli import run_cli

SHORT = ["--states", "2", "--samples", "2", "--trace-tokens", "6", "--action-tokens", "4"]


@pytest.fixture
def words(learners: dict[str, Path], some_traces: Path) -> list[str]:
    return ["pairs", "--agent", f"hf:{learners['qwen']}?threads=1", "--data", str(some_traces), *SHORT]


def test_a_folder_is_made_and_gone_on_with(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p"
    assert run_cli([*words, "--out", str(out)]) == 1, "a random model writes nothing that is an action"
    output = capsys.readouterr()
    assert "0 pairs of 2 states" in output.out and "no pair was found at 2 states: the answers are malformed" in output.err
    summary = read_summary(out)
    assert summary.states == 2 and sum(summary.samples.values()) == 4 and summary.takeover == {"alfworld-gen": "expert"}
    before = (out / "states.jsonl").read_bytes()
    assert run_cli(["pairs", "--resume", str(out), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["states"] == 2
    assert (out / "states.jsonl").read_bytes() == before
    assert run_cli([*words, "--out", str(out)]) == 2
    assert f"is not empty; resume with: cotbench pairs --resume {out}" in capsys.readouterr().err
    assert run_cli(["pairs", "--resume", str(out), "--samples", "3"]) == 2
    assert "holds another set of pairs: its samples is 2, not 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--out is missing: the folder of the pairs"),
        (["--out", "p"], "--agent is missing: name the checkpoint of recipe sft"),
        (["--out", "p", "--agent", "random"], "--data is missing: make traces with cotbench traces"),
        (["--resume", "p"], "p holds no pairs to resume with: omit --resume"),
        (["--out", "p", "--agent", "random", "--data", "TRACES"], "agent random tells no token ids: sample from a model"),
        (
            ["--out", "p", "--agent", "random", "--data", "TRACES", "--elicitation-style", "template"],
            "sampled with opened tags",
        ),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    arguments: list[str],
    message: str,
    some_traces: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli(["pairs", *(str(some_traces) if word == "TRACES" else word for word in arguments)]) in (1, 2)
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert not (tmp_path / "p").exists()
