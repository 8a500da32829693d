"""A state in token ids, with the span of prompt, trace, tags and action, for the probes that read the model's activations.
Invariant: the ids are put together as evaluation and training do it, piece by piece, and are never searched for in rendered
text; a probe leaves the agent's later answers unchanged.

Shares are measured on the prompt, on the trace, and on the rest (tags and the action's own tokens): together 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from cotbench.agents.base import Agent
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.token_ids import Label, answer_pieces, prompt_ids
from cotbench.errors import ContextOverflowError, UsageError
from cotbench.failure import failure_fields, failure_of
from cotbench.probes.asking import answers_for, batches
from cotbench.probes.numbers import Curve, ProbeNumbers, ProbeRow, over_tasks, partition_rows
from cotbench.probes.replay import shown_actions
from cotbench.prompting.query import Query

if TYPE_CHECKING:
    from cotbench.agents.hf.agent import ModelHandle
    from cotbench.probes.probe import ProbeSetting
    from cotbench.probes.states import ProbeState

Source = Literal["own", "reference"]
"""Source of trace and action: the agent itself, or the reference."""

CHUNK = 512
"""Tokens a forward pass before the action: memory then grows with the prompt's length, not with its square."""
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class TokenizedState:
    """A state with a trace and an action, in token ids.

    Attributes:
        ids: of the prompt and the whole answer.
        spans: the positions of each piece; in order and without gaps.
    """

    ids: tuple[int, ...]
    spans: Mapping[Label, range]

    def tokens(self) -> dict[str, int]:
        """Return the number of tokens of prompt, trace and rest, up to the end of the action: fields of a `ShareRow`."""
        prompt, trace = len(self.spans["prompt"]), len(self.spans["trace"])
        return {
            "prompt_tokens": prompt,
            "trace_tokens": trace,
            "rest_tokens": self.spans["action"].stop - prompt - trace,
        }

    def parts(self, mass: Any) -> tuple[Any, Any, Any]:
        """Return the sums of a tensor (..., tokens) over the prompt, the trace, and the rest: each (...)."""
        prompt, trace = self.spans["prompt"], self.spans["trace"]
        between, after = mass[..., prompt.stop : trace.start], mass[..., trace.stop :]
        rest = between.sum(-1) + after.sum(-1)
        return mass[..., : prompt.stop].sum(-1), mass[..., trace.start : trace.stop].sum(-1), rest


def fill_cache(model: Any, ids: Any, cache: Any) -> None:
    """Pass token ids (1, tokens) through a model in pieces, so that its KV cache holds them."""
    for piece in ids.split(CHUNK, dim=1) if ids.shape[1] else ():
        model(input_ids=piece, past_key_values=cache, use_cache=True, logits_to_keep=1)


class ShareRow(ProbeRow):
    """Shares at one state; those by layer are of attention layers alone, counted from 0.

    Attributes:
        prompt, trace, rest: over all layers; their sum is 1.
        prompt_layers, trace_layers: layer by layer; the remainder to 1 is the rest.
    """

    prompt_tokens: int = 0
    trace_tokens: int = 0
    rest_tokens: int = 0
    prompt: float = 0.0
    trace: float = 0.0
    rest: float = 0.0
    prompt_layers: tuple[float, ...] = ()
    trace_layers: tuple[float, ...] = ()

    @property
    def tokens(self) -> int:
        """The number of tokens among which shares are measured."""
        return self.prompt_tokens + self.trace_tokens + self.rest_tokens

    @property
    def of_both(self) -> float | None:
        """The prompt's share of the sum of prompt and trace."""
        return share_of(self.prompt, self.trace)

    @property
    def per_token(self) -> float | None:
        """The mean share of a token of the trace divided by that of a token of the prompt."""
        return token_ratio(self.prompt, self.trace, self.prompt_tokens, self.trace_tokens)


def share_of(part: float, other: float) -> float | None:
    """Return the share of a part in the sum of two; None where that is 0."""
    return part / (part + other) if part + other > 0 else None


def token_ratio(prompt: float, trace: float, prompt_tokens: int, trace_tokens: int) -> float | None:
    """Return the mean share of a token of the trace divided by that of a token of the prompt; None where the prompt has none.

    Args:
        prompt: the share of the prompt; `prompt_tokens` is the number of its tokens.
        trace: the share of the trace; `trace_tokens` is the number of its tokens.
    """
    return (trace / trace_tokens) / (prompt / prompt_tokens) if prompt > 0 else None


R = TypeVar("R", bound=ShareRow)
MeasureModel = Callable[["ModelHandle", TokenizedState], dict[str, Any]]
"""Measures one state: the opened model and the state's ids -> the row's own fields."""


def tokenize_state(
    state: ProbeState, trace: str, action: str, setting: ProbeSetting, chat: Chat, context: int
) -> TokenizedState:
    """Return the token ids of a state's prompt and of the CoT answer with this trace and action.

    Text that the agent wrote is encoded again, without blanks around it, as a teacher's trace is in training.

    Args:
        state: the state.
        trace: the trace between the tags.
        action: the action between the tags.
        setting: environment and elicitation.
        chat: the model's chat template.
        context: the longest sequence that the model takes, in tokens.

    Raises:
        ContextOverflowError: it is longer than `context`.
    """
    query = Query(
        *(state.task, setting.states.env, state.task, state.step, "cot", state.dialogue, setting.elicitation),
        admissible_actions=shown_actions(setting, state),
    )
    prompt, _ = prompt_ids(query, chat, context)
    pieces: list[tuple[Label, list[int]]] = [
        ("prompt", prompt),
        *answer_pieces(chat.with_tags(query.elicitation.tags), trace, action),
    ]
    ids: list[int] = []
    spans: dict[Label, range] = {}
    for label, piece in pieces:
        spans[label] = range(len(ids), len(ids) + len(piece))
        ids += piece
    if len(ids) > context:
        raise ContextOverflowError(f"{state.task}, step {state.step}: {len(ids)} tokens, and the model takes {context}")
    return TokenizedState(tuple(ids), spans)


