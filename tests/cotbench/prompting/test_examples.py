"""System prompts and example episodes of the user's: what a model is shown of them, and what a file must hold."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cotbench.agents.tokenization.chat_template import Chat
from cotbench.envs import Instructions
from cotbench.errors import CotbenchError, UsageError
from cotbench.flags import INLINE, options_of, read_value, to_arguments, with_contents
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import MODES, Elicitation, Message
from cotbench.prompting.examples import MAX_EXAMPLES_BYTES, MAX_SYSTEM_CHARS, read_examples, read_system_prompt
from tests.tiny_models import tokenizer

DIALOGUE = Dialogue(Instructions("You act.", ("look", "wait")), ("Task: look.",), functions='{"name": "f"}').extended(
    "look", "I look.", "Nothing."
)
TOML = """
[[examples]]
observation = "Task: wait."

[[examples.turns]]
trace = "Nothing to do."
action = "wait"
observation = "Time passes."

[[examples.turns]]
action = "stop"

[[examples]]
observation = "Task: jump."
turns = [{ action = "jump" }]
"""


def _written(folder: Path, text: str, name: str = "examples.toml") -> str:
    (folder / name).write_text(text, "utf-8")
    return str(folder / name)


def test_a_system_prompt_stands_for_the_instructions_and_keeps_the_functions_and_the_form() -> None:
    usual = Elicitation()
    own = Elicitation(system_prompt="Be quick.").system_text(DIALOGUE, "cot")
    assert own == f'Be quick.\n\nYou can call these functions:\n{{"name": "f"}}\n\n{usual.instruction("cot")}'
    extended = Elicitation(system_prompt="Be quick.\n\n{instructions}").system_text(DIALOGUE, "cot")
    assert extended == f"Be quick.\n\n{usual.system_text(DIALOGUE, 'cot')}"


def test_examples_are_turns_between_system_text_and_task_with_traces_in_cot_mode_alone(tmp_path: Path) -> None:
    elicitation = Elicitation(examples=read_examples(_written(tmp_path, TOML)))
    usual = Elicitation().messages(DIALOGUE, "cot")
    between = {mode: elicitation.messages(DIALOGUE, mode)[1:-3] for mode in MODES}
    for mode in MODES:
        messages = elicitation.messages(DIALOGUE, mode)
        assert (messages[0], *messages[-3:]) == (usual[0], *usual[1:])
    assert between["prompt"] == [
        Message("user", "Task: wait."),
        Message("assistant", "<action>wait</action>"),
        Message("user", "Time passes."),
        Message("assistant", "<action>stop</action>"),
        Message("user", "Task: jump."),
        Message("assistant", "<action>jump</action>"),
    ]
    traced = Message("assistant", "<think>\nNothing to do.\n</think>\n<action>wait</action>")
    assert between["cot"] == [between["prompt"][0], traced, *between["prompt"][2:]]
    assert not elicitation.shares_prompt
    bare = Elicitation(examples=elicitation.examples[1:])
    assert bare.shares_prompt and bare.messages(DIALOGUE, "cot") == bare.messages(DIALOGUE, "prompt")


def test_a_prompt_with_examples_grows_at_its_end(tmp_path: Path) -> None:
    chat, elicitation = Chat(tokenizer()), Elicitation(examples=read_examples(_written(tmp_path, TOML)))
    for mode in MODES:
        short = chat.prompt_ids(elicitation.messages(DIALOGUE, mode))
        longer = chat.prompt_ids(elicitation.messages(DIALOGUE.extended("wait", None, "Still nothing."), mode))
        assert longer[: len(short)] == short
        assert chat.decode(short).count("Task: ") == 3


def test_what_a_file_holds_is_what_a_derived_command_line_says(tmp_path: Path) -> None:
    prompt = _written(tmp_path, 'Be quick.\nBe "kind".\n', "system.txt")
    _written(tmp_path, TOML)
    named = {"system_prompt": "system.txt", "examples": "examples.toml", "top_p": 0.9}
    found = with_contents(Elicitation, named, tmp_path)
    assert Elicitation(**found).system_prompt == read_system_prompt(prompt) == 'Be quick.\nBe "kind".'
    assert json.loads(json.dumps(found)) == found
    options = {option.name: option for option in options_of(Elicitation)}
    arguments = to_arguments(Elicitation, found)
    typed = dict(zip(arguments[::2], arguments[1::2], strict=True))
    again = {options[name].field: read_value(options[name], text) for name, text in typed.items()}
    assert Elicitation(**again) == Elicitation(**found)
    as_json = _written(tmp_path, json.dumps({"examples": found["examples"]}), "examples.json")
    assert read_examples(as_json) == Elicitation(**found).examples
    assert to_arguments(Elicitation, {"system_prompt": None, "examples": ()}) == []


_TURNS = {"turns": [{"action": "a", "observation": "o"}, {"action": "b"}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds no examples"),
        ({"exmples": []}, "unknown table 'exmples'.*did you mean 'examples'"),
        ([{"observation": "o", "turns": []}], "example 1 turns: "),
        ([{"observation": "o", "turns": [{"acton": "a"}]}], "unknown field 'acton' of example 1 turn 1.*'action'"),
        ([{**_TURNS}], "example 1 observation: Field required"),
        ([{"observation": "o", **_TURNS}, {"observation": "", **_TURNS}], "example 2 observation: "),
        ([{"observation": "o", "turns": [{"action": "a"}, {"action": "b"}]}], "turn 1 of 2 has no observation"),
        ([{"observation": "o", "turns": [{"action": "a", "observation": "o"}]}], "the last turn has an observation"),
        ([{"observation": "o", "turns": [{"action": "<action>a</action>"}]}], "<action> stands in a text"),
        ([{"observation": "o", "turns": [{"action": "a" * MAX_EXAMPLES_BYTES}]}], "bytes, and 100000 are the most"),
    ],
)
def test_a_file_that_holds_no_examples_is_refused_with_the_place(content: Any, message: str) -> None:
    with pytest.raises(CotbenchError, match=message):
        read_examples(INLINE + json.dumps(content))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--examples .*nowhere.toml: No such file"):
        read_examples(str(tmp_path / "nowhere.toml"))
    with pytest.raises(UsageError, match="is not TOML"):
        read_examples(_written(tmp_path, "= 3"))
    for text, message in (("  \n", "is empty"), ("x" * (MAX_SYSTEM_CHARS + 1), "30001 characters, and 30000 are the most")):
        with pytest.raises(UsageError, match=message):
            read_system_prompt(_written(tmp_path, text, "system.txt"))
    with pytest.raises(ValidationError):
        Elicitation(system_prompt="x" * (MAX_SYSTEM_CHARS + 1))
