"""Native tool calling."""

import json
from dataclasses import replace
from typing import Any

import pytest

from cotbench.agents.openai.tools import toolbox
from cotbench.envs.bfcl import calls
from cotbench.envs.bfcl.env import MORE_FUNCTIONS
from cotbench.errors import AgentError
from cotbench.prompting.elicitation import Elicitation, Mode
from cotbench.prompting.query import Query
from tests.conftest import needs_openai
from tests.fake_server import FakeServer, Manners, running
from tests.served import SHORT, TEMPLATE, asked, served

pytest_plugins = ("tests.serve",)
pytestmark = [needs_openai, pytest.mark.usefixtures("served_alone")]


_FUNCTIONS = [
    {
        "name": "math.add",
        "description": "Adds.",
        "parameters": {
            "type": "dict",
            "properties": {
                "a": {"type": "float", "description": "one"},
                "b": {"type": "tuple", "items": {"type": "integer"}},
                "c": {"type": "any"},
                "d": {"type": "array"},
                "e": {"type": "dict", "properties": {"f": {"type": "String"}}},
            },
            "required": ["a"],
        },
        "response": {"type": "dict"},
    },
    {"name": "math_add", "description": "Adds too.", "parameters": {"type": "dict", "properties": {}}},
]


def _calling(mode: Mode, elicitation: Elicitation = TEMPLATE, **more: Any) -> Query:
    query = asked(mode, elicitation, **more)
    return replace(query, dialogue=replace(query.dialogue, functions="\n".join(map(json.dumps, _FUNCTIONS))))


def test_functions_become_tools_under_names_and_types_that_every_server_takes() -> None:
    dialogue = _calling("prompt").dialogue
    late = {"name": "late", "parameters": {"type": "dict", "properties": {}}}
    dialogue = dialogue.extended("[]", None, f"{json.dumps(late)}\n{MORE_FUNCTIONS}").extended(
        "[]", None, json.dumps({**late, "name": "no"})
    )
    box = toolbox(dialogue)
    assert box.names == {"math_add": "math.add", "math_add_2": "math_add", "late": "late"}
    parameters = box.tools[0]["function"]["parameters"]
    kinds = {name: schema["type"] for name, schema in parameters["properties"].items()}
    assert kinds == {"a": "number", "b": "array", "c": "string", "d": "array", "e": "object"}
    assert (parameters["type"], parameters["required"]) == ("object", ["a"])
    assert parameters["properties"]["b"]["items"] == {"type": "integer"} and parameters["properties"]["d"]["items"] == {}
    assert parameters["properties"]["e"]["properties"] == {"f": {"type": "string"}}
    assert "response" not in box.tools[0]["function"]


def test_tool_calls_become_the_action() -> None:
    told = ({"name": "math_add", "arguments": '{"a": 1.5, "b": [1, 2]}'}, {"name": "math_add_2", "arguments": "{}"})
    with running(Manners(calls=told, model=lambda prompt: "")) as server:
        agent = served(server, "tools=native")
        assert agent.describe()["tools"] == "native"
        said = agent.decide([_calling("prompt")])[0]
        assert calls.canonical(said.action) == "[math.add(a=1.5, b=[1, 2]), math_add()]"
        assert (said.trace, said.format_ok, said.error) == (None, True, None)
        body = server.bodies()[0]
        assert [tool["function"]["name"] for tool in body["tools"]] == ["math_add", "math_add_2"]
        assert "Adds." not in json.dumps(body["messages"]) and "stop" not in body
        assert body["max_tokens"] < agent.decide([_calling("cot")])[0].action_tokens + server.bodies()[1]["max_tokens"]
        server.manners.model = lambda prompt: "<think>I add.</think>\n"
        cot = agent.decide([_calling("cot")])[0]
        assert (cot.trace, cot.format_ok) == ("I add.", True)
        server.manners.model = lambda prompt: "I add."
        assert agent.decide([_calling("cot")])[0].trace == "I add.", "words before a call can only be its reasoning"
        assert not agent.decide([_calling("prompt")])[0].format_ok, "words that were not asked for"


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        *((sent, {}) for sent in (None, {}, "", " ", "{}", "null", '{}""', '""{}', '"{}"', '"{}\\"\\""', "{} {}")),
        *((sent, {"a": 1}) for sent in ({"a": 1}, '{"a": 1}', ' {"a": 1}\n', '{"a": 1}""', '{}{"a": 1}', '{"a": 1}{}')),
        *((json.dumps(sent), {"a": 1}) for sent in ('{"a": 1}', json.dumps('{"a": 1}'), '{}{"a": 1}')),
        ('{"a": "{}"}', {"a": "{}"}),
        ('""' * 200_000, {}),
    ],
)
def test_arguments_are_read_where_they_can_be_in_one_way(sent: object, read: object) -> None:
    with running(Manners(calls=({"name": "math_add", "arguments": sent},), model=lambda prompt: "")) as server:
        said = served(server, "tools=native").decide([_calling("prompt")])[0]
        assert (json.loads(said.action), said.format_ok) == ([{"name": "math.add", "arguments": read}], True)


