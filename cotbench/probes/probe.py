"""What a probe is. Invariant: a probe is a function from (agent, states, options) to rows, one a state, and a pure function
from rows to numbers; the same agent, states and options give the same rows, whatever was measured before.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

from cotbench.agents.base import Agent
from cotbench.errors import UnknownNameError
from cotbench.probes.numbers import ProbeNumbers, ProbeRow
from cotbench.probes.states import ProbeState, StateAnswer, StateKey, StateSet
from cotbench.prompting.elicitation import Elicitation


class ProbeOptions(BaseModel):
    """A probe's own options; a subclass names them, each with a description that is its `--help` text."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class ProbeSetting:
    """What all of a measurement shares.

    Attributes:
        states: the whole set; donors are taken from it.
        elicitation: how answers are asked for.
        canonical: the environment's spelling of actions.
        equivalent: the environment's rule for actions that come to the same.
        seed: pairs states, seeds sampling.
        answers: what this agent answered at these states, where that is known already (the rows of probe `alignment`); a probe
            that needs an answer that is not here asks for it.
    """

    states: StateSet
    elicitation: Elicitation
    canonical: Callable[[str], str]
    equivalent: Callable[[str, str], bool] = operator.eq
    seed: int = 0
    answers: Mapping[StateKey, StateAnswer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe.

    Attributes:
        name: on the command line.
        about: one line for `--help`.
        options: its options; the defaults are what a study uses.
        row: its rows.
        measure: (agent, the states still to be measured, setting, options) -> a row for each, as soon as it is known.
        summarize: (rows, options) -> the numbers.
        weights: whether it looks into the model, so that only `hf:` agents can be measured.
    """

    name: str
    description: str
    options: type[ProbeOptions]
    row: type[ProbeRow]
    measure: Callable[[Agent, Sequence[ProbeState], ProbeSetting, Any], Iterator[ProbeRow]]
    summarize: Callable[[Sequence[Any], Any], ProbeNumbers]
    weights: bool = False


PROBES = ("alignment", "conflict", "attention", "gradient", "preference", "sensitivity")
"""Names of the probes; each is `PROBE` of the module of its name, here or in the room that `_ELSEWHERE` says."""

_ELSEWHERE = {"preference": "cotbench.judge.preference"}


def probe_named(name: str) -> Probe:
    """The probe of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in PROBES:
        raise UnknownNameError("probe", name, PROBES)
    return cast(Probe, import_module(_ELSEWHERE.get(name, f"cotbench.probes.{name}")).PROBE)
