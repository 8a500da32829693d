"""A judge: any agent, asked which of the two actions of one state is the better next one. Invariant: a judge is shown the task,
the dialogue and the two actions, never a trace, nor which of the two followed one; the fingerprint covers the whole question.

Source: paper, "a judge's preference between the two actions at the same state". The wording, both orders, and what counts as a
verdict are ours.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import indent

from pydantic import BaseModel, ConfigDict, Field

from cotbench.agents.base import Agent, check_elicitation, needs_of
from cotbench.agents.decisions import decide_or_errors
from cotbench.envs.registry import Instructions
from cotbench.errors import UsageError
from cotbench.failure import failure_fields
from cotbench.judge.judgement import Judgement, JudgeVerdict
from cotbench.prompting.dialogue import Dialogue, truncate_middle
from cotbench.prompting.elicitation import Elicitation, Mode
from cotbench.prompting.parsing import clean_action
from cotbench.prompting.query import Decision, Query, derive_seed

LETTERS = ("A", "B")
"""Names of the two actions, in the order in which they are shown."""

_VERSION = 1
_BATCH = 8
_ABOUT = (
    "You judge an agent that acts in an environment. You are shown what the agent was told, what it did so far, and two "
    "actions that it could do next. Decide which of the two is the better next action for its task. Your own action is "
    f"the letter of that action, {LETTERS[0]} or {LETTERS[1]}, and nothing else."
)
_INSTRUCTIONS = "This is what the agent was told about the environment:"
_EXAMPLES = "Its actions look like this:"
_FUNCTIONS = "It can call these functions:"
_TASK, _ACTION, _OBSERVATION = "It was first told:", "Then it did:", "And was told:"
_CHOICE = f"Which of these two is the better next action, {LETTERS[0]} or {LETTERS[1]}?"
_NO_ACTION = "(no action)"
_MARGIN = "    "
_VERDICT = re.compile(r"(?:(?:the )?(?:next )?action )?[(\[*]*([AB])[)\]*]*[.:]?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Pair:
    """The two actions of one state.

    Attributes:
        episode: names the episode; the questions about its states share a growing prefix.
        env: the environment's name.
        task: the task id.
        step: number of actions executed before this state.
        dialogue: the episode so far.
        prompt_action: the action from the prompt alone.
        cot_action: the action after the trace; a different one.
        expert_action: the expert's action at this state, where it is known; not shown.
    """

    episode: str
    env: str
    task: str
    step: int
    dialogue: Dialogue
    prompt_action: str
    cot_action: str
    expert_action: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Task and step, unique within a run."""
        return self.task, self.step


