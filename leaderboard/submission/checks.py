"""The checks of a submission that need no engine. Invariant: a bundle that passes could have been written by `cotbench run`:
its instructions and tasks are those of its options, and its numbers agree with each other. Whether they are true, a replay
decides.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Final

from cotbench.envs.registry import EnvEntry, env_entry
from cotbench.envs.splits import digest
from cotbench.envs.tasks import first_tasks
from cotbench.errors import SubmissionError, UnknownNameError
from cotbench.leaderboard.submission.bundle import Bundle
from cotbench.leaderboard.submission.check_episodes import check_episodes
from cotbench.leaderboard.submission.check_tasks import check_tasks
from cotbench.leaderboard.submission.check_texts import check_texts
from cotbench.leaderboard.submission.json_reader import quote_value
from cotbench.runs.episode import EPISODES
from cotbench.runs.manifest import MANIFEST, Manifest

_OTHER: Final = "it was made by another version of cotbench, or edited"


def check(bundle: Bundle) -> tuple[str, ...]:
    """Check everything that needs no engine, no data and no network.

    Args:
        bundle: as `unpack` gives it.

    Returns:
        Why the entry has no rank, though it may be replayed: "4 of 120 tasks", ...; empty for a whole run.

    Raises:
        SubmissionError: names the file, the line, the step and the field.
    """
    manifest = bundle.manifest
    check_texts(manifest)
    _check_created(manifest.created)
    entry = _entry(manifest)
    _check_instructions(manifest, entry)
    if manifest.expert not in ("", *(entry.experts or ())):
        raise SubmissionError(f"{MANIFEST}: expert is {quote_value(manifest.expert)}, which {entry.name} does not have")
    plan = check_tasks(manifest, entry)
    check_episodes(bundle.episodes, plan)
    return unranked_reasons(bundle, entry)


def _entry(manifest: Manifest) -> EnvEntry:
    try:
        entry = env_entry(manifest.config.env)
    except UnknownNameError as error:
        raise SubmissionError(f"{MANIFEST}: config.env: {error}") from error
    try:
        return entry.in_dialect(manifest.dialect)
    except UnknownNameError as error:
        raise SubmissionError(f"{MANIFEST}: {error}") from error


def _check_created(created: str) -> None:
    try:
        moment = datetime.fromisoformat(created)
    except ValueError as error:
        raise SubmissionError(f"{MANIFEST}: created is {quote_value(created)}, not a date and time") from error
    if moment.tzinfo is None:
        raise SubmissionError(f"{MANIFEST}: created is {quote_value(created)}, which names no time zone")


def _check_instructions(manifest: Manifest, entry: EnvEntry) -> None:
    """Require the elicitation and the instructions of this version of cotbench."""
    now = {
        "elicitation_fingerprint": (manifest.elicitation_fingerprint, manifest.config.elicitation.fingerprint),
        "instructions_sha256": (
            manifest.instructions_sha256,
            hashlib.sha256(json.dumps(entry.instructions()).encode()).hexdigest(),
        ),
        "task_list_sha256": (manifest.task_list_sha256, digest(manifest.task_list)),
    }
    given = {
        "elicitation_fingerprint": "its config",
        "instructions_sha256": f"the instructions of {entry.name}",
        "task_list_sha256": "its task list",
    }
    for name, (recorded, found) in now.items():
        if recorded != found:
            raise SubmissionError(
                f"{MANIFEST}: {name} is {quote_value(recorded)}, but {given[name]} give {quote_value(found)}: {_OTHER}"
            )


def unranked_reasons(bundle: Bundle, entry: EnvEntry) -> tuple[str, ...]:
    """Return why an entry has no rank; empty where it has one.

    Args:
        bundle: a bundle whose tasks and episodes were checked.
        entry: its environment, in its dialect.

    Raises:
        SubmissionError: every episode ended in an error.
    """
    manifest, config = bundle.manifest, bundle.manifest.config
    reasons = []
    if config.tasks is not None:
        reasons.append("tasks named one by one")
    elif (played := len(manifest.task_list)) != (ranked := len(first_tasks(entry.source(), config.scheme, config.split))):
        left = ", games were not there" if manifest.partial else ""
        more = f"{played} tasks instead of the {ranked} that --episodes {ranked} plays"
        reasons.append(f"{played} of {ranked} tasks{left}" if played < ranked else more)
    if manifest.played_dialect != entry.own_dialect:
        reasons.append(f"data of dialect {manifest.played_dialect!r} instead of {entry.own_dialect!r}")
    errors, episodes = sum(episode.error is not None for episode in bundle.episodes), len(bundle.episodes)
    if errors == episodes:
        raise SubmissionError(
            f"{EPISODES}: every one of the {episodes} episodes ended in an error, so nothing was measured: "
            "cotbench run --resume RUN plays them again"
        )
    if errors:
        reasons.append(f"{errors} of {episodes} episodes ended in {'errors' if errors > 1 else 'an error'}")
    if config.max_steps is not None:
        if entry.budgets_by_task():
            reasons.append(f"step budget {config.max_steps} instead of each task's own")
        elif config.max_steps != entry.max_steps():
            reasons.append(f"step budget {config.max_steps} instead of {entry.max_steps()}")
    return tuple(reasons)
