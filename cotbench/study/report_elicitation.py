"""The sections on how the prompt action is elicited: its three ways beside CoT, progress by any action, and the wording of the
instruction. Invariant: that of `report_training`.
"""

from __future__ import annotations

from functools import partial

from cotbench.probes.alignment import elicited_value
from cotbench.probes.wording import NUMBERS
from cotbench.prompting.elicitation import PROMPT_ACTIONS, PromptAction
from cotbench.report.page import Cell as TableCell
from cotbench.report.page import Figure, Section, Series, Table
from cotbench.study.data import StudyCell
from cotbench.study.figures import Labelled, interval_caption, progress_figure
from cotbench.study.measures import alignment_series
from cotbench.study.report_probes import last_numbers
from cotbench.study.scope import Scope
from cotbench.study.series import Value, series_levels

_NAMES: dict[PromptAction, str] = {"bare": "bare tag", "empty": "empty trace", "ranked": "ranked"}
_MODES = (
    "The prompt action is elicited in three ways at the same states. Bare: the model writes after the opening action tag. "
    "Empty: it writes after an empty trace and that tag, so that only the reasoning is missing beside CoT. Ranked: of all "
    "admissible actions the one with the highest log-probability (of the whole action and its closing tag; nothing is divided "
    "by the length), so that it always keeps the format. A gap against bare alone comes from the tags, not from the reasoning."
)
_PROGRESS = (
    "The reference's action is one of several good ones. Any action counts here after which an expert that knows the whole "
    "task has fewer steps left than before; the reference itself may search, so it need not have 1."
)


def elicitation_section(scope: Scope) -> Section | None:
    """Return the section on the ways to elicit the prompt action, and on actions that shorten the rest of the task."""
    items: list[Figure | Table] = []
    for arm in scope.arms:
        figure = progress_figure(
            scope.data,
            scope.slug(f"elicitations_{arm}"),
            f"Prompt actions by their elicitation, {arm}",
            "share of states",
            partial(_curves, scope, "exact"),
            scope.cells(arm),
            about=f"Arm {arm}: states at which the action is the reference's: the prompt action by its elicitation, and the "
            "CoT action.",
            y_range=(0.0, 1.0),
        )
        items += [figure] if figure else []
    figure = progress_figure(
        scope.data,
        scope.slug("shortens"),
        f"Actions that shorten the task, {scope.main}",
        "share of states",
        partial(_curves, scope, "shortens"),
        scope.cells(scope.main),
        about=f"Arm {scope.main}: states at which the action leaves an expert that knows the whole task fewer steps than "
        "before.",
        y_range=(0.0, 1.0),
    )
    tables = [*_ways(scope), *_gaps(scope), *(_progress(scope) if figure else [])]
    items += [*([figure] if figure else []), *tables]
    if not tables:
        return None
    text = f"{_MODES} {_PROGRESS}" if figure else _MODES
    return Section("How the prompt action is elicited", text, tuple(items))


def _curves(scope: Scope, name: str, cell: StudyCell) -> Labelled:
    values: list[tuple[str, Series, Value]] = [
        (_NAMES[way], "prompt", partial(elicited_value, way, name)) for way in PROMPT_ACTIONS
    ]
    if name == "exact":
        values.append(("CoT action", "cot", lambda row: row.cot_match))
    else:
        values.append(("CoT action", "cot", lambda row: row.cot_shortens))
        values.append(("the reference", "neutral", lambda row: row.reference_shortens))
    measured = [(label, kind, alignment_series(scope, cell, value)) for label, kind, value in values]
    return [(label, kind, series_levels(series)) for label, kind, series in measured if series is not None]


def _rows(scope: Scope, names: tuple[str, ...]) -> tuple[list[tuple[TableCell, ...]], list[int]]:
    """Return a row of estimates for each arm, split and end of the training, and the numbers of tasks behind them."""
    rows: list[tuple[TableCell, ...]] = []
    units: list[int] = []
    for measure in scope.data.measures("alignment")[:1]:
        for arm in scope.arms:
            for cell in scope.cells(arm):
                shares = scope.data.shares(cell, measure)
                for share in dict.fromkeys((shares[0], shares[-1])) if shares else ():
                    label = scope.start_label(arm) if share == 0 else arm
                    if label is None:
                        continue
                    found = scope.data.numbers(cell, measure, share)
                    estimates = [found.estimates.get(name) for name in names]
                    if any(one is not None for one in estimates[:3]):
                        units.append(found.tasks)
                        rows.append((label, cell.split, f"{share:.0%}", *estimates))
    return rows, units


