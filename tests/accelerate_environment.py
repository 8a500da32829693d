"""What `accelerate launch` tells the processes that it starts, by the configurations in `examples/accelerate`."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "accelerate"


def environment_of(name: str, *words: str) -> dict[str, str]:
    """Return the environment variables for a training with a configuration.

    Args:
        name: of its file, without the ending.
        words: further arguments of the launcher.
    """
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    given = ["--config_file", str(FOLDER / f"{name}.yaml"), *words, "-m", "cotbench", "train"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(given))
    if args.use_deepspeed:  # As `launch_command` chooses and prepares it.
        args.deepspeed_fields_from_accelerate_config = ""
        return dict(prepare_deepspeed_cmd_env(args)[1])
    return dict(prepare_multi_gpu_env(args))
