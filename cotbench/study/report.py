"""The report of a study: the answer in sentences, and the page. Invariant: a sentence states no more than its number: "rises"
and "falls" only where the interval leaves out 0, after correction for the study's claims; "flat" only where an equivalence test
of all checkpoints says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cotbench.failure import failure_in
from cotbench.probes.probe import Probe, probe_named, probe_names
from cotbench.prompting.elicitation import MODES
from cotbench.registry import load
from cotbench.report.page import BrowsedRun, Page, Section
from cotbench.runs.atomic_file import write_atomically
from cotbench.runs.episode import rows_of
from cotbench.stats.crossed import FEW_SEEDS
from cotbench.stats.formatting import format_estimate
from cotbench.study import report_instrument, report_masking, report_probes, report_tests, report_traces, report_training
from cotbench.study.comparisons import CHANGES, Comparison
from cotbench.study.config import StudyConfig
from cotbench.study.data import StudyData, read_data
from cotbench.study.family import family_of
from cotbench.study.figures import reading_notes
from cotbench.study.folder import STUDY
from cotbench.study.measures import alignment_levels, conflict_levels, gap_levels, start_of
from cotbench.study.report_cards import cards_of
from cotbench.study.report_claims import claims_table, claims_verdict
from cotbench.study.report_conflict import conflict_headline
from cotbench.study.report_tests import format_p, gap_verdict
from cotbench.study.report_training import all_sections
from cotbench.study.scope import Scope
from cotbench.study.series import SeriesLevels

NUMBERS = "numbers.json"
"""The file in the study's folder with everything on the page, for programs."""

Maker = Callable[[Scope], Section | None]


def section_makers(config: StudyConfig) -> list[Maker]:
    """Return the functions that make the sections, in the order of the page.

    First the sections of probes whose rows hold the agent's answers, then those of whole episodes and of arms, then those of
    the other probes; at the end the traces and the pairs that arms were trained on.

    Args:
        config: the study's settings.
    """
    used = [name for name in probe_names() if any(probe.probe == name for probe in config.probes)]
    entries = sorted((probe_named(name) for name in used), key=lambda entry: entry.answers is None)
    answering = sum(entry.answers is not None for entry in entries)
    core: list[Maker] = [
        report_training.success_section,
        report_training.arms_section,
        report_masking.masking_section,
        report_instrument.instrument_section,
    ]
    found = [_makers_of(entry) for entry in entries]
    ends: list[Maker] = [report_tests.tests_section, report_traces.traces_section, report_traces.pairs_section]
    makers = [maker for some in (*found[:answering], core, *found[answering:], ends) for maker in some]
    return list(dict.fromkeys(makers))  # Several probes may share a section.


def _makers_of(entry: Probe) -> list[Maker]:
    if not entry.sections:
        return [partial(report_probes.table_section, name=entry.name)]
    return [load(one) if isinstance(one, str) else one for one in entry.sections]


def page_of_study(folder: Path) -> Page:
    """Return the report of the measurements so far; write its numbers beside it.

    Args:
        folder: of the study.

    Raises:
        RunFolderError: not the folder of a study, or damaged.
        UsageError: nothing is measured yet, elicitations are mixed, or a series was measured on different states.
    """
    page = page_of_data(read_data(folder))
    write_numbers(folder, page)
    return page


def write_numbers(folder: Path, page: Page) -> None:
    """Write the numbers of a study's page into the study's folder."""
    write_atomically(folder / NUMBERS, [json.dumps(numbers(page), indent=2) + "\n"])


def page_of_data(data: StudyData) -> Page:
    """Return the report of a study's measurements.

    Args:
        data: of the study.
    """
    scopes = [Scope(data, env, model) for env in data.config.envs for model in data.config.models]
    claims = claims_table(scopes)
    return Page(
        title=f"Study {data.config.name}" + (f": {data.config.about}" if data.config.about else ""),
        answer=tuple(sentence for scope in scopes for sentence in answer(scope)),
        sections=tuple(all_sections(scopes, section_makers(data.config))),
        warnings=tuple(_warnings(data)),
        runs=tuple(_browsed(data)),
        manifest=_manifest(data),
        claims=claims,
        verdict=claims_verdict(claims),
        cards=cards_of(scopes),
        notes=reading_notes(data),
    )