_WHERE = ("arm", "split", "training")


def _ways(scope: Scope) -> list[Table]:
    names = tuple(f"{way} {name}" for name in ("exact", "format ok") for way in PROMPT_ACTIONS)[:5]
    rows, units = _rows(scope, (*names, "cot exact", "cot format ok"))
    if not rows:
        return []
    columns = (*_WHERE, *PROMPT_ACTIONS, "bare: format kept", "empty: format kept", "CoT", "CoT: format kept")
    caption = (
        "Alignment with the reference action by elicitation, and where the format was kept; a ranked action always keeps it. "
        f"{_missing(scope)}{interval_caption(scope.data, units, 'Intervals', dots=False)}"
    )
    return [Table(scope.slug("elicitations"), "Alignment by elicitation", caption, columns, tuple(rows))]


def _gaps(scope: Scope) -> list[Table]:
    names = tuple(f"{way} {name}" for name in ("gap", "consistency") for way in PROMPT_ACTIONS)
    rows, units = _rows(scope, names)
    if not rows:
        return []
    signed = tuple(f"CoT - {way}" for way in PROMPT_ACTIONS)
    columns = (*_WHERE, *signed, *(f"{way} = CoT" for way in PROMPT_ACTIONS))
    caption = (
        "CoT alignment minus that of each elicitation at the same states, and the share of states at which both give one "
        "action. "
        f"{_missing(scope)}{interval_caption(scope.data, units, 'Intervals', dots=False)}"
    )
    title = "Gap and consistency by elicitation"
    return [Table(scope.slug("elicitation_gaps"), title, caption, columns, tuple(rows), frozenset(signed))]


def _progress(scope: Scope) -> list[Table]:
    names = (*(f"{way} shortens" for way in PROMPT_ACTIONS), "cot shortens", "gap shortens", "reference shortens")
    rows, units = _rows(scope, names)
    if not rows:
        return []
    columns = (*_WHERE, *PROMPT_ACTIONS, "CoT", "CoT - prompt", "the reference")
    caption = (
        "Actions after which an expert that knows the whole task has fewer steps left. CoT - prompt: against the usual prompt "
        f"action. {interval_caption(scope.data, units, 'Intervals', dots=False)}"
    )
    title = "Actions that shorten the task"
    return [Table(scope.slug("shortening"), title, caption, columns, tuple(rows), frozenset(("CoT - prompt",)))]


def _missing(scope: Scope) -> str:
    """Return a sentence on elicitations that were not measured, with the reason; empty where all were."""
    reasons: list[str] = []
    for measure in scope.data.measures("alignment")[:1]:
        for arm in scope.arms:
            for cell in scope.cells(arm):
                for share in scope.data.shares(cell, measure)[-1:]:
                    counts = scope.data.numbers(cell, measure, share).counts
                    reasons += [name for name in counts if name.startswith("no ")]
    return f"Not everywhere known: {'; '.join(dict.fromkeys(reasons))}. " if reasons else ""


def wording_section(scope: Scope) -> Section | None:
    """Return the section on the numbers under each wording of the instruction."""
    rows: list[tuple[TableCell, ...]] = []
    units: list[int] = []
    for measure in scope.data.measures("wording")[:1]:
        for label, split, found in last_numbers(scope, measure):
            units.append(found.tasks)
            wordings = dict.fromkeys(name.partition(": ")[0] for name in found.estimates if ": " in name)
            rows += [
                (label, split, wording, *(found.estimates.get(f"{wording}: {name}") for name in NUMBERS))
                for wording in wordings
            ]
    if not rows:
        return None
    columns = (
        "arm",
        "split",
        "wording",
        "prompt",
        "CoT",
        "CoT - prompt",
        "prompt = CoT",
        "prompt: format kept",
        "CoT: format kept",
    )
    caption = (
        "Alignment with the reference action at the last checkpoint, the same states under each wording of the instruction on "
        f"the form of an answer; training used one of them. {interval_caption(scope.data, units, 'Intervals', dots=False)}"
    )
    table = Table(scope.slug("wordings"), "Under other wordings", caption, columns, tuple(rows), frozenset(("CoT - prompt",)))
    text = (
        "The same states with the instruction in other words: what holds under one wording alone is an effect of the wording, "
        "not of the model's reasoning."
    )
    return Section("Does the wording of the instruction matter?", text, (table,))