def measure_rows(
    name: str,
    agent: Agent,
    states: Sequence[ProbeState],
    setting: ProbeSetting,
    source: Source,
    row: type[R],
    look: MeasureModel,
) -> Iterator[R]:
    """Return an iterator over a row for each state, measured by `look`.

    The model is opened for one state at a time: between two rows the agent may be queried.

    Args:
        name: the probe, for messages.
        agent: an agent with `expose_model`.
        states: the states to measure.
        setting: the settings of the measurement.
        source: whether trace and action are the agent's own or the reference's.
        row: the class of a row.
        look: measures one state: the opened model and the state's ids -> the row's own fields.

    Raises:
        UsageError: the agent has no model to open, or the elicitation opens no tags.
    """
    if not callable(getattr(agent, "expose_model", None)):
        raise UsageError(f"probe {name} needs access to the model itself, which {agent.name} does not give: use an hf: agent")
    if setting.elicitation.style != "prefill":
        raise UsageError(
            f"probe {name} needs elicitation style prefill: in style {setting.elicitation.style} nothing says at which token "
            "the action begins"
        )
    return _rows(agent, states, setting, source, row, look)


def _rows(
    agent: Agent, states: Sequence[ProbeState], setting: ProbeSetting, source: Source, row: type[R], look: MeasureModel
) -> Iterator[R]:
    for some in batches(states, agent):
        own = answers_for(agent, some, setting) if source == "own" else {}
        for state in some:
            answer = own.get(state.key)
            trace, action = (state.trace, state.action) if answer is None else (answer.trace.strip(), answer.cot_action)
            fields: dict[str, Any]
            if answer is not None and answer.error is not None:
                fields = {**failure_fields(answer)}
            elif not trace or not action:
                fields = {"left_out": "no action" if trace else "no trace"}
            else:
                fields = _measure_state(agent, state, trace, action, setting, look)
            yield row(task=state.task, step=state.step, **fields)


def _measure_state(
    agent: Any, state: ProbeState, trace: str, action: str, setting: ProbeSetting, look: MeasureModel
) -> dict[str, Any]:
    try:
        with agent.expose_model() as handle:
            tokenized = tokenize_state(state, trace, action, setting, handle.chat, handle.context)
            return {**tokenized.tokens(), **look(handle, tokenized)}
    except ContextOverflowError:
        return {"left_out": "too long"}
    except UsageError:
        raise
    except Exception as error:  # Out of memory, or a failure in a model's code: the failure of this state alone.
        return {**failure_of(error).fields}


def shares(overall: Sequence[float], prompt: Sequence[float], trace: Sequence[float]) -> dict[str, Any]:
    """Return the fields of a `ShareRow`.

    Args:
        overall: the shares of prompt, trace and rest over all layers.
        prompt: the share of the prompt in each layer.
        trace: the share of the trace in each layer.
    """
    return {
        **dict(zip(("prompt", "trace", "rest"), (round_values(share) for share in overall), strict=True)),
        "prompt_layers": tuple(round_values(share) for share in prompt),
        "trace_layers": tuple(round_values(share) for share in trace),
    }


def round_values(share: float) -> float:
    """Return a share rounded as it is written to rows."""
    return round(float(share), _DIGITS)


UNIFORM = "uniform per token"
"""The null of a share: what the tokens would have if each had the same, which is their share of all tokens."""


def share_numbers(rows: Sequence[ShareRow]) -> ProbeNumbers:
    """Return the numbers that all probes of shares have in common."""
    measured, errors, left_out = partition_rows(rows)
    return ProbeNumbers(
        states=len(measured),
        tasks=len({row.task for row in measured}),
        errors=errors,
        left_out=left_out,
        estimates={
            "prompt share": over_tasks(measured, lambda row: row.prompt),
            f"prompt share, {UNIFORM}": over_tasks(measured, lambda row: row.prompt_tokens / row.tokens),
            "trace share": over_tasks(measured, lambda row: row.trace),
            f"trace share, {UNIFORM}": over_tasks(measured, lambda row: row.trace_tokens / row.tokens),
            "rest share": over_tasks(measured, lambda row: row.rest),
            "prompt share of prompt and trace": over_tasks(measured, lambda row: row.of_both),
            f"prompt share of prompt and trace, {UNIFORM}": over_tasks(
                measured, lambda row: share_of(row.prompt_tokens, row.trace_tokens)
            ),
            "trace token to prompt token": over_tasks(measured, lambda row: row.per_token),
        },
        curves={
            "prompt share": layer_curve(measured, lambda row: row.prompt_layers),
            "trace share": layer_curve(measured, lambda row: row.trace_layers),
        }
        if measured
        else {},
    )


def layer_curve(rows: Sequence[R], shares_of: Callable[[R], Sequence[float | None]]) -> Curve:
    """Return shares by layer.

    Args:
        rows: measured rows of one model, at least one.
        shares_of: of a row; None in a layer that has no share.
    """

    def share(layer: int) -> Callable[[R], float | None]:
        return lambda row: shares_of(row)[layer]

    layers = range(len(shares_of(rows[0])))
    values = tuple(over_tasks(rows, share(layer)) for layer in layers)
    return Curve(x="layer", at=tuple(map(float, layers)), values=values)
