"""A running multi-turn task, with its verdict. Invariant: the verdict is that of upstream's evaluation of the same responses:
after every turn the same three checks in the same order, on instances that no other task has touched.

Source: bfcl-eval `multi_turn_checker.py`, `eval_runner.py`; the facts in the order in which upstream checks them.
"""

from __future__ import annotations

import copy
import decimal
from dataclasses import dataclass

from cotbench.envs.bfcl import data
from cotbench.envs.bfcl.services import Services, failed, missing_results, same_state

_OWNER = "cotbench"


@dataclass(frozen=True, slots=True)
class TurnVerdict:
    """Verdict on a turn or on an answer.

    Attributes:
        valid: whether it is right.
        why: the reason where it is not.
    """

    valid: bool
    why: str = ""


class MultiTurn:
    """Services of a multi-turn task, beside those on which the ground truth is executed.

    Args:
        task: the task id.

    Raises:
        UnknownNameError: there is no such task.
    """

    def __init__(self, task: str) -> None:
        # The calculator leaves its precision behind in these modules: a task must not depend on the one before it.
        decimal.getcontext().prec = decimal.DefaultContext.prec
        _forget_precision()
        entry = data.entry(task)
        self._truth: list[list[str]] = data.ground_truth(task)
        self._model = Services(entry, f"{_OWNER}_eval")
        self._reference = Services(entry, f"{_OWNER}_ground_truth_eval")
        self._results: list[str] = []
        self._turn = 0
        self._acted = False

    def call(self, text: str) -> str:
        """Execute one call of the current turn and return its result."""
        self._acted = True
        result = self._model.call(text)
        self._results.append(result)
        return result

    def possible(self, text: str) -> bool:
        """Tell whether a call would be executed without an error now; nothing is changed by the trial."""
        import mpmath

        # The calculator leaves its precision behind in these modules.
        precision, digits = decimal.getcontext().prec, mpmath.mp.dps
        try:
            return not failed(copy.deepcopy(self._model).call(text))
        finally:
            decimal.getcontext().prec, mpmath.mp.dps = precision, digits

    def skip(self, result: str) -> None:
        """Record a call that was not executed, with the result that was reported for it."""
        self._acted = True
        self._results.append(result)

    def end_turn(self) -> TurnVerdict:
        """Execute the turn's ground truth and return the comparison; a turn without ground truth passes."""
        truth, acted = self._truth[self._turn], self._acted
        self.drop_turn()
        expected = [self._reference.call(text) for text in truth]
        if not truth:
            return TurnVerdict(True)
        if not acted:
            return TurnVerdict(False, "nothing was called")
        difference = same_state(self._model.instances, self._reference.instances)
        if difference is not None:
            return TurnVerdict(False, f"{difference} is not as it should be")
        missing = missing_results(expected, self._results)
        return TurnVerdict(not missing, f"a result is missing: {missing[0][:200]}" if missing else "")

    def drop_turn(self) -> None:
        """Go on to the next turn without a verdict."""
        self._turn, self._acted = self._turn + 1, False


def _forget_precision() -> None:
    import mpmath

    mpmath.mp.dps = 15
