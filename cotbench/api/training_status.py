"""The progress of a training in a notebook. Invariant: one process of several shows it."""

from __future__ import annotations

from typing import Any

import transformers

from cotbench.status_line import StatusLine


class TrainingStatus(transformers.TrainerCallback):  # type: ignore[misc]
    """A callback that shows steps, loss and tokens a second in a line.

    Args:
        line: the line.
    """

    def __init__(self, line: StatusLine) -> None:
        self._line, self._rates = line, ""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Store the loss for display."""
        if logs and "loss" in logs:
            self._rates = f", loss {float(logs['loss']):.3f}, {logs.get('tokens_per_second', 0):.0f} tokens/s"

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show the step."""
        if state.is_world_process_zero:
            last = state.global_step >= state.max_steps
            self._line.show(f"step {state.global_step}/{state.max_steps}{self._rates}, {self._line.seconds:.0f} s", last=last)
