"""The configurations for accelerate in `examples/accelerate`: accelerate reads them, and they divide the weights."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("accelerate")

from cotbench.baselines.training.processes import weights_are_sharded
from cotbench.errors import UsageError
from tests.accelerate_environment import FOLDER, environment_of


def test_there_is_one_for_each_way_to_divide_the_weights() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {"fsdp2.yaml", "zero3.yaml"}


@pytest.mark.parametrize(("name", "kind"), [("fsdp2", "FSDP"), ("zero3", "DEEPSPEED")])
def test_accelerate_reads_it(name: str, kind: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert config.distributed_type.value == kind and config.num_processes == 8 and config.mixed_precision == "bf16"
    if kind == "FSDP":
        assert config.fsdp_config["fsdp_version"] == 2 and config.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    else:
        assert config.deepspeed_config["zero_stage"] == 3 and config.deepspeed_config["zero3_save_16bit_model"]


@pytest.mark.parametrize("name", ["fsdp2", "zero3"])
def test_what_is_launched_with_it_knows_that_the_weights_are_divided(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not weights_are_sharded()
    variables = environment_of(name, "--num_processes", "6", "--main_process_port", "0")
    assert variables.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == ("3" if name == "zero3" else None)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert weights_are_sharded()


def test_no_average_is_kept_of_weights_that_are_divided(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torch import nn

    from cotbench.baselines.training.loop import trainer_arguments
    from cotbench.baselines.training.options import TrainingOptions

    class Model(nn.Linear):
        device = nn.Parameter().device

    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError, match="omit --ema-decay"):
        trainer_arguments(TrainingOptions(learning_rate=1e-3, ema_decay=0.9), tmp_path, Model(1, 1))
