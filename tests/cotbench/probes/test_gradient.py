"""Gradient shares: against automatic differentiation by kept values, against a closed form, and over kinds of models."""

import math
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from pydantic import ValidationError

from cotbench.agents.tokenization.chat_template import Chat
from cotbench.probes.gradient import PROBE, GradientOptions, GradientRow, direct_norms, gradient_norms
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


def row_of(asked: Any, turns: int = 3, recompute: bool = True, **more: Any) -> GradientRow:
    told = state(turns, **more)
    (row,) = PROBE.measure(asked, [told], setting(told), GradientOptions(recompute=recompute))
    assert isinstance(row, GradientRow)
    return row


def spelled_of(turns: int = 3, action: str = ACTION) -> TokenizedState:
    told = state(turns, action=action)
    return tokenize_state(told, TRACE, action, setting(told), Chat(tiny_models.tokenizer()), 4096)


def kept_values(folder: Path, spelled: TokenizedState) -> tuple[list[list[float]], float]:
    """|dL/dv| of each token in each layer, and L, by torch.autograd.grad: all of every value and every logit is kept."""
    import torch

    model = plain(folder)
    values: list[Any] = []
    for name, module in model.named_modules():
        if name.endswith("self_attn.v_proj"):
            module.register_forward_hook(lambda module, inputs, output: values.append(output))
    ids = torch.tensor([spelled.ids])
    scores = torch.log_softmax(model(ids, use_cache=False).logits[0], dim=-1)
    loss = -sum(scores[token - 1, spelled.ids[token]] for token in spelled.spans["action"])
    gradients = torch.autograd.grad(loss, values)
    return [[math.sqrt(sum(x * x for x in token)) for token in layer[0].tolist()] for layer in gradients], loss.item()


def norms_with_constant_keys_and_values(folder: Path, spelled: TokenizedState) -> list[list[float]]:
    """|dL/dv| where no key or value passes a gradient on: one pass over everything, without a cache."""
    import torch

    model = plain(folder)
    values: list[Any] = []

    def cut(module: Any, inputs: Any, output: Any) -> Any:
        values.append(output.detach().requires_grad_())
        return values[-1]

    for name, module in model.named_modules():
        if name.endswith("self_attn.v_proj"):
            module.register_forward_hook(cut)
        elif name.endswith("self_attn.k_proj"):
            module.register_forward_hook(lambda module, inputs, output: output.detach())
    scores = torch.log_softmax(model(torch.tensor([spelled.ids]), use_cache=False).logits[0], dim=-1)
    loss = -sum(scores[token - 1, spelled.ids[token]] for token in spelled.spans["action"])
    gradients = torch.autograd.grad(loss, values)
    return [[math.sqrt(sum(x * x for x in token)) for token in layer[0].tolist()] for layer in gradients]


def share(layers: list[list[float]], region: range) -> float:
    return sum(layer[token] for layer in layers for token in region) / sum(map(sum, layers))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("recompute", [True, False])
