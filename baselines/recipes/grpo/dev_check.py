"""Success on split dev at each checkpoint, and early stopping. Invariant: a training stops early by what it wins on `dev` and
by nothing else; a resumed one knows what it had won before, and stops where it had stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import transformers

from cotbench.baselines.training.recipe_card import CARD
from cotbench.baselines.training.trainer import CHECKPOINT, INTERRUPTED
from cotbench.errors import CotbenchError


class DevResult(TypedDict):
    """Success on split dev after a step: mode -> share of the tasks."""

    step: int
    success: Mapping[str, float]


class StoppedEarlyError(Exception):
    """Raised where a training is resumed that early stopping had ended already: its checkpoints are all there."""


class DevCheck(transformers.TrainerCallback):  # type: ignore[misc]
    """Callback that plays split dev at the steps of checkpoints.

    Args:
        play: returns mode -> success with the weights as they are; empty where nothing is played.
        steps: after which steps.
        patience: stop after this many of them without a better success in CoT mode; None: never.

    Attributes:
        results: what was found, in order.
    """

    def __init__(self, play: Callable[[], Mapping[str, float]], steps: Collection[int], patience: int | None) -> None:
        self._play, self._steps, self._patience = play, frozenset(steps), patience
        self.results: list[DevResult] = []
        self._log: Callable[[dict[str, float]], None] | None = None

    def logs_to(self, log: Callable[[dict[str, float]], None]) -> None:
        """Say where the results are logged to.

        Args:
            log: the trainer's.
        """
        self._log = log

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Play with the weights that the training begins with, or read what was found before it was interrupted.

        Raises:
            StoppedEarlyError: it had stopped early. The Trainer, which has loaded its last weights, takes a step in any other
                case.
        """
        if state.global_step == 0:
            self._add(0, control)
            return
        self.results = read_results(Path(args.output_dir), state.global_step)
        if self._exhausted:
            raise StoppedEarlyError

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Play at the chosen steps, before the checkpoint's card is written; stop where nothing has become better."""
        if state.global_step in self._steps:
            self._add(state.global_step, control)
            if self._exhausted:
                control.should_training_stop = True
        return control

    @property
    def _exhausted(self) -> bool:
        return self._patience is not None and checks_since_best(self.results) >= self._patience

    def _add(self, step: int, control: Any) -> None:
        success = dict(self._play())
        if not success:
            return
        self.results.append({"step": step, "success": success})
        if self._log is not None:
            due = control.should_log  # Logging clears it, and the step's own numbers are still to be logged.
            self._log({f"dev_{mode}": value for mode, value in success.items()})
            control.should_log = due


def best_step(results: Sequence[DevResult]) -> int | None:
    """Return the step whose weights win most on split dev in CoT mode, the earliest of equals; None without any.

    Args:
        results: in order.
    """
    best = max(results, key=lambda one: (one["success"]["cot"], -one["step"]), default=None)
    return None if best is None else best["step"]


def best_checkpoint(results: Sequence[DevResult]) -> int | None:
    """Return the step of the checkpoint that wins most on split dev, as `best_step`; the start model is none of them.

    Args:
        results: in order.
    """
    return best_step([one for one in results if one["step"] > 0])


def checks_since_best(results: Sequence[DevResult]) -> int:
    """Return how many results came after the best one, which may be the start model's.

    Args:
        results: in order.
    """
    best = best_step(results)
    return 0 if best is None else sum(one["step"] > best for one in results)


def read_results(out: Path, step: int) -> list[DevResult]:
    """Return the results in the card of the checkpoint that a training goes on from.

    Args:
        out: the folder of the training.
        step: of the checkpoint.

    Raises:
        CotbenchError: its card is damaged.
    """
    for name in (CHECKPOINT, INTERRUPTED):
        path = out / f"{name}-{step}" / CARD
        if path.is_file():
            try:
                return [
                    {"step": int(one["step"]), "success": {mode: float(value) for mode, value in one["success"].items()}}
                    for one in json.loads(path.read_text("utf-8"))["dev"]
                ]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise CotbenchError(f"{path} is damaged: start again in another --out") from error
    return []
