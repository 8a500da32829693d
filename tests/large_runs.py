"""Run folders of many episodes, made of a few that were played: as large as real ones, in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cotbench.envs.splits import digest
from cotbench.runs.episode import EPISODES, Episode, read_episodes
from cotbench.runs.line_digest import with_digest
from cotbench.runs.manifest import RunConfig, read_manifest
from cotbench.runs.plan import make_plan
from cotbench.runs.runner import run
from cotbench.runs.summary import SUMMARY, summarize

_PLAYED = {"agent": "random", "split": "train", "mode": "both"}


def play_few(folder: Path, tasks: int = 6, max_steps: int | None = None) -> Path:
    """A run of a few tasks, in both modes."""
    return run(RunConfig(**_PLAYED, episodes=tasks, max_steps=max_steps), out=folder).path


def multiplied(few: Path, folder: Path, tasks: int, missing: int = 0) -> Path:
    """A run folder of many tasks that holds the episodes of a few, again and again, under the names of its own tasks.

    Args:
        few: as `play_few` returns it.
        folder: a new folder.
        tasks: how many tasks the run has, each in two modes.
        missing: how many of the last episodes are not played yet; where all are, the summary is there too.
    """
    folder.mkdir(parents=True)
    before = read_manifest(few)
    plan = make_plan(before.config.model_copy(update={"episodes": tasks}))
    manifest = before.model_copy(
        update={
            "config": plan.config,
            "task_list": plan.tasks,
            "task_list_sha256": digest(plan.tasks),
            "data": plan.entry.source().data_version(plan.tasks, None),
        }
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json(indent=2) + "\n")
    with (folder / EPISODES).open("wb") as file:
        for episode in _episodes(few, plan.tasks, 2 * tasks - missing):
            file.write(with_digest(episode.model_dump_json().encode()) + b"\n")
    if not missing:
        (folder / SUMMARY).write_text(summarize(read_episodes(folder), manifest).model_dump_json(indent=2) + "\n")
    return folder


def _episodes(few: Path, tasks: tuple[str, ...], count: int) -> Iterator[Episode]:
    played = list(read_episodes(few))
    for place in range(count):
        episode = played[place % len(played)]
        yield episode.model_copy(update={"task": tasks[place // 2], "task_type": tasks[place // 2].split("/")[-2]})
