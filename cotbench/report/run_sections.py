"""The sections of a page of plain runs. Invariant: every number is taken unchanged from a run's summary or its judges'
results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cotbench.judge import judge_gate, read_judges
from cotbench.judge.gate import GATE
from cotbench.prompting.elicitation import MODES, Mode
from cotbench.report.page import Cell, Figure, Line, Panel, Section, Series, Table
from cotbench.runs.results import Run
from cotbench.runs.tables import NO_ELICITATION
from cotbench.stats.estimates import Estimate
from cotbench.stats.multiple_testing import Adjusted

LABELS: Mapping[Series, str] = {"prompt": "prompt action", "cot": "CoT action", "gap": "CoT - prompt"}
PANELS = 6
"""The largest number of runs whose task types are drawn."""


def _elicited(named: Mapping[str, Run]) -> str:
    """Return the elicitation of the runs, for captions."""
    used = [run.summary for run in named.values() if run.summary.uses_elicitation]
    kinds = dict.fromkeys((summary.style, summary.elicitation) for summary in used)
    sentences = ["Elicitation " + ", ".join(f"{style} {fingerprint}" for style, fingerprint in kinds) + "."] if used else []
    others = dict.fromkeys(run.summary.agent for run in named.values() if not run.summary.uses_elicitation)
    if others:
        sentences.append(f"{', '.join(others)}: {NO_ELICITATION}.")
    return " ".join(sentences)


def _tasks(named: Mapping[str, Run]) -> str:
    sizes = sorted({mode.n for run in named.values() for mode in run.summary.modes.values()})
    return f"n = {sizes[0]} tasks" if len(sizes) == 1 else f"n = {sizes[0]} to {sizes[-1]} tasks" if sizes else "n = 0"


def _bars(named: Sequence[tuple[str, Estimate | None]], series: Series) -> Line:
    known = [(place, estimate) for place, (_, estimate) in enumerate(named) if estimate is not None]
    return Line(
        LABELS[series], tuple(float(place) for place, _ in known), tuple(estimate for _, estimate in known), series=series
    )


def success(named: Mapping[str, Run], tests: Mapping[str, Adjusted]) -> Section:
    """Return the section on the success of the modes, and the gap.

    Args:
        named: label -> run.
        tests: label -> the run's McNemar test, adjusted among all of them.
    """
    modes = {mode: [(label, _rate(run, mode)) for label, run in named.items()] for mode in MODES}
    items: list[Figure | Table] = [
        Figure(
            "success",
            "Success by mode",
            f"{_tasks(named)}; whiskers are 95 % intervals over tasks (Wilson). {_elicited(named)}",
            "run",
            "success",
            (Panel("", tuple(line for mode in MODES if (line := _bars(modes[mode], mode)).x), labels=tuple(named)),),
            (0.0, 1.0),
        )
    ]
    if len(tests) > 1:
        gaps = [(label, run.summary.gap.success if run.summary.gap else None) for label, run in named.items()]
        items.append(
            Figure(
                "gap",
                "The gap: success by CoT actions less success by prompt actions",
                f"{_tasks(named)}, paired; whiskers are 95 % intervals over tasks (Newcombe, paired). {_elicited(named)}",
                "run",
                "CoT - prompt",
                (Panel("", (_bars(gaps, "gap"),), at=0.0, labels=tuple(named)),),
            )
        )
    text = "Each task is played twice, once acting straight from the prompt and once reasoning first; the gap pairs the two."
    return Section("Does reasoning first win more tasks?", text if tests else "", (*items, _success_table(named, tests)))


def _sampled(named: Mapping[str, Run]) -> str:
    """Return what is otherwise in runs with several samples of each task; empty where there are none."""
    if all(run.summary.samples == 1 for run in named.values()):
        return ""
    return "; with several samples of each task bootstrap, and an exchange of the modes within each task"


def _success_table(named: Mapping[str, Run], tests: Mapping[str, Adjusted]) -> Table:
    several = len(tests) > 1
    rows: list[tuple[Cell, ...]] = []
    for label, run in named.items():
        gap, test = run.summary.gap, tests.get(label)
        won = (gap.success, gap.cot_only, gap.prompt_only, gap.p) if gap else (None,) * 4
        adjusted = (test.adjusted if test else None,) if several else ()
        rows.append((label, run.summary.tasks, *(_rate(run, mode) for mode in MODES), *won, *adjusted))
    head = ("run", "tasks", "prompt", "CoT", "CoT - prompt", "won by CoT alone", "won by prompt alone", "McNemar p")
    return Table(
        "success",
        "Success",
        f"95 % intervals over tasks: Wilson (success), Newcombe paired (gap); exact two-sided McNemar test{_sampled(named)}"
        f"{', Holm-adjusted over the runs' if several else ''}. {_elicited(named)}",
        (*head, *(("Holm p",) if several else ())),
        tuple(rows),
        frozenset({"CoT - prompt"}),
    )


def _rate(run: Run, mode: Mode) -> Estimate | None:
    found = run.summary.modes.get(mode)
    return found.success if found else None


def changes(named: Mapping[str, Run]) -> Section:
    """Return the section on consistency and revisions.

    Args:
        named: label -> run.
    """
    rows: list[tuple[Cell, ...]] = []
    for label, run in named.items():
        same, found = run.summary.consistency, run.summary.revisions
        counts = (found.states, found.revised, found.helped, found.hurt, found.neither, found.net) if found else (None,) * 6
        rows.append((label, *((same.states, same.consistency, same.revision_rate) if same else (None, None, None)), *counts))
    columns = (
        "run",
        "states",
        "consistency",
        "revision rate",
        "expert known at",
        "revised",
        "helped",
        "hurt",
        "neither",
        "net",
    )
    table = Table(
        "revisions",
        "Revisions and what they were worth",
        "At the states of the CoT episodes. Consistency: prompt action = CoT action. Helped: revised to the expert's action; "
        "hurt: away from it; net: (helped - hurt) / states where the expert's action is known. 95 % intervals over tasks "
        f"(cluster bootstrap). {_elicited(named)}",
        columns,
        tuple(rows),
        frozenset({"net"}),
    )
    text = (
        "At every state of a CoT episode the agent was also asked for its prompt action, which was not executed. Where the two "
        "differ, the trace changed the action."
    )
    return Section("Did the trace change the action?", text, (table,))


def task_types(named: Mapping[str, Run]) -> list[Section]:
    """Return the section on success by task type; none where every run has one type.

    Args:
        named: label -> run.
    """
    panels, rows = [], list[tuple[Cell, ...]]()
    for label, run in named.items():
        modes = run.summary.modes
        types = sorted({name for mode in modes.values() for name in mode.by_type})
        if len(types) < 2:
            continue
        cells = {mode: [(name, modes[mode].by_type.get(name) if mode in modes else None) for name in types] for mode in MODES}
        lines = tuple(line for mode in MODES if (line := _bars(cells[mode], mode)).x)
        panels.append(Panel(label if len(named) > 1 else "", lines, labels=tuple(types)))
        rows += [(label, name, cells["prompt"][place][1], cells["cot"][place][1]) for place, name in enumerate(types)]
    if not panels:
        return []
    caption = f"95 % intervals over the tasks of the type (Wilson). {_elicited(named)}"
    figure = Figure("task_types", "Success by task type", caption, "task type", "success", tuple(panels[:PANELS]), (0.0, 1.0))
    table = Table("task_types", "Success by task type", caption, ("run", "task type", "prompt", "CoT"), tuple(rows))
    remark = f" The first {PANELS} runs are drawn; the table has all." if len(panels) > PANELS else ""
    return [Section("By task type", f"A type with few tasks has a wide interval.{remark}", (figure, table))]


_JUDGED = ("win rate of the cot action", "net preference", "position bias", "agreement with the reference")
"""Numbers of probe `preference`, in the order of the table's columns."""


