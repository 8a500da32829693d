"""Progress of a training: steps, loss, tokens a second, and how long it still takes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import transformers

from cotbench.cli.even_progress import EvenProgress
from cotbench.cli.progress_display import shown_progress


class ProgressCallback(transformers.TrainerCallback):  # type: ignore[misc]
    """Shows steps, loss and tokens a second on standard error."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._progress: EvenProgress | None = None
        self._facts: tuple[str, ...] = ()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin to show."""
        if state.is_world_process_zero:
            bar = self._stack.enter_context(shown_progress("steps", state.max_steps))
            self._progress = EvenProgress(bar, state.max_steps, state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Store the loss for display."""
        if logs and "loss" in logs:
            self._facts = (f"loss {float(logs['loss']):.3f}", f"{logs.get('tokens_per_second', 0):.0f} tokens/s")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show a step."""
        if self._progress is not None:
            self._progress.advance(self._facts, state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show no more."""
        self._progress = None
        self._stack.close()
