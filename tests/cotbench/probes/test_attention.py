"""Attention shares: against known attention, against whole matrices, and over kinds of models."""

import math
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from pydantic import ValidationError

from cotbench.agents.tokenization.chat_template import Chat
from cotbench.probes.attention import PROBE, AttentionOptions, AttentionRow, attention_mass, by_head, fields
from cotbench.probes.token_spans import TokenizedState, tokenize_state
from tests import tiny_models
from tests.whitebox import (
    ACTION,
    KINDS,
    TRACE,
    agent,
    agent_of,
    by_distance,
    plain,
    save_model,
    setting,
    state,
    weights,
)

REFERENCE = AttentionOptions(source="reference")
LONG = 12
"""Turns that make a prompt longer than one piece of it."""


def row_of(asked: Any, turns: int = LONG, options: AttentionOptions = REFERENCE, **more: Any) -> AttentionRow:
    told = state(turns, **more)
    (row,) = PROBE.measure(asked, [told], setting(told), options)
    assert isinstance(row, AttentionRow)
    assert (row.error, row.left_out) == (None, None)
    return row


def spelled_of(turns: int = LONG, action: str = ACTION) -> TokenizedState:
    told = state(turns, action=action)
    return tokenize_state(told, TRACE, action, setting(told), Chat(tiny_models.tokenizer()), 4096)


def region(spelled: TokenizedState, token: int) -> str:
    return next((label for label in ("prompt", "trace") if token in spelled.spans[label]), "rest")


def shares_of(layers: list[list[list[float]]], spelled: TokenizedState, top: float | None = None) -> dict[str, float]:
    """Shares of masses [layer][head][token], by their definition; with `top` among each head's top positions."""
    found = {"prompt": 0.0, "trace": 0.0, "rest": 0.0}
    for layer in layers:
        for head in layer:
            ranked = sorted(range(len(head)), key=lambda token: -head[token])
            for token in ranked if top is None else ranked[: math.ceil(len(head) * top / 100)]:
                found[region(spelled, token)] += head[token]
    return {name: share / sum(found.values()) for name, share in found.items()}


