"""The public face: exactly these names, each found, documented, and the same for a type checker."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import cotbench
from tests import house

FACE = [
    "Agent",
    "Answer",
    "Comparison",
    "CotbenchError",
    "Decision",
    "DecisionTokens",
    "Dialogue",
    "Elicitation",
    "Episode",
    "Manifest",
    "PairSet",
    "Probe",
    "ProbeConfig",
    "ProbeResult",
    "Query",
    "Recipe",
    "Report",
    "Run",
    "RunConfig",
    "Step",
    "Study",
    "StudyConfig",
    "Summary",
    "TextEnv",
    "Training",
    "compare",
    "load_pairs",
    "load_probe",
    "load_run",
    "load_study",
    "load_training",
    "make_agent",
    "make_env",
    "pairs",
    "parse_answer",
    "probe",
    "register_agent",
    "register_env",
    "register_probe",
    "register_recipe",
    "report",
    "run",
    "study",
    "train",
]


def test_the_public_face() -> None:
    assert cotbench.__all__ == FACE == sorted(FACE)


@pytest.mark.parametrize("name", FACE)
def test_every_name_is_there_with_its_documentation(name: str) -> None:
    thing = getattr(cotbench, name)
    assert callable(thing) and thing.__name__ == (f"cotbench.{name}" if name in cotbench._ROOMS else name)
    assert name in cotbench._ROOMS or thing.__module__.startswith("cotbench.")
    assert thing.__doc__ and (name[0].isupper() or inspect.signature(thing))


def test_a_type_checker_sees_the_same_names() -> None:
    tree = ast.parse(Path(str(cotbench.__file__)).read_text("utf-8"))
    (checking,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    homes = {
        alias.asname or alias.name: statement.module
        for statement in checking.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert sorted(homes) == FACE
    assert homes == {name: f"cotbench.{home}" for name, home in cotbench._HOMES.items()}


def test_no_other_name_is_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        cotbench.nothing  # noqa: B018


def test_no_name_of_a_room_is_also_one_of_its_modules() -> None:
    """Else which of the two is found would depend on what was imported before."""
    for name, path in house.modules().items():
        if path.name != "__init__.py":
            continue
        tree = ast.parse(path.read_text("utf-8"))
        exported = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ]
        modules = {one.stem for one in path.parent.glob("*.py")} | {one.name for one in path.parent.iterdir() if one.is_dir()}
        callable_rooms = cotbench._ROOMS if name == "cotbench" else frozenset()
        assert modules.intersection(*exported[:1] or [[]]) == callable_rooms, path


def test_dir_and_help_list_it() -> None:
    assert set(FACE) <= set(dir(cotbench))
    words = set(re.findall(r"\w+", str(cotbench.__doc__)))
    assert set(FACE) <= words


@pytest.mark.parametrize("room", sorted(cotbench._ROOMS))
def test_a_room_that_can_be_called_stays_one_whatever_is_imported_first(room: str) -> None:
    code = (
        f"import cotbench, inspect, importlib; function = cotbench.{room}; importlib.import_module('cotbench.cli.{room}')\n"
        f"import cotbench.{room} as room; from cotbench import {room} as third; assert function is room is third\n"
        f"parameters = inspect.signature(room).parameters; assert 'out' in parameters, parameters"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
