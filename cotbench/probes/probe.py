"""The type `Probe`, and the registry of probes. Invariant: a probe is a function from (agent, states, options) to rows, one a
state, and a pure function from rows to numbers; the same agent, states and options give the same rows, whatever was measured
before.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import isclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cotbench.agents.base import Agent
from cotbench.envs.registry import TokenSizes
from cotbench.errors import UnknownNameError, UsageError
from cotbench.probes.numbers import ProbeNumbers, ProbeRow
from cotbench.probes.states import AdmissibleActions, ProbeState, StateAnswer, StateKey, StateSet
from cotbench.prompting.elicitation import Elicitation
from cotbench.registry import Registry, require_kind

ENTRY_POINTS = "cotbench.probes"
"""The entry-point group through which an installed package offers probes."""


class ProbeOptions(BaseModel):
    """A probe's own options; a subclass names them, each with a description that is its `--help` text."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class ProbeSetting:
    """The settings shared by all states of a measurement.

    Attributes:
        states: the whole set; donors are taken from it.
        elicitation: how answers are asked for.
        canonical: the environment's spelling of actions.
        equivalent: the environment's rule for equivalent actions.
        seed: pairs states with donors, seeds sampling.
        answers: this agent's answers at these states, where they are known already (the rows of probe `alignment`); a probe
            asks for an answer that is missing here.
        data: the folder with the environment's data, for a probe that plays its way back to a state; None means its default.
        listed: what the environment listed at states so far (`replay.listed_at`).
    """

    states: StateSet
    elicitation: Elicitation
    canonical: Callable[[str], str]
    equivalent: Callable[[str, str], bool] = operator.eq
    seed: int = 0
    answers: Mapping[StateKey, StateAnswer] = field(default_factory=dict)
    data: Path | None = None
    listed: dict[StateKey, AdmissibleActions] = field(default_factory=dict, init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Probe:
    """A measurement on states.

    Attributes:
        name: on the command line.
        description: one line for `cotbench list probes`.
        options: its options; the defaults are what a study uses.
        row: its rows.
        measure: (agent, the states still to be measured, setting, options) -> a row for each, as soon as it is known.
        summarize: (rows, options) -> the numbers.
        weights: whether it reads the model's activations, so that only `hf:` agents can be measured.
        cost: an environment's sizes -> about how many tokens it computes at a state; for estimates alone.
        answers: rows -> the agent's answers at their states, where the rows hold them: other probes at the same place of a
            study then do not ask for them again.
        sections: makes its sections of a study's report: functions of a `study.scope.Scope`, each itself or as
            "module:attribute"; several probes may name one. Without any, the report shows its numbers in a table.
    """

    name: str
    description: str
    options: type[ProbeOptions]
    row: type[ProbeRow]
    measure: Callable[[Agent, Sequence[ProbeState], ProbeSetting, Any], Iterator[ProbeRow]]
    summarize: Callable[[Sequence[Any], Any], ProbeNumbers]
    weights: bool = False
    cost: Callable[[TokenSizes], float] = lambda sizes: 2 * sizes.prompt
    answers: Callable[[Sequence[Any]], dict[StateKey, StateAnswer]] | None = None
    sections: tuple[str | Callable[[Any], Any], ...] = ()


def parse_options(probe: Probe, given: Mapping[str, str]) -> ProbeOptions:
    """Return a probe's options from texts as typed on the command line.

    Args:
        probe: the probe.
        given: option -> text; the values of a list are separated by commas.

    Raises:
        UnknownNameError: no such option.
        UsageError: a value that does not fit.
    """
    fields = probe.options.model_fields
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name not in fields:
            raise UnknownNameError("option", name, fields, f"of probe {probe.name}")
        several = "tuple" in str(fields[name].annotation)
        values[name] = [part.strip() for part in text.split(",") if part.strip()] if several else text
    try:
        return probe.options.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"option {first['loc'][0]} of probe {probe.name}: {first['input']!r}: {first['msg']}") from error


def _check(name: str, probe: Probe) -> None:
    """Raise an error for a probe whose parts are not what they have to be.

    Raises:
        UsageError: names the part.
    """
    for part, base in (("options", ProbeOptions), ("row", ProbeRow)):
        found = getattr(probe, part)
        if not (isclass(found) and issubclass(found, base)):
            raise UsageError(f"probe {name!r}: {part} is {found!r}, not a subclass of {base.__name__}")
    for part in ("measure", "summarize", "cost"):
        if not callable(getattr(probe, part)):
            raise UsageError(f"probe {name!r}: {part} is {getattr(probe, part)!r}, not a function")


_registry: Registry[Probe] = Registry(
    "probe",
    ENTRY_POINTS,
    Probe,
    {
        "alignment": "cotbench.probes.alignment:PROBE",
        "conflict": "cotbench.probes.conflict:PROBE",
        "attention": "cotbench.probes.attention:PROBE",
        "gradient": "cotbench.probes.gradient:PROBE",
        "preference": "cotbench.judge.preference:PROBE",
        "sensitivity": "cotbench.probes.sensitivity:PROBE",
        "wording": "cotbench.probes.wording:PROBE",
    },
    _check,
)


def register_probe(probe: Probe) -> Probe:
    """Register a probe by its name, and return it, so that a package's entry point can name it.

    Raises:
        UsageError: the name is taken, or it is no probe.
    """
    require_kind("probe", probe, Probe)
    _registry.register(probe.name, probe)
    return probe


def probe_names() -> list[str]:
    """Return the names that `cotbench probe` accepts."""
    return _registry.names()


def probe_named(name: str) -> Probe:
    """Return the probe of that name.

    Raises:
        UnknownNameError: there is none.
    """
    return _registry.get(name)
