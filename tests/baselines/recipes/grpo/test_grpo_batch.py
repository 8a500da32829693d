"""A batch of rollouts as what an update needs: which tokens count, how much, and what the masks leave alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from cotbench.baselines.recipes.grpo.batch import PolicyBatch, played_episode, policy_batch
from cotbench.baselines.recipes.grpo.config import GRPOConfig
from cotbench.baselines.recipes.grpo.turns import Turn, episode_turns, masked_turns, token_kinds
from cotbench.errors import AgentError
from cotbench.prompting.parsing import USUAL_TAGS
from cotbench.prompting.query import Decision, DecisionTokens
from cotbench.runs.episode import Episode, Step

PIECES = ("<", "think", ">", "</", "action", "go", " to", " desk", " mug", "\n", "<end>", "look", "desk</")
HARNESS_OPEN = (0, 1, 2)  # <think>
CLOSE_TRACE = (3, 1, 2)  # </think>
OPEN_ACTION = (0, 4, 2)
CLOSE_ACTION = (3, 4, 2)
END = 10


class Pieces:
    """A tokenizer whose tokens are pieces of text."""

    end_ids = frozenset({END})
    decodes_bytes = decodes_pieces = False

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(PIECES[id_] for id_ in ids)


CHAT: Any = Pieces()


def _tokens(
    trace: Sequence[int], action: Sequence[int], ending: Sequence[int] = (*CLOSE_ACTION, END), *, closed: bool = True
) -> DecisionTokens:
    """What an answer with a generated trace and action holds; `closed`: the model wrote the trace's closing tag."""
    ids = (*HARNESS_OPEN, *trace, *CLOSE_TRACE, 9, *OPEN_ACTION, *action, *ending)
    written = [True] * 3 + [False] * len(trace) + [not closed] * 3 + [True] * 4 + [False] * (len(action) + len(ending))
    scores = [0.0 if one else -0.5 - place / 100 for place, one in enumerate(written)]
    return DecisionTokens((0, 1, 2, 3), ids, tuple(scores), tuple(written))


def _episode(
    task: str, rollout: int, success: bool, answers: Sequence[DecisionTokens], bad: Sequence[int] = (), **more: Any
) -> Episode:
    steps = tuple(
        Step(
            action="look",
            decision=Decision("look", "t", format_ok=number not in bad, tokens=tokens),
            observation="",
            score=0.0,
        )
        for number, tokens in enumerate(answers)
    )
    return Episode(
        task=task,
        task_type="x",
        mode="cot",
        rollout=rollout,
        success=success,
        score=float(success),
        steps=len(steps),
        terminated=True,
        trajectory=steps,
        **more,
    )


USUAL = _tokens((5, 7), (5, 6, 7))
SHORT = _tokens((5,), (11,))


def _config(**options: Any) -> GRPOConfig:
    return GRPOConfig(model="m", group_size=2, groups=2, **options)


def _groups() -> list[list[Episode]]:
    return [
        [_episode("a", 0, True, [USUAL, SHORT]), _episode("a", 1, False, [USUAL] * 3)],
        [_episode("b", 0, False, [USUAL]), _episode("b", 1, False, [SHORT])],
    ]


def _batch(groups: Sequence[Sequence[Episode]], update: int = 0, **options: Any) -> PolicyBatch:
    config = _config(**options)
    played = [[played_episode(episode, config, CHAT, USUAL_TAGS) for episode in group] for group in groups]
    return policy_batch(played, config, update, 0.0)


def test_every_token_has_its_kind() -> None:
    assert token_kinds(CHAT, USUAL, USUAL_TAGS) == (*["trace"] * 2, *["tag"] * 3, *["action"] * 3, *["closing"] * 4)
    unclosed = _tokens((5, 7), (5, 6), (END,), closed=False)
    assert token_kinds(CHAT, unclosed, USUAL_TAGS) == ("trace", "trace", "action", "action", "closing")


