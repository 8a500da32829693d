"""Probe `gradient`: the gradient of the action's loss with respect to the value vectors of prompt and trace. Invariant:
gradients are computed for values alone: no weight is trained, no gradient of a weight is kept, and of a value's gradient only
its norm.

Source: paper, "gradient share". Where it does not say, our choices: L is the sum of the negative log-likelihoods of the
action's tokens, tags left out, given prompt and trace; g[l, i] = dL/dv[l, i] is the whole derivative by the value vectors of
token i in layer l, all key heads together, along every path to the loss, as a training step would have it. The share of a
region in layer l is its sum of |g[l, i]| (Euclidean) over that of all tokens; the overall share has the sums of all layers. A
share has no unit: the mean for L would give the same.

The whole derivative counts a prompt token also for what the trace has read from it. The direct path does not: d[l, i] is the
derivative by the same v[l, i] with all keys and values of the pass held constant, so that nothing of it goes through another
position. The positions that predict the action's tokens attend to v[l, i] in layer l, and from there it goes up the residual
stream of that position (its MLPs and queries) to its own token's loss. In the last layer, both are the same. A recurrent layer
of a hybrid model is not held constant: there, the direct path goes on between positions.

The null of both is a gradient that is the same for every token: the share of a region is then its share of the tokens.

Values are read where every layer hands them to its KV cache: after the projection, before heads are repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from pydantic import Field

from cotbench.agents.base import Agent
from cotbench.errors import AgentError, UsageError
from cotbench.probes.numbers import ProbeNumbers, over_tasks, partition_rows
from cotbench.probes.probe import Probe, ProbeOptions, ProbeSetting
from cotbench.probes.states import ProbeState
from cotbench.probes.token_spans import (
    ShareRow,
    Source,
    TokenizedState,
    fill_cache,
    layer_curve,
    measure_rows,
    round_values,
    share_numbers,
    share_of,
    shares,
    token_ratio,
)

DIRECT = "direct path"


class GradientOptions(ProbeOptions):
    """Options of probe `gradient`."""

    source: Source = Field(
        "reference", description="whose trace and action: the reference's, as in training, or the agent's own"
    )
    recompute: bool = Field(
        True, description="recompute activations in the backward pass (gradient checkpointing): a third slower, far less memory"
    )


class GradientRow(ShareRow):
    """Shares of the gradient's norm at one state.

    Attributes:
        loss: the mean negative log-likelihood of the action's tokens, in nats.
        direct_prompt, direct_trace, direct_rest: shares along the direct path over all layers; their sum is 1. None in a row
            of an earlier version.
        direct_prompt_layers, direct_trace_layers: layer by layer.
    """

    loss: float = 0.0
    direct_prompt: float | None = None
    direct_trace: float | None = None
    direct_rest: float | None = None
    direct_prompt_layers: tuple[float, ...] = ()
    direct_trace_layers: tuple[float, ...] = ()

    @property
    def tokens(self) -> int:
        """The number of tokens that have a gradient: all but the action's last."""
        return self.prompt_tokens + self.trace_tokens + self.rest_tokens - 1

    @property
    def direct_of_both(self) -> float | None:
        """The prompt's share of the sum of prompt and trace, along the direct path."""
        if self.direct_prompt is None or self.direct_trace is None:
            return None
        return share_of(self.direct_prompt, self.direct_trace)

    @property
    def direct_per_token(self) -> float | None:
        """The mean share of a token of the trace divided by that of a token of the prompt, along the direct path."""
        if self.direct_prompt is None or self.direct_trace is None:
            return None
        return token_ratio(self.direct_prompt, self.direct_trace, self.prompt_tokens, self.trace_tokens)


def measure(
    agent: Agent, states: Sequence[ProbeState], setting: ProbeSetting, options: GradientOptions
) -> Iterator[GradientRow]:
    """Return an iterator over a row for each state; parameters and errors as in `token_spans.measure_rows`."""

    def look(handle: Any, tokenized: TokenizedState) -> dict[str, Any]:
        norms, loss = gradient_norms(handle.model, tokenized, recompute=options.recompute)
        direct = fields(direct_norms(handle.model, tokenized), tokenized)
        return {
            **fields(norms, tokenized),
            **{f"direct_{name}": share for name, share in direct.items()},
            "loss": round_values(loss / len(tokenized.spans["action"])),
        }

    return measure_rows("gradient", agent, states, setting, options.source, GradientRow, look)


