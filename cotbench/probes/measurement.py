"""The rows of a probe while they are measured. Invariant: there is one row of the probe's own class for each state, or an error
says whose fault that is; where no state can be measured, that is an error before anything is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cotbench.agents.base import Agent
from cotbench.errors import AgentError, BugError
from cotbench.failure import AGENT_BUG, Failure, failure_in, registered_code
from cotbench.probes.numbers import ProbeRow
from cotbench.probes.probe import Probe, ProbeOptions, ProbeSetting
from cotbench.probes.states import ProbeState


def measure_states(
    probe: Probe, agent: Agent, states: Sequence[ProbeState], setting: ProbeSetting, options: ProbeOptions
) -> Iterator[Any]:
    """Yield a row for each state.

    Args:
        probe: the probe.
        agent: the agent to measure.
        states: the states to measure it on.
        setting: the settings of the measurement.
        options: of the probe.

    Raises:
        BugError: the probe's code fails, or yields something else than a row for each state.
        CotbenchError: this agent cannot be measured so.
    """
    owed = {state.key: None for state in states}
    with registered_code(f"probe {probe.name}", probe.measure):
        for row in probe.measure(agent, states, setting, options) if states else ():
            if not isinstance(row, probe.row):
                raise BugError(f"probe {probe.name} yielded a {type(row).__name__}, not a {probe.row.__name__}")
            if row.key not in owed:
                raise BugError(f"probe {probe.name} yielded a row of step {row.step} of {row.task}, which it was not given")
            del owed[row.key]
            yield row
    for task, step in owed:
        raise BugError(f"probe {probe.name} yielded no row for {len(owed)} states, the first is step {step} of {task}")


def until_measured(
    rows: Iterator[Any], agent: Agent, observer: Callable[[Any], None], stop_at_failures: bool = False
) -> list[Any]:
    """Return the rows up to the first that holds a measurement; all rows where the probe leaves all states out.

    Args:
        rows: of a probe.
        agent: the agent that is measured.
        observer: called with each row.
        stop_at_failures: see `run_probe`.

    Raises:
        AgentBugError: a bug of the agent failed as many states as it answers side by side.
        CotbenchError: no state could be measured: says the most frequent reason.
    """
    early: list[ProbeRow] = []
    failures: list[Failure] = []
    for row in rows:
        early.append(row)
        observer(row)
        failure = failure_in(row)
        if failure is not None:
            failures.append(failure)
            bugs = sum(one.error_kind == AGENT_BUG for one in failures)
            if bugs >= max(1, getattr(agent, "batch", 1)) or (stop_at_failures and failure.can_be_traced):
                raise failure.exception
        elif row.left_out is None:
            return early
    if failures:
        raise _nothing_measured(failures)
    return early


def _nothing_measured(failures: Sequence[Failure]) -> AgentError:
    ((reason, count),) = Counter(failure.error for failure in failures).most_common(1)
    share = "" if count == len(failures) else f" ({count} of them)"
    text = f"none of {len(failures)} states could be measured: {reason}{share}"
    return AgentError(text)
