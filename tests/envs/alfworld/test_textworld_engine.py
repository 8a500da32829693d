"""The wrapper over the stock engine: upstream's words, nothing left behind."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cotbench.envs.alfworld.tasks import load_game, official_ids
from cotbench.envs.registry import env_entry
from tests.conftest import needs_stock_engine

pytestmark = needs_stock_engine


@pytest.mark.parametrize("engine", ["native", "textworld"])
def test_text_is_upstreams(real_games: Path, engine: str) -> None:
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredInfos

    task = next(task for task in official_ids("valid_seen") if "pick_heat" in task)
    path = real_games / "json_2.1.1" / task.removeprefix("alfworld/") / "game.tw-pddl"
    infos = textworld.EnvInfos(won=True, admissible_commands=True)
    upstream = textworld.start(str(path), infos, wrappers=[AlfredDemangler(), AlfredInfos()])
    env = env_entry("alfworld").make(engine=engine, data=real_games, request=["admissible_actions"])
    try:
        state = upstream.reset()
        observation, info = env.reset(options={"task": task})
        assert (observation, info["admissible_actions"]) == (state.feedback, state.admissible_commands)
        for command in [*load_game(task, real_games).walkthrough[:-1], "nonsense", "examine  Shelf 1", "inventory"]:
            state, _, _ = upstream.step(command)
            observation, *_, info = env.step(command)
            assert (observation, info["admissible_actions"]) == (state.feedback, state.admissible_commands)
            assert info["success"] == state.won
    finally:
        env.close()


def test_put_is_read_as_move() -> None:
    task = "alfworld/gen/pick/0"
    *before, last = load_game(task).walkthrough
    thing, place = last.removeprefix("move ").split(" to ")
    env = env_entry("alfworld-gen").make(engine="textworld")
    env.reset(options={"task": task})
    for command in before:
        env.step(command)
    *_, terminated, _, info = env.step(f"Put {thing} in/on {place}.")
    env.close()
    assert terminated and info["success"]


_LEAK = """
import sys
from cotbench.envs.registry import env_entry
env = env_entry("alfworld-gen").make(engine="textworld")
counts = []
for seed in range(6):
    env.reset(options={"task": f"alfworld/gen/cool/{seed}"})
    env.step("look")
    env.close()
    counts.append(sum("libdownward" in line for line in open("/proc/self/maps")))
argv = sys.argv[:]
assert argv == ["-c"], argv
print(*counts)
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
def test_many_games_map_the_library_once_and_the_process_ends_well() -> None:
    before = set(Path(tempfile.gettempdir()).iterdir())
    done = subprocess.run([sys.executable, "-P", "-c", _LEAK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    counts = done.stdout.split()
    assert len(counts) == 6
    assert len(set(counts)) == 1, "closing hands the library on; a further game maps nothing new"
    new = {path.name for path in set(Path(tempfile.gettempdir()).iterdir()) - before}
    assert not [name for name in new if "downward" in name]


def test_several_environments_live_side_by_side() -> None:
    tasks = [f"alfworld/gen/{kind}/7" for kind in ("pick", "heat")]
    envs = [env_entry("alfworld-gen").make(engine="textworld", request=["expert_action"]) for _ in tasks]
    infos = [env.reset(options={"task": task})[1] for env, task in zip(envs, tasks, strict=True)]
    while not all(info["success"] for info in infos):
        for index, env in enumerate(envs):
            if not infos[index]["success"]:
                infos[index] = env.step(infos[index]["expert_action"])[-1]
    for env in envs:
        env.close()