def gradient_norms(model: Any, tokenized: TokenizedState, *, recompute: bool = True) -> tuple[Any, float]:
    """Return the norms |g[l, i]| and the loss L.

    The action's last token predicts nothing, so its gradient is 0 and it is left out.

    Args:
        model: a transformers model.
        tokenized: the state in token ids.
        recompute: compute activations again in the backward pass instead of keeping them (gradient checkpointing).

    Returns:
        A float64 tensor (attention layers, tokens before the last of the action), and L in nats.

    Raises:
        UsageError: no layer of the model has values.
        AgentError: a gradient is not a finite number, or there is none.
    """
    import torch

    action = tokenized.spans["action"]
    ids = _ids(model, tokenized.ids[: action.stop - 1])
    norms: dict[int, Any] = {}
    cache = _recording_cache(model, norms)
    with torch.enable_grad(), _frozen(model), _recomputing(model, recompute and not _is_recurrent(cache)):
        loss = _backward(model, ids, tokenized.ids[action.start : action.stop], cache)
    return _stacked(model, norms), loss


def direct_norms(model: Any, tokenized: TokenizedState) -> Any:
    """Return the norms |d[l, i]|, along the direct path.

    What stands before the positions that predict the action fills a KV cache; only these positions are computed with gradients.

    Args:
        model: a transformers model.
        tokenized: the state in token ids.

    Returns:
        A float64 tensor (attention layers, tokens before the last of the action).

    Raises:
        UsageError: no layer of the model has values.
        AgentError: a gradient is not a finite number, there is none, or the model does not continue from a KV cache.
    """
    import torch
    from transformers import DynamicCache

    action = tokenized.spans["action"]
    ids = _ids(model, tokenized.ids[: action.stop - 1])
    cache = DynamicCache(config=model.config)
    # A recurrent layer changes its state in place, so that no gradient goes through a continued one.
    begin = 0 if _is_recurrent(cache) else action.start - 1
    with torch.no_grad():
        fill_cache(model, ids[:, :begin], cache)
    if cache.get_seq_length() != begin:
        raise AgentError(f"{type(model).__name__} cannot continue from transformers' cache")
    norms: dict[int, Any] = {}
    _hold_constant(cache, norms, ids.shape[1])
    with torch.enable_grad(), _frozen(model):
        _backward(model, ids[:, begin:], tokenized.ids[action.start : action.stop], cache)
    return _stacked(model, norms)


def _ids(model: Any, ids: Sequence[int]) -> Any:
    """Return token ids as a tensor (1, tokens) where the model takes them."""
    import torch

    return torch.tensor([ids], device=model.get_input_embeddings().weight.device)


def _backward(model: Any, ids: Any, action: Sequence[int], cache: Any) -> float:
    """Compute the loss L of the action's tokens, which the last positions of `ids` predict, and its gradients; return L."""
    import torch

    targets = torch.tensor(action, device=ids.device)
    output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=len(targets))
    scores = torch.log_softmax(output.logits[0, -len(targets) :].float(), dim=-1)
    loss = -scores.gather(1, targets.to(scores.device)[:, None]).sum()
    loss.backward()
    return float(loss.detach())


def _stacked(model: Any, norms: dict[int, Any]) -> Any:
    """Return the norms of all layers, (layers, tokens).

    Raises:
        UsageError: no layer of the model has values.
        AgentError: a gradient is not a finite number, or there is none.
    """
    import torch

    if not norms:
        raise UsageError(f"probe gradient: no layer of {type(model).__name__} has values of tokens")
    stacked = torch.stack([norms[layer].cpu() for layer in sorted(norms)])
    if not bool(stacked.isfinite().all()) or not bool((stacked.sum(1) > 0).all()):
        raise AgentError(f"the gradient is not a finite number above 0 in {model.dtype}: use ?dtype=float32 or ?dtype=bfloat16")
    return stacked


def _token_norms(gradient: Any) -> Any:
    """Return the norms of the gradient of values, (1, key heads, tokens, size) as (tokens)."""
    return gradient.detach().double().square().sum(dim=(0, 1, 3)).sqrt()


