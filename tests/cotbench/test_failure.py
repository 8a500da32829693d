"""Failures: whose they are, one line, a bounded traceback without keys."""

from __future__ import annotations

import json
import re

import pytest

from cotbench.errors import AgentBugError, AgentError, BugError, CotbenchError, EngineError, EnvBugError, UsageError
from cotbench.failure import (
    ErrorKind,
    Failure,
    exception_line,
    failure_fields,
    failure_in,
    failure_of,
    registered_code,
    traceback_text,
)
from cotbench.prompting.query import Decision


class Owner:
    """Code that may fail."""

    def fail(self, error: BaseException) -> None:
        raise error

    def recurse(self, left: int) -> None:
        if not left:
            raise KeyError("deep")
        self.recurse(left - 1)


def _raised(error: BaseException, bug: type[BugError] = AgentBugError) -> BaseException:
    with pytest.raises(BaseException) as raised, registered_code("agent x", Owner(), bug):
        Owner().fail(error)
    return raised.value


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError("answer"), "KeyError: 'answer'"),
        (
            NameError("name 'quary' is not defined"),
            "NameError: name 'quary' is not defined",
        ),
        (AssertionError(), "AssertionError"),
        (ValueError("two\nlines"), "ValueError: two lines"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_what_escapes_is_a_bug_of_the_code(error: BaseException, line: str) -> None:
    raised = _raised(error)
    assert isinstance(raised, AgentBugError)
    assert re.fullmatch(rf"agent x failed: {re.escape(line)} \(test_failure\.py:\d+\)", str(raised))
    failure = failure_of(raised)
    assert (failure.error, failure.error_kind, failure.is_bug) == (str(raised), "agent bug", True)
    assert failure.traceback is not None and "raise error" in failure.traceback and "Owner" not in failure.error


@pytest.mark.parametrize(
    ("error", "text", "traced"),
    [
        (AgentError("the server is down"), "the server is down", False),
        (ConnectionError("refused"), "ConnectionError: refused", True),
        (TimeoutError("too late"), "TimeoutError: too late", True),
        (MemoryError("no room"), "MemoryError: no room", True),
    ],
)
def test_what_is_raised_on_purpose_or_by_the_machine_is_infrastructure(error: Exception, text: str, traced: bool) -> None:
    assert _raised(error) is error
    failure = failure_of(error)
    assert (failure.error, failure.error_kind, failure.is_bug) == (text, "infrastructure", False)
    assert (failure.traceback is not None) is traced


def test_an_interrupt_passes() -> None:
    with pytest.raises(KeyboardInterrupt), registered_code("agent x", Owner()):
        raise KeyboardInterrupt


def test_a_bug_inside_a_bug_is_reported_once() -> None:
    inner = EnvBugError("environment e failed: KeyError: 1", "the trace")
    with pytest.raises(EnvBugError) as raised, registered_code("agent x", Owner(), AgentBugError):
        raise inner
    assert raised.value is inner
    assert failure_of(inner) == Failure("environment e failed: KeyError: 1", "environment bug", "the trace")


def test_the_line_is_of_the_owners_file() -> None:
    def parse(text: str) -> None:
        json.loads(text)

    with (
        pytest.raises(BugError, match=r"JSONDecodeError: Expecting value.* \(test_failure\.py:\d+\)$"),
        registered_code("x", parse),
    ):
        parse("not json")
    with pytest.raises(BugError, match=r"TypeError: .*argument \(2 given\)$"), registered_code("x", len):
        len(1, 2)  # type: ignore[call-arg]


def test_a_traceback_has_the_last_frames_and_a_bounded_length() -> None:
    with pytest.raises(KeyError) as raised:
        Owner().recurse(100)
    text = traceback_text(raised.value)
    assert text.endswith("KeyError: 'deep'")
    assert text.count("in recurse") + text.count("more times") <= 25
    with pytest.raises(ValueError, match="x") as long:
        Owner().fail(ValueError("x" * 50_000))
    assert len(traceback_text(long.value)) < 9_000
    assert len(exception_line(long.value)) < 500


def test_no_key_of_the_environment_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "sk-12345678")
    monkeypatch.setenv("SHORT_TOKEN", "abc")
    raised = _raised(RuntimeError("401 for sk-12345678, abc"))
    failure = failure_of(raised)
    for text in (failure.error, failure.traceback or ""):
        assert "sk-12345678" not in text and "[key], abc" in text
    assert failure_of(OSError("401 for sk-12345678")).error == "OSError: 401 for [key]"


def test_the_first_failure_counts_and_an_error_without_a_kind_is_infrastructure() -> None:
    fine, server, bug = Decision("look"), Decision("", error="503"), Decision("", error="broken", error_kind="agent bug")
    assert failure_in(None, fine) is None and failure_fields(fine) == {}
    assert failure_in(fine, server, bug) == Failure("503", "infrastructure")
    assert failure_fields(bug, server) == {"error": "broken", "error_kind": "agent bug"}


@pytest.mark.parametrize(
    ("kind", "error"), [("agent bug", AgentBugError), ("environment bug", EnvBugError), ("infrastructure", AgentError)]
)
def test_a_failure_is_raised_again(kind: ErrorKind, error: type[CotbenchError]) -> None:
    raised = Failure("what happened", kind, "the trace").exception
    assert type(raised) is error and raised.exit_code == 1
    assert (str(raised), raised.traceback) == ("what happened", "the trace")


def test_what_debug_stops_at() -> None:
    assert Failure("returned None", "agent bug").can_be_traced and Failure("gone", "infrastructure", "trace").can_be_traced
    assert not Failure("503 from the server").can_be_traced


def test_bugs_have_their_place_in_the_tree() -> None:
    assert issubclass(AgentBugError, AgentError) and issubclass(EnvBugError, EngineError)
    assert not issubclass(BugError, UsageError)
