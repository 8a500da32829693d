"""What a page of runs shows: filters, in its address. Invariant: a value that no run has filters nothing away unseen: the page
says so and offers those that there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cotbench.runs.run_status import STATES, RunStatus

FIELDS = ("agent", "env", "split", "mode", "state")
"""Filters, in the order of the form."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A filter: what can be chosen, and what is.

    Attributes:
        name: of the filter; `words` are its label.
        values: what can be chosen, beside all.
        chosen: the value; empty for all.
    """

    name: str
    words: str
    values: tuple[str, ...]
    chosen: str


_WORDS = {"agent": "Agent", "env": "Environment", "split": "Split", "mode": "Mode", "state": "State"}


def value_of(run: RunStatus, field: str) -> str:
    """Return a run's value of a filter."""
    return f"{run.scheme}/{run.split}" if field == "split" else str(getattr(run, field))


def choices(runs: Sequence[RunStatus], filters: Mapping[str, str]) -> list[Choice]:
    """Return the filters of a form.

    Args:
        runs: all runs.
        filters: filter -> value, as in the address.
    """
    found = []
    for field in FIELDS:
        chosen = filters.get(field, "")
        values = {value_of(run, field) for run in runs} | ({chosen} if chosen else set())
        ordered = [state for state in STATES if state in values] if field == "state" else []
        found.append(Choice(field, _WORDS[field], (*ordered, *sorted(values - set(ordered))), chosen))
    return found


def chosen_runs(runs: Sequence[RunStatus], filters: Mapping[str, str]) -> list[RunStatus]:
    """Return the runs that pass the filters.

    Args:
        runs: all runs.
        filters: filter -> value; empty ones filter nothing.
    """
    wanted = [(field, filters[field]) for field in FIELDS if filters.get(field)]
    return [run for run in runs if all(value_of(run, field) == value for field, value in wanted)]
