"""How an answer is asked for and read. Invariant: everything that decides what a model is shown and how its answer is read
is in an `Elicitation` and in its fingerprint, so a change of elicitation is never taken for a change of the model.

Source: paper, "prompt action" and "CoT action" (prefill); the authors' reply to the referee (template).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

from cotbench.envs.registry import env_entry
from cotbench.prompting.dialogue import CUT_RULE, DROP_RULE, Dialogue, truncate_middle
from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN, TAGS, THINK_CLOSE, THINK_OPEN

Mode = Literal["prompt", "cot"]
MODES: tuple[Mode, Mode] = ("prompt", "cot")

_VERSION = 2

_PREFILL_INSTRUCTION = (
    f"Give your next action as {ACTION_OPEN}ACTION{ACTION_CLOSE}. "
    f"Before it you may reason, between {THINK_OPEN} and {THINK_CLOSE}."
)
_EXAMPLES = "Actions look like this:"
_FUNCTIONS = "You can call these functions:"
_TEMPLATE_INSTRUCTION = {
    "prompt": f"Answer with your next action and nothing else, as {ACTION_OPEN}ACTION{ACTION_CLOSE}.",
    "cot": (
        f"First reason about what to do, between {THINK_OPEN} and {THINK_CLOSE}. "
        f"Then give your next action as {ACTION_OPEN}ACTION{ACTION_CLOSE}."
    ),
}


class Message(NamedTuple):
    """One message of a chat: role (`system`, `user`, `assistant`) and text."""

    role: str
    content: str


class Elicitation(BaseModel):
    """How answers are asked for and read; frozen, hashable, and the same for a whole study."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    style: Literal["prefill", "template"] = Field(
        "prefill", description="prefill: the harness opens the tags; template: an instruction, nothing opened"
    )
    trace_tokens: int = Field(256, ge=1, description="token budget of a trace")
    action_tokens: int = Field(32, ge=1, description="token budget of an action")
    temperature: float = Field(0.0, ge=0.0, description="sampling temperature; 0 is greedy")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="nucleus of the sampling")
    history: Literal["actions", "traces"] = Field(
        "actions", description="what of the past is shown: actions and observations, or traces too"
    )
    one_line: bool = Field(True, description="with prefill, an action ends at the end of its line")
    show_admissible: bool = Field(False, description="list the admissible actions of the current state")

    observation_chars: int = Field(16_000, ge=2, description="characters of one observation that are shown")

    @classmethod
    def for_env(cls, env: str, **options: Any) -> Self:
        """Return the defaults for an environment, with other options where given.

        Raises:
            UnknownNameError: no such environment.
        """
        return cls(**{**env_entry(env).elicitation, **options})

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits over every field and every fixed text."""
        fixed = {
            "version": _VERSION,
            "tags": TAGS,
            "drop_rule": DROP_RULE,
            "cut_rule": CUT_RULE,
            "examples": _EXAMPLES,
            "functions": _FUNCTIONS,
            "instructions": {mode: self.instruction(mode) for mode in MODES},
        }
        whole = json.dumps({**self.model_dump(), **fixed}, sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

    def instruction(self, mode: Mode) -> str:
        """Return what the system text says about the form of an answer. With prefill it is the same in both modes."""
        return _PREFILL_INSTRUCTION if self.style == "prefill" else _TEMPLATE_INSTRUCTION[mode]

    def messages(self, dialogue: Dialogue, mode: Mode, admissible: tuple[str, ...] | None = None) -> list[Message]:
        """Return the chat that a model is shown; it ends with the current observation."""
        shown = [Message("system", self.system_text(dialogue, mode))]
        for turn, observation in enumerate(dialogue.observations):
            if turn > 0:
                shown.append(Message("assistant", self.past_answer(dialogue.actions[turn - 1], dialogue.traces[turn - 1])))
            # The first one holds the task.
            shown.append(Message("user", truncate_middle(observation, self.observation_chars) if turn else observation))
        if self.show_admissible and admissible is not None:
            listed = "\n".join(("Admissible actions:", *admissible))
            shown[-1] = Message("user", f"{shown[-1].content}\n\n{listed}")
        return shown

    def system_text(self, dialogue: Dialogue, mode: Mode) -> str:
        """Return what the environment tells, its examples in tags, the functions, and how to answer."""
        text, examples = dialogue.instructions
        parts = [text]
        if examples:
            tagged = (f"{ACTION_OPEN}{action}{ACTION_CLOSE}" for action in examples)
            parts.append("\n".join((_EXAMPLES, *tagged)))
        if dialogue.functions:
            parts.append(f"{_FUNCTIONS}\n{dialogue.functions}")
        return "\n\n".join((*parts, self.instruction(mode)))

    def past_answer(self, action: str, trace: str | None) -> str:
        """Return how an answer of the past is shown."""
        answer = f"{ACTION_OPEN}{action}{ACTION_CLOSE}"
        if self.history == "traces" and trace is not None:
            return f"{THINK_OPEN}\n{trace}\n{THINK_CLOSE}\n{answer}"
        return answer
