"""Probe `attention`: the attention of the action's tokens to prompt and trace. Invariant: the attention is the model's own,
read from the forward pass of the action's tokens; no more of it is ever kept than (heads, action tokens, tokens) of each layer.

Source: paper, "attention share". Where it does not say, our choices: the queries are the tokens of the action, from its first
to its last, tags left out; all of them, all heads and all layers have equal weight. A head's top positions are those with most
attention from all queries together. Mass is attention to tokens: what a model's attention sinks take is left out before shares
are formed. A model without such sinks often uses the first token as one, and the first token is of the prompt: so each share is
also given without the attention to the first token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field

from cotbench.agents.base import Agent
from cotbench.errors import AgentError, UsageError
from cotbench.probes.numbers import ProbeNumbers, over_tasks, partition_rows
from cotbench.probes.probe import Probe, ProbeOptions, ProbeSetting
from cotbench.probes.states import ProbeState
from cotbench.probes.token_spans import (
    UNIFORM,
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

WITHOUT_FIRST = "without the first token"
"""Shares of the attention that does not lie on the first token, among the other tokens."""


class AttentionOptions(ProbeOptions):
    """Options of probe `attention`."""

    source: Source = Field("own", description="whose trace and action: the agent's own, or the reference's")
    top: float = Field(
        10.0, gt=0, le=100, description="percentage of each head's most attended positions that is also measured on its own"
    )


class AttentionRow(ShareRow):
    """Shares of the attention of the action's tokens at one state.

    Attributes:
        first: share on the first token of the prompt, which many models use as an attention sink; `first_layers` by layer.
        top_prompt, top_trace, top_rest: shares of the attention to each head's top positions.
        trace_heads: share of the heads that attend to the trace more than to the prompt; `trace_heads_without_first` likewise,
            to the prompt's other tokens.
        heads: a string a layer, two digits a head: its share on the prompt in percent, at most 99.
    """

    first: float = 0.0
    first_layers: tuple[float, ...] = ()
    top_prompt: float = 0.0
    top_trace: float = 0.0
    top_rest: float = 0.0
    trace_heads: float = 0.0
    trace_heads_without_first: float | None = None
    heads: tuple[str, ...] = ()

    @property
    def prompt_without_first(self) -> float | None:
        """The prompt's share without the first token."""
        return _without(self.first, self.prompt - self.first)

    @property
    def trace_without_first(self) -> float | None:
        """The trace's share without the first token."""
        return _without(self.first, self.trace)

    @property
    def prompt_layers_without_first(self) -> tuple[float | None, ...]:
        """The prompt's shares without the first token, layer by layer; empty in a row of an earlier version."""
        pairs = zip(self.prompt_layers, self.first_layers, strict=False)
        return tuple(_without(first, prompt - first) for prompt, first in pairs)

    @property
    def trace_layers_without_first(self) -> tuple[float | None, ...]:
        """The trace's shares without the first token, layer by layer; empty in a row of an earlier version."""
        pairs = zip(self.trace_layers, self.first_layers, strict=False)
        return tuple(_without(first, trace) for trace, first in pairs)


def _without(first: float, share: float) -> float | None:
    """Return a share of what is not on the first token; None where all is."""
    return share / (1 - first) if first < 1 else None


def measure(
    agent: Agent, states: Sequence[ProbeState], setting: ProbeSetting, options: AttentionOptions
) -> Iterator[AttentionRow]:
    """Return an iterator over a row for each state; parameters and errors as in `token_spans.measure_rows`."""

    def look(handle: Any, tokenized: TokenizedState) -> dict[str, Any]:
        return fields(attention_mass(handle.model, tokenized), tokenized, options.top)

    return measure_rows("attention", agent, states, setting, options.source, AttentionRow, look)


def attention_mass(model: Any, tokenized: TokenizedState) -> list[Any]:
    """Return the attention of each layer's heads to each token, summed over the action's tokens.

    Everything before the action goes through the model with its own attention implementation and fills a KV cache; then the
    action's tokens alone go through it with transformers' "eager", which returns the weights. The model is left with "eager".

    Args:
        model: a transformers model.
        tokenized: the state in token ids.

    Returns:
        A float64 tensor (heads, tokens up to the end of the action) for each attention layer.

    Raises:
        UsageError: no layer of the model returns attention weights.
        AgentError: the model does not continue from a KV cache.
    """
    import torch
    from transformers import DynamicCache

    action = tokenized.spans["action"]
    ids = torch.tensor([tokenized.ids[: action.stop]], device=model.get_input_embeddings().weight.device)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        fill_cache(model, ids[:, : action.start], cache)
        model.set_attn_implementation("eager")
        output = model(
            input_ids=ids[:, action.start :], past_key_values=cache, use_cache=True, logits_to_keep=1, output_attentions=True
        )
        layers = [weights for weights in getattr(output, "attentions", None) or () if weights is not None]
        if not layers:
            raise UsageError(f"probe attention: no layer of {type(model).__name__} shows its attention")
        if cache.get_seq_length() != action.stop:
            raise AgentError(f"{type(model).__name__} cannot continue from transformers' cache")
        return [_sum_queries(weights[0], action.stop) for weights in layers]