def test_norms_are_those_of_kept_values(kind: str, recompute: bool, tmp_path: Path) -> None:
    folder = save_model(tmp_path / kind, kind)
    spelled = spelled_of()
    expected, loss = kept_values(folder, spelled)
    with agent(tmp_path, kind).expose_model() as inside:
        found, told = gradient_norms(inside.model, spelled, recompute=recompute)
    last = spelled.spans["action"].stop - 1
    assert told == pytest.approx(loss, rel=1e-5)
    assert len(found) == len(expected)
    for ours, theirs in zip(found.tolist(), expected, strict=True):
        assert ours == pytest.approx(theirs[:last], rel=1e-4, abs=1e-5 * max(theirs))
        assert theirs[last:] == pytest.approx([0.0] * len(theirs[last:]))  # So nothing was missed.
    prompt, trace = spelled.spans["prompt"], spelled.spans["trace"]
    parts = [float(part.sum() / found.sum()) for part in spelled.parts(found)]
    assert parts[:2] == pytest.approx([share(expected, prompt), share(expected, trace)], abs=1e-5)
    assert sum(parts) == pytest.approx(1, abs=1e-9)
    row = row_of(agent(tmp_path, kind), recompute=recompute)
    assert row.prompt == pytest.approx(share(expected, prompt), abs=1.5e-5)
    assert row.trace == pytest.approx(share(expected, trace), abs=1.5e-5)
    assert row.prompt + row.trace + row.rest == pytest.approx(1, abs=2e-5)
    assert row.prompt_layers == pytest.approx([share([layer], prompt) for layer in expected], abs=1.5e-5)
    assert row.trace_layers == pytest.approx([share([layer], trace) for layer in expected], abs=1.5e-5)
    assert row.loss == pytest.approx(loss / len(spelled.spans["action"]), abs=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_direct_path_goes_through_no_other_position(kind: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / kind, kind)
    spelled = spelled_of()
    last = spelled.spans["action"].stop - 1
    asked = agent(tmp_path, kind)
    with asked.expose_model() as inside:
        found, (whole, _) = direct_norms(inside.model, spelled), gradient_norms(inside.model, spelled)
    # After the last layer there is no other position to go through.
    assert found[-1].tolist() == pytest.approx(whole[-1].tolist(), rel=1e-3, abs=1e-5 * float(whole[-1].max()))
    if len(found) > 1:  # The hybrid has one layer of attention.
        assert found[0].tolist() != pytest.approx(whole[0].tolist(), rel=0.05)
    expected = norms_with_constant_keys_and_values(folder, spelled)
    assert len(found) == len(expected)
    for ours, theirs in zip(found.tolist(), expected, strict=True):
        assert ours == pytest.approx(theirs[:last], rel=1e-3, abs=1e-5 * max(theirs))
    row = row_of(asked)
    prompt, trace = spelled.spans["prompt"], spelled.spans["trace"]
    assert row.direct_prompt == pytest.approx(share(found.tolist(), prompt), abs=1.5e-5)
    assert row.direct_trace == pytest.approx(share(found.tolist(), trace), abs=1.5e-5)
    assert row.direct_prompt_layers == pytest.approx([share([layer], prompt) for layer in found.tolist()], abs=1.5e-5)
    assert row.direct_trace_layers == pytest.approx([share([layer], trace) for layer in found.tolist()], abs=1.5e-5)


@pytest.mark.parametrize(("heads", "key_heads"), [(1, 1), (4, 2)])
def test_in_one_layer_a_value_has_the_gradient_of_its_weight(heads: int, key_heads: int, tmp_path: Path) -> None:
    """One layer, one action token: dL/dv_i = a_i u with one u, if all heads weigh alike: shares are those of a."""
    score = by_distance(tmp_path / "model", (1.0,) * heads, key_heads)
    spelled = spelled_of(2, action="a")
    action = spelled.spans["action"]
    assert len(action) == 1
    known = weights(score, 0, action.start - 1)
    row = row_of(agent_of(tmp_path / "model"), 2, action="a")
    assert row.prompt == pytest.approx(sum(known[token] for token in spelled.spans["prompt"]), abs=1.5e-5)
    assert row.trace == pytest.approx(sum(known[token] for token in spelled.spans["trace"]), abs=1.5e-5)
    assert row.prompt_layers == (row.prompt,)
    assert (row.direct_prompt, row.direct_trace) == pytest.approx((row.prompt, row.trace), abs=2e-5)


def test_even_attention_pulls_at_every_token_alike(tmp_path: Path) -> None:
    by_distance(tmp_path / "model", (0.0,), 1)
    spelled = spelled_of(2, action="a")
    row = row_of(agent_of(tmp_path / "model"), 2, action="a")
    assert row.prompt == pytest.approx(len(spelled.spans["prompt"]) / spelled.spans["action"].start, abs=1.5e-5)
    assert row.per_token == pytest.approx(1, abs=1e-3)
    # Such a gradient is the null of all shares.
    found = PROBE.summarize([row], GradientOptions()).estimates
    for name in ("prompt share", "trace share", "prompt share of prompt and trace"):
        for path in ("", "direct path: "):
            null = found[f"{name}, uniform per token"].mean
            assert found[path + name].mean == pytest.approx(null, abs=2e-5) and null is not None


def test_in_a_window_tokens_before_it_have_no_gradient(tmp_path: Path) -> None:
    spelled = spelled_of()
    with agent(tmp_path, "mistral").expose_model() as inside:
        found, _ = gradient_norms(inside.model, spelled)
    first = spelled.spans["action"].start - 1  # The first query whose output is scored.
    assert float(found[1, : first - 39].max()) == 0 < float(found[1, first - 39])
    assert float(found[0, : first - 78].max()) == 0 < float(found[0, first - 78])
    with agent(tmp_path, "mistral").expose_model() as inside:
        direct = direct_norms(inside.model, spelled)
    # What lies before the window of the action reaches it through other positions alone.
    assert all(float(layer[: first - 39].max()) == 0 < float(layer[first - 39]) for layer in direct)


def test_bfloat16_is_near_float32(tmp_path: Path) -> None:
    save_model(tmp_path / "qwen", "qwen")
    fine, rough = row_of(agent(tmp_path, "qwen")), row_of(agent(tmp_path, "qwen", "dtype=bfloat16"))
    assert rough.error is None
    assert (rough.prompt, rough.trace, rough.rest) == pytest.approx((fine.prompt, fine.trace, fine.rest), abs=0.05)


def test_a_gradient_that_is_no_number_is_an_error_of_the_state(tmp_path: Path) -> None:
    import torch

    asked = agent(tmp_path)
    attention = asked._model.config._attn_implementation
    with torch.no_grad():
        asked._model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    row = row_of(asked)
    assert row.error == "the gradient is not a finite number above 0 in torch.float32: use ?dtype=float32 or ?dtype=bfloat16"
    assert asked._model.config._attn_implementation == attention
    assert PROBE.summarize([row], GradientOptions()).errors == 1


@pytest.mark.parametrize("options", [{"source": "teacher"}, {"recomputed": True}])
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GradientOptions(**options)
