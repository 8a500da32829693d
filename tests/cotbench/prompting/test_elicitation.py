import pytest
from pydantic import ValidationError

from cotbench.envs import Instructions
from cotbench.errors import UnknownNameError
from cotbench.prompting import elicitation
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import MODES, Elicitation
from cotbench.prompting.wordings import WORDINGS

DIALOGUE = Dialogue(Instructions("You act.", ("look", "wait")), ("Your task is to: look.",)).extended(
    "look", "I should look.", "You see nothing."
)


@pytest.mark.parametrize(
    "change",
    [
        {"style": "template"},
        {"trace_tokens": 255},
        {"action_tokens": 31},
        {"temperature": 0.1},
        {"top_p": 0.9},
        {"history": "traces"},
        {"show_admissible": True},
        {"one_line": False},
        {"observation_chars": 15_999},
        {"prompt_action": "empty"},
        {"prompt_action": "ranked"},
        {"wording": "brief"},
        {"wording": "rules"},
        {"wording": "question"},
        {"think_tag": "reasoning"},
        {"action_tag": "do"},
        {"system_prompt": "You act."},
        {"examples": [{"observation": "Task", "turns": [{"action": "look"}]}]},
        {"examples": [{"observation": "Task", "turns": [{"action": "look", "trace": "Hm."}]}]},
    ],
)
def test_every_field_is_in_the_fingerprint(change: dict[str, object]) -> None:
    assert set(change) <= set(Elicitation.model_fields)
    assert Elicitation.model_validate(change).fingerprint != Elicitation().fingerprint


def test_no_field_was_forgotten_above() -> None:
    assert set(Elicitation.model_fields) == {
        "style", "trace_tokens", "action_tokens", "temperature", "top_p", "history", "one_line", "show_admissible",
        "observation_chars", "prompt_action", "wording", "system_prompt", "examples", "think_tag", "action_tag",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("elicitation", "recorded"),
    [
        (Elicitation(), "3246f559aad7b616"),
        (Elicitation(style="template"), "25fcff1102c51ad7"),
        (Elicitation(history="traces", show_admissible=True, temperature=0.7), "58dbdcbfb9503b63"),
        (Elicitation.for_env("bfcl"), "6da7fc91596e85c0"),
    ],
)
def test_fingerprints_are_those_of_before_there_were_wordings(elicitation: Elicitation, recorded: str) -> None:
    assert elicitation.fingerprint == recorded
    assert (
        not {"prompt_action", "wording", "system_prompt", "examples", "think_tag", "action_tag"}
        & elicitation.model_dump().keys()
    )
    assert Elicitation.model_validate(elicitation.model_dump()) == elicitation


def test_every_wording_is_another_text_that_asks_for_the_same_tags() -> None:
    for mode in MODES:
        for style in ("prefill", "template"):
            texts = [Elicitation(wording=wording, style=style).instruction(mode) for wording in WORDINGS]
            assert len(set(texts)) == len(WORDINGS) >= 4
            reasons = style == "prefill" or mode == "cot"
            for text in texts:
                assert "<action>" in text and "</action>" in text
                assert ("<think>" in text and "</think>" in text) == reasons
    with pytest.raises(ValidationError, match="ranked after an opened tag"):
        Elicitation(style="template", prompt_action="ranked")


def test_fixed_texts_are_in_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Elicitation().fingerprint
    monkeypatch.setattr(elicitation, "instruction", lambda *_: "Answer.")
    assert Elicitation().fingerprint != before


def test_with_prefill_both_modes_share_one_prompt() -> None:
    asked = Elicitation()
    assert asked.messages(DIALOGUE, "prompt") == asked.messages(DIALOGUE, "cot")


def test_the_template_asks_for_reasoning_only_in_cot_mode() -> None:
    asked = Elicitation(style="template")
    prompt, cot = asked.messages(DIALOGUE, "prompt"), asked.messages(DIALOGUE, "cot")
    assert "reason" in cot[0].content and "reason" not in prompt[0].content
    assert prompt[1:] == cot[1:]


def test_the_system_text_shows_examples_in_tags() -> None:
    system = Elicitation().messages(DIALOGUE, "prompt")[0].content
    assert (
        "You act.\n\nActions look like this:\n<action>look</action>\n<action>wait</action>\n\nGive your next action" in system
    )
    bare = Dialogue(Instructions("You act."), ("Do it.",))
    assert Elicitation().system_text(bare, "cot").startswith("You act.\n\nGive your next action")


def test_history_hides_traces_unless_asked() -> None:
    hidden = Elicitation().messages(DIALOGUE, "cot")
    assert [message.role for message in hidden] == ["system", "user", "assistant", "user"]
    assert hidden[2].content == "<action>look</action>"
    shown = Elicitation(history="traces").messages(DIALOGUE, "cot")
    assert shown[2].content == "<think>\nI should look.\n</think>\n<action>look</action>"


def test_admissible_actions_stand_with_the_current_observation_only() -> None:
    asked = Elicitation(show_admissible=True)
    messages = asked.messages(DIALOGUE, "prompt", ("go to desk 1", "look"))
    assert messages[-1].content == "You see nothing.\n\nAdmissible actions:\ngo to desk 1\nlook"
    assert messages[1].content == "Your task is to: look."
    assert Elicitation().messages(DIALOGUE, "prompt", ("look",))[-1].content == "You see nothing."


@pytest.mark.parametrize(
    "wrong", [{"style": "chat"}, {"temperature": -1}, {"trace_tokens": 0}, {"top_p": 0}, {"sytle": "prefill"}]
)
def test_wrong_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Elicitation.model_validate(wrong)


def test_functions_stand_in_the_system_text() -> None:
    dialogue = Dialogue(Instructions("You call.", ("[f()]",)), ("Do it.",), functions='{"name": "f"}\n{"name": "g"}')
    system = Elicitation().messages(dialogue.extended("[f()]", None, "done"), "cot")[0].content
    assert 'You can call these functions:\n{"name": "f"}\n{"name": "g"}\n\nGive your next action' in system


def test_the_middle_of_a_long_observation_is_left_out_but_never_of_the_first() -> None:
    long = "".join(chr(97 + number % 26) for number in range(101))
    dialogue = Dialogue(Instructions("You act."), (long,)).extended("look", None, long).extended("look", None, long[:100])
    shown = Elicitation(observation_chars=100).messages(dialogue, "prompt")
    assert shown[1].content == long
    assert shown[3].content == f"{long[:50]}\n[1 characters are left out here]\n{long[51:]}"
    assert shown[5].content == long[:100]


def test_an_environment_may_ask_otherwise() -> None:
    assert Elicitation.for_env("alfworld") == Elicitation()
    asked = Elicitation.for_env("bfcl", temperature=0.5)
    assert (asked.one_line, asked.temperature) == (False, 0.5) and asked.action_tokens > 32
    with pytest.raises(UnknownNameError, match="environment"):
        Elicitation.for_env("bfcI")