def _sum_queries(weights: Any, tokens: int) -> Any:
    """Return (heads, queries, keys) as (heads, tokens); the keys of a sliding window are the last of the tokens."""
    import torch

    mass = weights.new_zeros((weights.shape[0], tokens), dtype=torch.float64)
    mass[:, tokens - weights.shape[2] :] = weights.sum(dim=1, dtype=torch.float64)
    return mass


def fields(layers: Sequence[Any], tokenized: TokenizedState, top: float) -> dict[str, Any]:
    """Return the fields of a row.

    Args:
        layers: the attention mass of each layer, (heads, tokens).
        tokenized: the state in token ids.
        top: percent of the positions that count as a head's top positions.
    """
    import torch

    count = math.ceil(layers[0].shape[1] * top / 100)
    totals, first, top_totals = torch.zeros(3).double(), 0.0, torch.zeros(3).double()
    prompt_layers, trace_layers, first_layers, heads = [], [], [], []
    trace_heads, other_heads, head_count = 0, 0, 0
    for mass in (layer.cpu() for layer in layers):
        prompt, trace, rest = parts = tokenized.parts(mass)
        of_layer = torch.stack([part.sum() for part in parts])
        totals += of_layer
        first += float(mass[:, 0].sum())
        prompt_layers.append(float(of_layer[0] / of_layer.sum()))
        trace_layers.append(float(of_layer[1] / of_layer.sum()))
        first_layers.append(float(mass[:, 0].sum() / of_layer.sum()))
        chosen = mass.topk(count, dim=1)
        top_mass = torch.zeros_like(mass).scatter(1, chosen.indices, chosen.values)
        top_totals += torch.stack([part.sum() for part in tokenized.parts(top_mass)])
        trace_heads, head_count = trace_heads + int((trace > prompt).sum()), head_count + len(mass)
        other_heads += int((trace > prompt - mass[:, 0]).sum())
        heads.append("".join(f"{min(99, round(100 * share)):02d}" for share in (prompt / (prompt + trace + rest)).tolist()))
    top_shares = (top_totals / top_totals.sum()).tolist()
    return {
        **shares((totals / totals.sum()).tolist(), prompt_layers, trace_layers),
        "first": round_values(first / float(totals.sum())),
        "first_layers": tuple(map(round_values, first_layers)),
        **dict(zip(("top_prompt", "top_trace", "top_rest"), (round_values(share) for share in top_shares), strict=True)),
        "trace_heads": round_values(trace_heads / head_count),
        "trace_heads_without_first": round_values(other_heads / head_count),
        "heads": tuple(heads),
    }


def summarize(rows: Sequence[AttentionRow], options: AttentionOptions) -> ProbeNumbers:
    """Return shares with their intervals, and their curves by layer."""
    measured, _, _ = partition_rows(rows)
    numbers = share_numbers(rows)
    top = f"top {options.top:g} %"
    more = {
        "first token's share": over_tasks(measured, lambda row: row.first),
        f"prompt share {WITHOUT_FIRST}": over_tasks(measured, lambda row: row.prompt_without_first),
        f"prompt share {WITHOUT_FIRST}, {UNIFORM}": over_tasks(
            measured, lambda row: (row.prompt_tokens - 1) / (row.tokens - 1)
        ),
        f"trace share {WITHOUT_FIRST}": over_tasks(measured, lambda row: row.trace_without_first),
        f"prompt share of prompt and trace {WITHOUT_FIRST}": over_tasks(
            measured, lambda row: share_of(row.prompt - row.first, row.trace)
        ),
        f"trace token to prompt token {WITHOUT_FIRST}": over_tasks(
            measured, lambda row: token_ratio(row.prompt - row.first, row.trace, row.prompt_tokens - 1, row.trace_tokens)
        ),
        "heads on the trace": over_tasks(measured, lambda row: row.trace_heads),
        f"heads on the trace {WITHOUT_FIRST}": over_tasks(measured, lambda row: row.trace_heads_without_first),
        f"{top}: prompt share": over_tasks(measured, lambda row: row.top_prompt),
        f"{top}: trace share": over_tasks(measured, lambda row: row.top_trace),
        f"{top}: rest share": over_tasks(measured, lambda row: row.top_rest),
    }
    curves = dict(numbers.curves)
    if measured and all(row.first_layers for row in measured):
        curves |= {
            f"prompt share {WITHOUT_FIRST}": layer_curve(measured, lambda row: row.prompt_layers_without_first),
            f"trace share {WITHOUT_FIRST}": layer_curve(measured, lambda row: row.trace_layers_without_first),
        }
    return numbers.model_copy(update={"estimates": {**numbers.estimates, **more}, "curves": curves})


def by_head(rows: Sequence[AttentionRow]) -> list[list[float]]:
    """Return the mean share on the prompt of each head of each layer, over the measured states: [layer][head]."""
    measured, _, _ = partition_rows(rows)
    if not measured:
        return []
    return [
        [
            sum(int(row.heads[layer][at : at + 2]) for row in measured) / (100 * len(measured))
            for at in range(0, len(measured[0].heads[layer]), 2)
        ]
        for layer in range(len(measured[0].heads))
    ]


PROBE = Probe(
    name="attention",
    description="share of the action tokens' attention on prompt and trace, by layer and head",
    options=AttentionOptions,
    row=AttentionRow,
    measure=measure,
    summarize=summarize,
    weights=True,
    cost=lambda sizes: 2 * sizes.prompt,
    sections=("cotbench.study.report_probes:attribution_section",),
)
