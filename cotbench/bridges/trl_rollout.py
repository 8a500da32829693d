"""Rollouts for TRL's GRPO trainer (`rollout_func`): whole episodes, played by the model that is being trained. Invariant: what
is trained on are the token ids of a decision as they were generated, behind the prompt that they were generated from; the
reward is the environment's verdict, and a failure ends the training with an error, never with a reward of 0.

TRL trains on one sequence a rollout. The prompts of later turns do not begin with the prompt and the answer of earlier ones:
what is shown of the past is the executed action, without its trace. So an episode is no such sequence: laid end to end, about
one token in nine would have another probability in training than it had when it was generated. Each rollout therefore gives one
decision of its episode, drawn by the seed, with the episode's reward: in expectation the mean over its decisions, at the price
of playing those that are not drawn.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cotbench.errors import AgentError, MissingExtraError, UsageError
from cotbench.failure import failure_in
from cotbench.prompting.elicitation import Elicitation, Mode
from cotbench.prompting.query import DecisionTokens, derive_seed
from cotbench.runs.env_workers import open_envs
from cotbench.runs.episode import Episode, row_of
from cotbench.runs.manifest import RunConfig
from cotbench.runs.plan import RunPlan, make_plan
from cotbench.runs.rollout import RolloutRules, RolloutSpec, play


class TRLRollout:
    """The `rollout_func` of a GRPO trainer, with the training tasks as its dataset.

    `GRPOTrainer(model, rollout.success, train_dataset=rollout.dataset(), rollout_func=rollout, ...)`. The sampling temperature
    and top-p are the trainer's own arguments.

    Args:
        env, split, scheme, episodes, seed, max_steps: as for `RunConfig`; by default the tasks of the split `train`.
        mode: `cot` or `prompt`: in which the episodes are played.
        data: the folder with game data, for environments that read one.
        elicitation: fields of `Elicitation` with other values than the environment's defaults.
        num_envs: episodes played side by side.
        workers: processes over which the environments are spread; 0: they live in this process.
        cache_gb: gigabytes for KV caches while episodes are played, as for `HFAgent`.

    Raises:
        CotbenchError: as `make_plan`; the engine of the environment is not installed.
        UsageError: mode `both`, in which there is no single action to train.
    """

    def __init__(
        self,
        env: str = "alfworld-gen",
        split: str = "train",
        *,
        scheme: str = "paper",
        mode: str = "cot",
        episodes: int | None = None,
        seed: int = 0,
        max_steps: int | None = None,
        data: Path | None = None,
        elicitation: dict[str, Any] | None = None,
        num_envs: int = 8,
        workers: int = 0,
        cache_gb: float | None = None,
    ) -> None:
        if mode not in ("cot", "prompt"):
            raise UsageError(f"mode {mode!r} cannot be trained: give cot or prompt")
        options = {"scheme": scheme, "mode": mode, "episodes": episodes, "seed": seed, "max_steps": max_steps}
        whole = Elicitation.for_env(env, **(elicitation or {}))
        config = RunConfig.model_validate({"agent": "trl", "env": env, "split": split, "elicitation": whole, **options})
        self.plan: RunPlan = make_plan(config, data)
        self.plan.entry.require()
        self._data, self._num_envs, self._workers, self._cache_gb = data, num_envs, workers, cache_gb
        self._dialect = self.plan.entry.dialect_of(self.plan.tasks, data)
        self._mode: Mode = "prompt" if mode == "prompt" else "cot"
        self._calls = 0

    def dataset(self) -> Any:
        """Return the tasks as a `datasets.Dataset`: the column `prompt` holds task ids, which the rollout turns into prompts.

        Raises:
            MissingExtraError: `datasets` is not installed.
        """
        try:
            from datasets import Dataset
        except ImportError as error:
            raise MissingExtraError("the dataset of TRL's trainer", "trl") from error
        return Dataset.from_dict({"prompt": list(self.plan.tasks)})

    @staticmethod
    def success(prompts: Sequence[str], *, success: Sequence[float], **_: Any) -> list[float]:
        """Return the rewards: 1 for an episode that the environment counts as won, else 0."""
        return list(success)

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, list[Any]]:
        """Play an episode for each prompt, as the trainer asks for it.

        Args:
            prompts: task ids; a group's are repeated.
            trainer: TRL's trainer.

        Returns:
            `prompt_ids`, `completion_ids`, `logprobs` and `env_mask` (1 where the model wrote the token) of one decision an
            episode, and of the episodes `success`, `score`, `steps` and `invalid_actions`, for reward functions.

        Raises:
            CotbenchError: an environment or the engine of the model failed.
        """
        self._calls += 1
        seed = derive_seed(self.plan.config.seed, "trl", trainer.accelerator.process_index, self._calls)
        sampling = {"temperature": trainer.args.temperature, "top_p": trainer.args.top_p}
        rules = self.plan.rules(self._dialect)
        rules = replace(rules, seed=seed, elicitation=rules.elicitation.model_copy(update=sampling), return_tokens=True)
        episodes = self._play(prompts, trainer, rules)
        rng = random.Random(seed)
        tokens = [_drawn_tokens(episode, rng) for episode in episodes]
        return {
            "prompt_ids": [list(one.prompt_ids) for one in tokens],
            "completion_ids": [list(one.completion_ids) for one in tokens],
            "logprobs": [list(one.logprobs) for one in tokens],
            "env_mask": [[int(not harness) for harness in one.harness] for one in tokens],
            "success": [float(episode.success) for episode in episodes],
            "score": [episode.score for episode in episodes],
            "steps": [episode.steps for episode in episodes],
            "invalid_actions": [row_of(episode).invalid_actions for episode in episodes],
        }

    def _play(self, prompts: Sequence[str], trainer: Any, rules: RolloutRules) -> list[Episode]:
        from cotbench.agents.hf.agent import HFAgent

        source, mode = self.plan.entry.source(), self._mode
        number = Counter[str]()
        units = []
        for task in prompts:
            units.append(RolloutSpec(task, source.task_type(task), mode, number[task]))
            number[task] += 1
        played = _Episodes()
        settings = self.plan.env_settings((), self._data, dialect=self._dialect)
        model = trainer.accelerator.unwrap_model(trainer.model)
        agent = HFAgent.from_model(model, trainer.processing_class, name="trl", cache_gb=self._cache_gb)
        envs = open_envs(settings, min(self._num_envs, len(units)), min(self._workers, len(units)))
        try:
            play(units, agent, envs, rules, played)
        finally:
            for env in envs:
                env.close()
            agent.close()
        return [played.by_key[unit.key] for unit in units]


class _Episodes:
    """Observer that holds the episodes, and raises the first failure."""

    def __init__(self) -> None:
        self.by_key: dict[str, Episode] = {}

    def stepped(self, unit: RolloutSpec, step: int) -> None:
        """Do nothing."""

    def finished(self, episode: Episode) -> None:
        """Hold an episode.

        Raises:
            CotbenchError: it failed.
        """
        failure = failure_in(episode)
        if failure is not None:
            message = (
                f"rollout of {episode.key}: {failure.error}; nothing was learned from it: train again from the last checkpoint"
            )
            raise replace(failure, error=message).exception
        self.by_key[episode.key] = episode


def _drawn_tokens(episode: Episode, rng: random.Random) -> DecisionTokens:
    tokens = rng.choice(episode.trajectory).decision.tokens
    if tokens is None:
        raise AgentError(f"{episode.task}: the model's engine told no token ids, so nothing can be trained on")
    return tokens