def _hold_constant(cache: Any, norms: dict[int, Any], tokens: int) -> None:
    """Make a filled KV cache hand out keys and values that pass no gradient on, and write the norms of the values' gradients.

    Args:
        cache: the cache; it goes on to keep what is computed.
        norms: layer -> norms, (tokens); a layer with a window has values of the last tokens alone.
        tokens: the number of all tokens.
    """
    before = cache.update

    def record(layer: int, gradient: Any) -> None:
        found = _token_norms(gradient)
        norms[layer] = found.new_zeros(tokens)
        norms[layer][tokens - len(found) :] = found

    def update(keys: Any, values: Any, layer_idx: int, *more: Any, **named: Any) -> tuple[Any, Any]:
        keys, values = before(keys.detach(), values.detach(), layer_idx, *more, **named)
        values = values.detach().requires_grad_()
        values.register_hook(partial(record, layer_idx))
        return keys, values

    cache.update = update


def _recording_cache(model: Any, norms: dict[int, Any]) -> Any:
    """Return a KV cache that keeps no tokens, but writes the gradient norms of a layer's values, (tokens), to `norms`."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)

    def record(layer: int, gradient: Any) -> None:
        norms[layer] = _token_norms(gradient)

    def update(keys: Any, values: Any, layer_idx: int, *_: Any, **__: Any) -> tuple[Any, Any]:
        values.register_hook(partial(record, layer_idx))
        return keys, values

    cache.update = update
    return cache


def _is_recurrent(cache: Any) -> bool:
    """Return whether some layers keep a state that a second computation would find changed."""
    return any(hasattr(layer, "recurrent_states") for layer in cache.layers)


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """Compute gradients from the token embeddings on, and for no weight."""
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trainable:
        weight.requires_grad_(False)
    begin = model.get_input_embeddings().register_forward_hook(
        lambda *hook_arguments: hook_arguments[-1].detach().requires_grad_()
    )
    try:
        yield
    finally:
        begin.remove()
        for weight in trainable:
            weight.requires_grad_(True)


@contextmanager
def _recomputing(model: Any, wanted: bool) -> Iterator[None]:
    """Compute layers a second time in the backward pass; transformers would do so in training mode alone, with dropout."""
    from torch.utils.checkpoint import checkpoint
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)] if wanted else []
    before = [vars(layer).get("forward") for layer in layers]
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward


def fields(norms: Any, tokenized: TokenizedState) -> dict[str, Any]:
    """Return the fields of a row.

    Args:
        norms: the norms |g[l, i]|, (layers, tokens).
        tokenized: the state in token ids.
    """
    parts = tokenized.parts(norms)
    sums = [float(part.sum()) for part in parts]
    layer_totals = norms.sum(dim=1)
    return shares([part / sum(sums) for part in sums], (parts[0] / layer_totals).tolist(), (parts[1] / layer_totals).tolist())


def summarize(rows: Sequence[GradientRow], options: GradientOptions) -> ProbeNumbers:
    """Return shares with their intervals, and their curves by layer, of the whole derivative and along the direct path."""
    measured, _, _ = partition_rows(rows)
    numbers = share_numbers(rows)
    direct = {
        f"{DIRECT}: prompt share": over_tasks(measured, lambda row: row.direct_prompt),
        f"{DIRECT}: trace share": over_tasks(measured, lambda row: row.direct_trace),
        f"{DIRECT}: rest share": over_tasks(measured, lambda row: row.direct_rest),
        f"{DIRECT}: prompt share of prompt and trace": over_tasks(measured, lambda row: row.direct_of_both),
        f"{DIRECT}: trace token to prompt token": over_tasks(measured, lambda row: row.direct_per_token),
    }
    curves = dict(numbers.curves)
    if measured and all(row.direct_prompt_layers for row in measured):
        curves |= {
            f"{DIRECT}: prompt share": layer_curve(measured, lambda row: row.direct_prompt_layers),
            f"{DIRECT}: trace share": layer_curve(measured, lambda row: row.direct_trace_layers),
        }
    return numbers.model_copy(update={"estimates": {**numbers.estimates, **direct}, "curves": curves})


PROBE = Probe(
    name="gradient",
    description="share of the action loss's gradient on prompt and trace, by layer: in total, and along the direct path",
    options=GradientOptions,
    row=GradientRow,
    measure=measure,
    summarize=summarize,
    weights=True,
    cost=lambda sizes: 5 * sizes.prompt,
    sections=("cotbench.study.report_probes:attribution_section",),
)
