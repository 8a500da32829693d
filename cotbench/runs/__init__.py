"""Runs: episodes of an agent over a split, in a folder. Begin with `runner` (a run from start to end) and `plan` (the tasks of
a run); `rollout` plays episodes, `env_workers` holds the environments' processes, `folder` is the code of every kind of result
folder, `results` reads a run, `summary` and `tables` compute and print its numbers, `comparison` pairs two runs.
"""

from typing import TYPE_CHECKING

from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.runs.comparison import compare_runs
    from cotbench.runs.episode import Episode, Step
    from cotbench.runs.manifest import Manifest, RunConfig
    from cotbench.runs.plan import RunPlan, make_plan
    from cotbench.runs.resources import Resources
    from cotbench.runs.results import Run, load_run
    from cotbench.runs.rollout import RolloutSpec, play
    from cotbench.runs.runner import resume_run, run, start_run
    from cotbench.runs.summary import Summary, summarize

_HOMES = {
    "Episode": "episode",
    "Manifest": "manifest",
    "Resources": "resources",
    "RolloutSpec": "rollout",
    "Run": "results",
    "RunConfig": "manifest",
    "RunPlan": "plan",
    "Step": "episode",
    "Summary": "summary",
    "compare_runs": "comparison",
    "load_run": "results",
    "make_plan": "plan",
    "play": "rollout",
    "resume_run": "runner",
    "run": "runner",
    "start_run": "runner",
    "summarize": "summary",
}

__all__ = [
    "Episode",
    "Manifest",
    "Resources",
    "RolloutSpec",
    "Run",
    "RunConfig",
    "RunPlan",
    "Step",
    "Summary",
    "compare_runs",
    "load_run",
    "make_plan",
    "play",
    "resume_run",
    "run",
    "start_run",
    "summarize",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
