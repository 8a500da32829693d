"""A run as a taskset of verifiers (its v1 API), with the harness that plays it. Invariant: the reward is the environment's
verdict; an episode whose environment or model failed has an error and no reward.

The harness plays in this process, and every answer comes from the evaluated model through verifiers' own endpoint, so that its
trace holds every call. A module that exports both is what `vf-eval MODULE` loads: see examples/bridge_verifiers.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cotbench.bridges.hosted_run import HostedRun, Reply, hosted_config
from cotbench.errors import AgentError, MissingExtraError
from cotbench.prompting.elicitation import Message
from cotbench.prompting.generation import GenerationRequest
from cotbench.runs.episode import Episode, row_of
from cotbench.runs.manifest import RunConfig
from cotbench.runs.rollout import RolloutSpec

try:
    import verifiers.v1 as vf
    from openai import AsyncOpenAI
    from verifiers.v1.runtimes import ProgramResult
except ImportError as error:
    raise MissingExtraError(
        "a taskset of verifiers (in an environment of its own, without constraints.txt)", "verifiers"
    ) from error

EPISODE = "cotbench_episode"
"""Key of a trace's `info` under which its episode stands."""

_SEEDS = 2**31


class CotbenchTasksetConfig(vf.TasksetConfig):  # type: ignore[misc]  # verifiers is `Any` to the type checker.
    """The settings of a run: `--env.taskset.split ood`; see `RunConfig`."""

    environment: str = "alfworld-gen"
    split: str = "id"
    scheme: str = "paper"
    mode: Literal["prompt", "cot", "both"] = "cot"
    episodes: int | None = None
    seed: int = 0
    max_steps: int | None = None
    data: Path | None = None
    elicitation: dict[str, Any] = {}

    def run_config(self) -> RunConfig:
        """Return the settings as those of a run."""
        return hosted_config(
            "verifiers",
            self.environment,
            self.elicitation,
            split=self.split,
            scheme=self.scheme,
            mode=self.mode,
            episodes=self.episodes,
            seed=self.seed,
            max_steps=self.max_steps,
        )


class CotbenchTaskData(vf.TaskData):  # type: ignore[misc]
    """One episode, and the run that it is of."""

    task_type: str
    mode: Literal["prompt", "cot"]
    data: Path | None = None
    config: RunConfig


class CotbenchTask(vf.Task[CotbenchTaskData]):  # type: ignore[misc]
    """One episode: its name is `TASK#MODE`, its reward the environment's verdict."""

    @vf.reward  # type: ignore[untyped-decorator]
    async def success(self, trace: vf.Trace) -> float:
        """Return 1 for an episode that the environment counts as won, else 0."""
        return float(episode_of(trace).success)

    @vf.metric  # type: ignore[untyped-decorator]
    async def numbers(self, trace: vf.Trace) -> Mapping[str, float]:
        """Return the numbers of the episode that are no reward."""
        episode = episode_of(trace)
        row = row_of(episode)
        return {
            "score": episode.score,
            "steps": float(episode.steps),
            "invalid_actions": float(row.invalid_actions),
            "format_kept": float(row.format_kept),
            "compared": float(row.compared),
            "revised": float(row.revised),
        }


class CotbenchTaskset(vf.Taskset[CotbenchTask, CotbenchTasksetConfig]):  # type: ignore[misc]
    """The episodes of a run, in its order."""

    def load(self) -> Iterator[CotbenchTask]:
        """Yield the episodes; no engine is started."""
        settings: CotbenchTasksetConfig = self.config
        config = settings.run_config()
        for one in HostedRun.of(config, settings.data).episodes:
            about = {"task_type": one.task_type, "mode": one.mode, "data": settings.data, "config": config}
            yield CotbenchTask(CotbenchTaskData(id=one.task, name=one.key, prompt=one.task, **about), settings.task)


class CotbenchHarness(vf.Harness[vf.HarnessConfig]):  # type: ignore[misc]
    """Plays an episode with the evaluated model, in this process: no program is installed or launched."""

    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: Mapping[str, str],
        data: CotbenchTaskData,
    ) -> ProgramResult:
        """Play the episode of a task.

        Args:
            ctx: the evaluated model.
            trace: the record, whose `info` gets the episode.
            runtime: not used.
            endpoint, secret: where the model is asked.
            mcp_urls: not used: there are no tools.
            data: the task.

        Raises:
            EngineError: the environment failed.
            AgentError: the model gave no answer.
        """
        run = HostedRun.of(data.config.model_copy(update={"tasks": (data.id,), "episodes": None}), data.data)
        async with AsyncOpenAI(base_url=endpoint, api_key=secret) as client:
            model = _Model(client, ctx.model, run)
            episode = await run.play(RolloutSpec(str(data.id), data.task_type, data.mode), model)
        trace.info[EPISODE] = episode.model_dump(mode="json")
        return ProgramResult(exit_code=0, stdout="", stderr="")


class _Model:
    """The evaluated model, behind verifiers' endpoint."""

    def __init__(self, client: Any, name: str, run: HostedRun) -> None:
        self._client, self._name, self._elicitation = client, name, run.plan.config.elicitation

    async def __call__(self, chat: Sequence[Message], request: GenerationRequest) -> Reply:
        elicitation = self._elicitation
        sampled = {"top_p": elicitation.top_p, "seed": request.seed % _SEEDS} if elicitation.temperature > 0 else {}
        completion = await self._client.chat.completions.create(
            model=self._name,
            messages=[message._asdict() for message in chat],
            max_tokens=request.budget,
            temperature=elicitation.temperature,
            **sampled,
        )
        return _reply(completion, self._name)


def episode_of(trace: Any) -> Episode:
    """Return the episode that a trace holds.

    Raises:
        AgentError: it was not played to its end.
    """
    if EPISODE not in trace.info:
        ended = trace.stop_condition or "an error"
        raise AgentError(f"the episode was not played to its end ({ended}): raise that limit, or run the episode again")
    return Episode.model_validate(trace.info[EPISODE])


def _reply(completion: Any, model: str) -> Reply:
    choice = completion.choices[0] if completion.choices else None
    if choice is None or choice.finish_reason not in ("stop", "length", None):
        ended = "nothing" if choice is None else choice.finish_reason
        raise AgentError(f"{model} gave no answer ({ended}): run the episode again (vf-eval --resume)")
    message, usage = choice.message, completion.usage
    extra = message.model_extra or {}
    return Reply(
        text=message.content or "",
        reasoning=extra.get("reasoning_content") or extra.get("reasoning"),
        tokens=usage.completion_tokens if usage is not None else 0,
        prompt_tokens=usage.prompt_tokens if usage is not None else 0,
        truncated=choice.finish_reason == "length",
    )
