"""The exceptions of cotbench, in one tree. Invariant: every message says what happened, to which id, and what to do next.

`exit_code` is the exit code of the command line: 2 for a request that cannot be carried out, 1 for a run that failed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import lru_cache

from cotbench.installation import install_command


class CotbenchError(Exception):
    """Base class of everything that cotbench raises on purpose.

    Attributes:
        exit_code: of the command that it ends.
        traceback: of the exception that caused it, as Python prints it, where that exception itself is not here any more.
    """

    exit_code = 1
    traceback: str | None = None


class UsageError(CotbenchError):
    """A request that cannot be carried out: a bad option, an impossible combination."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name under which nothing is registered.

    Args:
        kind: what the name stands for ("agent", "split", ...).
        name: the name that was given.
        known: the names that exist; the nearest ones are proposed.
        where: what the name should belong to ("of alfworld").
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "") -> None:
        choices = sorted(known)
        super().__init__(f"unknown {kind} {name!r}{' ' if where else ''}{where}{did_you_mean(name, choices)}")


class MissingExtraError(CotbenchError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': {install_command(extra)}")


class MissingDataError(CotbenchError):
    """Data that a task needs is not on this machine."""


class GameFileError(CotbenchError):
    """A game file that cannot be read, or is not a game."""


class EngineError(CotbenchError):
    """The engine of an environment failed: an infrastructure failure, never a score."""


class ReplayTimeoutError(EngineError):
    """A submission was not replayed to its end in the time that its tasks and actions are given: it was not checked."""


class BugError(CotbenchError):
    """Code that cotbench calls and that is registered or given (an agent, an environment, a probe) failed by itself.

    Args:
        message: what happened, with the line of the file.
        traceback: where it came from, as Python prints it; None where no exception was raised.
    """

    def __init__(self, message: str, traceback: str | None = None) -> None:
        super().__init__(message)
        self.traceback = traceback


class WorkerLostError(EngineError):
    """A worker process was killed, did not start or did not answer: another may do what it had to."""


class EnvBugError(EngineError, BugError):
    """An environment's own code raised an exception or returned something else than it has to: never a score."""


class EpisodeOverError(UsageError):
    """`step` was called before `reset` or after the episode had ended."""


class AgentError(CotbenchError):
    """An agent could not be built or could not answer: an infrastructure failure, never a score."""


class AgentBugError(AgentError, BugError):
    """An agent's own code raised an exception or returned something else than it has to: never a score."""


class ContextOverflowError(AgentError):
    """The system text, the task and the last observation alone are longer than the model's context."""


class RunFolderError(UsageError):
    """A run folder that cannot be used: of another run, in use, or damaged."""


class WriteError(RunFolderError):
    """A file that cannot be written: the disk is full, or the folder is read-only. What was there before is as it was.

    Args:
        what: which file, and why.
        then: what to do once there is room.
    """

    exit_code = 1

    def __init__(self, what: str, then: str = "give the same command again") -> None:
        super().__init__(f"{what}: free some space there and {then}")
        self.what = what


class SubmissionError(UsageError):
    """A submission to the leaderboard that is refused: damaged, forged, incomplete or too large. Nothing of it is kept."""


class DuplicateEntryError(SubmissionError):
    """The episodes of a submission are on the leaderboard already, under another name.

    Args:
        entry: the id of the entry that has them.
        whose: the name of that entry.
    """

    def __init__(self, entry: str, whose: str) -> None:
        super().__init__(f"the same episodes were submitted already, as entry {entry} by {whose}")
        self.entry = entry


class StoreError(CotbenchError):
    """The leaderboard's database cannot be opened, read or written."""


@lru_cache(maxsize=64)
def _near_matches(name: str, known: tuple[str, ...]) -> list[str]:
    """Return the nearest names. Kept: a probe comes upon the same unknown task state by state, and thousands of names are
    known.
    """
    return difflib.get_close_matches(name, known, n=3, cutoff=0.55)


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: near matches, or all choices when there are few."""
    known = tuple(choices)
    near = _near_matches(name, known)
    if near:
        return "; did you mean " + " or ".join(repr(match) for match in near) + "?"
    if known and len(known) <= 12:
        return "; known: " + ", ".join(known)
    return ""
