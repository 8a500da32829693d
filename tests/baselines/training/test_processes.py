"""Several processes train what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cotbench.cli import run_cli
from tests.conftest import needs_hf
from tests.tiny_models import save_model

pytestmark = [needs_hf, pytest.mark.slow]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("given")
    traces, model = folder / "traces", save_model(folder / "model", "qwen")
    assert run_cli(["traces", "--teacher", "scripted?slips=0.05", "--episodes", "6", "--out", str(traces)]) == 0
    return ["--recipe", "sft+", "--model", str(model), "--data", str(traces), "--epochs", "1", "--lr", "1e-3"]


def _train(count: int, *arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[Any]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    command += ["-m", "cotbench", "train", *arguments]
    # Elsewhere than in the checkout, which would shadow what is installed.
    return subprocess.run(
        command,
        check=False,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_two_processes_reach_the_weights_of_one(tmp_path: Path, options: list[str]) -> None:
    from safetensors.torch import load_file

    seen = []
    for name, count in (("one", 1), ("two", 2)):
        done = _train(count, *options, "--out", str(tmp_path / name), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        seen.append(json.loads((tmp_path / name / "recipe.json").read_text())["seen"])
    assert seen[0] == seen[1]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5


SHARDING = """
# accelerate divides weights among GPUs only; PyTorch's FSDP2 does so among processes on CPUs too.
from accelerate import state
from accelerate.utils import DistributedType

begin = state.AcceleratorState.__init__

def __init__(self, *rest, fsdp_plugin=None, **more):
    begin(self, *rest, fsdp_plugin=fsdp_plugin, **more)
    if fsdp_plugin is not None:
        self.fsdp_plugin = fsdp_plugin
        self.distributed_type = state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP

state.AcceleratorState.__init__ = __init__

from cotbench.baselines.training import trainer

step = trainer.TreeTrainer.training_step

def training_step(self, model, inputs, *rest, **more):
    portion = inputs["portion"]
    kind = type(next(model.parameters())).__name__
    print(f"{kind} {len(portion.passes)} {len(portion.padding)}", flush=True)
    return step(self, model, inputs, *rest, **more)

trainer.TreeTrainer.training_step = training_step
"""


@pytest.mark.ci
def test_divided_weights_reach_the_weights_of_one(tmp_path: Path, options: list[str]) -> None:
    from safetensors.torch import load_file

    from tests.accelerate_environment import environment_of

    # Three decisions a step, of which no two go through the model at once: one process has two, the other one.
    more = [*options, "--max-steps", "2", "--batch-size", "3", "--max-tokens-per-forward", "2000", "--unit", "decision"]
    assert _train(1, *more, "--out", str(tmp_path / "one"), cwd=tmp_path).returncode == 0
    (tmp_path / "sharding.py").write_text(SHARDING)
    variables = {**environment_of("fsdp2"), "ACCELERATE_USE_CPU": "true", "ACCELERATE_MIXED_PRECISION": "no"}
    plugin = ["--import", str(tmp_path / "sharding.py")]
    done = _train(2, *plugin, *more, "--out", str(tmp_path / "two"), cwd=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    passes = [line for line in done.stdout.splitlines() if line.startswith("DTensor")]
    assert sorted(passes) == ["DTensor 1 1"] * 2 + ["DTensor 2 0"] * 2
    seen = [json.loads((tmp_path / name / "recipe.json").read_text())["seen"] for name in ("one", "two")]
    assert seen[0] == seen[1]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys() and max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5


PLUGIN = """
import os, signal
from cotbench.baselines.training import trainer

step = trainer.TreeTrainer.training_step

def training_step(self, *rest, **more):
    if os.environ["RANK"] == "1" and self.state.global_step == 1:
        signal.raise_signal(signal.SIGTERM)
    return step(self, *rest, **more)

trainer.TreeTrainer.training_step = training_step
"""


def test_a_signal_to_one_process_saves_the_state_of_all(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    out, whole = tmp_path / "out", tmp_path / "whole"
    more = ["--checkpoints", "1", *options]
    assert _train(2, *more, "--out", str(whole), cwd=tmp_path).returncode == 0
    done = _train(2, "--import", str(tmp_path / "plugin.py"), *more, "--out", str(out), cwd=tmp_path)
    assert (
        done.returncode != 0
        and "interrupted; its state after step 2 was saved; resume with: cotbench train --resume" in done.stderr
    )
    state = out / "interrupted-2"
    assert {path.name for path in out.glob("*-*")} == {"interrupted-2"}
    assert all((state / name).is_file() for name in ("rng_state_0.pth", "rng_state_1.pth", "optimizer.pt", "recipe.json"))
    done = _train(2, "--resume", str(out), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert not state.exists()
