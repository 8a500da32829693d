"""Playing episodes. Invariant: an episode depends on its task, its mode, the agent and the seed alone, never on how many others
are played beside it; an infrastructure failure ends one episode as an error and no other.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from cotbench.agents.base import Agent, needs_of
from cotbench.dialogue import Dialogue
from cotbench.elicitation import Elicitation, Mode
from cotbench.envs.registry import Instructions
from cotbench.episode import Episode, Step, episode_key
from cotbench.errors import EngineError
from cotbench.query import Decision, Query, derive_seed
from cotbench.workers import EnvHandle, Reply

_DECISION = TypeAdapter(Decision)


@dataclass(frozen=True, slots=True)
class Unit:
    """One episode to play: a task in a mode."""

    task: str
    task_type: str
    mode: Mode


@dataclass(frozen=True, slots=True)
class Rules:
    """What is the same for all episodes of a run.

    Attributes:
        instructions: what the environment tells a model.
        elicitation: how answers are asked for.
        seed: the run's seed.
        both: whether each state of a CoT episode gets the prompt action too, recorded and not executed.
        canonical: the environment's spelling of actions.
    """

    instructions: Instructions
    elicitation: Elicitation
    seed: int
    both: bool
    canonical: Callable[[str], str]


class Observer(Protocol):
    """Who wants to know how far a rollout is."""

    def stepped(self, unit: Unit, step: int) -> None:
        """An action was executed."""

    def finished(self, episode: Episode) -> None:
        """An episode ended."""


@dataclass(slots=True, eq=False)
class _Slot:
    """One environment and the episode that it plays."""

    env: EnvHandle
    unit: Unit
    started: float
    dialogue: Dialogue
    reply: Reply
    steps: list[Step] = field(default_factory=list)

    def queries(self, rules: Rules, needs: frozenset[str]) -> list[Query]:
        """The query of the episode's own mode, then, where asked for, the prompt action's."""
        modes: list[Mode] = [self.unit.mode]
        if rules.both and self.unit.mode == "cot":
            modes.append("prompt")
        info, step = self.reply.info, len(self.steps)
        listed = tuple(info["admissible_actions"]) if "admissible_actions" in info else None
        return [
            Query(
                episode=episode_key(self.unit.task, self.unit.mode),
                task=self.unit.task,
                step=step,
                mode=mode,
                dialogue=self.dialogue,
                elicitation=rules.elicitation,
                seed=derive_seed(rules.seed, self.unit.task, self.unit.mode, step, mode),
                admissible_actions=listed,
                expert_action=info.get("expert_action") if "expert_action" in needs else None,
            )
            for mode in modes
        ]

    def record(self, decisions: Sequence[Decision], canonical: Callable[[str], str], reply: Reply) -> None:
        """Take note of an executed action and what followed."""
        decision, *others = decisions
        prompt = others[0] if others else None
        step = Step(
            action=canonical(decision.action),
            decision=decision,
            prompt_action=canonical(prompt.action) if prompt else None,
            prompt_decision=prompt,
            expert_action=self.reply.info.get("expert_action"),
            observation=reply.observation,
            score=reply.info["score"],
            invalid_action=reply.info["invalid_action"],
        )
        self.steps.append(step)
        self.dialogue = self.dialogue.then(step.action, decision.trace, reply.observation)
        self.reply = reply

    def episode(self, error: str | None = None) -> Episode:
        """The episode as far as it went."""
        info = self.reply.info
        return Episode(
            task=self.unit.task,
            task_type=self.unit.task_type,
            mode=self.unit.mode,
            error=error,
            goal=info["goal"],
            success=info["success"] and error is None,
            score=info["score"] if error is None else 0.0,
            raw_score=info["raw_score"] if error is None else 0.0,
            steps=len(self.steps),
            terminated=self.reply.terminated,
            truncated=self.reply.truncated,
            restarts=info["restarts"],
            functions=self.dialogue.functions,
            first_observation=self.dialogue.observations[0],
            trajectory=tuple(self.steps),
            seconds=round(time.monotonic() - self.started, 3),
        )


def play(units: Sequence[Unit], agent: Agent, envs: Sequence[EnvHandle], rules: Rules, observer: Observer) -> None:
    """Play every unit, as many at once as there are environments.

    The agent is asked once a round, for all running episodes; the environments then work side by side.
    """
    waiting, idle, running = deque(units), list(envs), list[_Slot]()
    needs = needs_of(agent)
    while waiting or running:
        running += _start(waiting, idle, rules, observer)
        asked = [(slot, slot.queries(rules, needs)) for slot in running]
        answers = iter(_decide(agent, [query for _, queries in asked for query in queries]))
        acting: list[tuple[_Slot, list[Decision]]] = []
        for slot, queries in asked:
            decisions = [next(answers) for _ in queries]
            failed = next((decision.error for decision in decisions if decision.error is not None), None)
            if failed is not None:
                observer.finished(slot.episode(failed))
                running.remove(slot)
                idle.append(slot.env)
                continue
            slot.env.ask_step(rules.canonical(decisions[0].action))
            acting.append((slot, decisions))
        for slot, decisions in acting:
            ended, failed = _settle(slot, decisions, rules)
            observer.stepped(slot.unit, len(slot.steps))
            if ended:
                observer.finished(slot.episode(failed))
                running.remove(slot)
                idle.append(slot.env)


def _start(waiting: deque[Unit], idle: list[EnvHandle], rules: Rules, observer: Observer) -> list[_Slot]:
    """Give every idle environment the next episode."""
    begun: list[_Slot] = []
    while waiting and idle:
        asked = []
        while waiting and idle:
            env, unit = idle.pop(0), waiting.popleft()
            env.ask_reset(unit.task)
            asked.append((env, unit, time.monotonic()))
        for env, unit, started in asked:
            try:
                reply = env.read()
            except EngineError as error:
                observer.finished(Episode(task=unit.task, task_type=unit.task_type, mode=unit.mode, error=str(error)))
                idle.append(env)
                continue
            functions = "\n".join(map(json.dumps, reply.info.get("functions", ())))
            dialogue = Dialogue(rules.instructions, (reply.observation,), functions=functions)
            begun.append(_Slot(env, unit, started, dialogue, reply))
    return begun


def _settle(slot: _Slot, decisions: Sequence[Decision], rules: Rules) -> tuple[bool, str | None]:
    """Read what an action did: whether the episode ended, and the error that ended it."""
    try:
        reply = slot.env.read()
    except EngineError as error:
        return True, str(error)
    slot.record(decisions, rules.canonical, reply)
    return reply.terminated or reply.truncated, None


def _decide(agent: Agent, queries: Sequence[Query]) -> list[Decision]:
    """The agent's decisions; whatever it raises becomes the error of every query of the batch."""
    if not queries:
        return []
    try:
        decisions = list(agent.decide(queries))
    except Exception as error:
        return [Decision("", error=f"{type(error).__name__}: {error}")] * len(queries)
    if len(decisions) != len(queries):
        wrong = f"agent {agent.name} answered {len(decisions)} of {len(queries)} queries"
        return [Decision("", error=wrong)] * len(queries)
    return [_checked(agent, decision) for decision in decisions]


def _checked(agent: Agent, decision: object) -> Decision:
    """A decision that can be written down and read again; anything else an agent returns is an error."""
    if not isinstance(decision, Decision):
        return Decision("", error=f"agent {agent.name} returned a {type(decision).__name__}, not a Decision")
    # A lone surrogate is no text: it cannot be written to a file.
    fields = {name: _text(value) if isinstance(value, str) else value for name, value in asdict(decision).items()}
    try:
        # By way of JSON, for that is how it will be read again.
        return _DECISION.validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return Decision("", error=f"agent {agent.name} returned a Decision with a bad {place}: {first['msg']}")
    except TypeError as error:
        return Decision("", error=f"agent {agent.name} returned a Decision that is not data: {error}")


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode("utf-8")
