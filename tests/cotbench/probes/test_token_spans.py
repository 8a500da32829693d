"""Looking into a model: which token is what, who is refused, and an agent that answers afterwards as before."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents import make_agent
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.examples import make_examples
from cotbench.envs import Instructions
from cotbench.errors import ContextOverflowError, UsageError
from cotbench.probes import attention, gradient
from cotbench.probes.asking import state_query
from cotbench.probes.probe import Probe, probe_named
from cotbench.probes.states import (
    ProbeState,
    StateAnswer,
)
from cotbench.probes.token_spans import ShareRow, share_numbers, tokenize_state
from tests import tiny_models
from tests.hf_agents import answers_of
from tests.whitebox import ACTION, ASKED, TRACE, agent, setting, state

BOTH = pytest.mark.parametrize("probe", [attention.PROBE, gradient.PROBE], ids=lambda probe: probe.name)
LABELS = ["prompt", "think_open", "trace", "think_close", "action_open", "action", "closing"]


def rows_of(probe: Probe, asked: Any, states: Sequence[ProbeState], **more: Any) -> list[Any]:
    options = probe.options(**{"source": "reference", **more})
    return list(probe.measure(asked, states, setting(*states), options))


@pytest.mark.parametrize("template", tiny_models.TEMPLATES)
@pytest.mark.parametrize("trace", [TRACE, "ça y est… <|im_end|> 1"])
def test_a_state_has_the_tokens_that_it_is_trained_on(template: str, trace: str) -> None:
    chat = Chat(tiny_models.tokenizer(tiny_models.TEMPLATES[template]))
    steps = [("go to desk 0", TRACE), ("go to desk 1", trace)]
    told = state(1, action="go to desk 1", trace=trace)
    played = Demonstration(
        task="t",
        instructions=Instructions("You act."),
        observations=told.dialogue.observations,
        actions=tuple(action for action, _ in steps),
        traces=tuple(trace for _, trace in steps),
    )
    example = make_examples([played], chat, {"": ASKED}, context=4096).flat[1]
    spelled = tokenize_state(told, trace, "go to desk 1", setting(told), chat, 4096)
    assert (*spelled.ids, *chat.turn_end) == example.ids, "but for the end of the turn, which no action needs"
    starts = {label: span.start for label, span in spelled.spans.items()}
    assert starts == {span.label: span.start for span in example.spans}


def test_every_token_is_in_one_span(tmp_path: Path) -> None:
    told = state()
    chat = Chat(tiny_models.tokenizer())
    spelled = tokenize_state(told, TRACE, ACTION, setting(told), chat, 4096)
    assert list(spelled.spans) == LABELS
    assert [token for span in spelled.spans.values() for token in span] == list(range(len(spelled.ids)))
    texts = {label: chat.decode(spelled.ids[span.start : span.stop]) for label, span in spelled.spans.items()}
    assert [texts[label] for label in LABELS[1:]] == ["<think>", TRACE, "</think>\n", "<action>", ACTION, "</action>"]
    tokens = spelled.tokens()
    assert sum(tokens.values()) == spelled.spans["action"].stop
    assert tokens["trace_tokens"] == len(chat.encode(TRACE))


@BOTH
def test_only_agents_that_show_their_model_are_measured(probe: Probe) -> None:
    told = state()
    with pytest.raises(UsageError) as refused:
        probe.measure(make_agent("random"), [told], setting(told), probe.options())
    assert str(refused.value) == (
        f"probe {probe.name} needs access to the model itself, which random does not give: use an hf: agent"
    )
    assert probe.weights and probe_named(probe.name) is probe


@BOTH
def test_without_opened_tags_nothing_is_measured(probe: Probe, tmp_path: Path) -> None:
    told = state()
    template = ASKED.model_copy(update={"style": "template"})
    with pytest.raises(UsageError, match=f"probe {probe.name} needs elicitation style prefill"):
        probe.measure(agent(tmp_path), [told], setting(told, elicitation=template), probe.options())


@BOTH
def test_a_model_without_attention_is_refused(probe: Probe, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"probe {probe.name}: no layer of MambaForCausalLM"):
        rows_of(probe, agent(tmp_path, "mamba"), [state()])


@BOTH
def test_states_that_nothing_can_be_said_of_are_left_out_alone(probe: Probe, tmp_path: Path) -> None:
    states = [
        state(task="no trace", trace=None),
        state(task="no action", action=""),
        state(task="long trace", trace="open the fridge " * 400),
        state(task="good"),
    ]
    rows = {row.task: row for row in rows_of(probe, agent(tmp_path, options="context=900"), states)}
    assert {task: row.left_out for task, row in rows.items()} == {
        "no trace": "no trace",
        "no action": "no action",
        "long trace": "too long",
        "good": None,
    }
    assert all(row.error is None for row in rows.values())
    numbers = probe.summarize(list(rows.values()), probe.options())
    assert (numbers.states, numbers.tasks, numbers.errors) == (1, 1, 0)
    assert numbers.left_out == {"no trace": 1, "no action": 1, "too long": 1}


@BOTH
def test_a_context_without_room_leaves_every_state_out(probe: Probe, tmp_path: Path) -> None:
    rows = rows_of(probe, agent(tmp_path, options="context=64"), [state(), state(1, "u")])
    assert [row.left_out for row in rows] == ["too long", "too long"]


def test_what_does_not_fit_is_not_cut() -> None:
    told, chat = state(), Chat(tiny_models.tokenizer())
    whole = len(tokenize_state(told, TRACE, ACTION, setting(told), chat, 4096).ids)
    assert len(tokenize_state(told, TRACE * 3, ACTION, setting(told), chat, whole + 100).ids) > whole
    with pytest.raises(ContextOverflowError, match="t, step 2: "):
        tokenize_state(told, TRACE * 9, ACTION, setting(told), chat, whole + 100)


@BOTH
def test_own_answers_are_those_of_the_agent(probe: Probe, tmp_path: Path) -> None:
    asked, told = agent(tmp_path), state()
    options = probe.options(source="own")
    (row,) = probe.measure(asked, [told], setting(told), options)
    decision = asked.decide([state_query(told, "cot", setting(told), asked)])[0]
    given = state(trace=decision.trace, action=decision.action.strip())
    assert row == rows_of(probe, asked, [given])[0]
    assert row != rows_of(probe, asked, [told])[0]


@BOTH
def test_known_answers_are_not_asked_for_again(probe: Probe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = agent(tmp_path)
    told, failed, silent = state(), state(task="u"), state(task="v")
    answers = {
        told.key: StateAnswer("look", ACTION, f"\n{TRACE}\n"),
        failed.key: StateAnswer("", "", "", error="server gone"),
        silent.key: StateAnswer("look", "look", ""),
    }
    monkeypatch.setattr(asked, "decide", lambda queries: pytest.fail("asked again"))
    states = [told, failed, silent]
    rows = list(probe.measure(asked, states, setting(*states, answers=answers), probe.options(source="own")))
    assert [(row.error, row.left_out) for row in rows] == [(None, None), ("server gone", None), (None, "no trace")]
    assert rows[0] == rows_of(probe, asked, [told])[0]


def test_the_agent_answers_afterwards_as_before(tmp_path: Path) -> None:
    for kind, options in (("llama", ""), ("gemma3", ""), ("sinks", "")):
        asked, told = agent(tmp_path, kind, options), [state(1), state(2)]
        queries = [state_query(one, mode, setting(*told), asked) for one in told for mode in ("prompt", "cot")]
        before = answers_of(asked.decide(queries[:3]))
        model = asked._model
        kept = model.config._attn_implementation, [weight.requires_grad for weight in model.parameters()]
        replaced = ["forward" in vars(module) for module in model.modules()]
        for probe in (attention.PROBE, gradient.PROBE):
            assert [row.error for row in rows_of(probe, asked, told)] == [None] * 2
            assert kept == (model.config._attn_implementation, [weight.requires_grad for weight in model.parameters()])
        assert replaced == ["forward" in vars(module) for module in model.modules()]
        assert not model.get_input_embeddings()._forward_hooks
        assert all(weight.grad is None for weight in model.parameters())
        again = answers_of(asked.decide(queries))
        assert again[:3] == before
        assert again == answers_of(agent(tmp_path, kind, options).decide(queries))


@BOTH
def test_between_two_rows_the_agent_may_be_asked(probe: Probe, tmp_path: Path) -> None:
    asked, states = agent(tmp_path), [state(1), state(2), state(3)]
    query = state_query(states[0], "cot", setting(*states), asked)
    expected = answers_of(asked.decide([query]))
    for _ in probe.measure(asked, states, setting(*states), probe.options(source="reference")):
        assert answers_of(asked.decide([query])) == expected


@BOTH
def test_a_row_depends_on_its_state_alone(probe: Probe, tmp_path: Path) -> None:
    asked, states = agent(tmp_path, "gemma3"), [state(1), state(2), state(12, "u")]
    together = {row.key: row for row in rows_of(probe, asked, states)}
    assert together == {row.key: row for row in rows_of(probe, asked, states[::-1])}
    assert together == {one.key: rows_of(probe, asked, [one])[0] for one in states}


@BOTH
def test_rows_survive_their_file_and_are_small(probe: Probe, tmp_path: Path) -> None:
    (row,) = rows_of(probe, agent(tmp_path), [state()])
    assert type(row) is probe.row
    assert probe.row.model_validate_json(row.model_dump_json()) == row
    wide: dict[str, Any] = {"prompt_layers": (0.12345,) * 36, "trace_layers": (0.12345,) * 36}
    if probe is attention.PROBE:
        wide["heads"] = ("12" * 32,) * 36
    assert len(row.model_copy(update=wide).model_dump_json()) <= 4096


@BOTH
def test_one_state_has_no_interval(probe: Probe, tmp_path: Path) -> None:
    numbers = probe.summarize(rows_of(probe, agent(tmp_path), [state()]), probe.options())
    for estimate in (*numbers.estimates.values(), *(one for curve in numbers.curves.values() for one in curve.values)):
        assert estimate.mean is not None
        assert (estimate.n, estimate.low, estimate.high) == (1, None, None)


@BOTH
def test_without_a_measured_state_there_is_nothing_to_draw(probe: Probe) -> None:
    numbers = probe.summarize([probe.row(task="t", step=0, error="out of memory")], probe.options())
    assert (numbers.states, numbers.errors, numbers.curves) == (0, 1, {})
    assert all(estimate.mean is None for estimate in numbers.estimates.values())


def test_numbers_of_known_rows() -> None:
    def row(task: str, prompt: float, trace: float) -> ShareRow:
        return ShareRow(
            task=task,
            step=0,
            prompt_tokens=100,
            trace_tokens=10,
            rest_tokens=8,
            prompt=prompt,
            trace=trace,
            rest=1 - prompt - trace,
            prompt_layers=(prompt, 1.0),
            trace_layers=(trace, 0.0),
        )

    numbers = share_numbers([row("a", 0.6, 0.2), row("a", 0.8, 0.1), row("b", 0.4, 0.4), row("c", 0.0, 0.5)])
    means = {name: estimate.mean for name, estimate in numbers.estimates.items()}
    assert means == pytest.approx(
        {
            "prompt share": (0.6 + 0.8 + 0.4 + 0.0) / 4,
            "trace share": (0.2 + 0.1 + 0.4 + 0.5) / 4,
            "rest share": (0.2 + 0.1 + 0.2 + 0.5) / 4,
            "prompt share of prompt and trace": (0.75 + 8 / 9 + 0.5 + 0.0) / 4,
            # A token of the trace gets 0.2/10, one of the prompt 0.6/100, and so on; of the last nothing can be said.
            "trace token to prompt token": (10 / 3 + 1.25 + 10) / 3,
            # What a share would be if every one of the 118 tokens had the same.
            "prompt share, uniform per token": 100 / 118,
            "trace share, uniform per token": 10 / 118,
            "prompt share of prompt and trace, uniform per token": 100 / 110,
        }
    )
    assert numbers.estimates["prompt share"].n == 3
    curve = numbers.curves["prompt share"]
    assert (curve.x, curve.at, [one.mean for one in curve.values]) == ("layer", (0.0, 1.0), pytest.approx([0.45, 1.0]))