def numbers(page: Page) -> dict[str, Any]:
    """Return a page's numbers as plain data."""
    content: dict[str, Any] = {"title": page.title, "answer": page.answer, "warnings": page.warnings}
    content["claims"] = None if page.claims is None else asdict(page.claims)
    content |= {"verdict": page.verdict, "cards": [asdict(card) for card in page.cards], "notes": page.notes}
    content["sections"] = [
        {"title": section.title, "items": [{"kind": type(item).__name__.lower(), **asdict(item)} for item in section.items]}
        for section in page.sections
    ]
    return dict(_plain(content))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items() if name != "group"}  # Of a line: how it is drawn.
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return sorted(value) if isinstance(value, frozenset) else value


def answer(scope: Scope) -> list[str]:
    """Return the answer in sentences: the two actions and their gap; the conflicting trace; arms out of domain.

    Args:
        scope: one model in one environment.
    """
    several = len(scope.data.config.envs) * len(scope.data.config.models) > 1
    sentences = [_of_training(scope), _of_conflict(scope), *_of_arms(scope)]
    before = f"{scope.model}, {scope.env}: " if several else ""
    return [before + sentence for sentence in sentences if sentence]


def _of_training(scope: Scope) -> str:
    split = scope.headline
    cell = scope.cell(scope.main, split)
    starts = [start_of(scope, cell, modes) for modes in (("prompt",), ("cot",), MODES)]
    prompt, cot, gap = alignment_levels(scope, cell, "prompt"), alignment_levels(scope, cell, "cot"), gap_levels(scope, cell)
    if prompt is None or cot is None or gap is None:
        never = [start.sentence() for start in starts if start is not None and start.begins is None]
        return f"With {scope.main}, on {split}, {never[0]}." if never else ""
    if prompt.trend is None or cot.trend is None or gap.trend is None:
        late = [start.sentence() for start in starts if start is not None and start.begins == start.shares[-1] > 0]
        if late:
            return f"With {scope.main}, on {split}, {late[0]}."
        return (
            f"On {split}, the prompt action is the reference's at {format_estimate(prompt.estimates[-1])} of the states, "
            f"the CoT action at {format_estimate(cot.estimates[-1])}; one checkpoint cannot show what training changes."
        )
    family = family_of(scope.data)
    moved = [family.find(scope, split, scope.main, quantity) for quantity in CHANGES[:3]]
    ends = [format_estimate(one, signed=True) for one in (gap.estimates[0], gap.estimates[-1])]
    levels = f"{ends[0]} {_when(gap)}, {ends[1]} at the end"
    if len(scope.data.config.seeds) == 1:
        return (
            f"With one seed there is no verdict on the training. Over it, with {scope.main}, on {split}, the prompt action's "
            f"alignment with the reference went from {_from_to(prompt)}, and the CoT action's from {_from_to(cot)}; the gap "
            f"between them was {levels}."
        )
    verdicts = ["does not clearly move" if one is None else one.verdict for one in moved]
    verdict = gap_verdict(gap.trend.flat_all[gap.trend.over], moved[2])
    margin, change = scope.data.config.margin, format_estimate(gap.trend.change[gap.trend.over], signed=True)
    flat = {
        "flat": f"the gap between them is flat (all its changes lie within {margin:g})",
        "undecided": f"whether the gap between them is flat within {margin:g} stays undecided",
        "not flat (uncorrected)": "the gap between them is not flat (corrected over its checkpoints, not over the claims)",
    }.get(verdict, f"the gap between them {verdict} by {change}")
    return (
        f"Over the training with {scope.main}, on {split}, the prompt action's alignment with the reference "
        f"{verdicts[0]} ({_from_to(prompt)}) and the CoT action's {verdicts[1]} "
        f"({_from_to(cot)}); {flat}: {levels}."
    )


def _from_to(found: SeriesLevels) -> str:
    first, last = found.estimates[0], found.estimates[-1]
    begins = "" if found.shares[0] == 0 else f" at {found.shares[0]:.0%} of it"
    return f"{first.mean:.2f}{begins} to {format_estimate(last)}, n = {last.n} tasks"


def _when(found: SeriesLevels) -> str:
    return "before" if found.shares[0] == 0 else f"at {found.shares[0]:.0%} of it"


