"""The configurations for accelerate in `examples/accelerate`: accelerate reads them, and they divide the weights."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("accelerate")

from cotbench.baselines.training.processes import weights_are_sharded

FOLDER = Path(__file__).resolve().parents[3] / "examples" / "accelerate"


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


def test_what_is_launched_with_it_knows_that_the_weights_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    assert not weights_are_sharded()
    words = ["--config_file", str(FOLDER / "fsdp2.yaml"), "--num_processes", "6", "-m", "cotbench", "train"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert args.num_processes == 6 and args.module and args.training_script == "cotbench"
    for variable, value in prepare_multi_gpu_env(args).items():
        monkeypatch.setenv(variable, value)
    assert weights_are_sharded()
