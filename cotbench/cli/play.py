"""`cotbench play`: play a task at the terminal."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cotbench.cli.flags import Data, Debug, Import
from cotbench.cli.terminal import echo


def play(
    env: Annotated[str, typer.Option(help="The environment")] = "alfworld-gen",
    task: Annotated[str | None, typer.Option(help="A task id", show_default="drawn from the split")] = None,
    split: Annotated[str, typer.Option(help="The split to draw from")] = "id",
    scheme: Annotated[str, typer.Option(help="The split scheme")] = "paper",
    seed: Annotated[int, typer.Option(min=0, help="Seed that chooses the task")] = 0,
    data: Data = None,
    import_: Import = None,
    debug: Debug = False,
) -> int:
    """Play a task yourself. "?" lists what can be done, "!" asks the expert, Ctrl-D ends."""
    from cotbench.envs.registry import env_entry
    from cotbench.errors import EnvBugError, UsageError
    from cotbench.failure import registered_code

    entry = env_entry(env)
    if data is not None and not entry.takes_data:
        raise UsageError(f"environment {env!r} does not read a data folder: omit --data")
    entry.require()
    here: dict[str, Any] = {"data": data, "available_only": True} if entry.takes_data else {}
    if entry.experts is not None:
        here["expert"] = entry.experts.recorded  # It answers whatever the player has done before.
    with registered_code(f"environment {env}", entry.loaded_class(), EnvBugError):
        game = entry.make(split=split, scheme=scheme, request=("admissible_actions", "expert_action"), **here)
        return _play(game, task, seed)


def _play(game: Any, task: str | None, seed: int) -> int:
    """Play one task until it ends or the input does."""
    try:
        observation, info = game.reset(seed=seed, options={"task": task} if task else None)
        echo(f"{info['task']}\n\n{game.instructions}\n\n{chr(10).join(game.examples)}\n\n{observation}")
        _print_functions(info.get("functions", []))
        ended = terminated = False
        while not ended:
            action = _read()
            if action is None:
                echo(f"\nended after {info['steps']} steps, not won")
                return 0
            if action == "?":
                echo("\n".join(info["admissible_actions"]))
            elif action == "!":
                echo(info["expert_action"] or "(the expert has no action here)")
            elif action:
                observation, _, terminated, truncated, info = game.step(action)
                why = f"  ({info['invalid_action']})" if info["invalid_action"] else ""
                echo(f"{observation}{why}")
                ended = terminated or truncated
        verdict = "won" if info["success"] else "lost for good" if terminated else "not won: out of steps"
        echo(f"{verdict} after {info['steps']} steps, score {info['score']:g}")
    finally:
        game.close()
    return 0


def _print_functions(functions: list[dict[str, Any]]) -> None:
    """Print the functions that can be called, one a line."""
    for schema in functions:
        properties, required = schema["parameters"].get("properties", {}), schema["parameters"].get("required", [])
        arguments = (f"{name}{'' if name in required else '?'}: {of.get('type', 'any')}" for name, of in properties.items())
        description = schema["description"].partition("Tool description:")[2] or schema["description"]
        about = " ".join(description.partition("Note that the provided function")[0].split())
        echo(f"  {schema['name']}({', '.join(arguments)})  {about[:100]}")


def _read() -> str | None:
    try:
        return input("> ").strip()
    except EOFError:
        return None
