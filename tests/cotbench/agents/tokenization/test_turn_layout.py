"""Prompt, past turn and training example agree token by token, over every chat template at hand; or the template is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.template_clock import TEMPLATE_DATE, pin_clock
from cotbench.agents.tokenization.token_ids import answer_pieces
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.examples import make_examples
from cotbench.envs import Instructions
from cotbench.errors import AgentError
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.parsing import ACTION_OPEN, TAGS, THINK_OPEN
from tests import tiny_models

INSTRUCTIONS = Instructions("You act.")
OBSERVATIONS = ("You are in a room.\n\nYour task is to: look.", "You see 0.", "You see [1].")
ACTIONS = ("go to desk 0", "[open(x='1')]", "look")
TRACES = ("I think 0", "(I think 1)", "Then I look.")
CONTROL = re.compile(r"<[|｜][^<>\s]*?[|｜]>|<\|?turn\|?>|</?s>|<(?:start|end)_of_turn>|<sop>|\[gMASK\]|<\|\w+>|<\w+\|>")
"""The control tokens of real templates; tags of tools and of thinking are none."""


def _templates() -> Iterator[Any]:
    for name, template in (tiny_models.TEMPLATES | tiny_models.UNUSUAL_TEMPLATES).items():
        yield pytest.param(template, id=f"own {name}")
    if spec := find_spec("trl"):
        for path in sorted((Path(str(spec.origin)).parent / "chat_templates").glob("*.jinja")):
            yield pytest.param(path.read_text("utf-8"), id=path.stem)


def _tokenizer(template: str | None) -> Any:
    """A tokenizer that knows the template's control tokens; its end of a text is none of them."""
    tokenizer = tiny_models.tokenizer(template)
    found = sorted(set(CONTROL.findall(template or "")))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *found]})
    return tokenizer


REFUSED = {
    "idefics3": "drops or repeats a user message",
    "smolvlm": "drops or repeats a user message",
    "llava_next": "refuses a chat of 3 turns",
}
"""Templates of vision models: a message's text is a part among images there."""


@pytest.mark.parametrize("history", ["actions", "traces"])
@pytest.mark.parametrize("template", list(_templates()))
def test_prompt_past_turn_and_example_agree(template: str | None, history: Any, request: pytest.FixtureRequest) -> None:
    refused = next((reason for name, reason in REFUSED.items() if f"[{name}" in request.node.name), None)
    if refused is not None:
        with pytest.raises(AgentError, match=rf"the chat template of .* cannot be used: it {refused}") as error:
            Chat(_tokenizer(template))
        assert "\n" not in str(error.value)
        return
    chat, elicitation = Chat(_tokenizer(template)), Elicitation(history=history)
    # What is generated behind `<think>` in evaluation and behind the prompt in training is what the next prompt holds.
    played = Demonstration(task="t", instructions=INSTRUCTIONS, observations=OBSERVATIONS, actions=ACTIONS, traces=TRACES)
    examples = make_examples([played], chat, {"": elicitation}, context=10**6).flat
    dialogue = Dialogue(INSTRUCTIONS, OBSERVATIONS[:1])
    for turn, example in enumerate(examples):
        prompt = chat.prompt_ids(elicitation.messages(dialogue, "cot"))
        assert prompt == chat.prompt_ids(elicitation.messages(dialogue, "prompt"))
        assert chat.decode(prompt) == chat.prompt_text(elicitation.messages(dialogue, "cot"))
        assert list(example.prompt) == prompt
        pieces = dict(answer_pieces(chat, TRACES[turn], ACTIONS[turn], ended=True))
        assert list(example.answer) == [id_ for piece in pieces.values() for id_ in piece]
        if turn + 1 == len(examples):
            break
        dialogue = dialogue.extended(ACTIONS[turn], TRACES[turn], OBSERVATIONS[turn + 1])
        longer = chat.prompt_ids(elicitation.messages(dialogue, "cot"))
        answer = [*pieces["action_open"], *pieces["action"], *pieces["closing"]]
        if history == "traces":
            thought = chat.encode(f"\n{TRACES[turn]}\n")
            answer = [*pieces["think_open"], *thought, *pieces["think_close"], *answer]
        if template is None:  # Nothing ends a turn there but the tokenizer's end of a text, which no prompt holds.
            answer.pop()
        assert longer[: len(prompt) + len(answer)] == [*prompt, *answer]
    text = chat.decode(prompt)
    assert not re.search(r"</?think>\s*$", text) and text.count("think>") == text.replace("<think></think>", "").count("think>")
    assert all(words in text for words in (*OBSERVATIONS, "You act.", *ACTIONS[:2]))


