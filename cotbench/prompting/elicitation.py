"""How an answer is asked for and read. Invariant: everything that decides what a model is shown and how its answer is read is
in an `Elicitation` and in its fingerprint, so a change of elicitation is never taken for a change of the model.

Source: paper, "prompt action" and "CoT action" (prefill); the authors' reply to the referee (template).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from cotbench.envs.registry import Instructions, env_entry
from cotbench.flags import Flag
from cotbench.prompting.dialogue import CUT_RULE, DROP_RULE, Dialogue, truncate_middle
from cotbench.prompting.examples import (
    MAX_SYSTEM_CHARS,
    Examples,
    check_examples,
    has_traces,
    read_examples,
    read_system_prompt,
    write_examples,
    write_system_prompt,
)
from cotbench.prompting.parsing import USUAL_TAGS, Tags
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

ENV_INSTRUCTIONS = "{instructions}"
"""What stands in a system prompt of the user's for the environment's instructions."""

_TAG_NAME = r"^[a-z][a-z0-9_-]{0,31}$"

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

    think_tag: Annotated[str, Flag(metavar="NAME")] = Field(
        USUAL_TAGS.think,
        pattern=_TAG_NAME,
        description="name of the tags around a trace",
        exclude_if=lambda value: value == USUAL_TAGS.think,
    )
    action_tag: Annotated[str, Flag(metavar="NAME")] = Field(
        USUAL_TAGS.action,
        pattern=_TAG_NAME,
        description="name of the tags around an action",
        exclude_if=lambda value: value == USUAL_TAGS.action,
    )
    system_prompt: Annotated[
        str | None,
        Flag(metavar="FILE", default="the environment's instructions", read=read_system_prompt, write=write_system_prompt),
    ] = Field(
        None,
        min_length=1,
        max_length=MAX_SYSTEM_CHARS,
        description=(
            "text file shown in place of the environment's instructions, which {instructions} in it stands for; the functions "
            "and the form of an answer follow it"
        ),
        exclude_if=lambda value: value is None,
    )
    examples: Annotated[Examples, Flag(metavar="FILE", read=read_examples, write=write_examples)] = Field(
        (),
        description="TOML or JSON file of example episodes shown before the task; their traces are shown only in CoT mode",
        exclude_if=lambda value: value == (),
    )

    @field_validator("action_tag")
    @classmethod
    def _another_tag(cls, value: str, info: ValidationInfo) -> str:
        if value == info.data.get("think_tag"):
            raise ValueError("trace and action need different tags")
        return value

    @field_validator("examples")
    @classmethod
    def _fitting(cls, value: Examples, info: ValidationInfo) -> Examples:
        names = (info.data.get("think_tag", USUAL_TAGS.think), info.data.get("action_tag", USUAL_TAGS.action))
        return check_examples(value, Tags(*names))

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

        `prompt_action`, `wording`, tags, `system_prompt` and `examples` are part of it where they are not the defaults.
        """
        fields = self.model_dump()
        example_episodes = fields.pop("examples", None)
        fixed = {
            "version": _VERSION,
            "tags": self.tags.all,
            "drop_rule": DROP_RULE,
            "cut_rule": CUT_RULE,
            "examples": _EXAMPLES,
            "functions": _FUNCTIONS,
            "instructions": {mode: self.instruction(mode) for mode in MODES},
            **({"rank_rule": _RANK_RULE} if self.prompt_action == "ranked" else {}),
            **({"placeholder": ENV_INSTRUCTIONS} if self.system_prompt is not None else {}),
            **({"example_episodes": example_episodes} if example_episodes is not None else {}),
        }
        content = json.dumps({**fields, **fixed}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def instruction(self, mode: Mode) -> str:
        """Return the system text's sentence on the form of an answer; with prefill it is the same in both modes."""
        return instruction(self.wording, "prefill" if self.style == "prefill" else mode, self.tags)

    @property
    def tags(self) -> Tags:
        """The tags around a trace and around an action."""
        return Tags(self.think_tag, self.action_tag)

    @property
    def shares_prompt(self) -> bool:
        """Whether both modes are shown the same prompt; with examples that have traces they are not."""
        return self.style == "prefill" and not has_traces(self.examples)

    @property
    def needs_admissible(self) -> bool:
        """Whether a query needs the admissible actions: to list them, or to rank them."""
        return self.show_admissible or self.prompt_action == "ranked"

    def messages(self, dialogue: Dialogue, mode: Mode, admissible: tuple[str, ...] | None = None) -> list[Message]:
        """Return the chat that a model is shown: system text, examples, then the episode up to the current observation.

        Args:
            dialogue: the episode so far.
            mode: "prompt" or "cot".
            admissible: the admissible actions, listed where `show_admissible` is set.
        """
        chat = [Message("system", self.system_text(dialogue, mode)), *self._example_messages(mode)]
        for turn, observation in enumerate(dialogue.observations):
            if turn > 0:
                chat.append(Message("assistant", self.past_answer(dialogue.actions[turn - 1], dialogue.traces[turn - 1])))
            # The first one holds the task.
            chat.append(Message("user", truncate_middle(observation, self.observation_chars) if turn else observation))
        if self.show_admissible and admissible is not None:
            listed = "\n".join(("Admissible actions:", *admissible))
            chat[-1] = Message("user", f"{chat[-1].content}\n\n{listed}")
        return chat

    def _example_messages(self, mode: Mode) -> Iterator[Message]:
        """Yield the examples as turns of the chat, with their traces in CoT mode."""
        for example in self.examples:
            observation: str | None = example.observation
            for turn in example.turns:
                yield Message("user", observation or "")
                yield Message("assistant", self._answer(turn.action, turn.trace if mode == "cot" else None))
                observation = turn.observation

    def instructions_text(self, instructions: Instructions) -> str:
        """Return how to act in an environment: its instructions with its examples in tags, or the system prompt of the user's.

        Args:
            instructions: the environment's.
        """
        parts = [instructions.text]
        if instructions.examples:
            tagged = (self._answer(action, None) for action in instructions.examples)
            parts.append("\n".join((_EXAMPLES, *tagged)))
        text = "\n\n".join(parts)
        return text if self.system_prompt is None else self.system_prompt.replace(ENV_INSTRUCTIONS, text)

    def system_text(self, dialogue: Dialogue, mode: Mode) -> str:
        """Return the instructions, the functions, and the instruction on the form of an answer."""
        parts = [self.instructions_text(dialogue.instructions)]
        if dialogue.functions:
            parts.append(f"{_FUNCTIONS}\n{dialogue.functions}")
        return "\n\n".join((*parts, self.instruction(mode)))

    def past_answer(self, action: str, trace: str | None) -> str:
        """Return an answer of a past turn as it is shown.

        Args:
            action: the executed action.
            trace: the trace before it, shown with history "traces"; None where there was none.
        """
        return self._answer(action, trace if self.history == "traces" else None)

    def _answer(self, action: str, trace: str | None) -> str:
        tags = self.tags
        answer = f"{tags.action_open}{action}{tags.action_close}"
        return answer if trace is None else f"{tags.think_open}\n{trace}\n{tags.think_close}\n{answer}"
