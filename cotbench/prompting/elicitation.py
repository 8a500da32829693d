"""How an answer is asked for and read. Invariant: everything that decides what a model is shown and how its answer is read is
in an `Elicitation` and in its fingerprint, so a change of elicitation is never taken for a change of the model.

Source: paper, "prompt action" and "CoT action" (prefill); the authors' reply to the referee (template).
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from cotbench.envs.registry import env_entry
from cotbench.flags import Flag
from cotbench.prompting.dialogue import CUT_RULE, DROP_RULE, Dialogue, truncate_middle
from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN, TAGS, THINK_CLOSE, THINK_OPEN
from cotbench.prompting.wordings import DEFAULT_WORDING, Wording, instruction

Mode = Literal["prompt", "cot"]
MODES: tuple[Mode, Mode] = ("prompt", "cot")

_VERSION = 2

_EXAMPLES = "Actions look like this:"
_FUNCTIONS = "You can call these functions:"

PromptAction = Literal["bare", "empty", "ranked"]
PROMPT_ACTIONS: tuple[PromptAction, PromptAction, PromptAction] = ("bare", "empty", "ranked")
"""Ways to elicit a prompt action: after the opening action tag; after an empty trace and the opening action tag; the most
probable admissible action."""

_RANK_RULE = "sum of token log-probabilities after the opening action tag, closing tag included; ties: the first when sorted"


class Message(NamedTuple):
    """One message of a chat: role (`system`, `user`, `assistant`) and text."""

    role: str
    content: str


class Elicitation(BaseModel):
    """The form in which answers are asked for and read; frozen, hashable, and the same for a whole study."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    style: Annotated[Literal["prefill", "template"], Flag(name="--elicitation-style")] = Field(
        "prefill", description="prefill: the opening tag is prefilled; template: an instruction, nothing prefilled"
    )
    trace_tokens: int = Field(256, ge=1, description="token budget of a trace")
    action_tokens: Annotated[int, Flag(default="32, or the environment's")] = Field(
        32, ge=1, description="token budget of an action"
    )
    temperature: float = Field(0.0, ge=0.0, description="sampling temperature; 0 is greedy decoding")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="nucleus sampling: cumulative probability p")
    history: Literal["actions", "traces"] = Field(
        "actions", description="what past turns show: actions and observations, or traces too"
    )
    one_line: Annotated[bool, Flag(default="one-line, or the environment's")] = Field(
        True, description="with prefill: an action ends at the end of its line"
    )
    show_admissible: bool = Field(False, description="list the admissible actions of the current state")

    observation_chars: int = Field(16_000, ge=2, description="length limit of an observation, in characters")
    # Left out of dumps and of the fingerprint at their defaults: what was elicited before they existed is elicited so still.
    prompt_action: Annotated[PromptAction, Flag(name="--prompt-elicitation")] = Field(
        "bare",
        description=(
            "how prompt actions are elicited. bare: after the opening action tag; empty: after an empty trace; ranked: the "
            "most probable admissible action"
        ),
        exclude_if=lambda value: value == "bare",
    )
    wording: Wording = Field(
        DEFAULT_WORDING,
        description="wording of the instruction on the answer format",
        exclude_if=lambda value: value == DEFAULT_WORDING,
    )

    @field_validator("prompt_action")
    @classmethod
    def _scorable(cls, value: PromptAction, info: ValidationInfo) -> PromptAction:
        if value == "ranked" and info.data.get("style") == "template":
            raise ValueError("actions are ranked after an opened tag, so with style prefill")
        return value

    @classmethod
    def for_env(cls, env: str, **options: Any) -> Self:
        """Return an environment's elicitation.

        Args:
            env: the environment's name.
            options: fields with other values than the environment's defaults.

        Raises:
            UnknownNameError: no such environment.
        """
        return cls(**{**env_entry(env).elicitation, **options})

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits over every field and every fixed text.

        `prompt_action` and `wording` are part of it where they are not the defaults.
        """
        fixed = {
            "version": _VERSION,
            "tags": TAGS,
            "drop_rule": DROP_RULE,
            "cut_rule": CUT_RULE,
            "examples": _EXAMPLES,
            "functions": _FUNCTIONS,
            "instructions": {mode: self.instruction(mode) for mode in MODES},
            **({"rank_rule": _RANK_RULE} if self.prompt_action == "ranked" else {}),
        }
        content = json.dumps({**self.model_dump(), **fixed}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def instruction(self, mode: Mode) -> str:
        """Return the system text's sentence on the form of an answer; with prefill it is the same in both modes."""
        return instruction(self.wording, "prefill" if self.style == "prefill" else mode)

    @property
    def needs_admissible(self) -> bool:
        """Whether a query needs the admissible actions: to list them, or to rank them."""
        return self.show_admissible or self.prompt_action == "ranked"

    def messages(self, dialogue: Dialogue, mode: Mode, admissible: tuple[str, ...] | None = None) -> list[Message]:
        """Return the chat that a model is shown; it ends with the current observation.

        Args:
            dialogue: the episode so far.
            mode: "prompt" or "cot".
            admissible: the admissible actions, listed where `show_admissible` is set.
        """
        chat = [Message("system", self.system_text(dialogue, mode))]
        for turn, observation in enumerate(dialogue.observations):
            if turn > 0:
                chat.append(Message("assistant", self.past_answer(dialogue.actions[turn - 1], dialogue.traces[turn - 1])))
            # The first one holds the task.
            chat.append(Message("user", truncate_middle(observation, self.observation_chars) if turn else observation))
        if self.show_admissible and admissible is not None:
            listed = "\n".join(("Admissible actions:", *admissible))
            chat[-1] = Message("user", f"{chat[-1].content}\n\n{listed}")
        return chat

    def system_text(self, dialogue: Dialogue, mode: Mode) -> str:
        """Return the environment's instructions, its examples in tags, the functions, and the instruction on the form of an
        answer.
        """
        text, examples = dialogue.instructions
        parts = [text]
        if examples:
            tagged = (f"{ACTION_OPEN}{action}{ACTION_CLOSE}" for action in examples)
            parts.append("\n".join((_EXAMPLES, *tagged)))
        if dialogue.functions:
            parts.append(f"{_FUNCTIONS}\n{dialogue.functions}")
        return "\n\n".join((*parts, self.instruction(mode)))

    def past_answer(self, action: str, trace: str | None) -> str:
        """Return an answer of a past turn as it is shown.

        Args:
            action: the executed action.
            trace: the trace before it, shown with history "traces"; None where there was none.
        """
        answer = f"{ACTION_OPEN}{action}{ACTION_CLOSE}"
        if self.history == "traces" and trace is not None:
            return f"{THINK_OPEN}\n{trace}\n{THINK_CLOSE}\n{answer}"
        return answer