def whole_matrices(folder: Path, spelled: TokenizedState) -> list[list[list[float]]]:
    """Masses by one pass over everything, without a cache: [layer][head][token]."""
    import torch

    stop = spelled.spans["action"].stop
    with torch.no_grad():
        told = plain(folder)(torch.tensor([spelled.ids[:stop]]), use_cache=False, output_attentions=True)
    rows = slice(spelled.spans["action"].start, stop)
    return [layer[0, :, rows].double().sum(1).tolist() for layer in told.attentions if layer is not None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("top", [10.0, 2.5])
def test_shares_are_those_of_the_whole_matrices(kind: str, top: float, tmp_path: Path) -> None:
    folder = save_model(tmp_path / kind, kind)
    spelled = spelled_of()
    assert spelled.spans["prompt"].stop > 512
    layers = whole_matrices(folder, spelled)
    row = row_of(agent(tmp_path, kind), options=AttentionOptions(source="reference", top=top))
    close = pytest.approx
    assert {"prompt": row.prompt, "trace": row.trace, "rest": row.rest} == close(shares_of(layers, spelled), abs=2e-5)
    best = {"prompt": row.top_prompt, "trace": row.top_trace, "rest": row.top_rest}
    assert best == close(shares_of(layers, spelled, top), abs=2e-5)
    by_layer = [shares_of([layer], spelled) for layer in layers]
    assert row.prompt_layers == close([layer["prompt"] for layer in by_layer], abs=2e-5)
    assert row.trace_layers == close([layer["trace"] for layer in by_layer], abs=2e-5)
    first = sum(head[0] for layer in layers for head in layer) / sum(map(sum, (head for layer in layers for head in layer)))
    assert row.first == close(first, abs=2e-5)
    # Without the first token: by zeroing what lies on it.
    others = [[[0.0, *head[1:]] for head in layer] for layer in layers]
    expected = shares_of(others, spelled)
    assert (row.prompt_without_first, row.trace_without_first) == close((expected["prompt"], expected["trace"]), abs=1e-4)
    other_layers = [shares_of([layer], spelled) for layer in others]
    assert row.prompt_layers_without_first == close([layer["prompt"] for layer in other_layers], abs=1e-4)
    assert row.trace_layers_without_first == close([layer["trace"] for layer in other_layers], abs=1e-4)
    of_heads = [[shares_of([[head]], spelled) for head in layer] for layer in layers]
    flat = [head for layer in of_heads for head in layer]
    bare = [shares_of([[head]], spelled) for layer in others for head in layer]
    assert row.trace_heads_without_first == close(sum(head["trace"] > head["prompt"] for head in bare) / len(bare), abs=1e-5)
    assert row.trace_heads == close(sum(head["trace"] > head["prompt"] for head in flat) / len(flat), abs=1e-5)
    shown = [[int(told[at : at + 2]) for at in range(0, len(told), 2)] for told in row.heads]
    assert [len(told) for told in shown] == [4] * len(layers)
    for told, expected in zip(shown, of_heads, strict=True):
        assert told == close([min(99, 100 * head["prompt"]) for head in expected], abs=0.51)


@pytest.mark.parametrize("kind", KINDS)
def test_shares_sum_to_one(kind: str, tmp_path: Path) -> None:
    import torch

    spelled = spelled_of()
    with agent(tmp_path, kind).expose_model() as inside:
        layers = attention_mass(inside.model, spelled)
    found = fields(layers, spelled, 10.0)
    assert found["prompt"] + found["trace"] + found["rest"] == pytest.approx(1, abs=2e-5)
    assert found["top_prompt"] + found["top_trace"] + found["top_rest"] == pytest.approx(1, abs=2e-5)
    for mass in layers:
        assert torch.allclose(sum(spelled.parts(mass)), mass.sum(-1), rtol=1e-12)  # type: ignore[arg-type]
        if kind != "sinks":  # Every action token has given away 1.
            assert mass.sum(-1).tolist() == pytest.approx([len(spelled.spans["action"])] * len(mass), rel=1e-5)


@pytest.mark.parametrize(("strength", "key_heads"), [((1.0,), 1), ((0.5, 1.0, 2.0, -1.5), 2), ((0.0, 0.0), 1)])
def test_known_attention_gives_known_shares(strength: tuple[float, ...], key_heads: int, tmp_path: Path) -> None:
    score = by_distance(tmp_path / "model", strength, key_heads)
    spelled = spelled_of(2)
    action = spelled.spans["action"]
    assert len(action) > 1
    heads = []
    for head in range(len(strength)):
        mass = [0.0] * action.stop
        for query in action:
            for token, weight in enumerate(weights(score, head, query)):
                mass[token] += weight
        heads.append(mass)
    row = row_of(agent_of(tmp_path / "model"), 2)
    expected = shares_of([heads], spelled)
    assert {"prompt": row.prompt, "trace": row.trace, "rest": row.rest} == pytest.approx(expected, abs=2e-5)
    if not any(strength):  # Even attention: a token at place t gives each of t + 1 tokens the same.
        even = sum(len(spelled.spans["prompt"]) / (query + 1) for query in action) / len(action)
        assert row.prompt == pytest.approx(even, abs=2e-5)
        assert row.trace_heads == 0
    else:
        top = shares_of([heads], spelled, 10.0)
        assert {"prompt": row.top_prompt, "trace": row.top_trace, "rest": row.top_rest} == pytest.approx(top, abs=2e-5)


def test_where_the_prompt_is_cut_into_pieces_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = agent(tmp_path, "gemma3")
    whole = row_of(asked)
    monkeypatch.setattr("cotbench.probes.token_spans.CHUNK", 37)
    cut = row_of(asked)
    assert (cut.prompt, cut.trace, cut.rest) == pytest.approx((whole.prompt, whole.trace, whole.rest), abs=2e-5)


def test_bfloat16_is_near_float32_and_still_sums_to_one(tmp_path: Path) -> None:
    save_model(tmp_path / "qwen", "qwen")
    fine, rough = row_of(agent(tmp_path, "qwen")), row_of(agent(tmp_path, "qwen", "dtype=bfloat16"))
    assert (rough.prompt, rough.trace, rough.rest) == pytest.approx((fine.prompt, fine.trace, fine.rest), abs=0.03)
    assert rough.prompt + rough.trace + rough.rest == pytest.approx(1, abs=2e-5)


def test_an_action_of_one_token(tmp_path: Path) -> None:
    row = row_of(agent(tmp_path), action="a")
    assert row.prompt + row.trace + row.rest == pytest.approx(1, abs=2e-5)


def test_heads_are_averaged_over_measured_states() -> None:
    rows = [
        AttentionRow(task="a", step=0, heads=("1020", "9900")),
        AttentionRow(task="b", step=0, heads=("3020", "9950")),
        AttentionRow(task="c", step=0, left_out="no trace"),
    ]
    assert by_head(rows) == [pytest.approx([0.2, 0.2]), pytest.approx([0.99, 0.25])]
    assert by_head(rows[2:]) == []


def test_numbers_name_the_top_positions(tmp_path: Path) -> None:
    options = AttentionOptions(source="reference", top=2.5)
    row = row_of(agent(tmp_path), options=options)
    estimates = PROBE.summarize([row], options).estimates
    assert estimates["top 2.5 %: prompt share"].mean == row.top_prompt
    assert estimates["heads on the trace"].mean == row.trace_heads
    assert estimates["first token's share"].mean == row.first
    without = estimates["prompt share without the first token"].mean
    assert without == row.prompt_without_first == pytest.approx((row.prompt - row.first) / (1 - row.first))
    prompt, trace, rest = row.prompt_tokens, row.trace_tokens, row.rest_tokens
    null = estimates["prompt share without the first token, uniform per token"].mean
    assert null == pytest.approx((prompt - 1) / (prompt + trace + rest - 1))
    assert estimates["prompt share, uniform per token"].mean == pytest.approx(prompt / (prompt + trace + rest))
    assert PROBE.summarize([row], options).curves["prompt share without the first token"].values[0].mean == pytest.approx(
        row.prompt_layers_without_first[0]
    )


def test_all_attention_on_the_first_token_leaves_nothing_to_share() -> None:
    row = AttentionRow(task="a", step=0, prompt_tokens=3, trace_tokens=2, prompt=1.0, first=1.0, prompt_layers=(1.0,))
    assert (row.prompt_without_first, row.trace_without_first) == (None, None)
    assert row.prompt_layers_without_first == (), "an earlier version wrote no first_layers"
    numbers = PROBE.summarize([row], REFERENCE)
    assert numbers.estimates["prompt share without the first token"].mean is None
    assert "prompt share without the first token" not in numbers.curves


@pytest.mark.parametrize("options", [{"top": 0}, {"top": 101}, {"source": "teacher"}, {"tops": 1}])
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AttentionOptions(**options)
