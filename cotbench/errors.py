"""The one tree of exceptions. Invariant: every message says what happened, to which id, and what to do next.

`exit_code` is what the command line ends with: 2 when the user asked for something that cannot be, 1 when a run failed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CotbenchError(Exception):
    """Base class of everything that cotbench raises on purpose."""

    exit_code = 1


class UsageError(CotbenchError):
    """What was asked for cannot be: a bad option, an impossible combination."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that nothing is registered under.

    Args:
        kind: what the name should have named ("agent", "split", ...).
        name: what was given.
        known: the names that exist; the nearest ones are proposed.
        where: of what it should have been one ("of alfworld").
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "") -> None:
        choices = sorted(known)
        super().__init__(f"unknown {kind} {name!r}{' ' if where else ''}{where}{did_you_mean(name, choices)}")


class MissingExtraError(CotbenchError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': pip install 'cotbench[{extra}]'")


class MissingDataError(CotbenchError):
    """Data that a task needs is not on this machine."""


class GameFileError(CotbenchError):
    """A game file that cannot be read, or is not a game."""


class EngineError(CotbenchError):
    """The engine of an environment failed: an infrastructure failure, never a score."""


class EpisodeOverError(UsageError):
    """`step` was called before `reset` or after the episode had ended."""


class AgentError(CotbenchError):
    """An agent could not be built or could not answer: an infrastructure failure, never a score."""


class ContextOverflowError(AgentError):
    """The system text, the task and the last observation alone are longer than the model's context."""


class RunFolderError(UsageError):
    """A run folder that cannot be used as asked: another run's, in use, damaged."""


class SubmissionError(UsageError):
    """A submission to the leaderboard that is refused: damaged, forged, incomplete or too large. Nothing of it is kept."""


class DuplicateEntryError(SubmissionError):
    """What was played in it stands on the leaderboard already, under another name.

    Args:
        entry: the id of the entry that is there.
    """

    def __init__(self, entry: str, whose: str) -> None:
        super().__init__(f"the same episodes were submitted already, as entry {entry} by {whose}")
        self.entry = entry


class StoreError(CotbenchError):
    """The leaderboard's database cannot be opened, read or written."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """The tail of a message about an unknown name: near matches, or all choices when there are few."""
    known = list(choices)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.55)
    if near:
        return "; did you mean " + " or ".join(repr(match) for match in near) + "?"
    if known and len(known) <= 12:
        return "; known: " + ", ".join(known)
    return ""