def _of_conflict(scope: Scope) -> str:
    changes = []
    for split in dict.fromkeys((scope.headline, scope.splits[-1])):
        found = conflict_levels(scope, scope.cell(scope.main, split))
        test = family_of(scope.data).find(scope, split, scope.main, "kept under conflict")
        if found is not None and found.trend is not None and test is not None:
            one = len(scope.data.config.seeds) == 1
            changes.append(f"on {split} " + (f"from {_from_to(found)}" if one else f"it {test.verdict} ({_from_to(found)})"))
        elif test is not None and test.note:
            changes.append(f"on {split}, {test.note}")
    if not changes:
        return ""
    portion = conflict_headline(scope, scope.data.measures("conflict")[0])
    return f"Keeping one's own action under {portion} of a conflicting trace: {'; '.join(changes)}."


def _of_arms(scope: Scope) -> list[str]:
    """Return a sentence for each arm that is compared with another."""
    found = []
    for arm in scope.arms:
        baseline = scope.baseline(arm)
        if baseline is None:
            continue
        parts = []
        for split in scope.out_of_domain or scope.splits:
            cot, success = (
                family_of(scope.data).find(scope, split, arm, quantity, baseline)
                for quantity in ("CoT alignment", "CoT success")
            )
            if cot is not None and cot.estimate is None:
                parts.append(f"{split}: {cot.note}")
            elif cot is not None:
                played = f", success {format_estimate(success.estimate, signed=True)}{_held(success)}" if success else ""
                parts.append(f"{split} {format_estimate(cot.estimate, signed=True)}{_held(cot)}{played}")
        if parts:
            domain = "out of domain" if scope.out_of_domain else "in domain"
            marked = "" if scope.same_elicitation(arm, baseline) else " (with another elicitation)"
            found.append(
                f"{arm}{marked} minus {baseline} in CoT alignment at the end of the training, {domain}: {'; '.join(parts)}."
            )
    return found


def _held(test: Comparison) -> str:
    """Return the adjusted p-value where the interval alone would say more than the correction allows."""
    return f" (not after correction: p = {format_p(test)})" if test.way and not test.significant else ""


def _warnings(data: StudyData) -> list[str]:
    found = []
    if data.missing:
        names = ", ".join(stage.name for stage in data.missing[:3])
        found.append(f"UNFINISHED: {len(data.missing)} of {len(data.plan.stages)} stages are not done ({names}, ...)")
    if len(data.config.seeds) == 1:
        found.append(
            "One seed: intervals and tests are over tasks alone. They hold for these trained models on other tasks, not for "
            "another training run; so no claim on a training method, an arm, a rise or a fall is decided."
        )
    elif len(data.config.seeds) < FEW_SEEDS:
        found.append(
            f"Few seeds ({len(data.config.seeds)}): intervals over tasks and seeds are wide, and small effects stay undecided; "
            f"a comparison of arms needs at least {FEW_SEEDS} seeds."
        )
    failures = [failure_in(row) for _, run in data.runs for row in rows_of(run.records)]
    failures += [failure_in(row) for _, probed in data.probed for row in probed.rows]
    errors = [failure for failure in failures if failure is not None]
    if errors:
        bugs = sum(failure.is_bug for failure in errors)
        named = f", {bugs} of them by a bug of an agent or an environment," if bugs else ""
        found.append(
            f"ERRORS: {len(errors)} episodes or states failed for a reason outside the model{named} and are excluded from all "
            "statistics."
        )
    partial = sorted({place.split or "" for place, run in data.runs if run.manifest.partial})
    if partial:
        found.append(f"PARTIAL: games of {', '.join(partial)} are missing on this machine.")
    return found


def _browsed(data: StudyData) -> Sequence[BrowsedRun]:
    """Return the runs at the end of the training, and those before it."""
    chosen = []
    for place, run in data.runs:
        if place.seed in (None, data.config.seeds[0]):
            arm = "before training" if place.arm is None else f"{place.arm}, seed {place.seed}, after {place.progress:.0%}"
            words = [arm, place.split or ""]
            words += [place.env] * (len(data.config.envs) > 1) + [place.model or ""] * (len(data.config.models) > 1)
            chosen.append(BrowsedRun(", ".join(words), run.records))
    return chosen


def _manifest(data: StudyData) -> dict[str, Any]:
    first = data.probed[0][1].manifest if data.probed else data.runs[0][1].manifest
    return {
        "study": data.config.model_dump(mode="json", exclude_defaults=True),
        "elicitations": data.elicitations,
        "packages": first.packages,
        "python": first.python,
        "hardware": first.hardware,
        "git_commit": first.git_commit,
        "stages": {stage.name: stage.key[:16] for stage in data.plan.stages},
        "seconds of all stages": round(data.seconds),
        "file": STUDY,
    }
