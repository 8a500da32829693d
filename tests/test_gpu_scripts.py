"""What runs on a GPU machine, dry-run on a CPU with toy sizes, so that it fails here and not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, needs_hf


def _run(out: Path, *options: str, seconds: int) -> str:
    """Run `run.sh`; return its log."""
    environment = {**os.environ, "PYTHON": sys.executable, "SITE": str(out / "site"), "CUDA_VISIBLE_DEVICES": ""}
    command = ["bash", str(ROOT / "tests/gpu/run.sh"), str(seconds), str(out), "--tiny", *options]
    subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=seconds + 120)
    return (out / "run.log").read_text("utf-8")


@needs_hf
@pytest.mark.slow
def test_the_engine_beside_generate_and_continuous_batching(tmp_path: Path) -> None:
    log = _run(tmp_path, "--only", "engine", seconds=600)
    figures = [json.loads(line) for line in (tmp_path / "figures.jsonl").read_text("utf-8").splitlines()]
    assert "failed" not in log and "cut" not in log, log
    rates = {figure["figure"]: figure for figure in figures if figure["unit"] == "decisions/s"}
    for name in ("ours", "generate", "cb"):
        assert rates[f"{name}, both modes, turns 14-15"]["decisions"] == 2 * 2 * 3  # Turns, modes, episodes.
    values = {figure["figure"]: figure["value"] for figure in figures}
    assert values["ours / generate, both modes, turns 14-15"] == pytest.approx(
        rates["ours, both modes, turns 14-15"]["value"] / rates["generate, both modes, turns 14-15"]["value"]
    )
    assert values["prefilled tokens a turn, 30 turns"] < 1.1 * values["prefilled tokens a turn, 10 turns"]
    assert {figure["card"] for figure in figures} == {"CPU"}


@needs_hf
@pytest.mark.slow
def test_one_part_that_fails_leaves_the_others(tmp_path: Path) -> None:
    """Without a GPU all of `correctness` skips; a study that cannot be made ends with a status, and the script with 0."""
    (tmp_path / "site" / "study-smoke").mkdir(parents=True)
    (tmp_path / "site" / "study-smoke" / "other.txt").write_text("not a study\n")
    log = _run(tmp_path, "--only", "correctness,study", seconds=120)
    assert "correctness: " in log and "skipped" in log
    assert "study: 0 s, exit status" not in log and "exit status 2" in log and log.rstrip().endswith("of 120"), log
