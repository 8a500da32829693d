"""The measurements of a study, read from its folder. Invariant: all runs and probes of one environment have the elicitation of
their arm, and compared measurements are on the same states or tasks; anything else is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cotbench.errors import RunFolderError, UsageError
from cotbench.probes.folder import ProbeResult, read_probe
from cotbench.probes.numbers import ProbeNumbers
from cotbench.probes.probe import probe_named
from cotbench.runs.results import Run, load_run
from cotbench.study.arm_training import starts
from cotbench.study.config import StudyConfig
from cotbench.study.folder import STUDY, folder_of, is_done, seconds_of
from cotbench.study.plan import StudyPlan, make_study_plan
from cotbench.study.stage import Place, Stage

Rows = Sequence[Any]


@dataclass(frozen=True, slots=True)
class StudyCell:
    """One arm (None: the model before training) of one model on one split of one environment."""

    env: str
    model: str
    arm: str | None
    split: str


@dataclass(frozen=True)
class StudyData:
    """The content of a study's folder.

    Attributes:
        folder: of the study.
        missing: stages that are not done.
        probed: the probes, with their places.
        runs: the runs, with their places.
        families: the study's tests, once they were computed (`family`).
    """

    folder: Path
    config: StudyConfig
    plan: StudyPlan
    missing: tuple[Stage, ...]
    probed: tuple[tuple[Place, ProbeResult], ...]
    runs: tuple[tuple[Place, Run], ...]
    _numbers: dict[Any, ProbeNumbers] = field(default_factory=dict)
    families: list[Any] = field(default_factory=list)

    @cached_property
    def elicitations(self) -> dict[str, str]:
        """Environment -> the fingerprint of its elicitation; `ENV, arm ARM` -> that of arms that are asked in another way."""
        found: dict[str, str] = {}
        prints = [(place, one.manifest.elicitation_fingerprint) for place, one in self.probed]
        prints += [(place, one.manifest.elicitation_fingerprint) for place, one in self.runs]
        for place, fingerprint in prints:
            label = place.env if place.elicited_as is None else f"{place.env}, arm {place.elicited_as}"
            if found.setdefault(label, fingerprint) != fingerprint:
                raise UsageError(
                    f"{self.folder} mixes elicitations of {label}: {found[label]} and {fingerprint}; what was asked in "
                    "two ways is not compared: run the study again in another --out"
                )
        return found

    @property
    def uses_elicitation(self) -> bool:
        """Whether a measured agent says that it asks and reads as the elicitation says."""
        used = [one.manifest.uses_elicitation for _, one in self.probed]
        return any(used + [one.manifest.uses_elicitation for _, one in self.runs])

    @property
    def seconds(self) -> float:
        """Sum of the durations of the finished stages."""
        return sum(took for stage in self.plan.stages if (took := seconds_of(self.folder, stage)) is not None)

    def shares(self, cell: StudyCell, measure: int) -> list[float]:
        """Return the shares of the training at which a cell was probed, ascending; what an arm begins with counts as its
        first checkpoint.

        Args:
            cell: the cell.
            measure: index of the probe in the study.
        """
        return sorted({share for share, _, _ in self._of(cell, measure)})

    def rows(self, cell: StudyCell, measure: int, share: float, seed: int | None = None) -> list[Any]:
        """Return the rows of a probe at a share of the training: of one seed, or of all seeds concatenated.

        The model before training is measured once and belongs to every seed; it is counted once. Of the arm that another one
        begins from, the seeds count that the latter is trained with.

        Args:
            cell: the cell.
            measure: index of the probe in the study.
            share: of the training.
            seed: None: all seeds.
        """
        every = self.config.seeds if cell.arm is None else self.config.arm(cell.arm).seeds_of(self.config.seeds)
        seeds = (None, *every) if seed is None else (None, seed)
        return [
            row for at, place, probed in self._of(cell, measure) if at == share and place.seed in seeds for row in probed.rows
        ]

    def numbers(self, cell: StudyCell, measure: int, share: float, seed: int | None = None) -> ProbeNumbers:
        """Return a probe's numbers at a share of the training; with all seeds pooled, whole tasks are resampled with all their
        seeds.

        Args:
            cell: the cell.
            measure: index of the probe in the study.
            share: of the training.
            seed: None: all seeds.
        """
        key = (cell, measure, share, seed)
        if key not in self._numbers:
            settings = self.config.probes[measure]
            probe = probe_named(settings.probe)
            self._numbers[key] = probe.summarize(self.rows(cell, measure, share, seed), self._options(measure))
        return self._numbers[key]

    def measures(self, probe: str) -> list[int]:
        """Return the indices of the study's probes that have this name."""
        return [number for number, one in enumerate(self.config.probes) if one.probe == probe]

    def played(self, cell: StudyCell, share: float) -> list[tuple[int | None, Run]]:
        """Return the runs of a cell at a share of the training, with their seeds."""
        return [(place.seed, run) for place, run in self.runs if self._share(cell, place) == share]

    def run_shares(self, cell: StudyCell) -> list[float]:
        """Return the shares of the training at which a cell was played, ascending."""
        return sorted({at for place, _ in self.runs if (at := self._share(cell, place)) is not None})

    @cached_property
    def starts(self) -> Mapping[str, str]:
        """Arm -> the arm from whose end it begins; the others begin with the study's model."""
        return starts(self.config)

    def _of(self, cell: StudyCell, measure: int) -> list[tuple[float, Place, ProbeResult]]:
        """Return the results of a probe that belong to a cell, each with the share of the cell's training."""
        found = ((self._share(cell, place), place, one) for place, one in self.probed if place.measure == measure)
        return [(share, place, one) for share, place, one in found if share is not None]

    def _share(self, cell: StudyCell, place: Place) -> float | None:
        """Return how far a cell's training was at a place; None where the place does not belong to the cell.

        Before its training an arm is the study's model, where that is asked as the arm is; or the end of the arm from which it
        begins.
        """
        same = (place.env, place.model, place.split) == (cell.env, cell.model, cell.split)
        if not same or place.elicited_as != self.config.elicited_as(cell.arm):
            return None
        share = place.progress or 0.0
        if place.arm == cell.arm:
            return share
        begins = self.starts.get(cell.arm or "")
        if place.arm == begins and share == (0.0 if begins is None else 1.0):
            return 0.0
        return None

    def _options(self, measure: int) -> Any:
        return next(one.probe.options(**one.manifest.options) for place, one in self.probed if place.measure == measure)