@pytest.mark.parametrize(
    ("name", "opening", "end"),
    [
        ("closes thinking", "<|im_start|>assistant\n", "<|im_end|>"),
        ("empty past thinking", "<|im_start|>assistant\n", "<|im_start|>"),
        ("thinking off", "<|im_start|>", "<|im_end|>"),
        ("channels", "<|im_start|>assistant<|channel|>final<|message|>", "<|im_end|>"),
        ("system last", "[/INST] ", "<|endoftext|>"),
        ("two ends", "<|user|>assistant\n", "<|im_start|>"),
    ],
)
def test_a_turn_is_opened_and_closed_as_past_turns_are(name: str, opening: str, end: str) -> None:
    tokenizer = _tokenizer(tiny_models.UNUSUAL_TEMPLATES[name])
    tokenizer.eos_token = "<|endoftext|>"
    chat = Chat(tokenizer)
    dialogue = Dialogue(INSTRUCTIONS, OBSERVATIONS[:1]).extended("look", "I think", "You see 0.")
    text = chat.prompt_text(Elicitation().messages(dialogue, "cot"))
    assert text.endswith(f"You see 0.{text.partition('look.')[2].partition('<action>')[0]}")
    assert text.endswith(opening)
    assert chat.decode(chat.turn_end) == end
    ends = {tokenizer.convert_tokens_to_ids(token) for token in (end, "<|endoftext|>")}
    assert chat.end_ids == ends, "evaluation stops where training ends"


def test_a_system_text_that_would_move_stands_in_the_first_turn() -> None:
    chat = Chat(_tokenizer(tiny_models.SYSTEM_LAST))
    dialogue = Dialogue(INSTRUCTIONS, OBSERVATIONS[:1]).extended("look", None, "You see 0.")
    text = chat.prompt_text(Elicitation().messages(dialogue, "prompt"))
    assert text.startswith("<|endoftext|>[INST] You act.") and text.count("You act.") == 1
    assert text.index("Your task is to") < text.index("[/INST]") < text.index("You see 0.")


def test_tags_that_are_control_tokens_stay_whole() -> None:
    tokenizer = tiny_models.tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<think>", "</think>"]})
    chat, elicitation = Chat(tokenizer), Elicitation(history="traces")
    dialogue = Dialogue(INSTRUCTIONS, OBSERVATIONS[:1]).extended("look", "I think <|im_start|>", "You see 0.")
    text = chat.prompt_text(elicitation.messages(dialogue, "cot"))
    assert "between <think> and </think>" in text
    assert "<think>\nI think < |im_start|>\n</think>" in text
    assert chat.encode(THINK_OPEN) == [tokenizer.convert_tokens_to_ids(THINK_OPEN)]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages[-1:] %}{{ m.content }}{% endfor %}", "drops or repeats a user message"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "drops or repeats a user message"),
        ("{% for m in messages %}{{ loop.index }}{{ m.content }}{% endfor %}", "does not write all past turns alike"),
        (
            "{{ messages | length }}{% for m in messages %}|{{ m.content }}{% endfor %}|",
            "writes the first turn of a longer chat",
        ),
        (
            "{% for m in messages %}|{{ m.role }}|{{ m.content }}{% endfor %}{% if add_generation_prompt %}|bot|{% endif %}",
            r"opens a turn with '\|bot\|', and writes past turns with '\|assistant\|'",
        ),
        ("{{ raise_exception('no chat') }}", r"refuses a chat of 3 turns \(\w+: no chat\)"),
        ("{% for m in messages %", r"refuses a chat of 3 turns \(TemplateSyntaxError: .*"),
    ],
)
def test_what_cannot_be_opened_as_past_turns_is_refused_in_one_line(template: str, reason: str) -> None:
    with pytest.raises(AgentError, match=rf"the chat template of .* cannot be used: it {reason}") as error:
        Chat(tiny_models.tokenizer(template))
    assert "\n" not in str(error.value)


