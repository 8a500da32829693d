"""Why something has no result: whose failure it was, one line, and the traceback. Invariant: both have a bounded length, and no
text holds a key of this process's environment.

Three things are told apart. What a model does wrong is never an error. What fails outside of agent and environment (a server, a
disk, the memory) is *infrastructure*. An exception that escapes an agent's or an environment's own code is that code's *bug*,
unless it was raised on purpose (`CotbenchError`) or is the machine's (`OSError`, `MemoryError`).
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import isclass
from pathlib import Path
from typing import Final, Literal, Protocol, TypedDict

from cotbench.bounds import ERROR_CHARS, bounded
from cotbench.errors import AgentBugError, AgentError, BugError, CotbenchError, EnvBugError
from cotbench.json_text import replace_surrogates

ErrorKind = Literal["agent bug", "environment bug", "infrastructure"]
AGENT_BUG: Final = "agent bug"
ENV_BUG: Final = "environment bug"
INFRASTRUCTURE: Final = "infrastructure"

_FRAMES, _CHARS, _LINE_CHARS = 20, 8_000, 400
"""A traceback has at most the last frames and characters; the line about an exception at most the first characters."""

_KEY_CHARS, _KEY_NAMES = 8, ("KEY", "TOKEN", "SECRET", "PASSWORD")
"""An environment variable whose name ends so holds a key, where its value is not too short to be one."""


class FailureFields(TypedDict, total=False):
    """The fields by which decisions, episodes and rows hold a failure."""

    error: str
    error_kind: ErrorKind
    traceback: str


class Failed(Protocol):
    """Anything that holds a failure: a decision, an episode, an answer, a row."""

    @property
    def error(self) -> str | None:
        """What happened, in one line; None where nothing failed."""

    @property
    def error_kind(self) -> ErrorKind | None:
        """Whose failure it was; None where that is not recorded."""

    @property
    def traceback(self) -> str | None:
        """Where the exception came from; None where there was none."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure.

    Attributes:
        error: what happened, in one line.
        error_kind: whose failure it was.
        traceback: where the exception came from; None where there was none, or it was raised on purpose.
    """

    error: str
    error_kind: ErrorKind = INFRASTRUCTURE
    traceback: str | None = None

    @property
    def fields(self) -> FailureFields:
        """Return the failure as fields of a decision, an episode or a row, in texts that can be written to a file."""
        fields: FailureFields = {"error": _writable(self.error), "error_kind": self.error_kind}
        return fields if self.traceback is None else {**fields, "traceback": _writable(self.traceback)}

    @property
    def is_bug(self) -> bool:
        """Return whether it is a bug of an agent or an environment."""
        return self.error_kind != INFRASTRUCTURE

    @property
    def can_be_traced(self) -> bool:
        """Return whether code raised it by mistake, or an exception that has a traceback: what `--debug` stops at."""
        return self.is_bug or self.traceback is not None

    @property
    def exception(self) -> CotbenchError:
        """Return the failure as an exception."""
        if self.error_kind == ENV_BUG:
            return EnvBugError(self.error, self.traceback)
        if self.error_kind == AGENT_BUG:
            return AgentBugError(self.error, self.traceback)
        error = AgentError(self.error)
        error.traceback = self.traceback
        return error


def _writable(text: str) -> str:
    return str(replace_surrogates(bounded(text, ERROR_CHARS)))


def failure_in(*some: Failed | None) -> Failure | None:
    """Return the first failure that one of several objects holds; None where none failed.

    An error without a kind, as agents return it and old folders have it, is an infrastructure failure.
    """
    for one in some:
        if one is not None and one.error is not None:
            return Failure(one.error, one.error_kind or INFRASTRUCTURE, one.traceback)
    return None


def failure_fields(*some: Failed | None) -> FailureFields:
    """Return the first failure that one of several objects holds, as fields; none where none failed."""
    failure = failure_in(*some)
    return {} if failure is None else failure.fields


def failure_of(error: BaseException) -> Failure:
    """Return the failure that an exception is; one that came through `registered_code` is the bug of that code."""
    if isinstance(error, BugError):
        kind: ErrorKind = ENV_BUG if isinstance(error, EnvBugError) else AGENT_BUG
        return Failure(str(error), kind, error.traceback)
    if isinstance(error, CotbenchError):
        return Failure(str(error))
    return Failure(without_keys(f"{type(error).__name__}: {error}"), INFRASTRUCTURE, traceback_text(error))


@contextmanager
def registered_code(what: str, owner: object, bug: type[BugError] = BugError) -> Iterator[None]:
    """Raise what others' code raises by mistake as a `BugError`.

    Args:
        what: the code in messages, "agent counter".
        owner: the object, class or function that is called; the message names the line of its file.
        bug: the class of the error.

    Raises:
        BugError: of this class.
        Exception: what was raised on purpose (`CotbenchError`), and what is the machine's (`OSError`, `MemoryError`), as it is.
    """
    try:
        yield
    except (CotbenchError, OSError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise bug(f"{what} failed: {exception_line(error, modules_of(owner))}", traceback_text(error)) from error


def exception_line(error: BaseException, modules: Collection[str] | None = None) -> str:
    """Return an exception in one line, with file and line of its innermost frame: `KeyError: 'x' (agent.py:12)`.

    Args:
        error: the exception.
        modules: names of the modules of which a frame is named; None: of any.
    """
    text = without_keys(" ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":"))
    text = text if len(text) <= _LINE_CHARS else f"{text[:_LINE_CHARS]}..."
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if modules is None or frame.f_globals.get("__name__") in modules:
            return f"{text} ({Path(frame.f_code.co_filename).name}:{line})"
    return text


def modules_of(owner: object) -> frozenset[str]:
    """Return the names of the modules that define a class, or an object's class, with its base classes, or a function."""
    classes = (owner if isclass(owner) else type(owner)).__mro__
    return frozenset({*(one.__module__ for one in classes), getattr(owner, "__module__", "")} - {"builtins"})


def traceback_text(error: BaseException) -> str:
    """Return the last frames of an exception's traceback and of those that caused it, as Python prints them."""
    text = "".join(traceback.TracebackException.from_exception(error, limit=-_FRAMES).format()).rstrip()
    text = without_keys(text)
    return text if len(text) <= _CHARS else f"...{text[-_CHARS:]}"


def without_keys(text: str) -> str:
    """Return a text in which no key of this process's environment is left."""
    for name, value in os.environ.items():
        if len(value) >= _KEY_CHARS and name.upper().endswith(_KEY_NAMES):
            text = text.replace(value, "[key]")
    return text


def agent_bug(agent: object, problem: str) -> AgentBugError:
    """Return the error of an agent that does not do what an agent has to.

    Args:
        agent: the agent.
        problem: what it did, in words that follow its name.
    """
    return AgentBugError(f"agent {getattr(agent, 'name', type(agent).__name__)} {problem}")
