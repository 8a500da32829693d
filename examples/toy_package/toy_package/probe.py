"""Probe `trace-length`: how many words the agent's trace has at each state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import Field

from cotbench.agents.base import Agent
from cotbench.probes.asking import answers_for
from cotbench.probes.numbers import ProbeNumbers, ProbeRow, over_tasks, partition_rows
from cotbench.probes.probe import Probe, ProbeOptions, ProbeSetting, register_probe
from cotbench.probes.states import ProbeState


class TraceLengthOptions(ProbeOptions):
    """Options of probe `trace-length`."""

    longest: int = Field(100, ge=1, description="words beyond which a trace counts as long")


class TraceLengthRow(ProbeRow):
    """A state's trace, counted.

    Attributes:
        words: of the trace.
        long: it has more words than the option allows.
    """

    words: int = 0
    long: bool = False


def measure(
    agent: Agent, states: Sequence[ProbeState], setting: ProbeSetting, options: TraceLengthOptions
) -> Iterator[TraceLengthRow]:
    """Yield a row for each state."""
    answers = answers_for(agent, states, setting)
    for state in states:
        answer = answers[state.key]
        words = len(answer.trace.split())
        yield TraceLengthRow(task=state.task, step=state.step, error=answer.error, words=words, long=words > options.longest)


def summarize(rows: Sequence[TraceLengthRow], options: TraceLengthOptions) -> ProbeNumbers:
    """Return the mean number of words and the share of long traces, with intervals over tasks."""
    kept, errors, left_out = partition_rows(rows)
    return ProbeNumbers(
        states=len(kept),
        tasks=len({row.task for row in kept}),
        errors=errors,
        left_out=left_out,
        estimates={
            "words in a trace": over_tasks(kept, lambda row: row.words),
            "long traces": over_tasks(kept, lambda row: row.long),
        },
    )


TRACE_LENGTH = register_probe(
    Probe(
        name="trace-length",
        description="how many words the agent's trace has",
        options=TraceLengthOptions,
        row=TraceLengthRow,
        measure=measure,
        summarize=summarize,
        cost=lambda sizes: sizes.prompt + sizes.answer,
    )
)
