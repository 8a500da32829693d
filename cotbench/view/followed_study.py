"""How far a study is, as its folder says. Invariant: looking changes nothing in the folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cotbench.errors import RunFolderError
from cotbench.file_lock import is_locked
from cotbench.runs.folder import LOCK
from cotbench.runs.run_status import State
from cotbench.study.data import read_config
from cotbench.study.folder import STUDY, folder_of, is_done, seconds_of
from cotbench.study.plan import StudyPlan, make_study_plan
from cotbench.study.time_left import seconds_left

_REPORT = Path("report") / "index.html"


@dataclass(frozen=True, slots=True)
class StudyStatus:
    """How far a study is.

    Attributes:
        folder: its folder.
        name: of the study.
        stages, done: how many stages it has, and how many are done.
        kinds: kind of stage -> (done, all), in the order in which they are done.
        running: names of the stages that are being done.
        state: as of a run.
        left: seconds that the rest takes; None where nothing is known of that.
        changed: when its settings were last written, in seconds since 1970.
        report: whether its report is written.
    """

    folder: str
    name: str
    stages: int
    done: int
    kinds: Mapping[str, tuple[int, int]]
    running: tuple[str, ...]
    state: State
    left: float | None
    changed: float
    report: bool


class FollowedStudy:
    """The folder of a study that is looked at again and again.

    Args:
        folder: its folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: tuple[int, int, int] | None = None
        self._plan: StudyPlan | None = None
        self._took: dict[str, float] = {}

    def plan(self) -> StudyPlan:
        """Return its stages.

        Raises:
            RunFolderError: not the folder of a study, or damaged.
            CotbenchError: it names what is not registered here.
        """
        try:
            status = (self.folder / STUDY).stat()
        except OSError as error:
            raise RunFolderError(f"{self.folder} is not a study any more ({error.strerror})") from error
        seen = (status.st_ino, status.st_size, status.st_mtime_ns)
        if self._plan is None or seen != self._seen:
            self._plan, self._seen, self._took = make_study_plan(read_config(self.folder)), seen, {}
        return self._plan

    def status(self) -> StudyStatus:
        """Return how far it is; the errors are those of `plan`."""
        plan = self.plan()
        for stage in plan.stages:
            if stage.name not in self._took and is_done(self.folder, stage):
                self._took[stage.name] = seconds_of(self.folder, stage) or 0.0
        kinds: dict[str, tuple[int, int]] = {}
        for stage in plan.stages:
            done, all_ = kinds.get(stage.kind, (0, 0))
            kinds[stage.kind] = (done + (stage.name in self._took), all_ + 1)
        at_work = is_locked(self.folder / LOCK)
        missing = [stage for stage in plan.stages if stage.name not in self._took]
        running = [stage.name for stage in missing if is_locked(folder_of(self.folder, stage) / LOCK)] if at_work else []
        report = (self.folder / _REPORT).is_file()
        return StudyStatus(
            folder=str(self.folder),
            name=plan.config.name,
            stages=len(plan.stages),
            done=len(self._took),
            kinds=kinds,
            running=tuple(running),
            state="running" if at_work else "finished" if not missing and report else "interrupted",
            left=seconds_left(plan.stages, self._took, {}, len(running)) if missing and at_work else None,
            changed=(self.folder / STUDY).stat().st_mtime,
            report=report,
        )
