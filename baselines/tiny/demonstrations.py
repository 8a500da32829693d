"""Fine-tuning data of `tiny`. Invariant: every task is of split train."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from cotbench.agents.registry import make_agent
from cotbench.baselines.data.demonstration import TRACES_JSONL, Demonstration, read_demonstrations
from cotbench.baselines.data.traces import write_traces
from cotbench.baselines.teachers.alfworld_wordings import WORDINGS
from cotbench.baselines.tiny import corpus
from cotbench.envs.alfworld.generator import VERSION
from cotbench.envs.cache import cache_folder, cache_lock
from cotbench.runs import runner
from cotbench.runs.manifest import MANIFEST, RunConfig
from cotbench.runs.plan import RunPlan, make_plan
from cotbench.runs.resources import Resources
from cotbench.runs.rollout import Observer

TINY_DATA = "tiny"
"""Data path that stands for the traces made for `tiny`."""


_TEACHER = "scripted?slips=0.1"


Watch = Callable[[RunPlan], AbstractContextManager[Observer]]
"""Returns a context with an observer of a run, given its plan."""


def tiny_demonstrations(watch: Watch | None = None) -> list[Demonstration]:
    """Return demonstrations of every task of split train, played by the scripted teacher with a slip now and then.

    They are played once, in a few minutes, and then read from the cache.

    Args:
        watch: shows how far the run is; None shows nothing.
    """
    config = RunConfig(agent=_TEACHER, env=corpus.ENV, split="train", mode="cot")
    key = hashlib.sha256(f"{VERSION} {config.model_dump_json()} {WORDINGS}".encode()).hexdigest()[:12]
    folder = cache_folder() / "traces" / f"tiny-{key}"
    if not (folder / TRACES_JSONL).is_file():
        with cache_lock(folder):
            if not (folder / TRACES_JSONL).is_file():  # Another process may have been faster.
                _play(config, folder, watch or _no_observer)
    return read_demonstrations(folder)


def _play(config: RunConfig, folder: Path, watch: Watch) -> None:
    plan = make_plan(config)
    agent, resources = make_agent(config.agent), Resources(num_envs=8, workers=2)
    with watch(plan) as observer:
        if (folder / MANIFEST).is_file():
            outcome = runner.resume_run(folder, agent=agent, resources=resources, observer=observer)
        else:
            outcome = runner.start_run(plan, folder, agent=agent, resources=resources, observer=observer)
    write_traces(outcome)


def _no_observer(plan: RunPlan) -> AbstractContextManager[Observer]:
    return nullcontext(runner.SilentObserver())
