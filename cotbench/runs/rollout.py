"""Rollouts: an agent answers, environments act, many episodes side by side. Invariant: an episode depends on its task, its
mode, its rollout number, the agent and the seed alone, never on the other episodes; a failure ends one episode as an error and
no other; no episode waits for another.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from cotbench.agents.base import Agent, StreamingAgent, agent_code, needs_of, scores_actions
from cotbench.agents.decisions import bounded_decision, check_decision, decide_all, error_decision
from cotbench.agents.ranking import Answering, RankedAnswers
from cotbench.bounds import ANSWERS_CHARS, TextBudget
from cotbench.envs.registry import Instructions
from cotbench.errors import EngineError, EnvBugError, WorkerLostError
from cotbench.failure import Failure, agent_bug, failure_in, failure_of, registered_code
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation, Mode
from cotbench.prompting.query import Decision, Query, derive_seed
from cotbench.runs.env_workers import EnvHandle, EnvReply, wait_for_replies
from cotbench.runs.episode import Episode, Step, episode_key

_SHORT_WAIT, _LONG_WAIT = 0.01, 1.0
"""Seconds to wait for environments or for the agent: short while the other side may be ready too, long otherwise."""


@dataclass(frozen=True, slots=True)
class RolloutSpec:
    """Name one episode to play: a task in a mode, for the k-th time.

    Attributes:
        task, task_type: the task's id, and its kind within the environment.
        mode: `prompt` or `cot`.
        rollout: k, from 0; the rollouts of one task in one mode are a group.
    """

    task: str
    task_type: str
    mode: Mode
    rollout: int = 0

    @property
    def key(self) -> str:
        """Return the episode's name within its run."""
        return episode_key(self.task, self.mode, self.rollout)


@dataclass(frozen=True, slots=True)
class RolloutRules:
    """Hold what is the same for all episodes of a run.

    Attributes:
        env: the environment's name in the registry.
        instructions: what the environment tells a model.
        elicitation: how answers are asked for.
        seed: the run's seed.
        both: whether each state of a CoT episode gets the prompt action too, recorded and not executed.
        canonical: the environment's spelling of actions, which has one for every text (`EnvEntry.canonical`).
        return_tokens: whether decisions should carry their token ids.
    """

    env: str
    instructions: Instructions
    elicitation: Elicitation
    seed: int
    both: bool
    canonical: Callable[[str], str]
    return_tokens: bool = False


class Observer(Protocol):
    """Receive the progress of a rollout."""

    def stepped(self, unit: RolloutSpec, step: int) -> None:
        """Handle the execution of an action."""

    def finished(self, episode: Episode) -> None:
        """Handle the end of an episode."""


@runtime_checkable
class StepObserver(Observer, Protocol):
    """Receive what was executed, too."""

    def executed(self, unit: RolloutSpec, step: Step) -> None:
        """Handle an executed action with its decisions; called before `stepped`."""


_NOT_BEGUN = EnvReply("", False, False, {})

_RETRIES = 1
"""How often an episode is begun again whose environment's process was lost; the answers to the same queries are the same."""


