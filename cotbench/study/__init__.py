"""Studies: arms x seeds x checkpoints x splits, measured and reported. Begin with `config` (the content of a study file) and
`plan` (its stages); `scheduler` runs them through an `executor`, `data` reads the results, `report` builds the page.
Called, `cotbench.study(...)` does a study (`api.study.study`).
"""

from typing import TYPE_CHECKING

from cotbench.callable_package import make_callable
from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.study.config import StudyConfig, read_study
    from cotbench.study.data import StudyData, read_data
    from cotbench.study.executor import Executor
    from cotbench.study.local_executor import LocalExecutor
    from cotbench.study.plan import StudyPlan, make_study_plan
    from cotbench.study.report import page_of_study
    from cotbench.study.scheduler import run_study
    from cotbench.study.stage import Stage

_HOMES = {
    "Executor": "executor",
    "LocalExecutor": "local_executor",
    "Stage": "stage",
    "StudyConfig": "config",
    "StudyData": "data",
    "StudyPlan": "plan",
    "make_study_plan": "plan",
    "page_of_study": "report",
    "read_data": "data",
    "read_study": "config",
    "run_study": "scheduler",
}

__all__ = [
    "Executor",
    "LocalExecutor",
    "Stage",
    "StudyConfig",
    "StudyData",
    "StudyPlan",
    "make_study_plan",
    "page_of_study",
    "read_data",
    "read_study",
    "run_study",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
make_callable(__name__, "cotbench.api.study:study")
