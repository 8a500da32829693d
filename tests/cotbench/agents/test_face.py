"""What is registered has the face of its kind, or is refused in one line: agents, environments, probes, recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import pytest

import cotbench
from cotbench import recipes
from cotbench.agents import registry as agents
from cotbench.agents.face import check_agent
from cotbench.agents.registry import agent_names, make_agent
from cotbench.cli import run_cli
from cotbench.envs import registry as envs
from cotbench.envs.base import EnvOutcome, TextEnv
from cotbench.envs.registry import env_entry, register_env
from cotbench.envs.tasks import ListedTasks
from cotbench.errors import AgentBugError, AgentError, UnknownNameError, UsageError
from cotbench.probes import probe as probes
from cotbench.probes.probe import probe_named, register_probe
from cotbench.prompting.query import Decision, Query
from cotbench.recipes import Preset, recipe_named, register_recipe


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (agents, envs, probes, recipes):
        monkeypatch.setattr(module._registry, "_registered", {})
    ids = set(gymnasium.registry)
    yield
    for gym_id in set(gymnasium.registry) - ids:
        del gymnasium.registry[gym_id]


class Whole:
    """An agent with all parts."""

    name = "whole"

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        return [Decision("look") for _ in queries]

    def close(self) -> None: ...


def _without(method: str) -> type:
    return type(
        "Partial", (), {name: value for name, value in vars(Whole).items() if name in {"name", "decide", "close"} - {method}}
    )


def _with(**more: Any) -> type:
    return type("Changed", (Whole,), more)


CLASSES: dict[str, tuple[type, str]] = {
    "no close": (_without("close"), "agent 'toy' has no method close: add  def close(self)"),
    "no decide": (_without("decide"), "agent 'toy' has no method decide: add  def decide(self, queries)"),
    "decide takes nothing": (_with(decide=lambda self: []), "its decide cannot be called (too many positional arguments)"),
    "close takes more": (
        _with(close=lambda self, when: None),
        "its close cannot be called (missing a required argument: 'when')",
    ),
    "decide is data": (_with(decide=5), "has no method decide"),
    "submit alone": (
        _with(batch=2, submit=lambda self, key, query: None),
        "has no method collect: add  def collect(self, wait)",
    ),
    "collect alone": (_with(collect=lambda self, wait: []), "has no method submit: add  def submit(self, key, query)"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_with_a_wrong_face_is_not_registered(name: str) -> None:
    agent_class, message = CLASSES[name]
    with pytest.raises(UsageError) as raised:
        cotbench.register_agent("toy")(agent_class)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert "toy" not in agent_names()
    # The same from a function, where only the object itself tells.
    cotbench.register_agent("toy")(partial(agent_class))
    with pytest.raises(UsageError) as raised:
        make_agent("toy")
    assert message in str(raised.value)


OBJECTS: dict[str, tuple[Callable[[], object], str]] = {
    "nothing": (lambda: None, "agent 'toy': a NoneType without a name is not an agent"),
    "no name": (_with(name=""), "agent 'toy': a Changed without a name is not an agent"),
    "unknown need": (_with(needs={"expert"}), "needs names 'expert'; an agent may need admissible_actions and expert_action"),
    "one text of needs": (_with(needs="expert_action"), "needs is a set of names, such as frozenset({'expert_action'})"),
    "no batch": (
        _with(submit=lambda self, key, query: None, collect=lambda self, wait: []),
        "batch is None, not the number of episodes that keep it busy",
    ),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_what_is_made_is_checked(name: str) -> None:
    factory, message = OBJECTS[name]
    cotbench.register_agent("toy")(factory)  # type: ignore[type-var]
    with pytest.raises(UsageError) as raised:
        make_agent("toy")
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_agents_of_other_shapes_pass() -> None:
    class Delegating:
        """Finds its methods in another object."""

        def __init__(self) -> None:
            self._inner = Whole()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    class Static:
        name = "static"

        @staticmethod
        def decide(queries: Sequence[Query]) -> list[Decision]:
            return []

        @classmethod
        def close(cls) -> None: ...

    for agent_class in (Whole, Delegating, Static, _with(decide=lambda self, queries, *, more=1: [])):
        check_agent(agent_class())
    cotbench.register_agent("delegating")(Delegating)
    cotbench.register_agent("static")(Static)
    assert make_agent("delegating").name == "whole"


@pytest.mark.parametrize("name", ["random", "expert", "human", "scripted", "replay"])
def test_what_comes_with_cotbench_passes(name: str, tmp_path: Path) -> None:
    if name == "replay":
        (tmp_path / "episodes.jsonl").touch()
        name = f"replay:{tmp_path}"
    check_agent(make_agent(name))


def test_an_agent_whose_constructor_fails_says_where() -> None:
    class Broken(Whole):
        def __init__(self) -> None:
            raise KeyError("model")

    class Missing(Whole):
        def __init__(self) -> None:
            raise FileNotFoundError("weights.bin")

    cotbench.register_agent("broken")(Broken)
    cotbench.register_agent("missing")(Missing)
    with pytest.raises(
        AgentBugError, match=r"agent 'broken' cannot be built: KeyError: 'model' \(test_face.py:\d+\)$"
    ) as raised:
        make_agent("broken")
    assert "raise KeyError" in (raised.value.traceback or "")
    with pytest.raises(AgentError, match=r"agent 'missing' cannot be built: FileNotFoundError: weights.bin$") as outside:
        make_agent("missing")
    assert not isinstance(outside.value, AgentBugError)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my:agent", "'my:agent' cannot be the name of an agent"),
        ("my agent", "cannot be the name of an agent"),
        ("", "'' cannot be the name of an agent"),
        (Whole, "an agent is registered under a name, not under the class Whole"),
        (5, "an agent is registered under a name, not under a int"),
    ],
)
def test_a_name_that_no_spec_can_hold_is_refused(name: Any, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        cotbench.register_agent(name)
    assert message in str(raised.value)


# Environments.


class Room(TextEnv):
    """A room with a door."""

    instructions = "You act."
    examples = ("open door",)
    default_max_steps = 3

    @staticmethod
    def canonical(action: str) -> str:
        return action

    def _split_tasks(self) -> Sequence[str]:
        return ["room/1"]

    def _start(self, task: str) -> tuple[EnvOutcome, str]:
        return EnvOutcome("A door. Your task is to: open it."), "open it."

    def _act(self, action: str) -> EnvOutcome:
        return EnvOutcome("Open.", 1.0, 1.0, True, True)

    def _admissible_actions(self) -> list[str]:
        return ["open door"]

    def _expert_action(self) -> str | None:
        return "open door"


TASKS = ListedTasks({"paper": {"id": ["room/1"]}})


def _room(**more: Any) -> Any:
    return type("Changed", (Room,), more)


def _partial_room(missing: str) -> type:
    return type("Changed", (TextEnv,), {name: value for name, value in vars(Room).items() if name != missing})


ENVS: dict[str, tuple[Any, Mapping[str, Any], str]] = {
    "no class": (lambda: None, {}, "a function is not a subclass of cotbench.TextEnv"),
    "another class": (Whole, {}, "the class Whole is not a subclass of cotbench.TextEnv"),
    "no _act": (_partial_room("_act"), {}, "Changed has no method _act"),
    "no canonical": (_partial_room("canonical"), {}, "Changed has no method canonical"),
    "no instructions": (_partial_room("instructions"), {}, "Changed.instructions is missing, not a text"),
    "examples are a text": (_room(examples="open door"), {}, "Changed.examples is 'open door', not a tuple of texts"),
    "no budget": (_room(default_max_steps=0), {}, "Changed.default_max_steps is 0, not a number above 0"),
    "unknown field": (Room, {"lisense": "MIT"}, "unknown field 'lisense' of environment 'room'; did you mean 'license'?"),
    "tasks are a list": (Room, {"task_source": ["room/1"]}, "task_source is a list; give a function that returns a TaskSource"),
    "gym id": (Room, {"gym_id": "no id at all"}, "environment 'room': gym_id 'no id at all'"),
}


@pytest.mark.parametrize("name", ENVS)
def test_an_environment_with_a_wrong_face_is_not_registered(name: str) -> None:
    env_class, about, message = ENVS[name]
    with pytest.raises(UsageError) as raised:
        register_env("room", **{"task_source": lambda: TASKS, **about})(env_class)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_an_environment_is_registered_and_its_tasks_are_checked() -> None:
    register_env("room", task_source=lambda: TASKS)(Room)
    assert env_entry("room").source().tasks("paper", "id") == ("room/1",)
    register_env("yard", task_source=lambda: {"paper": ["room/1"]})(Room)  # type: ignore[arg-type, return-value]
    with pytest.raises(UsageError, match="environment 'yard': its task source, a dict, has no method schemes"):
        env_entry("yard").source()
    for name, message in (("all", "'all': that names several together"), ("a,b", "cannot be the name of an environment")):
        with pytest.raises(UsageError, match=message):
            register_env(name, task_source=lambda: TASKS)(Room)


# Probes and recipes.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"row": dict}, "probe 'toy': row is <class 'dict'>, not a subclass of ProbeRow"),
        ({"options": None}, "probe 'toy': options is None, not a subclass of ProbeOptions"),
        ({"measure": "module:function"}, "probe 'toy': measure is 'module:function', not a function"),
        ({"summarize": None}, "probe 'toy': summarize is None, not a function"),
        ({"name": "my probe"}, "'my probe' cannot be the name of a probe"),
    ],
)
def test_a_probe_with_a_wrong_face_is_not_registered(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        register_probe(replace(probe_named("alignment"), **{"name": "toy", **changes}))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": dict}, "recipe 'toy': config is <class 'dict'>, not a subclass of pydantic's BaseModel"),
        ({"run": None}, "recipe 'toy': run is None, not a function"),
        ({"presets": {"small": {"epochs": 1}}}, "recipe 'toy': preset 'small' is a dict, not a Preset"),
    ],
)
def test_a_recipe_with_a_wrong_face_is_not_registered(changes: dict[str, Any], message: str) -> None:
    whole = replace(recipe_named("sft"), name="toy", presets={"small": Preset("small")})
    with pytest.raises(UsageError) as raised:
        register_recipe(replace(whole, **changes))
    assert message in str(raised.value)
    assert register_recipe(whole) is recipe_named("toy")


def test_what_is_no_entry_at_all_is_named() -> None:
    with pytest.raises(UsageError, match="a probe is registered as a Probe"):
        register_probe("alignment")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a recipe is registered as a Recipe"):
        register_recipe(Preset)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError):
        recipe_named("alignment")


def test_an_imported_file_with_a_wrong_face_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "wrong_face.py"
    file.write_text(
        "import cotbench\n\n@cotbench.register_agent('open-ended')\nclass Open:\n    name = 'open-ended'\n"
        "    def decide(self, queries): return []\n"
    )
    assert run_cli(["run", "--import", str(file), "--agent", "open-ended", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "agent 'open-ended' has no method close: add def close(self)" in error
    assert not (tmp_path / "run").exists()
