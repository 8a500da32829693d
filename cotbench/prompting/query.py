"""What an agent is asked at one state, and what it answered. Invariant: a query holds all that an answer may depend on, so the
same query gets the same decision.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from cotbench.failure import ErrorKind
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation, Mode

_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False)


def _is_none(value: object) -> bool:
    return value is None


def _is_zero(value: object) -> bool:
    return value == 0


@dataclass(frozen=True, slots=True)
class Query:
    """Hold what an agent is asked at one state.

    Attributes:
        episode: names the episode within the run; queries of one episode share a growing prefix.
        env: the environment's name in the registry; empty for a state that belongs to none.
        task: the task id.
        step: how many actions were executed before this state.
        mode: `prompt` or `cot`.
        dialogue: the episode so far.
        elicitation: how to ask and read.
        seed: for sampling; depends on the run's seed, task, rollout, mode and step only.
        rollout: which play of the task this is: k of n, from 0. The n rollouts of one task are a group.
        admissible_actions: sorted; only for agents that ask for it in `needs`, or where the elicitation shows them.
        expert_action: only for agents that ask for it in `needs`.
        given_trace: answer from this trace instead of writing one.
        given_action: choose no action, but return the log-probability of this one (style prefill).
        return_tokens: whether the decision should carry `tokens`; an agent that sees no token ids ignores it.
    """

    episode: str
    env: str
    task: str
    step: int
    mode: Mode
    dialogue: Dialogue
    elicitation: Elicitation
    seed: int = 0
    rollout: int = 0
    admissible_actions: tuple[str, ...] | None = None
    expert_action: str | None = None
    given_trace: str | None = None
    given_action: str | None = None
    return_tokens: bool = False


@dataclass(frozen=True, slots=True)
class DecisionTokens:
    """Hold the token ids of a decision: `prompt_ids + completion_ids` is the sequence that went through the model.

    Nothing in it was tokenized again after the decision, so it is what is trained on. Which ids stand in the completion:

    - The tokens that the harness put there, as they were encoded: opened tags, a given trace or action, and the closing tag of
      every trace, which the harness writes whether the model closed its trace or not. Where the model generated the same ids at
      the same place (its own closing tag, mostly), they count as the model's.
    - Of a generated trace the tokens up to its end. Where the end falls inside a token (`.</` before `think>`, a stop string
      that begins in the middle of a token), that token was never continued from: the part before the end was encoded anew and
      counts as the harness's.
    - Of the last generation (the action; with style template the whole answer) every token that was generated, to the last:
      the token that completed the closing tag stays whole even where its text goes on behind the tag, and a line break or
      end-of-turn token that ended the answer is included, though `Decision.raw` leaves it out. So the completion's text begins
      with `raw`, and equals it where the closing tag was generated and ends a token.

    Attributes:
        prompt_ids: (p,) the prompt, up to and including the opening of the assistant's turn.
        completion_ids: (c,) what follows the prompt in the assistant's turn.
        logprobs: (c,) natural logarithm of each completion token's probability at temperature 1 (before temperature and top-p
            are applied); 0.0 for tokens that the harness wrote.
        harness: (c,) True where the harness wrote the token: it is not the model's choice, so no policy loss belongs on it.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    harness: tuple[bool, ...]

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG


@dataclass(frozen=True, slots=True)
class Decision:
    """Hold what an agent answered to one query.

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
        discarded_tokens: generated by a server behind the end of the trace or the action, and thrown away; left out of JSON
            where there are none.
        action_logprob: natural logarithm of the probability of the generated action tokens, or None.
        dropped_observations: how many observations did not fit into the context.
        error: why there is no answer: something outside the model failed; never a wrong answer.
        tokens: the token ids of prompt and completion, where the query asked for them (`return_tokens`) and the agent sees
            token ids; None otherwise, and then left out of JSON.
        error_kind: whose failure `error` is, as `cotbench.failure` tells them apart; set where an agent is queried, so an agent
            need not. Left out of JSON where None, like `traceback`.
        traceback: where the exception behind `error` came from.
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
    discarded_tokens: Annotated[int, Field(exclude_if=_is_zero)] = 0
    tokens: Annotated[DecisionTokens | None, Field(exclude_if=_is_none)] = None
    error_kind: Annotated[ErrorKind | None, Field(exclude_if=_is_none)] = None
    traceback: Annotated[str | None, Field(exclude_if=_is_none)] = None

    __pydantic_config__: ClassVar[ConfigDict] = _CONFIG

    @property
    def generated_tokens(self) -> int:
        """Return the number of tokens that were generated, those that were thrown away included."""
        return self.trace_tokens + self.action_tokens + self.discarded_tokens


def derive_seed(*parts: object) -> int:
    """Return a 63-bit seed from anything with a stable text: the same on every machine."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
