"""A running multi-turn task, with its verdict. Invariant: the verdict is that of upstream's evaluation of the same responses:
after every turn the same three checks in the same order, on services that no other task has touched.

As in upstream's evaluation of an entry, the model's and the reference's services are of the same modules, so that they share
default values and module variables with each other, and with nothing else.

Source: bfcl-eval `multi_turn_checker.py`, `eval_runner.py`; the facts in the order in which upstream checks them.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass

from cotbench.envs.bfcl import data
from cotbench.envs.bfcl.services import Services, failed, missing_results, same_state
from cotbench.envs.bfcl.upstream import Upstream

_OWNER = "cotbench"
_LONG_RESULT = 1_000_000
"""Characters; of a longer result its hash stands for it in comparisons, so that results do not fill the memory."""


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
        entry, modules = data.entry(task), Upstream()
        self._truth: list[list[str]] = data.ground_truth(task)
        self._model = Services(entry, f"{_OWNER}_eval", modules)
        self._reference = Services(entry, f"{_OWNER}_ground_truth_eval", modules)
        self._results: list[str] = []
        self._turn = 0
        self._acted = False

    def begin_response(self) -> None:
        """Begin a response that holds calls; the turn counts as acted in, whether they can be executed or not."""
        self._acted = True

    def call(self, text: str) -> str:
        """Execute one call of the current turn and return its result.

        Raises:
            MemoryError: it needs more than this process may have.
        """
        result = self._model.call(text)
        self._results.append(_comparable(result))
        return result

    def possible(self, text: str) -> bool:
        """Tell whether a call would be executed without an error now; the services stay as they are.

        Only they: default values and module variables may change, so this is for a copy of the process.
        """
        try:
            return not failed(copy.deepcopy(self._model).call(text))
        except RecursionError:
            return False  # A state nested too deeply to be copied.

    def end_turn(self) -> TurnVerdict:
        """Execute the turn's ground truth and return the comparison; a turn without ground truth passes."""
        truth, acted = self._truth[self._turn], self._acted
        self.drop_turn()
        expected = [_comparable(self._reference.call(text)) for text in truth]
        if not truth:
            return TurnVerdict(True)
        if not acted:
            return TurnVerdict(False, "nothing was called")
        try:
            difference = same_state(self._model.instances, self._reference.instances)
        except (RecursionError, AttributeError) as error:  # Upstream's evaluation would end here: there is no right answer.
            return TurnVerdict(False, f"the states cannot be compared ({type(error).__name__})")
        if difference is not None:
            return TurnVerdict(False, f"{difference} is not as it should be")
        missing = missing_results(expected, self._results)
        return TurnVerdict(not missing, f"a result is missing: {missing[0][:200]}" if missing else "")

    def drop_turn(self) -> None:
        """Go on to the next turn without a verdict."""
        self._turn, self._acted = self._turn + 1, False


def _comparable(result: str) -> str:
    if len(result) <= _LONG_RESULT:
        return result
    return f"sha256:{hashlib.sha256(result.encode('utf-8', 'surrogatepass')).hexdigest()}"
