"""The sections on what arms are trained on: traces, and preference pairs. Invariant: each has a row for each such stage that is
done, whichever arms use it; its numbers are those that `cotbench traces` and `cotbench pairs` stored.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cotbench.errors import RunFolderError
from cotbench.report.page import Section, Table
from cotbench.stats.decodability import Decodability
from cotbench.study.folder import folder_of, is_done
from cotbench.study.scope import Scope
from cotbench.study.stage import Stage

TRACES = "traces.json"
"""The file of a traces folder with its numbers."""

_TEXT = (
    "How often the action, and its arguments (objects, values), can be told from the trace alone by a simple decoder that sees "
    "no prompt, on tasks that it was not fitted to. The floor sees nothing: the most frequent action, or arguments. The nearer "
    "to 1, the less an arm that is trained on such traces has to read the prompt for its action; what is measured of an arm "
    "holds for traces like its own."
)


PAIRS = "pairs.json"
"""The file of a pairs folder with its card."""

_PAIRS_TEXT = (
    "At a state of the traces, the teacher's answer is chosen; rejected is the first of the start's own samples whose action "
    "leaves more steps to go. A state without such a sample has no pair, for the reason that is counted. Where both sides have "
    "the same trace, nothing but the action tells them apart: an arm that masks the pair's action learns nothing from it."
)
_PAIRS_CAPTION = (
    "States of the training split, pairs among them, and states left out by reason. Samples are those of all states. Steps "
    "lost: mean of the steps that the rejected action leaves to go beyond the chosen one. Lost tasks: pairs whose rejected "
    "action loses the task at once; they are not in that mean."
)


Numbers = TypeVar("Numbers", bound=BaseModel)


class PairsNumbers(BaseModel):
    """Numbers of a pairs folder, as far as a report needs them.

    Attributes:
        states: number of states that were sampled at.
        pairs: number of states with a pair; `identical_traces` of them have the same trace on both sides.
        left_out: why the other states have none -> number of states.
        samples: what the samples are -> number of samples.
        lost: number of pairs whose rejected action loses the task at once.
        mean_steps_lost: of the other pairs; None without such.
    """

    model_config = ConfigDict(frozen=True)

    states: int
    pairs: int
    identical_traces: int
    left_out: dict[str, int]
    samples: dict[str, int]
    lost: int
    mean_steps_lost: float | None


class TracesNumbers(BaseModel):
    """Numbers of a traces folder, as far as a report needs them.

    Attributes:
        teacher: spec of the agent that wrote them.
        examples: number of decisions with a trace.
        trace_level: of a scripted teacher.
        decodability: None where it was not measured.
    """

    model_config = ConfigDict(frozen=True)

    teacher: str
    examples: int
    trace_level: str | None = None
    decodability: Decodability | None = None


def traces_section(scope: Scope) -> Section | None:
    """Return the decodability of the traces of an environment; None where no traces stage is done.

    Args:
        scope: one model in one environment.
    """
    data = scope.data
    stages = [one for one in data.plan.stages if one.kind == "traces" and one.place.env == scope.env and _serves(scope, one)]
    rows = []
    for stage in stages:
        if not is_done(data.folder, stage):
            continue
        found = read_traces_numbers(folder_of(data.folder, stage) / TRACES)
        measured = found.decodability
        shares = (
            ()
            if measured is None
            else (
                measured.action,
                measured.action_floor,
                measured.arguments,
                measured.arguments_floor,
                measured.arguments_in_trace,
            )
        )
        rows.append(
            (", ".join(_arms(scope, stage)), found.teacher, found.trace_level, found.examples, *(shares or (None,) * 5))
        )
    if not rows:
        return None
    columns = (
        *("arms", "teacher", "level", "decisions", "action", "its floor"),
        *("arguments", "their floor", "arguments that the trace names"),
    )
    caption = (
        "Traces of the training split. Shares of a task's decisions, averaged over tasks, with 95 % intervals over tasks. "
        "Only decisions with a trace count. A dash: not measured, as there were too few tasks."
    )
    table = Table(scope.slug("traces"), "Actions decoded from the traces alone", caption, columns, tuple(rows))
    return Section("Decodability of the traces", _TEXT, (table,))


def pairs_section(scope: Scope) -> Section | None:
    """Return the cards of the preference pairs of a model in an environment; None where no pairs stage is done.

    Args:
        scope: one model in one environment.
    """
    data = scope.data
    stages = [one for one in data.plan.stages if one.kind == "pairs" and one.place.env == scope.env and _serves(scope, one)]
    found = [
        (stage, read_pairs_numbers(folder_of(data.folder, stage) / PAIRS)) for stage in stages if is_done(data.folder, stage)
    ]
    if not found:
        return None
    reasons = sorted({reason for _, card in found for reason in card.left_out})
    columns = (
        *("arms", "sampled from", "seed", "states", "pairs", "with equal traces"),
        *(f"left out: {reason}" for reason in reasons),
        *("worse samples", "of samples", "steps lost", "lost tasks"),
    )
    rows = tuple(
        (
            *(
                ", ".join(_arms(scope, stage)),
                stage.place.arm,
                stage.place.seed,
                card.states,
                card.pairs,
                card.identical_traces,
            ),
            *(card.left_out.get(reason, 0) for reason in reasons),
            *(card.samples.get("worse", 0), sum(card.samples.values()), card.mean_steps_lost, card.lost),
        )
        for stage, card in found
    )
    return Section(
        "Preference pairs", _PAIRS_TEXT, (Table(scope.slug("pairs"), "Pairs and states", _PAIRS_CAPTION, columns, rows),)
    )


def read_pairs_numbers(path: Path) -> PairsNumbers:
    """Return the numbers of a pairs folder.

    Args:
        path: of its `pairs.json`.

    Raises:
        RunFolderError: it is missing or damaged.
    """
    return _read_numbers(PairsNumbers, path, "samples its pairs")


def read_traces_numbers(path: Path) -> TracesNumbers:
    """Return the numbers of a traces folder.

    Args:
        path: of its `traces.json`.

    Raises:
        RunFolderError: it is missing or damaged.
    """
    return _read_numbers(TracesNumbers, path, "plays its traces")


def _read_numbers(numbers: type[Numbers], path: Path, action: str) -> Numbers:
    try:
        return numbers.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RunFolderError(f"{path} is missing or damaged: remove {path.parent}, and the study {action} again") from error


def _arms(scope: Scope, stage: Stage) -> list[str]:
    """Return the arms that are trained on the traces of a stage."""
    users = (one.place.arm for one in scope.data.plan.stages if one.kind == "train" and stage.name in one.uses)
    return list(dict.fromkeys(arm for arm in users if arm is not None))


def _serves(scope: Scope, stage: Stage) -> bool:
    return stage.place.model in (None, scope.model)