def sums_by_task(rows: Rows, value: Callable[[Any], float | bool | None]) -> dict[str, tuple[float, float]]:
    """Return task -> sum and count of a value over its measured rows.

    Args:
        rows: of a probe; rows with an error or left out are skipped.
        value: of a row; None where the row has none.
    """
    found: dict[str, tuple[float, float]] = {}
    for row in rows:
        one = None if row.error is not None or row.left_out is not None else value(row)
        if one is not None:
            total, count = found.get(row.task, (0.0, 0.0))
            found[row.task] = total + float(one), count + 1
    return found


def read_config(folder: Path) -> StudyConfig:
    """Return the settings of the study in a folder.

    Raises:
        RunFolderError: not the folder of a study, or damaged.
    """
    path = folder / STUDY
    if not path.is_file():
        raise RunFolderError(f"{folder} is not the folder of a study: it has no {STUDY}")
    try:
        return StudyConfig.model_validate_json(path.read_text("utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} is damaged: run cotbench study again") from error


def read_data(folder: Path) -> StudyData:
    """Read the finished measurements of a study's folder.

    Raises:
        RunFolderError: not the folder of a study, or damaged.
        UsageError: nothing is measured yet, or elicitations are mixed.
    """
    config = read_config(folder)
    plan = make_study_plan(config)
    done = [stage for stage in plan.stages if is_done(folder, stage)]
    probed = tuple((stage.place, read_probe(folder_of(folder, stage))) for stage in done if stage.kind == "probe")
    runs = tuple((stage.place, load_run(folder_of(folder, stage))) for stage in done if stage.kind == "run")
    if not probed and not runs:
        raise UsageError(f"{folder} holds no measurement yet: continue with cotbench study")
    missing = tuple(stage for stage in plan.stages if not is_done(folder, stage))
    data = StudyData(folder, config, plan, missing, probed, runs)
    if not data.elicitations:
        raise UsageError(f"{folder} holds no measurement yet: continue with cotbench study")
    _same_states(data)
    return data


def _same_states(data: StudyData) -> None:
    """Refuse series of measurements on different states."""
    found: dict[Any, str] = {}
    for place, probed in data.probed:
        key = (place.env, place.split, place.measure)
        sha = probed.manifest.states_sha256
        if found.setdefault(key, sha) != sha:
            raise UsageError(
                f"{probed.path} was measured on other states than its series: remove it, and the study measures it again"
            )
    tasks: dict[Any, str] = {}
    for place, run in data.runs:
        key = (place.env, place.split, place.measure)
        sha = run.manifest.task_list_sha256
        if tasks.setdefault(key, sha) != sha:
            raise UsageError(f"{run.path} was played on other tasks than its series: remove it, and the study plays it again")
