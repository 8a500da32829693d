"""The house: what is exported, who may import whom, what starting costs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cotbench

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {"cotbench": ROOT / "cotbench", "cotbench.envs": ROOT / "envs"}
ROOMS |= {"cotbench.baselines": ROOT / "baselines", "cotbench.leaderboard": ROOT / "leaderboard"}
HEAVY = ("torch", "transformers", "pandas", "scipy", "textworld", "gymnasium", "numpy", "sqlalchemy", "fastapi")


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _room(module: str) -> str | None:
    if module != "cotbench" and not module.startswith("cotbench."):
        return None
    return max((room for room in ROOMS if module == room or module.startswith(room + ".")), key=len)


BASE = ("cotbench.errors", "cotbench.child_process")
"""What everybody may use."""
ALLOWED = {
    "cotbench.envs": {"cotbench.envs"},
    "cotbench": {"cotbench", "cotbench.envs"},
    "cotbench.baselines": {"cotbench", "cotbench.envs", "cotbench.baselines"},
    "cotbench.leaderboard": {"cotbench", "cotbench.envs", "cotbench.leaderboard"},
}


@pytest.mark.parametrize("room", ROOMS)
def test_who_imports_whom(room: str) -> None:
    for path in ROOMS[room].rglob("*.py"):
        for module in _imports(path):
            other = _room(module)
            if other is None or module in BASE or "cli" in path.parts:
                continue
            assert other in ALLOWED[room], f"{path.relative_to(ROOT)} imports {module}"


def test_the_environments_know_only_their_engines() -> None:
    engines = {"gymnasium", "textworld", "alfworld", "fast_downward", "py4j", "mpmath", "cotbench"}
    for path in ROOMS["cotbench.envs"].rglob("*.py"):
        for module in _imports(path):
            top = module.split(".")[0]
            assert top in sys.stdlib_module_names or top in engines, f"{path.relative_to(ROOT)} imports {module}"


def test_the_public_face() -> None:
    assert sorted(cotbench.__all__) == cotbench.__all__
    assert set(cotbench.__all__) == set(cotbench._HOMES)
    for name in cotbench.__all__:
        thing = getattr(cotbench, name)
        assert callable(thing), name
        assert thing.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        cotbench.nothing  # noqa: B018


def test_cotbench_run_stays_a_function_whatever_is_imported_first() -> None:
    code = (
        "import cotbench.cli.app, cotbench.runs.runner, cotbench; assert callable(cotbench.run) and callable(cotbench.load_run)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["run", "--help"], ["traces", "--help"], ["train", "--help"], ["leaderboard", "--help"], ["--version"]],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom cotbench.cli import run_cli\n"
        f"code = run_cli({arguments!r})\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not loaded, loaded\nsys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cotbench" in done.stdout


def test_importing_the_environments_loads_no_engine() -> None:
    code = "import sys, gymnasium, cotbench.envs; gymnasium.spec('cotbench/ALFWorld-v0'); assert 'textworld' not in sys.modules"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_no_file_holds_two_nouns() -> None:
    for folder in ROOMS.values():
        for path in folder.rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 400, path