def judges(named: Mapping[str, Run]) -> list[Section]:
    """Return the section on the judges' preferences; none where no run was judged.

    Args:
        named: label -> run.
    """
    rows: list[tuple[Cell, ...]] = []
    for label, run in named.items():
        for name, judge in read_judges(run.path).items():
            found = judge.numbers
            counts = (found.states, found.errors, *(found.counts[count] for count in ("cot", "prompt", "split", "no verdict")))
            gate = judge_gate([row.judgement for row in judge.rows if row.error is None and row.left_out is None])
            rows.append((label, name, gate.verdict, *counts, *(found.estimates[estimate] for estimate in _JUDGED)))
    if not rows:
        return []
    counted = ("states", "errors", "CoT preferred", "prompt preferred", "split", "no verdict")
    rates = ("win rate of CoT", "net preference", "position bias", "agreement with the expert")
    table = Table(
        "judges",
        "What judges preferred where the trace changed the action",
        "Preferred: named each time that the judge was asked; split: the order decided, counted half in win rate and "
        "agreement; position bias 0.5 is none. 95 % intervals over tasks (cluster bootstrap). The preference of a judge counts "
        f"where it passes the gate: {GATE}.",
        ("run", "judge", "gate", *counted, *rates),
        tuple(rows),
        frozenset({"net preference"}),
    )
    return [Section("What judges prefer", "", (table,))]