def test_the_text_of_a_long_answer_is_decoded_once() -> None:
    class Bytes(Pieces):
        decodes_bytes = True
        decoded = 0

        def decode(self, ids: Sequence[int]) -> str:
            self.decoded += len(ids)
            return super().decode(ids)

        def token_text(self, token: int) -> str:
            return self.decode([token])

    chat: Any = Bytes()
    long = _tokens((5, 7) * 100, (5, 6, 7))
    assert token_kinds(chat, long, USUAL_TAGS) == token_kinds(CHAT, long, USUAL_TAGS)
    assert chat.decoded <= 2 * len(long.completion_ids)


def test_a_token_that_holds_the_end_of_the_action_is_the_actions() -> None:
    merged = _tokens((5,), (5, 6, 12), (4, 2, END))
    assert token_kinds(CHAT, merged, USUAL_TAGS)[-6:] == ("action", "action", "action", "closing", "closing", "closing")


def test_a_free_answer_has_its_own_opening_tags() -> None:
    ids = (*HARNESS_OPEN, 5, 7, *CLOSE_TRACE, 9, *OPEN_ACTION, 5, 6, *CLOSE_ACTION)
    tokens = DecisionTokens((0,), ids, (-1.0,) * len(ids), (False,) * len(ids))
    expected = (*["tag"] * 3, *["trace"] * 2, *["tag"] * 7, *["action"] * 2, *["closing"] * 3)
    assert token_kinds(CHAT, tokens, USUAL_TAGS) == expected


def test_what_is_trained_on_is_what_was_generated() -> None:
    (turn,) = episode_turns(_groups()[1][0], CHAT, USUAL_TAGS)
    assert turn.row.prompt == USUAL.prompt_ids and turn.row.answer == USUAL.completion_ids
    assert turn.row.wanted == tuple(not written for written in USUAL.harness)
    assert turn.logprobs == tuple(score for score in USUAL.logprobs if score)


def test_only_groups_with_variance_are_learned_from_and_all_tokens_are_in_the_denominator() -> None:
    batch = _batch(_groups())
    own = [turn.row for episode in _groups()[0] for turn in episode_turns(episode, CHAT, USUAL_TAGS)]
    assert list(batch.rows) == own
    count = sum(row.count for row in own)
    everything = count + 12 + 9  # The other group's answers.
    assert batch.policy_weight == batch.kl_weight == (1 / everything,) * count
    first = own[0].count + own[1].count
    assert batch.advantage == pytest.approx((0.7071,) * first + (-0.7071,) * (count - first), abs=1e-4)
    assert batch.numbers["zero_variance_groups"] == 1 and batch.numbers["groups"] == 2
    assert batch.numbers["success"] == 0.25 and batch.numbers["entropy"] > 0.5


def test_a_mean_over_sequences_weighs_each_episode_the_same() -> None:
    batch = _batch(_groups(), loss_mean="sequence")
    first = USUAL.harness.count(False) + SHORT.harness.count(False)
    assert sum(batch.policy_weight[:first]) == pytest.approx(1 / 4)
    assert sum(batch.policy_weight[first:]) == pytest.approx(1 / 4)


@pytest.mark.parametrize("seed", range(4))
def test_masks_leave_advantages_denominators_and_everything_but_actions_alone(seed: int) -> None:
    plain, masked = _batch(_groups(), seed=seed), _batch(_groups(), seed=seed, mask_fraction=0.5)
    assert masked.advantage == plain.advantage and masked.rows == plain.rows and masked.kl_weight == plain.kl_weight
    differs = [
        place for place, pair in enumerate(zip(masked.policy_weight, plain.policy_weight, strict=True)) if pair[0] != pair[1]
    ]
    kinds = [kind for episode in _groups()[0] for turn in episode_turns(episode, CHAT, USUAL_TAGS) for kind in turn.kinds]
    assert {kinds[place] for place in differs} <= {"action"} and all(masked.policy_weight[place] == 0 for place in differs)
    assert masked.actions == plain.actions and masked.actions_in_loss == plain.actions_in_loss - len(differs)


