"""The house: who may import whom, which packages there are, what starting costs."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import house
from tests.house import FOLDERS, ROOT

HEAVY = ("torch", "transformers", "pandas", "scipy", "textworld", "gymnasium", "numpy", "sqlalchemy", "fastapi", "starlette")
GROUND = frozenset(
    {
        *("errors", "failure", "registry", "plugins", "flags", "lazy_exports", "child_process", "child_main", "file_lock"),
        *("paper", "server_url", "proxy", "json_text", "bounds", "parent_death", "paragraph", "printable", "text_table"),
        *("notebook", "status_line", "callable_package", "installation", "openmp"),
    }
)
LAYERS = (
    GROUND,
    frozenset({"stats", "envs", "web"}),
    frozenset({"prompting"}),
    frozenset({"agents"}),
    frozenset({"runs", "recipes"}),
    frozenset({"probes"}),
    frozenset({"judge"}),
    frozenset({"report"}),
    frozenset({"study"}),
    frozenset({"bridges"}),
    frozenset({"baselines", "leaderboard", "view"}),
    frozenset({"api"}),
    frozenset({"cli"}),
)
"""A room imports what stands above it in this list, and itself; the files of the ground also each other."""

FACES = frozenset({"cotbench", "cotbench.__main__"})
"""The public face imports what it offers, lazily; our own modules take nothing from it but the version."""


def _room(module: str) -> str:
    return module.split(".")[1]


def _part(module: str) -> str:
    """A room, or a room inside the environments, baselines or leaderboard."""
    depth = 3 if _room(module) in ("envs", "baselines", "leaderboard") else 2
    return ".".join(module.split(".")[:depth])


def _imports(*, in_functions: bool) -> dict[str, frozenset[str]]:
    """Every import but those of and from the face."""
    return {
        name: frozenset(target for target in targets - FACES)
        for name, targets in house.graph(in_functions=in_functions).items()
        if name not in FACES
    }


def _rooms() -> list[str]:
    return sorted({_room(name) for name in house.modules() if name not in FACES})


def test_every_room_has_its_place() -> None:
    placed = [room for layer in LAYERS for room in layer]
    assert len(placed) == len(set(placed))
    assert set(_rooms()) <= set(placed)


@pytest.mark.parametrize("room", _rooms())
def test_who_imports_whom(room: str) -> None:
    (place,) = (number for number, layer in enumerate(LAYERS) if room in layer)
    allowed = {room}.union(*LAYERS[:place], GROUND if room in GROUND else ())
    for name, targets in _imports(in_functions=True).items():
        if _room(name) == room:
            wrong = sorted(target for target in targets if _room(target) not in allowed)
            assert not wrong, f"{name} imports {wrong}"


def test_nobody_goes_by_the_public_face() -> None:
    for name, path in house.modules().items():
        for node in ast.walk(house.tree(path)):
            if isinstance(node, ast.ImportFrom) and node.module == "cotbench":
                taken = {alias.name for alias in node.names if f"cotbench.{alias.name}" not in house.modules()}
                assert taken <= {"__version__"}, f"{name} takes {taken} from the public face"
            elif isinstance(node, ast.Import):
                assert "cotbench" not in {alias.name for alias in node.names}, f"{name} imports the public face"


def test_errors_import_nothing_but_how_cotbench_is_installed() -> None:
    found = _imports(in_functions=True)
    assert found["cotbench.errors"] == {"cotbench.installation"} and found["cotbench.installation"] == frozenset()


def test_no_circles_between_modules() -> None:
    assert house.circles(_imports(in_functions=False)) == []


def test_no_circles_between_rooms() -> None:
    """Not even by what a function imports when it is called."""
    assert house.circles(house.grouped(_imports(in_functions=True), _part)) == []


def test_a_circle_is_found() -> None:
    edges = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": set()}
    assert house.circles({name: frozenset(targets) for name, targets in edges.items()}) == [["a", "b", "c"]]


def test_every_way_to_import_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text(
        "import one.two\n"
        "from three import module, name\n"
        "class Some:\n    from four import five\n"
        "def function():\n    from six import module\n    import seven\n"
    )
    above = {"one.two", "three.module", "three", "four"}
    assert house.imports(path, in_functions=False, known={"three.module", "six.module"}) == above
    assert house.imports(path, known={"three.module", "six.module"}) == above | {"six.module", "seven"}


def test_the_environments_know_only_their_engines() -> None:
    engines = {"gymnasium", "textworld", "alfworld", "fast_downward", "py4j", "mpmath", "cotbench"}
    for name, path in house.modules().items():
        if name.startswith("cotbench.envs"):
            tops = {target.split(".")[0] for target in house.imports(path)}
            assert tops <= engines | sys.stdlib_module_names, name


def _packages() -> dict[str, Path]:
    """Every folder that holds Python files, by the name of its package."""
    found = {}
    for top, folder in FOLDERS.items():
        for inside in sorted({path.parent for path in folder.rglob("*.py")}):
            found[".".join([top, *inside.relative_to(folder).parts])] = inside
    return found


def test_every_room_says_what_it_is_for() -> None:
    for name, folder in _packages().items():
        path = folder / "__init__.py"
        assert path.is_file(), f"{name} has no __init__.py"
        assert ast.get_docstring(house.tree(path)), f"{name} has no docstring"


def test_what_is_installed_is_what_is_there() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    assert len(settings["packages"]) == len(set(settings["packages"]))
    assert set(settings["packages"]) == set(_packages())
    for name, patterns in settings["package-data"].items():
        for pattern in patterns:
            assert list(_packages()[name].glob(pattern)), f"{name} has no {pattern}"


def test_all_places_that_install_for_the_tests_name_the_same_extras() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
    named = {}
    for name in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        found = re.findall(r"pip install .*-e '\.\[([^]]+)\]'", (ROOT / name).read_text("utf-8"))
        named[name] = {tuple(one.split(",")) for one in found}
        assert found and {extra for one in named[name] for extra in one} <= extras, name
    with_tests = {one for one in named["README.md"] if "dev" in one}
    assert len(with_tests) == 1 and with_tests == named["CONTRIBUTING.md"]
    assert named[".ci/run"] == {("reference", "kernel")}, "the README's command, and what compiles after it"


def test_cotbench_run_stays_a_function_whatever_is_imported_first() -> None:
    code = (
        "import cotbench.cli.app, cotbench.runs.runner, cotbench; assert callable(cotbench.run) and callable(cotbench.load_run)"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_help_loads_nothing_heavy() -> None:
    commands = (
        ["--help"],
        ["run", "--help"],
        ["traces", "--help"],
        ["train", "--help"],
        ["train", "--recipe", "base", "--help"],
        ["probe", "--help"],
        ["leaderboard", "--help"],
        ["--version"],
    )
    code = (
        "import sys\nfrom cotbench.cli import run_cli\n"
        f"for command in {commands!r}:\n"
        "    assert run_cli(command) == 0, command\n"
        f"    loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    assert not loaded, (command, loaded)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: cotbench run" in done.stdout and "Usage: cotbench leaderboard" in done.stdout


def test_importing_the_environments_loads_no_engine() -> None:
    code = "import sys, gymnasium, cotbench.envs; gymnasium.spec('cotbench/ALFWorld-v0'); assert 'textworld' not in sys.modules"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_no_file_holds_two_nouns() -> None:
    for path in house.modules().values():
        assert len(path.read_text("utf-8").splitlines()) <= 400, path
