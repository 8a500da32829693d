"""Episodes whose answers come from another framework's model. Invariant: an episode is the one that `cotbench run` plays with
`--elicitation-style template`: the same tasks, prompts, reading of answers and verdict; what fails outside of the model is
raised, never scored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cotbench.agents.decisions import bounded_decision
from cotbench.errors import EnvBugError, UsageError
from cotbench.failure import registered_code
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation, Message
from cotbench.prompting.generation import Generation, GenerationRequest, answer_program, first_stop
from cotbench.prompting.parsing import THINK_CLOSE, THINK_OPEN
from cotbench.prompting.query import Decision, Query
from cotbench.runs.env_workers import EnvSettings, LocalEnv
from cotbench.runs.episode import Episode
from cotbench.runs.manifest import RunConfig
from cotbench.runs.plan import RunPlan, make_plan
from cotbench.runs.rollout import EpisodeSlot, RolloutRules, RolloutSpec

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """Hold what a framework's model answered.

    Attributes:
        text: the assistant's message.
        reasoning: what the framework took out of it as reasoning; None where there was none.
        tokens: how many were generated, where the framework tells.
        prompt_tokens: how many the prompt has, where the framework tells.
        truncated: whether the token budget ended it.
    """

    text: str
    reasoning: str | None = None
    tokens: int = 0
    prompt_tokens: int = 0
    truncated: bool = False

    def generation(self, request: GenerationRequest) -> Generation:
        """Return the reply as the continuation that was requested, cut at the first stop string.

        Reasoning stands in tags again, so that a prompt action of a model that reasons anyway is seen to be none.

        Args:
            request: what was requested.
        """
        text = self.text
        if self.reasoning is not None:
            closed = text or not self.truncated
            text = f"{THINK_OPEN}{self.reasoning}" + (f"{THINK_CLOSE}\n{text}" if closed else "")
        stopped = first_stop(text, request.stops, request.one_line)
        if stopped is not None:
            return Generation(stopped[0], stopped[1], self.tokens)
        return Generation(text, "budget" if self.truncated else "eos", self.tokens)


class Generate(Protocol):
    """A framework's model."""

    def __call__(self, chat: Sequence[Message], request: GenerationRequest) -> Awaitable[Reply]:
        """Return the model's answer to a chat.

        Args:
            chat: the messages; the last one is the user's.
            request: `budget`: tokens at most; `seed`: of sampling. The stop strings need not be sent.
        """


def hosted_config(framework: str, env: str, elicitation: dict[str, Any] | None = None, **options: Any) -> RunConfig:
    """Return the settings of a run whose answers come from a framework's model.

    Args:
        framework: its name, which stands where a run names its agent.
        env: the environment's name.
        elicitation: fields of `Elicitation` with other values than the environment's defaults; the style is `template`.
        options: other fields of `RunConfig`; None means the default.

    Raises:
        UsageError: frameworks chat: nothing can be prefilled, and actions cannot be ranked.
    """
    whole = Elicitation.for_env(env, **{"style": "template", **(elicitation or {})})
    if whole.style != "template" or whole.prompt_action != "bare":
        raise UsageError(
            f"{framework} sends whole chats, in which no turn can be opened: keep the elicitation's style template and its "
            "prompt_action bare, or play with cotbench run"
        )
    given = {name: value for name, value in options.items() if value is not None}
    return RunConfig(agent=framework, env=env, elicitation=whole, **given)


@dataclass(frozen=True, slots=True)
class HostedRun:
    """A run of which each episode is played on its own, when the framework wants it.

    Attributes:
        plan: the settings and the tasks.
        rules: what is the same for all episodes.
        settings: how an environment is made.
    """

    plan: RunPlan
    rules: RolloutRules
    settings: EnvSettings

    @classmethod
    def of(cls, config: RunConfig, data: Path | None = None) -> HostedRun:
        """Plan a run; start no engine.

        Args:
            config: the settings of the run.
            data: the folder with game data, for environments that read one.

        Raises:
            CotbenchError: as `make_plan`; the environment's engine is not installed.
        """
        plan = make_plan(config, data)
        plan.entry.require()
        dialect = plan.entry.dialect_of(plan.tasks, data)
        recorded = config.expert_actions if config.expert_actions is not None else plan.entry.expert_at_hand
        request = {"expert_action"} if recorded else set()
        if config.elicitation.needs_admissible:
            request.add("admissible_actions")
        expert = plan.entry.experts.recorded if recorded and plan.entry.experts is not None else ""
        return cls(plan, plan.rules(dialect), plan.env_settings(request, data, dialect=dialect, expert=expert))

    @property
    def episodes(self) -> list[RolloutSpec]:
        """The episodes of the run, in order."""
        return self.plan.rollouts

    async def play(self, episode: RolloutSpec, generate: Generate) -> Episode:
        """Play an episode to its end.

        Args:
            episode: one of `episodes`.
            generate: the framework's model; what it raises ends the episode and is raised.

        Returns:
            The whole episode, with the environment's verdict.

        Raises:
            EngineError: the environment failed; there is no verdict.
        """
        # An engine's process ends with the thread that has started it, and a framework's own threads come and go.
        with _Thread() as thread:
            env = await thread.call(LocalEnv, self.settings)
            thread.at_end(env.close)
            slot = EpisodeSlot(env, episode, Dialogue(self.rules.instructions, ("",)))
            slot.begin(self.rules.instructions)
            while True:
                reply = await thread.call(env.read)
                with registered_code(f"environment {self.rules.env}", self.rules.canonical, EnvBugError):
                    slot.take(reply, self.rules)
                if reply.terminated or reply.truncated:
                    return slot.episode()
                for index, query in enumerate(slot.ask(self.rules, frozenset())):
                    slot.decisions[index] = bounded_decision(await _decide(query, generate), slot.texts)
                env.ask_step(self.rules.canonical(slot.decisions[0].action))


async def _decide(query: Query, generate: Generate) -> Decision:
    program = answer_program(query)
    request = next(program)
    reply = await generate(query.elicitation.messages(query.dialogue, query.mode, query.admissible_actions), request)
    try:
        program.send(reply.generation(request))
    except StopIteration as answered:
        decision: Decision = answered.value
        return replace(decision, prompt_tokens=reply.prompt_tokens, prefilled_tokens=reply.prompt_tokens)
    raise AssertionError("a free answer is one generation")


class _Thread:
    """A thread of an episode's own, in which its environment lives."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cotbench-episode")
        self._last: Callable[[], None] | None = None

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in the thread, and let the framework's other work go on meanwhile."""
        from anyio import to_thread

        return await to_thread.run_sync(lambda: self._pool.submit(function, *arguments).result())

    def at_end(self, function: Callable[[], None]) -> None:
        """Have a function called in the thread before it ends."""
        self._last = function

    def __enter__(self) -> _Thread:
        return self

    def __exit__(self, *error: object) -> None:
        # Without waiting, and without `await`: the framework may have cancelled the episode.
        if self._last is not None:
            self._pool.submit(self._last)
        self._pool.shutdown(wait=False)