@dataclass(slots=True, eq=False)
class EpisodeSlot:
    """One environment and the episode that is played in it; either the environment's reply or the agent's decision is awaited.

    Attributes:
        env: the environment.
        unit: the episode.
        dialogue, reply: the state that the episode is in.
        env_pending: whether the environment's reply is awaited; else the agent's decisions are.
        queries: how many queries were submitted about this state; `decisions` holds the answers by their index.
        steps: what was executed so far.
        texts: the budget of what the agent answers.
        over: whether the episode has ended.
        lost: how often the environment's process was lost, and the episode begun again in another one.
        started: when it began, on the monotonic clock.
    """

    env: EnvHandle
    unit: RolloutSpec
    dialogue: Dialogue
    reply: EnvReply = _NOT_BEGUN
    env_pending: bool = True
    queries: int = 0
    decisions: dict[int, Decision] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    texts: TextBudget = field(default_factory=lambda: TextBudget(ANSWERS_CHARS))
    over: bool = False
    lost: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> str:
        """Return the episode's name."""
        return self.unit.key

    def ask(self, rules: RolloutRules, needs: frozenset[str]) -> list[Query]:
        """Return the query of the episode's own mode, then, where the run records it, the prompt action's."""
        modes: list[Mode] = [self.unit.mode]
        if rules.both and self.unit.mode == "cot":
            modes.append("prompt")
        self.env_pending, self.queries, self.decisions = False, len(modes), {}
        info, step, unit = self.reply.info, len(self.steps), self.unit
        admissible = tuple(info["admissible_actions"]) if "admissible_actions" in info else None
        # Rollout 0 has the seeds of a run that plays every task once.
        rollout = (unit.rollout,) if unit.rollout else ()
        return [
            Query(
                episode=self.key,
                env=rules.env,
                task=unit.task,
                step=step,
                mode=mode,
                dialogue=self.dialogue,
                elicitation=rules.elicitation,
                seed=derive_seed(rules.seed, unit.task, unit.mode, step, mode, *rollout),
                rollout=unit.rollout,
                admissible_actions=admissible,
                expert_action=info.get("expert_action") if "expert_action" in needs else None,
                return_tokens=rules.return_tokens,
            )
            for mode in modes
        ]

    def awaits(self, index: int) -> bool:
        """Return whether the agent still owes the answer to the query of this index."""
        return not self.env_pending and 0 <= index < self.queries and index not in self.decisions

    def begin(self, instructions: Instructions) -> None:
        """Request the start of the task; also again, after the environment's process was lost."""
        self.dialogue, self.reply, self.steps = Dialogue(instructions, ("",)), _NOT_BEGUN, []
        self.env_pending, self.queries, self.decisions, self.texts = True, 0, {}, TextBudget(ANSWERS_CHARS)
        self.env.ask_reset(self.unit.task)

    def take(self, reply: EnvReply, rules: RolloutRules) -> None:
        """Record the environment's reply: the first observation, or what followed the action."""
        if self.reply is _NOT_BEGUN:
            functions = "\n".join(map(json.dumps, reply.info.get("functions", ())))
            self.dialogue = Dialogue(rules.instructions, (reply.observation,), functions=functions)
        else:
            decision, prompt = self.decisions[0], self.decisions.get(1)
            step = Step(
                action=rules.canonical(decision.action),
                decision=decision,
                prompt_action=rules.canonical(prompt.action) if prompt else None,
                prompt_decision=prompt,
                expert_action=self.reply.info.get("expert_action"),
                observation=reply.observation,
                score=reply.info["score"],
                invalid_action=reply.info["invalid_action"],
            )
            self.steps.append(step)
            self.dialogue = self.dialogue.extended(step.action, decision.trace, reply.observation)
        self.reply = reply

    def episode(self, failure: Failure | None = None) -> Episode:
        """Return the episode as far as it went."""
        unit = self.unit
        fields = {} if failure is None else failure.fields
        names = {"task": unit.task, "task_type": unit.task_type, "mode": unit.mode, "rollout": unit.rollout, **fields}
        if self.reply is _NOT_BEGUN:
            return Episode(**names)
        info = self.reply.info
        return Episode(
            **names,
            goal=info["goal"],
            success=info["success"] and failure is None,
            score=info["score"] if failure is None else 0.0,
            raw_score=info["raw_score"] if failure is None else 0.0,
            steps=len(self.steps),
            terminated=self.reply.terminated,
            truncated=self.reply.truncated,
            restarts=info["restarts"] + self.lost,
            functions=self.dialogue.functions,
            first_observation=self.dialogue.observations[0],
            trajectory=tuple(self.steps),
            seconds=round(time.monotonic() - self.started, 3),
        )


def _always(in_play: int) -> bool:
    return True


def play(
    units: Sequence[RolloutSpec],
    agent: Agent,
    envs: Sequence[EnvHandle],
    rules: RolloutRules,
    observer: Observer,
    may_begin: Callable[[int], bool] = _always,
) -> None:
    """Play every unit, as many at once as there are environments.

    A state is given to the agent as soon as its environment has replied, and an environment acts as soon as the agent has
    decided; neither waits for the slowest.

    Args:
        units: the episodes, in the order in which they begin; their keys must differ.
        agent: who plays.
        envs: one for each episode at a time.
        rules: what is the same for all episodes.
        observer: receives the progress.
        may_begin: told how many episodes are being played, returns whether another may begin; where it may not and none is
            being played, the rest is not played.
    """
    _Rollout(agent, rules, observer, may_begin).play(deque(units), deque(envs))


