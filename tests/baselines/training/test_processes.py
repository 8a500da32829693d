"""Several processes train what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cotbench.cli import run_cli
from tests.conftest import needs_hf
from tests.tiny_models import save_model

pytestmark = [needs_hf, pytest.mark.slow]


def test_two_processes_reach_the_weights_of_one(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    traces, model = tmp_path / "traces", save_model(tmp_path / "model", "qwen")
    assert run_cli(["traces", "--teacher", "scripted?slips=0.05", "--episodes", "6", "--out", str(traces)]) == 0
    options = ["--recipe", "sft+", "--model", str(model), "--data", str(traces), "--epochs", "1", "--lr", "1e-3"]
    seen = []
    for name, count in (("one", 1), ("two", 2)):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
        command += ["-m", "cotbench", "train", *options, "--out", str(tmp_path / name)]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
        seen.append(json.loads((tmp_path / name / "recipe.json").read_text())["seen"])
    assert seen[0] == seen[1]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5