class Question(BaseModel):
    """The form of a judge's question; frozen, and the same for all states that are counted together."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mode: Mode = Field("prompt", description="whether the judge answers at once (prompt) or reasons first (cot)")
    both_orders: bool = Field(
        True, description="ask twice, with each action first once; otherwise once, in an order drawn by the seed"
    )
    seed: int = Field(0, ge=0, description="seed of the orders and of the sampling")
    elicitation: Elicitation = Field(
        default_factory=lambda: Elicitation(action_tokens=8), description="elicitation of the judge's answer"
    )

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits over all texts shown to a judge and every field but the seed."""
        fixed = {
            "version": _VERSION,
            "letters": LETTERS,
            "texts": (_ABOUT, _INSTRUCTIONS, _EXAMPLES, _FUNCTIONS, _TASK, _ACTION, _OBSERVATION, _CHOICE, _NO_ACTION, _MARGIN),
            "verdict": _VERDICT.pattern,
            "elicitation": self.elicitation.fingerprint,
        }
        content = json.dumps({**self.model_dump(exclude={"elicitation", "seed"}), **fixed}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def orders(self, pair: Pair) -> tuple[Mode, ...]:
        """Return the mode whose action is shown first, for each time that the judge is asked about a pair."""
        drawn: tuple[Mode, Mode] = ("prompt", "cot")
        if derive_seed(self.seed, pair.task, pair.step, "first") % 2:
            drawn = ("cot", "prompt")
        return drawn if self.both_orders else drawn[:1]

    def text(self, pair: Pair, first: Mode) -> str:
        """Return the text that a judge is shown of a state.

        The actions come last, so both orders and later states share a prefix. Texts of an agent or an environment are indented:
        they cannot pass for a line of the question.

        Args:
            pair: the two actions and their state.
            first: the mode whose action is shown first.
        """
        task_text, *later = pair.dialogue.observations
        parts = [_indented(_FUNCTIONS, pair.dialogue.functions)] if pair.dialogue.functions else []
        parts.append(_indented(_TASK, task_text))
        for action, observation in zip(pair.dialogue.actions, later, strict=True):
            parts.append(_indented(_ACTION, action or _NO_ACTION))
            parts.append(_indented(_OBSERVATION, truncate_middle(observation, self.elicitation.observation_chars)))
        actions = (pair.prompt_action, pair.cot_action) if first == "prompt" else (pair.cot_action, pair.prompt_action)
        parts.append(_CHOICE)
        parts += [_indented(f"{letter}:", action or _NO_ACTION) for letter, action in zip(LETTERS, actions, strict=True)]
        return "\n".join(parts)

    def query(self, pair: Pair, first: Mode, needs: frozenset[str] = frozenset()) -> Query:
        """Return the query about one pair in one order.

        Args:
            pair: the two actions and their state.
            first: the mode whose action is shown first.
            needs: the judge's `needs`; with "admissible_actions" the letters are given as such.
        """
        return Query(
            episode=pair.episode,
            env=pair.env,
            task=pair.task,
            step=pair.step,
            mode=self.mode,
            dialogue=Dialogue(_instructions(pair.dialogue.instructions), (self.text(pair, first),)),
            elicitation=self.elicitation,
            seed=derive_seed(self.seed, pair.task, pair.step, "judge", first),
            admissible_actions=LETTERS if "admissible_actions" in needs else None,
        )


def _instructions(instructions: Instructions) -> Instructions:
    parts = [_ABOUT, _indented(_INSTRUCTIONS, instructions.text)]
    if instructions.examples:
        parts.append(_indented(_EXAMPLES, "\n".join(instructions.examples)))
    return Instructions("\n\n".join(parts), LETTERS)


def _indented(heading: str, text: str) -> str:
    return f"{heading}\n{indent(text.strip(), _MARGIN)}"


def read_letter(action: str) -> int | None:
    """Return the index of the action that a judge named, 0 or 1; None for any answer but one letter (`A`, `b.`, `(A)`,
    `Action B`).
    """
    found = _VERDICT.fullmatch(clean_action(action))
    return None if found is None else LETTERS.index(found[1].upper())


def check_judge(agent: Agent, question: Question) -> None:
    """Raise an error where an agent cannot judge.

    Raises:
        CotbenchError: it cannot be asked this way, or it does not read what it is asked.
    """
    if "expert_action" in needs_of(agent):
        raise UsageError(
            f"agent {agent.name!r} repeats the expert's action and does not read questions, so it cannot judge: choose another "
            "--agent (how often a judge agrees with the expert is counted anyway)"
        )
    check_elicitation(agent, question.elicitation)


def ask_judge(agent: Agent, pairs: Sequence[Pair], question: Question) -> Iterator[Judgement]:
    """Yield a judgement of each pair, as soon as it is known.

    A round asks about one state of as many episodes as keep the agent busy, and of each episode in the order of its steps, so
    that an engine finds the prefix of a question in its KV cache.

    Args:
        agent: the judge.
        pairs: the pairs.
        question: the form of the question.
    """
    needs = needs_of(agent)
    at_once = max(1, getattr(agent, "batch", _BATCH))
    by_episode: dict[str, deque[Pair]] = {}
    for pair in pairs:
        by_episode.setdefault(pair.episode, deque()).append(pair)
    waiting, running = deque(by_episode.values()), list[deque[Pair]]()
    while waiting or running:
        while waiting and len(running) < at_once:
            running.append(waiting.popleft())
        current = [(pair, question.orders(pair)) for pair in (states.popleft() for states in running)]
        answers = iter(
            decide_or_errors(agent, [question.query(pair, first, needs) for pair, orders in current for first in orders])
        )
        for pair, orders in current:
            yield _judgement(pair, [(first, next(answers)) for first in orders])
        running = [states for states in running if states]


def _judgement(pair: Pair, answers: Sequence[tuple[Mode, Decision]]) -> Judgement:
    failed = failure_fields(*(decision for _, decision in answers))
    verdicts = [] if failed else [_verdict(first, decision) for first, decision in answers]
    return Judgement(
        task=pair.task,
        step=pair.step,
        prompt_action=pair.prompt_action,
        cot_action=pair.cot_action,
        expert_action=pair.expert_action,
        verdicts=tuple(verdicts),
        **failed,
    )


def _verdict(first: Mode, decision: Decision) -> JudgeVerdict:
    order: tuple[Mode, Mode] = ("prompt", "cot") if first == "prompt" else ("cot", "prompt")
    letter = read_letter(decision.action)
    return JudgeVerdict(first=first, preferred=None if letter is None else order[letter], decision=decision)