def test_no_prompt_depends_on_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.utils import chat_template_utils

    class Later(chat_template_utils.datetime):  # type: ignore[name-defined, misc]
        @classmethod
        def now(cls, *_: Any) -> Any:
            return cls(2031, 5, 6)

    tokenizer = tiny_models.tokenizer(tiny_models.DATED)
    messages = Elicitation().messages(Dialogue(INSTRUCTIONS, OBSERVATIONS[:1]), "cot")
    before = Chat(tokenizer).prompt_text(messages)
    monkeypatch.setattr(chat_template_utils, "datetime", Later)
    chat = [message._asdict() for message in messages]
    assert tokenizer.apply_chat_template(chat, tokenize=False).startswith("06 May 2031"), "transformers asks the clock"
    assert Chat(tokenizer).prompt_text(messages) == before
    assert before.startswith("01 January 2026\n")


@pytest.mark.parametrize("form", ["%d %b %Y", "%Y-%m-%d", "%A, %-d. %-m. %y", "%H:%M:%S", "%j %U %p %Z", "100 %%", "none", "%"])
def test_the_pinned_day_is_written_in_every_form(form: str) -> None:
    tokenizer = tiny_models.tokenizer(
        "{{ strftime_now(" + repr(form) + ") }}|{% for m in messages %}{{ m.content }}|{% endfor %}"
    )
    text = Chat(tokenizer).prompt_text(Elicitation().messages(Dialogue(INSTRUCTIONS, OBSERVATIONS[:1]), "cot"))
    assert text.startswith(f"{TEMPLATE_DATE.strftime(form)}|You act.")


@pytest.mark.parametrize("before", ["", "\n", "\n\n", "  ", "  {% if true %}x{% endif %}", "\n {% set x = 1 %}\n"])
def test_a_pinned_template_writes_what_it_wrote(before: str) -> None:
    template = before + "{% if strftime_now is defined %}{% set y = strftime_now('%Y') %}{% endif %}" + tiny_models.CHATML
    tokenizer = tiny_models.tokenizer(template)
    chat = [message._asdict() for message in Elicitation().messages(Dialogue(INSTRUCTIONS, OBSERVATIONS[:1]), "cot")]
    pinned = tokenizer.apply_chat_template(chat, tokenize=False, chat_template=pin_clock(template))
    assert pinned == tokenizer.apply_chat_template(chat, tokenize=False)


def test_pieces_have_no_blanks_of_a_tokenizer_that_puts_one_before_every_text() -> None:
    chat = Chat(_sentencepiece())
    dialogue = Dialogue(INSTRUCTIONS, OBSERVATIONS[:1])
    for turn in range(2):
        prompt = chat.prompt_ids(Elicitation().messages(dialogue, "cot"))
        answer = [id_ for _, piece in answer_pieces(chat, "I think", ACTIONS[turn]) for id_ in piece]
        text = chat.decode([*prompt, *answer])
        assert text.endswith(f"<think>I think</think>\n{ACTION_OPEN}{ACTIONS[turn]}</action>")
        dialogue = dialogue.extended(ACTIONS[turn], None, OBSERVATIONS[turn + 1])
    assert all(chat.decode(chat.encode("x") + chat.encode(tag)) == f"x{tag}" for tag in TAGS)


def _sentencepiece() -> Any:
    """A tokenizer in the manner of Llama 2: a blank stands before every text that it is given."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted({*"".join(tiny_models.WORDS), *map(chr, range(33, 127))})
    vocabulary = {text: index for index, text in enumerate(["<unk>", "<s>", "</s>", "▁", "\n", *letters])}
    made = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = tiny_models.SYSTEM_LAST
    return tokenizer


def test_the_template_of_several_that_is_used_stands_in_the_manifest() -> None:
    from cotbench.agents.tokenization.chat_template import describe_template

    one, several = tiny_models.tokenizer(), tiny_models.tokenizer()
    several.chat_template = {"default": tiny_models.CHATML, "tool_use": tiny_models.DATED}
    assert describe_template(several) == describe_template(one)
    assert len(describe_template(one)["chat_template_sha256"]) == 64
    messages = Elicitation().messages(Dialogue(INSTRUCTIONS, OBSERVATIONS[:1]), "cot")
    assert Chat(several).prompt_ids(messages) == Chat(one).prompt_ids(messages)
    several.chat_template = {"tool_use": tiny_models.CHATML}
    with pytest.raises(AgentError, match=r"has chat templates .*'tool_use'.*, and none is 'default'"):
        Chat(several)
    dated = describe_template(tiny_models.tokenizer(tiny_models.DATED))
    assert dated["template_date"] == "2026-01-01"
