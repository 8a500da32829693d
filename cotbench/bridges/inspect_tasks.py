"""A run as a task of inspect_ai: one sample an episode. Invariant: a sample's score is the environment's verdict; a sample
whose environment or model failed is an error of inspect_ai's, and one that a limit ended has no score.

`inspect eval cotbench/cotbench -T env=alfworld-gen -T split=id --model MODEL`, or `inspect_ai.eval(inspect_task(...))`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from cotbench.bridges.hosted_run import HostedRun, Reply, hosted_config
from cotbench.errors import AgentError, MissingExtraError
from cotbench.prompting.elicitation import Elicitation, Message
from cotbench.prompting.generation import GenerationRequest
from cotbench.runs.episode import Episode, row_of

try:
    from inspect_ai import Task, task
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import (
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageUser,
        ContentReasoning,
        GenerateConfig,
        ModelOutput,
        get_model,
    )
    from inspect_ai.scorer import Score, Scorer, Target, grouped, mean, scorer, stderr
    from inspect_ai.solver import Generate as SolverGenerate
    from inspect_ai.solver import Solver, TaskState, solver
except ImportError as error:
    raise MissingExtraError(
        "a task of inspect_ai (in an environment of its own, without constraints.txt)", "inspect"
    ) from error

EPISODE = "cotbench_episode"
"""Key of the sample's store under which its episode stands."""

_MESSAGES = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
_SEEDS = 2**31


def inspect_task(
    env: str = "alfworld-gen",
    split: str = "id",
    *,
    scheme: str = "paper",
    mode: Literal["prompt", "cot", "both"] = "both",
    episodes: int | None = None,
    seed: int = 0,
    max_steps: int | None = None,
    data: Path | None = None,
    elicitation: dict[str, Any] | None = None,
) -> Task:
    """Return a split of an environment as a task of inspect_ai.

    Args:
        env, split, scheme, mode, episodes, seed, max_steps: as for `RunConfig`; the tasks are those that a run plays.
        data: the folder with game data, for environments that read one.
        elicitation: fields of `Elicitation` with other values than the environment's defaults.

    Returns:
        The task: its metrics are the success rate of each mode, and its samples hold whole episodes (`episode_of`).

    Raises:
        CotbenchError: as `make_plan`; the engine of the environment is not installed.
    """
    config = hosted_config(
        "inspect_ai",
        env,
        elicitation,
        scheme=scheme,
        split=split,
        mode=mode,
        episodes=episodes,
        seed=seed,
        max_steps=max_steps,
    )
    run = HostedRun.of(config, data)
    samples = [
        Sample(id=one.key, input=one.task, metadata={"task": one.task, "task_type": one.task_type, "mode": one.mode})
        for one in run.episodes
    ]
    return Task(
        dataset=MemoryDataset(samples, name=f"{env} {scheme}/{split}"),
        solver=play_episode(run),
        scorer=verdict(),
        name=f"cotbench_{env}_{split}",
        metadata={"config": config.model_dump(mode="json"), "elicitation_fingerprint": config.elicitation.fingerprint},
    )


@task  # type: ignore[untyped-decorator]  # inspect_ai is `Any` to the type checker.
def cotbench(
    env: str = "alfworld-gen",
    split: str = "id",
    scheme: str = "paper",
    mode: Literal["prompt", "cot", "both"] = "both",
    episodes: int | None = None,
    seed: int = 0,
    max_steps: int | None = None,
    data: str | None = None,
) -> Task:
    """Return the task that `inspect eval cotbench/cotbench` plays; the arguments are those of `inspect_task`."""
    folder = None if data is None else Path(data)
    return inspect_task(env, split, scheme=scheme, mode=mode, episodes=episodes, seed=seed, max_steps=max_steps, data=folder)


@solver  # type: ignore[untyped-decorator]
def play_episode(run: HostedRun) -> Solver:
    """Return the solver that plays a sample's episode with the evaluated model; epochs are rollouts of the same task."""
    elicitation, episodes = run.plan.config.elicitation, {one.key: one for one in run.episodes}

    async def generate(chat: Sequence[Message], request: GenerationRequest) -> Reply:
        messages = [_MESSAGES[role](content=content) for role, content in chat]
        return _reply(await get_model().generate(messages, config=_generation(elicitation, request)))

    async def solve(state: TaskState, _: SolverGenerate) -> TaskState:
        episode = await run.play(replace(episodes[str(state.sample_id)], rollout=state.epoch - 1), generate)
        state.store.set(EPISODE, episode.model_dump(mode="json"))
        state.messages = list(_transcript(episode))
        return state

    return solve


@scorer(  # type: ignore[untyped-decorator]
    metrics=[
        grouped(mean(), "mode", all=False),
        grouped(stderr(), "mode", all=False, name_template="{group_name}_stderr"),
    ]
)
def verdict() -> Scorer:
    """Return the scorer: the environment's verdict on the episode."""

    async def score(state: TaskState, target: Target) -> Score:
        if state.store.get(EPISODE) is None:
            return Score.unscored(explanation="the episode was not played to its end", reason="scoring_failed")
        episode = episode_of(state.store)
        row = row_of(episode)
        return Score(
            value=float(episode.success),
            answer=episode.trajectory[-1].action if episode.trajectory else None,
            explanation=episode.goal,
            metadata={
                "score": episode.score,
                "raw_score": episode.raw_score,
                "steps": episode.steps,
                "invalid_actions": row.invalid_actions,
                "format_kept": row.format_kept,
                "compared": row.compared,
                "revised": row.revised,
            },
        )

    return score


def episode_of(store: Any) -> Episode:
    """Return the episode in the store of a sample, of a running one or of one in a log."""
    return Episode.model_validate(store[EPISODE] if isinstance(store, dict) else store.get(EPISODE))


def _generation(elicitation: Elicitation, request: GenerationRequest) -> GenerateConfig:
    sampled = elicitation.temperature > 0
    return GenerateConfig(
        max_tokens=request.budget,
        temperature=elicitation.temperature,
        top_p=elicitation.top_p if sampled and elicitation.top_p < 1 else None,
        seed=request.seed % _SEEDS if sampled else None,
    )


def _reply(output: ModelOutput) -> Reply:
    """Return a model's output as a reply.

    Raises:
        AgentError: it is no answer: refused by a filter, or the context is full.
    """
    if output.empty or output.error or output.stop_reason not in ("stop", "max_tokens", "unknown"):
        ended = "nothing" if output.empty else output.error or output.stop_reason
        raise AgentError(f"{output.model or 'the model'} gave no answer ({ended}): run the sample again (inspect eval-retry)")
    message, usage = output.message, output.usage
    content = message.content if isinstance(message.content, list) else []
    reasoning = [one.reasoning for one in content if isinstance(one, ContentReasoning)]
    return Reply(
        text=message.text,
        reasoning="\n".join(reasoning) if reasoning else None,
        tokens=usage.output_tokens if usage is not None else 0,
        prompt_tokens=usage.input_tokens if usage is not None else 0,
        truncated=output.stop_reason == "max_tokens",
    )


def _transcript(episode: Episode) -> Any:
    """Yield the episode as messages for the log: each answer as the model wrote it."""
    yield ChatMessageUser(content=episode.first_observation)
    for step in episode.trajectory:
        yield ChatMessageAssistant(content=step.decision.raw)
        yield ChatMessageUser(content=step.observation)