@pytest.mark.parametrize("select", ["random", "per-task"])
def test_masks_do_not_depend_on_the_reward(select: str) -> None:
    def batch(won: Sequence[int], bad: Sequence[int], update: int) -> PolicyBatch:
        groups = [
            [_episode(task, number, number in won, [USUAL] * 5, bad if number in won else ()) for number in range(3)]
            for task in ("a", "b", "c")
        ]
        return _batch(groups, update, mask_fraction=0.4, mask_select=select)

    for update in range(3):
        first, second = batch((0,), (), update), batch((1, 2), (0, 3), update)
        assert first.rows == second.rows and first.advantage != second.advantage
        assert first.policy_weight == second.policy_weight
        assert 0 < first.actions_in_loss == second.actions_in_loss < first.actions


def test_each_batch_has_its_own_draw_whatever_the_order_of_its_turns() -> None:
    turns: list[Turn] = [
        turn for number in range(2) for turn in episode_turns(_episode("a", number, False, [USUAL] * 5), CHAT, USUAL_TAGS)
    ]
    config = _config(mask_fraction=0.3)
    drawn = masked_turns(turns, config, 3, 0.0)
    assert len(drawn) == 3 and drawn == masked_turns(turns[::-1], config, 3, 0.0)
    assert drawn != masked_turns(turns, config, 4, 0.0)
    assert drawn < masked_turns(turns, _config(mask_fraction=0.6), 3, 0.0)


def test_options_of_the_masks() -> None:
    whole = _batch(_groups(), mask_fraction=1.0)
    assert whole.actions_in_loss == 0 and whole.actions == 3 + 1 + 9
    assert whole.kl_weight == _batch(_groups()).kl_weight
    off = _batch(_groups(), mask_fraction=1.0, kl_on_masked=False)
    assert [bool(weight) for weight in off.kl_weight] == [bool(weight) for weight in off.policy_weight]
    closing = _batch(_groups(), mask_fraction=1.0, mask_closing=True)
    assert sum(weight == 0 for weight in closing.policy_weight) == whole.actions + 4 * 5
    soft = _batch(_groups(), mask_fraction=1.0, action_weight=0.5)
    assert soft.actions_in_loss == pytest.approx(whole.actions / 2)
    remaining = _batch(_groups(), mask_fraction=1.0, loss_normalisation="remaining")
    assert max(remaining.policy_weight) > max(whole.policy_weight)


def test_penalties_lower_the_reward_and_are_counted() -> None:
    groups = [[_episode("a", 0, True, [USUAL], bad=[0]), _episode("a", 1, False, [USUAL])]]
    numbers = _batch(groups).numbers
    assert numbers["reward"] == pytest.approx(0.45) and numbers["malformed"] == 0.5


def test_a_failed_episode_has_no_score_and_its_group_compares_the_others() -> None:
    failed = _episode("a", 2, False, [USUAL], error="no server", error_kind="infrastructure")
    groups = [[*_groups()[0], failed], [_groups()[1][0], _episode("b", 1, False, [], error="no server")]]
    batch = _batch(groups)
    assert batch.rows == _batch(_groups()).rows
    assert batch.numbers["failed_episodes"] == 2 and batch.numbers["zero_variance_groups"] == 1
    with pytest.raises(AgentError, match="every rollout of batch 7 ended in an error"):
        _batch([[failed]], update=7)


def test_an_answer_without_token_ids_is_refused() -> None:
    step = Step(action="look", decision=Decision("look", "t"), observation="", score=0.0)
    episode = _groups()[0][0].model_copy(update={"trajectory": (step,)})
    with pytest.raises(AgentError, match="no token ids"):
        episode_turns(episode, CHAT, USUAL_TAGS)
