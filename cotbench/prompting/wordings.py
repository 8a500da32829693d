"""The sentences that say in which form to answer, in several wordings. Invariant: every wording asks for the same tags in the
same order, so that what a model answers to one can be compared with what it answers to another.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN, THINK_CLOSE, THINK_OPEN, USUAL_TAGS, Tags

Wording = Literal["default", "brief", "rules", "question"]
WORDINGS: tuple[Wording, ...] = get_args(Wording)
DEFAULT_WORDING: Wording = "default"

Form = Literal["prefill", "prompt", "cot"]
"""What an instruction is for: style prefill, where both modes share one; a mode of style template."""

_ACTION = f"{ACTION_OPEN}ACTION{ACTION_CLOSE}"
_TRACE = f"{THINK_OPEN}REASONING{THINK_CLOSE}"

_INSTRUCTIONS: Mapping[Wording, Mapping[Form, str]] = MappingProxyType(
    {
        "default": {
            "prefill": (
                f"Give your next action as {_ACTION}. Before it you may reason, between {THINK_OPEN} and {THINK_CLOSE}."
            ),
            "prompt": f"Answer with your next action and nothing else, as {_ACTION}.",
            "cot": (
                f"First reason about what to do, between {THINK_OPEN} and {THINK_CLOSE}. "
                f"Then give your next action as {_ACTION}."
            ),
        },
        "brief": {
            "prefill": f"Format: {_ACTION}, or {_TRACE} and then {_ACTION}.",
            "prompt": f"Format: {_ACTION}.",
            "cot": f"Format: {_TRACE}, then {_ACTION}.",
        },
        "rules": {
            "prefill": (
                f"Rules for your answer: (1) it ends with exactly one action, written as {_ACTION}; (2) reasoning is optional, "
                f"stands before the action and is written as {_TRACE}; (3) there is nothing else in it."
            ),
            "prompt": (
                f"Rules for your answer: (1) it is exactly one action, written as {_ACTION}; (2) there is nothing else in it."
            ),
            "cot": (
                f"Rules for your answer: (1) it begins with your reasoning, written as {_TRACE}; (2) it ends with exactly one "
                f"action, written as {_ACTION}; (3) there is nothing else in it."
            ),
        },
        "question": {
            "prefill": (
                f"What do you do next? You can think it over inside {THINK_OPEN} and {THINK_CLOSE} if you like; then write the "
                f"one thing that you do inside {ACTION_OPEN} and {ACTION_CLOSE}."
            ),
            "prompt": (
                f"What do you do next? Write the one thing that you do inside {ACTION_OPEN} and {ACTION_CLOSE}, without a word "
                "beside it."
            ),
            "cot": (
                f"What do you do next? Think it over inside {THINK_OPEN} and {THINK_CLOSE}; then write the one thing that you "
                f"do inside {ACTION_OPEN} and {ACTION_CLOSE}."
            ),
        },
    }
)


def instruction(wording: Wording, form: Form, tags: Tags = USUAL_TAGS) -> str:
    """Return the instruction on the form of an answer.

    Args:
        wording: which of the wordings.
        form: what it is for.
        tags: that are asked for.
    """
    return tags.rename(_INSTRUCTIONS[wording][form])
