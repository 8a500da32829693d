"""Progress of a training: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

import transformers
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from cotbench.cli.terminal import console, echo_error, text_column

_SECONDS = 20.0
"""Seconds between two lines where there is no terminal."""


class ProgressCallback(transformers.TrainerCallback):  # type: ignore[misc]
    """Shows steps, loss and tokens a second on standard error."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: Any = None
        self._rates = ""
        self._last_line = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the bar."""
        if not state.is_world_process_zero:
            return
        if sys.stderr.isatty():
            columns = (
                text_column("training"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                text_column("{task.fields[rates]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=console(stderr=True))
            self._task = self._bar.add_task("steps", total=state.max_steps, completed=state.global_step, rates="")
            self._bar.start()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Store the loss for display."""
        if logs and "loss" in logs:
            self._rates = f"loss {float(logs['loss']):.3f}  {logs.get('tokens_per_second', 0):.0f} tokens/s"

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Advance the bar, or print a line."""
        if self._bar is not None:
            self._bar.update(self._task, completed=state.global_step, rates=self._rates)
        elif state.is_world_process_zero and time.monotonic() - self._last_line > _SECONDS:
            self._last_line = time.monotonic()
            echo_error(f"step {state.global_step}/{state.max_steps}  {self._rates}")

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.stop()
