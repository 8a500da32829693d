"""`cotbench.study`: a whole study, and what it found. Invariant: the same as `cotbench study`: started again it continues, and
nothing that is done is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotbench.api.page_display import page_display
from cotbench.api.study_status import StudyStatus
from cotbench.api.trust import require_trust
from cotbench.errors import CotbenchError
from cotbench.notebook import Display, Displayed, data_frame
from cotbench.probes.display import estimate_rows
from cotbench.report.html import write_report
from cotbench.report.page import Page
from cotbench.report.require import require_report
from cotbench.runs.resources import cores
from cotbench.status_line import StatusLine
from cotbench.study.config import PRESETS, StudyConfig, read_study
from cotbench.study.data import StudyData, read_data
from cotbench.study.executor import Executor
from cotbench.study.folder import begin, is_done, only_one
from cotbench.study.local_executor import LocalExecutor
from cotbench.study.plan import StudyPlan, make_study_plan
from cotbench.study.report import page_of_data, write_numbers
from cotbench.study.scheduler import StageFailure, StudyObserver, run_study
from cotbench.study.stage import Place, TrainRequest

if TYPE_CHECKING:
    import pandas as pd

REPORT = "report"
"""The folder of the report, in the study's folder."""

_JOBS_A_GPU = 4
"""Stages on one GPU of a study whose models are so small that a thread each is enough: more only fill its memory."""


@dataclass(frozen=True, repr=False)
class Study(Displayed):
    """A study: its folder, and everything that was measured so far.

    Attributes:
        path: the folder.
        data: the measurements, with their places.
    """

    path: Path
    data: StudyData

    @property
    def config(self) -> StudyConfig:
        """The settings."""
        return self.data.config

    @cached_property
    def page(self) -> Page:
        """The report as data: answer, claims, sections. Computing it takes seconds to minutes."""
        return page_of_data(self.data)

    @property
    def runs(self) -> pd.DataFrame:
        """The runs as a table of pandas: where each was made, and the numbers of each of its modes."""
        rows = []
        for place, run in self.data.runs:
            for mode, one in run.summary.modes.items():
                numbers = {"n": one.n, "success": one.success.mean, "low": one.success.low, "high": one.success.high}
                more = {"score": one.score.mean, "steps": one.steps.mean, "tokens": one.tokens.mean, "errors": one.errors}
                rows.append({**_where(place), "mode": mode, **numbers, **more, "path": str(run.path)})
        return data_frame(rows)

    @property
    def probes(self) -> pd.DataFrame:
        """The numbers of the probes as a table of pandas: where each was measured; number, x, at, mean, low, high, n."""
        return data_frame(
            [
                {**_where(place), "probe": one.manifest.probe, **row}
                for place, one in self.data.probed
                for row in estimate_rows(one.numbers)
            ]
        )

    def _display(self) -> Display:
        return page_display(self.page, f"folder: {self.path}")


def _where(place: Place) -> dict[str, Any]:
    names = ("env", "model", "arm", "seed", "progress", "split")
    return {name: value for name, value in asdict(place).items() if name in names}


def load_study(path: str | Path) -> Study:
    """Read the folder of a study, finished or not.

    Args:
        path: the folder.

    Raises:
        RunFolderError: it is not the folder of a study, or damaged.
        UsageError: nothing is measured yet, or elicitations are mixed.
    """
    return Study(Path(path), read_data(Path(path)))


def study(
    named: str | Path | StudyConfig,
    *,
    out: str | Path | None = None,
    jobs: int | None = None,
    trust: bool = False,
    progress: bool = True,
) -> Study:
    """Run a whole study: traces, training, rollouts and probes at every checkpoint, report. Call it again to continue.

    Args:
        named: smoke, tiny, tiny-rl, small, paper, paper-scripted, a TOML file, or the settings.
        out: the folder; `studies/NAME` when left out.
        jobs: stages at a time; when left out one a core, or one to four a GPU.
        trust: use addresses and names of keys that the file names.
        progress: in a notebook, show how far the study is.

    Raises:
        UsageError: no such study, or a value that does not fit.
        MissingExtraError: what it needs is not installed.
        RunFolderError: the folder holds something else, or another process works on it.
        CotbenchError: a stage failed; the others are done.
    """
    config = named if isinstance(named, StudyConfig) else read_study(str(named))
    if not isinstance(named, StudyConfig) and str(named) not in PRESETS:
        require_trust(config.model_dump(mode="json"), named, trust=trust)
    target = Path(out) if out is not None else Path("studies") / config.name
    plan = make_study_plan(config)
    require_parts(plan)

    def watch() -> AbstractContextManager[StudyObserver]:
        done = sum(is_done(target, stage) for stage in plan.stages)
        return nullcontext(StudyStatus(StatusLine(visible=progress), len(plan.stages), done))

    failures = carry_out(plan, target, jobs or usual_jobs(config), watch)
    if failures:
        first = failures[0]
        raise CotbenchError(
            f"{len(failures)} stages failed, the first is {first.stage.name}: {first.message}; see {first.log}, then call "
            "it again to continue"
        )
    found = load_study(target)
    write_numbers(target, found.page)
    write_report(found.page, target / REPORT)
    return found


def require_parts(plan: StudyPlan) -> None:
    """Raise an error before any work where a package for a study is missing.

    Args:
        plan: of the study.

    Raises:
        MissingExtraError: names the extra.
        UsageError: a tracker cannot be used.
    """
    from cotbench.baselines.recipes.require import require_training
    from cotbench.envs.registry import env_entry

    for env in plan.config.envs:
        env_entry(env).require()
    trainings = [stage.request for stage in plan.stages if isinstance(stage.request, TrainRequest)]
    if trainings:
        require_training()
        from cotbench.baselines.training.trackers import require_trackers

        for training in trainings:
            require_trackers(tuple(training.options.get("report_to", ())))
    require_report("the report of a study")


def carry_out(
    plan: StudyPlan,
    target: Path,
    jobs: int,
    watch: Callable[[], AbstractContextManager[StudyObserver]],
    until: str | None = None,
) -> list[StageFailure]:
    """Carry out the stages of a study that are not done yet, in processes of this machine.

    Args:
        plan: of the study.
        target: its folder.
        jobs: stages at a time.
        watch: opens the observer, once the folder is locked.
        until: the last kind of stage that is carried out (`StudyPlan.until`); None: all.

    Returns:
        The stages that failed.

    Raises:
        RunFolderError: the folder holds something else, or another process works on it.
    """
    with only_one(target):
        begin(target, plan)  # Under the lock: a second start must not write its study into the first one's folder.
        with watch() as observer, _executor(plan.config, jobs) as executor:
            return run_study(target, plan if until is None else plan.until(until), executor, observer)


def usual_jobs(config: StudyConfig) -> int:
    """Return the number of stages at a time: as many as the cores have threads for; where there are GPUs, one each, or a
    few each of a study that says how few threads a stage needs.
    """
    gpus = _gpus()
    if gpus and config.threads is None:
        return gpus
    fitting = max(1, cores() // (config.threads or cores()))
    return min(fitting, _JOBS_A_GPU * gpus) if gpus else fitting


def _gpus() -> int:
    if find_spec("torch") is None:
        return 0
    import torch

    return int(torch.cuda.device_count())


@contextmanager
def _executor(config: StudyConfig, jobs: int) -> Iterator[Executor]:
    executor = LocalExecutor(jobs, gpus=_gpus(), threads=config.threads)
    try:
        yield executor
    finally:
        executor.close()
