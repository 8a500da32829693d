"""What an agent is asked at one state, and what it answered. Invariant: a query holds all that an answer may depend on, so the
same query gets the same decision.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation, Mode


@dataclass(frozen=True, slots=True)
class Query:
    """What an agent is asked at one state.

    Attributes:
        episode: names the episode within the run; queries of one episode share a growing prefix.
        task: the task id.
        step: how many actions were executed before this state.
        mode: `prompt` or `cot`.
        dialogue: the episode so far.
        elicitation: how to ask and read.
        seed: for sampling; depends on the run's seed, task, mode, step only.
        admissible_actions: sorted; only for agents that ask for it in `needs`, or where the elicitation shows them.
        expert_action: only for agents that ask for it in `needs`.
        given_trace: answer from this trace instead of writing one.
        given_action: do not choose an action but tell this one's log-probability (style prefill).
    """

    episode: str
    task: str
    step: int
    mode: Mode
    dialogue: Dialogue
    elicitation: Elicitation
    seed: int = 0
    admissible_actions: tuple[str, ...] | None = None
    expert_action: str | None = None
    given_trace: str | None = None
    given_action: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What an agent answered.

    Attributes:
        action: the action as the agent worded it, without tags.
        trace: the reasoning before it; None in prompt mode.
        raw: the whole answer, opened tags included.
        format_ok: every tag that the model owed was written by the model.
        trace_truncated: the model did not close its trace (its budget ran out, it ended its turn, or it went on to the
            action), so the harness closed it.
        prompt_tokens: length of the prompt `p`.
        reused_tokens: how many of them were not computed again, because they had been for an earlier query.
        prefilled_tokens: computed without being generated: the rest of the prompt, tags, a given trace; of a server the prompts
            of all its requests, less what it says it had cached.
        trace_tokens: generated in the trace.
        action_tokens: generated in the action.
        action_logprob: natural logarithm of the probability of the generated action tokens, or None.
        dropped_observations: how many observations did not fit into the context.
        error: why there is no answer: an infrastructure failure, never a wrong answer.
    """

    action: str
    trace: str | None = None
    raw: str = ""
    format_ok: bool = True
    trace_truncated: bool = False
    prompt_tokens: int = 0
    reused_tokens: int = 0
    prefilled_tokens: int = 0
    trace_tokens: int = 0
    action_tokens: int = 0
    action_logprob: float | None = None
    dropped_observations: int = 0
    error: str | None = None

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    @property
    def generated_tokens(self) -> int:
        """Tokens written by the model."""
        return self.trace_tokens + self.action_tokens


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from anything with a stable text: the same on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
