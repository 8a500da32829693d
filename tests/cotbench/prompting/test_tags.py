"""Tags of the user's: what a model is asked for, how its answer is read, and that nothing but the names is another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cotbench.agents.ranking import ranked_decision
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.token_ids import answer_pieces, prompt_ids
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.examples import elicitations_of
from cotbench.envs import Instructions
from cotbench.errors import UsageError
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import MODES, Elicitation
from cotbench.prompting.generation import Generation, answer_program, prefill_text
from cotbench.prompting.parsing import TAGS, Tags
from cotbench.prompting.query import Decision, Query
from cotbench.prompting.wordings import WORDINGS
from tests.conftest import needs_hf
from tests.hf_agents import SHORT, hf_agent, plain_answer, state
from tests.tiny_models import tokenizer

OWN = Tags("reasoning", "do")
NAMES = {"think_tag": "reasoning", "action_tag": "do"}
DIALOGUE = Dialogue(Instructions("You act.", ("look",)), ("Task: look.",)).extended("look", "Hm.", "Nothing.")
EXAMPLES = [{"observation": "Task: wait.", "turns": [{"trace": "Hm.", "action": "wait"}]}]


def _query(mode: Any, elicitation: Elicitation, **more: Any) -> Query:
    return Query("e", "", "t", 1, mode, DIALOGUE, elicitation, **more)


@pytest.mark.parametrize("style", ["prefill", "template"])
@pytest.mark.parametrize("wording", WORDINGS)
def test_a_model_is_shown_the_same_with_other_names(style: Any, wording: Any) -> None:
    options: dict[str, Any] = {"style": style, "wording": wording, "history": "traces", "examples": EXAMPLES}
    for mode in MODES:
        usual = Elicitation(**options).messages(DIALOGUE, mode)
        own = Elicitation(**options, **NAMES).messages(DIALOGUE, mode)
        assert own == [message._replace(content=OWN.rename(message.content)) for message in usual]
        assert not any(tag in message.content for message in own for tag in TAGS)


def _written(query: Query, generations: Sequence[tuple[str, str]]) -> tuple[list[str], list[tuple[str, ...]], Decision]:
    """Answers a query's program: the turns that it opened, its stop strings, and the decision."""
    program, turns, stops = answer_program(query), [], []
    request = next(program)
    for text, stop in generations:
        turns.append(prefill_text(request.prefill))
        stops.append(request.stops)
        try:
            request = program.send(Generation(text, stop, 1, (text,)))
        except StopIteration as end:
            decision: Decision = end.value
            return turns, stops, decision
    raise AssertionError("the program asks for more")


@pytest.mark.parametrize("more", [{}, {"prompt_action": "empty"}, {"style": "template"}])
@pytest.mark.parametrize("mode", MODES)
def test_an_answer_is_opened_and_read_alike(mode: Any, more: dict[str, Any]) -> None:
    usual, own = (_query(mode, Elicitation(**more, **names)) for names in ({}, NAMES))
    written = [("Hm.", "</think>"), ("look", "</action>")]
    if more == {"style": "template"}:
        written = [("<think>Hm.</think><action>look" if mode == "cot" else "<action>look", "</action>")]
    elif mode == "prompt":
        written = written[1:]
    renamed = [(OWN.rename(text), OWN.rename(stop)) for text, stop in written]
    (turns, stops, decision), (own_turns, own_stops, own_decision) = _written(usual, written), _written(own, renamed)
    assert own_turns == [OWN.rename(turn) for turn in turns]
    assert own_stops == [tuple(map(OWN.rename, some)) for some in stops]
    assert decision.format_ok and own_decision.raw == OWN.rename(decision.raw)
    assert (own_decision.action, own_decision.trace, own_decision.format_ok) == (decision.action, decision.trace, True)
    assert own_decision.trace_tokens == decision.trace_tokens


def test_a_ranked_action_stands_in_the_tags_too() -> None:
    query = _query("prompt", Elicitation(prompt_action="ranked", **NAMES), admissible_actions=("look", "wait"))
    answers = [Decision("", raw="<do>", action_logprob=-2.0), Decision("", raw="<do>", action_logprob=-1.0)]
    assert ranked_decision(query, answers).raw == "<do>wait</do>"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"action_tag": "think"}, "trace and action need different tags"),
        ({"think_tag": "Reasoning"}, "pattern"),
        ({"action_tag": "a b"}, "pattern"),
        ({"action_tag": ""}, "pattern"),
    ],
)
def test_names_that_are_no_tags_are_refused(names: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Elicitation(**names)


def test_examples_hold_none_of_the_tags() -> None:
    shown = [{"observation": "Task: <do>", "turns": [{"action": "wait"}]}]
    assert Elicitation(examples=shown).examples
    with pytest.raises(ValidationError, match="<do> stands in a text"):
        Elicitation(examples=shown, **NAMES)


def test_training_knows_the_usual_tags_alone() -> None:
    with pytest.raises(UsageError, match="omit --think-tag and --action-tag"):
        elicitations_of([Demonstration.model_construct(env="alfworld-gen")], NAMES)


@needs_hf
def test_a_prompt_is_encoded_in_the_pieces_of_its_tags() -> None:
    chat, own = Chat(tokenizer()), Elicitation(history="traces", **NAMES)
    assert chat.with_tags(Tags()) is chat and chat.with_tags(OWN) is chat.with_tags(OWN)
    short, _ = prompt_ids(_query("cot", own), chat, 10_000)
    longer, _ = prompt_ids(Query("e", "", "t", 2, "cot", DIALOGUE.extended("wait", "So.", "x"), own), chat, 10_000)
    assert longer[: len(short)] == short
    pieces = answer_pieces(chat.with_tags(OWN), "So.", "wait")
    assert [chat.decode(ids) for _, ids in pieces] == ["<reasoning>", "So.", "</reasoning>\n", "<do>", "wait", "</do>"]


@needs_hf
def test_a_model_answers_in_the_tags(tmp_path: Path) -> None:
    agent = hf_agent(tmp_path)
    elicitation = SHORT.model_copy(update=NAMES)
    for mode in MODES:
        query = state(1, mode, elicitation)
        trace, action = plain_answer(agent, query)
        opened = "" if trace is None else f"<reasoning>{trace}</reasoning>\n"
        assert agent.decide([query])[0].raw.startswith(f"{opened}<do>{action}")
    agent.close()