def costs(named: Mapping[str, Run]) -> Section:
    """Return the section on steps, errors and tokens of an episode, in each mode.

    Args:
        named: label -> run.
    """
    played: list[tuple[Cell, ...]] = []
    tokens: list[tuple[Cell, ...]] = []
    for label, run in named.items():
        for name, mode in run.summary.modes.items():
            format_rates = (mode.format_ok, mode.trace_truncated)
            played.append(
                (label, LABELS[name], mode.n, mode.errors, mode.score, mode.steps, mode.invalid_actions, *format_rates)
            )
            tokens.append((label, LABELS[name], mode.tokens, mode.prefilled_tokens, mode.reused_tokens))
    intervals = "95 % intervals over tasks (bootstrap; one of no width means that all tasks gave the same value)."
    columns = ("episodes", "errors", "score", "steps", "invalid actions", "format kept", "trace truncated")
    token_columns = ("generated", "prefilled", "reused")
    items = (
        Table(
            "episodes",
            "Episodes",
            f"Means over episodes; format kept and trace truncated are shares of decisions. {intervals} {_elicited(named)}",
            ("run", "mode", *columns),
            tuple(played),
            digits={"steps": 1, "invalid actions": 1},
        ),
        Table(
            "tokens",
            "Tokens per episode",
            f"Means over episodes, of the executed decisions. {intervals} {_elicited(named)}",
            ("run", "mode", *token_columns),
            tuple(tokens),
            digits=dict.fromkeys(token_columns, 0),
        ),
    )
    return Section("Steps, errors and tokens", "", items)


def _style_and_fingerprint(run: Run) -> str:
    summary = run.summary
    return f"{summary.style} {summary.elicitation}" if summary.uses_elicitation else f"{summary.agent}: {NO_ELICITATION}"


def how_measured(runs: Sequence[Run]) -> Section:
    """Return the section on the elicitation, in words."""

    def each(what: Callable[[Run], str]) -> str:
        return "; ".join(dict.fromkeys(map(what, runs)))

    text = (
        "Prompt action and CoT action are asked for with the same prompt; they differ in the trace alone. "
        f"Elicitation (style, fingerprint): {each(_style_and_fingerprint)}. "
        f"Temperature: {each(lambda run: f'{run.summary.temperature:g}')}. "
        f"Step budget: {each(lambda run: f'{run.summary.max_steps} on {run.summary.env}')}.\n\n"
        "An episode that failed for a reason outside the agent counts as an error and is excluded from all statistics. "
        "Intervals are over the tasks of one run; they do not cover other seeds of the training."
    )
    return Section("How it was measured", text)
