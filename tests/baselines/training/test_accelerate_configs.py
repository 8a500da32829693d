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


@pytest.mark.parametrize("name", ["fsdp2", "zero3"])
def test_what_is_launched_with_it_knows_that_the_weights_are_divided(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    assert not weights_are_sharded()
    words = ["--config_file", str(FOLDER / f"{name}.yaml"), "--num_processes", "6", "--main_process_port", "0"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args([*words, "-m", "cotbench", "train"]))
    assert args.num_processes == 6 and args.module and args.training_script == "cotbench"
    assert (args.use_fsdp, args.use_deepspeed) == (name == "fsdp2", name == "zero3"), "by which accelerate chooses a launcher"
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ""  # As its launcher has it before this.
        variables = prepare_deepspeed_cmd_env(args)[1]
        assert variables["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"
    else:
        variables = prepare_multi_gpu_env(args)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert weights_are_sharded()
