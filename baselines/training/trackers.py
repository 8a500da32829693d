"""Trackers of a training: those that transformers knows. Invariant: one that cannot be used is an error of one line before
anything is computed; one that fails later is a warning, and the training goes on; none stays open for what the process does
next.
"""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from cotbench.errors import UsageError
from cotbench.runs.tracker import NONE, chosen_trackers, first_line, missing_tracker

_log = logging.getLogger(__name__)


def require_trackers(names: Sequence[str]) -> list[str]:
    """Return the trackers that a training reports to; raise an error where one cannot be used.

    Args:
        names: the values of `--report-to`.

    Raises:
        UsageError: an unknown name, or a tracker that is not installed or not set up.
    """
    if set(names) <= {NONE}:
        return []
    from transformers.integrations import integration_utils

    known = integration_utils.INTEGRATION_TO_CALLBACK
    chosen = chosen_trackers(names, known, integration_utils.get_available_reporting_integrations)
    for name in chosen:
        problem = _problem(known[name])
        if problem is None:
            continue
        package = re.search(r"pip install `?([\w.-]+)", problem)
        if package is not None or "to be installed" in problem:
            raise missing_tracker(name, package[1] if package is not None else None)
        raise UsageError(f"--report-to {name} cannot be used: {problem}")
    return chosen


def _problem(kind: Callable[[], Any]) -> str | None:
    """Return why a tracker's callback cannot be made, or None; nothing is reported before a training begins."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None  # Some fail once more when they are freed.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind()
    except Exception as error:
        return first_line(error)
    finally:
        sys.unraisablehook = hook
    return None


def guard_trackers(trainer: Any) -> None:
    """Keep what fails in a tracker from ending the training.

    Args:
        trainer: a trainer of transformers, before it trains.
    """
    from transformers.integrations import integration_utils

    names = {kind: name for name, kind in integration_utils.INTEGRATION_TO_CALLBACK.items()}
    callbacks = trainer.callback_handler.callbacks
    for index, callback in enumerate(callbacks):
        if type(callback) in names:
            callbacks[index] = _Guarded(names[type(callback)], callback)


class _Guarded:
    """A tracker's callback until it fails; at the end of the training its run is closed.

    Args:
        name: of the tracker.
        callback: of transformers.
    """

    def __init__(self, name: str, callback: Any) -> None:
        self._name, self._callback, self._failed = name, callback, False
        # A run that the caller has opened is not ours to close.
        self._foreign = getattr(sys.modules.get(name), "run", None) is not None

    def __getattr__(self, event: str) -> Callable[..., Any]:
        return partial(self._call, event)

    def _call(self, event: str, *rest: Any, **more: Any) -> Any:
        if not self._failed:
            try:
                getattr(self._callback, event)(*rest, **more)
            except Exception as error:  # Whatever a tracker's client raises.
                self._failed = True
                _log.warning("tracker %s is switched off for the rest of the run: %s", self._name, first_line(error))
        if event == "on_train_end" and not self._foreign:
            # transformers leaves the runs of some clients open, and would report the next training into them.
            finish = getattr(sys.modules.get(self._name), "finish", None)
            with suppress(Exception):
                if callable(finish):
                    finish()
