"""Probe `gradient`: the gradient of the action's loss with respect to the value vectors of prompt and trace. Invariant:
gradients are computed for values alone: no weight is trained, no gradient of a weight is kept, and of a value's gradient only
its norm.

Source: paper, "gradient share". Where it does not say, our choices: L is the sum of the negative log-likelihoods of the
action's tokens, tags left out, given prompt and trace; g[l, i] = dL/dv[l, i] is the whole derivative by the value vectors of
token i in layer l, all key heads together, along every path to the loss, as a training step would have it. The share of a
region in layer l is its sum of |g[l, i]| (Euclidean) over that of all tokens; the overall share has the sums of all layers. A
share has no unit: the mean for L would give the same.

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
from cotbench.probes.numbers import ProbeNumbers
from cotbench.probes.probe import Probe, ProbeOptions, ProbeSetting
from cotbench.probes.states import ProbeState
from cotbench.probes.token_spans import ShareRow, Source, TokenizedState, measure_rows, share_numbers, shares


class GradientOptions(ProbeOptions):
    """Options of probe `gradient`."""

    source: Source = Field(
        "reference", description="whose trace and action: the reference's, as in training, or the agent's own"
    )
    recompute: bool = Field(
        True, description="compute layers again on the way back instead of keeping them: a third more time, far less memory"
    )


class GradientRow(ShareRow):
    """Shares of the gradient's norm at one state.

    Attributes:
        loss: the mean negative log-likelihood of the action's tokens, in nats.
    """

    loss: float = 0.0


def measure(
    agent: Agent, states: Sequence[ProbeState], setting: ProbeSetting, options: GradientOptions
) -> Iterator[GradientRow]:
    """Return an iterator over a row for each state; parameters and errors as in `token_spans.measure_rows`."""

    def look(handle: Any, tokenized: TokenizedState) -> dict[str, Any]:
        norms, loss = gradient_norms(handle.model, tokenized, recompute=options.recompute)
        return {**fields(norms, tokenized), "loss": round(loss / len(tokenized.spans["action"]), 5)}

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
    device = model.get_input_embeddings().weight.device
    ids = torch.tensor([tokenized.ids[: action.stop - 1]], device=device)
    targets = torch.tensor(tokenized.ids[action.start : action.stop], device=device)
    norms: dict[int, Any] = {}
    cache = _recording_cache(model, norms)
    with torch.enable_grad(), _frozen(model), _recomputing(model, recompute and not _is_recurrent(cache)):
        output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=len(targets))
        scores = torch.log_softmax(output.logits[0, -len(targets) :].float(), dim=-1)
        loss = -scores.gather(1, targets.to(scores.device)[:, None]).sum()
        loss.backward()
    if not norms:
        raise UsageError(f"probe gradient: no layer of {type(model).__name__} has values of tokens")
    stacked = torch.stack([norms[layer].cpu() for layer in sorted(norms)])
    if not bool(stacked.isfinite().all()) or not bool((stacked.sum(1) > 0).all()):
        raise AgentError(f"the gradient is no finite number above 0 in {model.dtype}: use ?dtype=float32 or ?dtype=bfloat16")
    return stacked, float(loss.detach())


def _recording_cache(model: Any, norms: dict[int, Any]) -> Any:
    """Return a KV cache that keeps no tokens, but writes the gradient norms of a layer's values, (tokens), to `norms`."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)

    def record(layer: int, gradient: Any) -> None:
        # (1, key heads, tokens, size)
        norms[layer] = gradient.detach().double().square().sum(dim=(0, 1, 3)).sqrt()

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
    """Return shares with their intervals, and their curves by layer."""
    return share_numbers(rows)


PROBE = Probe(
    name="gradient",
    description="share of the action loss's gradient, along the value path, on prompt and trace, by layer",
    options=GradientOptions,
    row=GradientRow,
    measure=measure,
    summarize=summarize,
    weights=True,
    cost=lambda sizes: 4 * sizes.prompt,
    sections=("cotbench.study.report_probes:attribution_section",),
)