@pytest.mark.parametrize(
    "sent",
    ['{"a": 1', "{'a': 1}", '{"a": 1}{"a": 2}', '{"a": 1} I think', "add", '"add"', "[1]", "5", "[" * 100_000, "1" * 5_000],
)
def test_arguments_that_the_model_wrote_wrong_are_its_wrong_call(sent: str) -> None:
    with running(Manners(calls=({"name": "math_add", "arguments": sent},), model=lambda prompt: "")) as server:
        said = served(server, "tools=native").decide([_calling("prompt")])[0]
        assert said.error is None and not said.format_ok
        assert json.loads(said.action)[0]["name"] == "math.add" and sent.strip('"') in said.action.replace('\\"', '"')


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("math_add", "math.add"),
        ("functions.math_add", "math.add"),
        ("functions.math_add:0", "math.add"),
        ("math.add", "math.add"),
        ("functions.math.add", "math.add"),
        ("math_add_2", "math_add"),
        ("tools.math_add", "tools.math_add"),
        ("functions.subtract", "functions.subtract"),
        ("", ""),
    ],
)
def test_a_name_in_the_namespace_of_functions_is_the_functions(sent: str, name: str) -> None:
    with running(Manners(calls=({"name": sent, "arguments": "{}"},), model=lambda prompt: "")) as server:
        said = served(server, "tools=native").decide([_calling("prompt")])[0]
        assert json.loads(said.action) == [{"name": name, "arguments": {}}] and said.error is None


@pytest.mark.parametrize(
    ("manners", "told"),
    [
        (Manners(tools="refuses"), "answered 400: .*--enable-auto-tool-choice.*; or use .tools=text"),
        (Manners(tools="fails"), "answered 500: .*--enable-auto-tool-choice.*; or use .tools=text"),
        (Manners(tools="ignores"), r"the prompt stays \d+ tokens long .*use .tools=text"),
    ],
)
def test_a_server_without_tools_is_refused_at_the_start(manners: Manners, told: str) -> None:
    with running(manners) as server:
        with pytest.raises(AgentError, match=told) as raised:
            served(server, "tools=native")
        assert "\n" not in str(raised.value)
        assert len([body for body in server.bodies() if "tools" in body]) == 1, "asking again would not help"
        assert served(server).decide([asked("prompt", TEMPLATE)])[0].action == "look"
    with running(replace(manners, tools="yes", usage=False)) as server:
        assert served(server, "tools=native").describe()["tools"] == "native", "nothing says that it ignores them"


def test_an_answer_without_a_call_is_its_text() -> None:
    with running(Manners(model=lambda prompt: "The value is missing.\nSorry.")) as server:
        agent = served(server, "tools=native")
        said = agent.decide([_calling("prompt")])[0]
        assert (said.action, said.format_ok) == ("The value is missing.\nSorry.", False)
        server.manners.model = lambda prompt: "<action>[math.add(a=1)]</action>"
        assert agent.decide([_calling("prompt")])[0].action == "[math.add(a=1)]"
        server.manners.model = lambda prompt: "<action>look</action>"
        assert agent.decide([asked("prompt", TEMPLATE)])[0].action == "look", "without functions it is asked as usual"
        assert "tools" not in server.bodies()[-1]


def test_native_tools_open_nothing(server: FakeServer) -> None:
    agent = served(server, "tools=native")
    with pytest.raises(AgentError, match=r"tools=native .* --elicitation-style template"):
        agent.require(SHORT)
    agent.require(TEMPLATE)
    for query in (_calling("prompt", SHORT), _calling("cot", given_trace="x")):
        error = agent.decide([query])[0].error
        assert error is not None and "?tools=text" in error