class _Rollout:
    """Play episodes; those that are being played are held by their keys."""

    def __init__(self, agent: Agent, rules: RolloutRules, observer: Observer, may_begin: Callable[[int], bool]) -> None:
        self._agent, self._rules, self._observer, self._may_begin = agent, rules, observer, may_begin
        self._needs = needs_of(agent)
        self._in_rounds = not isinstance(agent, StreamingAgent)
        answers: Answering = agent if isinstance(agent, StreamingAgent) else _Rounds(agent)
        self._answers = answers if self._in_rounds or not scores_actions(agent) else RankedAnswers(answers)
        self._slots: dict[str, EpisodeSlot] = {}

    def play(self, waiting: deque[RolloutSpec], idle: deque[EnvHandle]) -> None:
        """Play until nothing is left, or no more may begin."""
        while self._slots or (waiting and self._may_begin(0)):
            while waiting and idle and self._may_begin(len(self._slots)):
                slot = EpisodeSlot(idle.popleft(), waiting.popleft(), Dialogue(self._rules.instructions, ("",)))
                slot.begin(self._rules.instructions)
                self._slots[slot.key] = slot
            working = [slot for slot in self._slots.values() if slot.env_pending]
            awaited = len(self._slots) - len(working)
            # A streaming agent computes meanwhile; a round is worth a short wait for environments that are about to reply.
            wait = _LONG_WAIT if not awaited else _SHORT_WAIT if self._in_rounds else 0.0
            ready = wait_for_replies([slot.env for slot in working], wait) if working else []
            for slot in working:
                if any(slot.env is env for env in ready):
                    awaited += self._settle(slot)
            idle += self._free()
            if waiting and idle and self._may_begin(len(self._slots)):
                continue  # New episodes join the agent's next queries.
            if awaited:
                self._collect(_SHORT_WAIT if len(ready) < len(working) else _LONG_WAIT)
                idle += self._free()

    def _free(self) -> list[EnvHandle]:
        """Drop the episodes that are over; return their environments."""
        over = [slot for slot in self._slots.values() if slot.over]
        for slot in over:
            del self._slots[slot.key]
        return [slot.env for slot in over]

    def _settle(self, slot: EpisodeSlot) -> bool:
        """Handle an environment's reply; return whether the agent now has a query."""
        begun = slot.reply is not _NOT_BEGUN
        try:
            reply = slot.env.read()
            with registered_code(f"environment {self._rules.env}", self._rules.canonical, EnvBugError):
                slot.take(reply, self._rules)  # An environment of others may leave parts of `info` out.
        except WorkerLostError as error:
            slot.lost += 1
            if slot.lost > _RETRIES:
                self._end(slot, failure_of(error))
            else:
                slot.begin(self._rules.instructions)
            return False
        except EngineError as error:
            self._end(slot, failure_of(error))
            return False
        if begun:
            if isinstance(self._observer, StepObserver):
                self._observer.executed(slot.unit, slot.steps[-1])
            self._observer.stepped(slot.unit, len(slot.steps))
        if slot.reply.terminated or slot.reply.truncated:
            self._end(slot)
            return False
        for index, query in enumerate(slot.ask(self._rules, self._needs)):
            try:
                with agent_code(self._agent):
                    self._answers.submit((slot.key, index), query)
            except Exception as error:  # `submit` should not raise; where it does, this query alone fails.
                slot.decisions[index] = error_decision(error)
        return True

    def _collect(self, wait: float) -> None:
        """Collect the agent's decisions, and act where a state has all of them."""
        awaited = [slot for slot in self._slots.values() if not slot.env_pending and not slot.over]
        try:
            with agent_code(self._agent):
                answers = list(self._answers.collect(wait))
            for answer in answers:
                episode, index, decision = self._place(answer)
                self._slots[episode].decisions[index] = check_decision(self._agent, decision)
        except Exception as error:  # An exception of the agent fails every query that it has.
            failed = error_decision(error)
            for slot in awaited:
                slot.decisions = dict.fromkeys(range(slot.queries), failed) | slot.decisions
        for slot in awaited:
            if len(slot.decisions) < slot.queries:
                continue
            failure = failure_in(*(decision for _, decision in sorted(slot.decisions.items())))
            if failure is not None:
                self._end(slot, failure)
                continue
            slot.decisions = {
                index: bounded_decision(decision, slot.texts) for index, decision in sorted(slot.decisions.items())
            }
            slot.env_pending = True
            slot.env.ask_step(self._rules.canonical(slot.decisions[0].action))

    def _place(self, answer: object) -> tuple[str, int, object]:
        """Return the episode and the index of the query that is answered, and the decision.

        Raises:
            AgentBugError: there is no such query, or it is answered already.
        """
        match answer:
            case ((str(episode), int(index)), decision) if episode in self._slots and self._slots[episode].awaits(index):
                return episode, index, decision
            case (key, _):
                raise agent_bug(self._agent, f"answered {key!r}, which it was not asked")
        raise agent_bug(self._agent, f"returned a {type(answer).__name__} from collect, not a key with its decision")

    def _end(self, slot: EpisodeSlot, failure: Failure | None = None) -> None:
        slot.over = True
        self._observer.finished(slot.episode(failure))


class _Rounds:
    """Adapt an agent without `submit` and `collect` to these methods: it answers in rounds, a batch at a time."""

    batch = 1

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._queries: list[tuple[Hashable, Query]] = []

    def submit(self, key: Hashable, query: Query) -> None:
        """Put a query into the next round."""
        self._queries.append((key, query))

    def collect(self, wait: float) -> list[tuple[Hashable, Decision]]:
        """Return the decisions for all queries of the round."""
        queries, self._queries = self._queries, []
        decisions = decide_all(self._agent, [query for _, query in queries])
        return [(key, decision) for (key, _), decision in zip(queries, decisions, strict=True)]
