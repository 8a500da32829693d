"""The tasks of a submission. Invariant: they are those that `cotbench run` would have drawn for the same options, none of them
is trained on, and the games need not be on this machine to know it.
"""

from __future__ import annotations

from collections import Counter
from functools import cache

from cotbench.envs.registry import EnvEntry, env_entry
from cotbench.envs.splits import DEV, TRAIN
from cotbench.envs.tasks import first_tasks
from cotbench.errors import SubmissionError, UnknownNameError
from cotbench.leaderboard.submission.json_reader import quote_value
from cotbench.runs.manifest import MANIFEST, Manifest, RunConfig
from cotbench.runs.plan import RunPlan, draw_tasks

UNSCORED = (TRAIN, DEV)
"""Splits that have no board."""


@cache
def training_tasks(env: str) -> frozenset[str]:
    """Return the tasks of an environment that are trained on in any scheme."""
    source = env_entry(env).source()
    return frozenset(
        task for scheme, splits in source.schemes().items() if TRAIN in splits for task in source.tasks(scheme, TRAIN)
    )


def check_samples(config: RunConfig) -> None:
    """Refuse a run that has several samples of a task: an entry has one episode of each task and mode.

    Raises:
        SubmissionError: it has.
    """
    if config.samples > 1:
        raise SubmissionError(
            f"{MANIFEST}: config.samples is {config.samples}: an entry has one episode of each task and mode, so submit a run "
            "that was played without --samples"
        )


def check_tasks(manifest: Manifest, entry: EnvEntry) -> RunPlan:
    """Return the plan that a manifest's options give, after comparing it with the manifest's task list.

    Raises:
        SubmissionError: no such split, one with training tasks, other tasks than the options give, or several samples of each.
    """
    config = manifest.config
    check_samples(config)
    try:
        split_tasks = entry.source().tasks(config.scheme, config.split)
        first = first_tasks(entry.source(), config.scheme, config.split)
    except UnknownNameError as error:
        raise SubmissionError(f"{MANIFEST}: config: {error}") from error
    if config.split == DEV:
        raise SubmissionError(
            f"{MANIFEST}: config.split: {DEV} is for tuning, so it is not scored: submit a run on another split"
        )
    trained = training_tasks(entry.name)
    count = sum(task in trained for task in split_tasks)
    if count:
        raise SubmissionError(
            f"{MANIFEST}: config.split: {count} of the {len(split_tasks)} tasks of {entry.name} {config.scheme}/{config.split} "
            "are trained on, so it is not scored: submit a run on another split"
        )
    expected = len(split_tasks) if config.tasks is None else len(set(config.tasks))
    # A split that has grown held its first tasks alone when an earlier version played it.
    before = len(first) if config.tasks is None and len(manifest.task_list) <= len(first) else expected
    if manifest.split_tasks not in (expected, before):
        raise SubmissionError(f"{MANIFEST}: split_tasks is {manifest.split_tasks}, not {expected}")
    _check_list(manifest, split_tasks, first)
    return RunPlan(config, entry, manifest.task_list, manifest.split_tasks, manifest.partial)


def _check_list(manifest: Manifest, split_tasks: tuple[str, ...], first: tuple[str, ...]) -> None:
    config, listed = manifest.config, manifest.task_list
    if not listed:
        raise SubmissionError(f"{MANIFEST}: task_list is empty")
    if len(set(listed)) < len(listed):
        twice = next(task for task, times in Counter(listed).items() if times > 1)
        raise SubmissionError(f"{MANIFEST}: task_list has {quote_value(twice)} twice")
    known = set(split_tasks)
    for name, tasks in (("task_list", listed), ("config.tasks", config.tasks or ())):
        for task in tasks:
            if task not in known:
                raise SubmissionError(
                    f"{MANIFEST}: {name}: {quote_value(task)} is not a task of {config.env} {config.scheme}/{config.split}: "
                    "play it with the --split that it belongs to"
                )
    drawn = _drawn(config, split_tasks, first)
    if manifest.partial:
        _check_partial(manifest, drawn)
    elif listed != drawn:
        _refuse_other(listed, drawn)


def _drawn(config: RunConfig, split_tasks: tuple[str, ...], first: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tasks that `plan.make_plan` draws where all games are there."""
    if config.tasks is not None:
        if config.episodes is not None:
            raise SubmissionError(f"{MANIFEST}: config: tasks names the tasks and episodes draws them, so one of them is null")
        return tuple(dict.fromkeys(config.tasks))
    if config.episodes is None:
        return first
    if config.episodes > len(split_tasks):
        raise SubmissionError(f"{MANIFEST}: config.episodes is {config.episodes}, the split has {len(split_tasks)} tasks")
    return tuple(draw_tasks(split_tasks, config.episodes, config.seed, first))


def _check_partial(manifest: Manifest, drawn: tuple[str, ...]) -> None:
    """Check a task list that lacks games. Which ones is not known here, so neither is what was drawn of the others."""
    config, listed = manifest.config, manifest.task_list
    if not config.available_only:
        raise SubmissionError(f"{MANIFEST}: partial is true, which only --available-only allows, and it was not given")
    if len(listed) >= (len(drawn) if config.episodes is None else manifest.split_tasks):
        raise SubmissionError(f"{MANIFEST}: partial is true, but all {len(listed)} tasks are in its task_list")
    if config.episodes is not None:
        if len(listed) != config.episodes:
            raise SubmissionError(f"{MANIFEST}: task_list has {len(listed)} tasks, config.episodes is {config.episodes}")
        return
    present = set(listed)
    expected = tuple(task for task in drawn if task in present)
    if listed != expected:
        _refuse_other(listed, expected)


def _refuse_other(listed: tuple[str, ...], drawn: tuple[str, ...]) -> None:
    place = next((place for place, pair in enumerate(zip(listed, drawn, strict=False)) if pair[0] != pair[1]), None)
    if place is None:
        raise SubmissionError(f"{MANIFEST}: task_list has {len(listed)} tasks, the config gives {len(drawn)}")
    raise SubmissionError(
        f"{MANIFEST}: task_list.{place} is {quote_value(listed[place])}, but its split, seed and number of episodes give "
        f"{quote_value(drawn[place])}"
    )
