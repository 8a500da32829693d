"""Batch of rollouts as what an update needs: rows of tokens, and what each token counts. Invariant: pure, and no advantage
depends on a mask; the denominator of the loss counts every token that the model wrote in the batch, also those that are masked,
and those of groups from which nothing is learned.

Groups without variance are left out of both terms, policy and KL: nothing is learned from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from cotbench.agents.tokenization.chat_template import Chat
from cotbench.baselines.recipes.grpo.advantages import GroupAdvantages, group_advantages
from cotbench.baselines.recipes.grpo.config import GRPOConfig
from cotbench.baselines.recipes.grpo.loss import token_shares
from cotbench.baselines.recipes.grpo.rewards import EpisodeReward, episode_reward
from cotbench.baselines.recipes.grpo.turns import Turn, episode_turns, masked_turns, policy_weights
from cotbench.baselines.training.token_logprobs import TokenRow
from cotbench.errors import AgentError
from cotbench.prompting.parsing import Tags
from cotbench.runs.episode import Episode


@dataclass(frozen=True, slots=True)
class PolicyBatch:
    """What is learned from some groups of rollouts. The lists have one entry for each token that is asked for, row by row.

    Attributes:
        rows: the turns, episode by episode.
        advantage: of each token.
        policy_weight, kl_weight: what a token counts in the two sums of `grpo_loss`.
        sampled: log-probability that the engine had sampled it with.
        actions: number of action tokens, masked or not.
        actions_in_loss: sum of the weights that the masks leave them.
        numbers: what is logged of the batch.
    """

    rows: tuple[TokenRow, ...]
    advantage: tuple[float, ...]
    policy_weight: tuple[float, ...]
    kl_weight: tuple[float, ...]
    sampled: tuple[float, ...]
    actions: int
    actions_in_loss: float
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PlayedEpisode:
    """What an update needs of a rollout.

    Attributes:
        key: names the episode.
        error: why it has no score; None: it has one.
        turns: its turns; none where it has no score.
        reward: what it is rewarded; None where it has no score.
        success, score, finished: how it ended.
    """

    key: str
    error: str | None
    turns: tuple[Turn, ...]
    reward: EpisodeReward | None
    success: bool
    score: float
    finished: bool


def played_episode(episode: Episode, config: GRPOConfig, chat: Chat, tags: Tags) -> PlayedEpisode:
    """Return what an update needs of an episode.

    Args:
        episode: played with `return_tokens`.
        config: the options.
        chat: the tokenizer.
        tags: of the elicitation.

    Raises:
        AgentError: an answer has no token ids.
    """
    whole = episode.error is None and bool(episode.trajectory)
    return PlayedEpisode(
        episode.key,
        episode.error,
        episode_turns(episode, chat, tags) if whole else (),
        episode_reward(episode, config.reward, config.malformed_penalty) if whole else None,
        episode.success,
        episode.score,
        episode.terminated,
    )


@dataclass(frozen=True, slots=True)
class _ScoredGroup:
    """The episodes of a group that have a score, at least two, and their advantages."""

    episodes: tuple[PlayedEpisode, ...]
    rewards: tuple[EpisodeReward, ...]
    found: GroupAdvantages


@dataclass(frozen=True, slots=True)
class _EpisodeAdvantages:
    """An episode with its turns, its advantages, and whether it is learned from."""

    turns: tuple[Turn, ...]
    advantages: tuple[float, ...]
    learned: bool

    @property
    def count(self) -> int:
        return sum(turn.row.count for turn in self.turns)


def policy_batch(groups: Sequence[Sequence[PlayedEpisode]], config: GRPOConfig, update: int, progress: float) -> PolicyBatch:
    """Return what is learned from the rollouts of a batch.

    Episodes that an error ended have no score and are left out; so is a group of which fewer than two are left.

    Args:
        groups: the rollouts of each task.
        config: the options.
        update: which batch it is, counted from 0.
        progress: share of the training that is done, from 0 to 1.

    Raises:
        AgentError: all episodes ended in an error.
    """
    episodes = [episode for group in groups for episode in group]
    failed = [episode for episode in episodes if episode.error is not None]
    if failed and len(failed) == len(episodes):
        raise AgentError(f"every rollout of batch {update} ended in an error, {failed[0].key} in: {failed[0].error}")
    scored: list[_ScoredGroup] = []
    for group in groups:
        whole = tuple(episode for episode in group if episode.reward is not None)
        rewards = tuple(episode.reward for episode in whole if episode.reward is not None)
        if len(whole) > 1:
            scored.append(_ScoredGroup(whole, rewards, group_advantages(rewards, config.advantage)))
    played = [
        _EpisodeAdvantages(episode.turns, advantages, one.found.variance != "none")
        for one in scored
        for episode, advantages in zip(one.episodes, one.found.turns, strict=True)
    ]
    masked = masked_turns([turn for one in played for turn in one.turns], config, update, progress)
    numbers = _numbers(scored, len(groups), len(failed), played)
    return _weighed(played, masked, config, numbers)


def _weighed(
    played: Sequence[_EpisodeAdvantages], masked: frozenset[str], config: GRPOConfig, numbers: Mapping[str, float]
) -> PolicyBatch:
    left = [[policy_weights(turn, turn.id in masked, config) for turn in one.turns] for one in played]
    counts = [one.count for one in played]
    if config.loss_normalisation == "remaining":
        counts = [sum(weight > 0 for turn in turns for weight in turn) for turns in left]
    rows: list[TokenRow] = []
    advantage: list[float] = []
    policy: list[float] = []
    kl: list[float] = []
    sampled: list[float] = []
    actions, in_loss = 0, 0.0
    for one, turns, share in zip(played, left, token_shares(counts, config.loss_mean), strict=True):
        if not one.learned:
            continue
        for turn, weights, value in zip(one.turns, turns, one.advantages, strict=True):
            rows.append(turn.row)
            advantage += [value] * turn.row.count
            policy += [share * weight for weight in weights]
            kl += [share if config.kl_on_masked or weight else 0.0 for weight in weights]
            sampled += turn.logprobs
            own = [weight for weight, kind in zip(weights, turn.kinds, strict=True) if kind == "action"]
            actions, in_loss = actions + len(own), in_loss + sum(own)
    return PolicyBatch(tuple(rows), tuple(advantage), tuple(policy), tuple(kl), tuple(sampled), actions, in_loss, numbers)


def _numbers(
    scored: Sequence[_ScoredGroup], groups: int, errors: int, played: Sequence[_EpisodeAdvantages]
) -> dict[str, float]:
    """Return what is logged: means over episodes, answers or groups."""
    episodes = [episode for one in scored for episode in one.episodes]
    rewards = [reward for one in scored for reward in one.rewards]
    malformed = [bad for reward in rewards for bad in reward.malformed]
    variances = [one.found.variance for one in scored]
    scores = [score for one in played for turn in one.turns for score in turn.logprobs]
    return {
        "reward": _mean([reward.total for reward in rewards]),
        "success": _mean([float(episode.success) for episode in episodes]),
        "score": _mean([episode.score for episode in episodes]),
        "unfinished": _mean([float(not episode.finished) for episode in episodes]),
        "episode_steps": _mean([float(len(episode.turns)) for episode in episodes]),
        "answer_tokens": _mean([float(turn.row.count) for one in played for turn in one.turns]),
        "malformed": _mean([float(bad) for bad in malformed]),
        # At temperature 1 the mean of -log p over sampled tokens estimates the mean entropy of the policy.
        "entropy": -_mean(scores),
        "groups": float(groups),
        "zero_variance_groups": float(variances.count("none") + groups - len(scored)),
        "penalty_groups": float(variances.count("penalty")),
        "failed_episodes": float(errors),
    }


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0
