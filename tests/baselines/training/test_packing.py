"""Packed and branched losses against the textbook: one decision alone, transformers' own attention, shifted cross-entropy."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents.tokenization.chat_template import Chat
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.examples import Example, Span, make_examples
from cotbench.baselines.training import packing
from cotbench.baselines.training.batching import TrainingStep
from cotbench.baselines.training.dataset import PackedDataset, trees_of_examples
from cotbench.baselines.training.loss import losses, mean_loss, plain_losses
from cotbench.baselines.training.masks import MaskConfig, Masks, Score, weights
from cotbench.baselines.training.packing import pack
from cotbench.baselines.training.sequence_tree import Branch, Tree, build_trees
from cotbench.envs import Instructions
from cotbench.prompting.elicitation import Elicitation
from tests import tiny_models

KINDS = ["llama", "qwen"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random models with grouped-query attention."""
    made = tmp_path_factory.mktemp("models")
    return {kind: tiny_models.save_model(made / kind, kind) for kind in [*KINDS, "gemma"]}


@pytest.fixture(scope="module", params=KINDS)
def models(request: pytest.FixtureRequest, folders: dict[str, Path]) -> tuple[Any, Any]:
    """One model twice: with our attention, and with its own. In double precision; only the vocabulary's part is single."""
    ours = load(folders[request.param], "eager")
    packing.install_packed_attention(ours)
    return ours, load(folders[request.param], "eager")


def load(folder: Path, attention: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation=attention).eval()


def alone(model: Any, ids: Any, start: int) -> Any:
    """The textbook: negative log-likelihoods of the tokens from `start` on, of one sequence that nothing is packed with."""
    import torch

    logits = model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits[start - 1 : -1], torch.tensor(list(ids[start:])), reduction="none")


def episodes(count: int = 3) -> list[tuple[Example, ...]]:
    chat = Chat(tiny_models.tokenizer())
    steps = [("go to desk 1", "I look for a mug."), ("take mug", "The mug is here: I take it, and go."), ("put mug", "Done?")]
    played = [
        Demonstration(
            task=f"t{number}",
            instructions=Instructions("You act."),
            observations=(f"Room {number}. Look.", *(f"You see {turn}." for turn in range(number))),
            actions=tuple(action for action, _ in steps[: number + 1]),
            traces=tuple(trace for _, trace in steps[: number + 1]),
        )
        for number in range(count)
    ]
    made = make_examples(played, chat, {"": Elicitation(trace_tokens=40, action_tokens=8)}, context=4096)
    return list(made.episodes)


def numbered(answers: list[tuple[int, ...]], first: int = 1) -> list[tuple[float, ...]]:
    """A weight of its own for every token: it tells which one a loss belongs to, whatever the order in the row."""
    given = []
    for answer in answers:
        given.append(tuple(float(first + place) for place in range(len(answer))))
        first += len(answer)
    return given


def in_order(nll: Any, weight: Any) -> Any:
    return nll[weight.argsort()]


def same(one: Any, other: Any) -> bool:
    import torch

    return bool(torch.allclose(one.double(), other.double(), rtol=1e-5, atol=1e-5))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tree_has_the_losses_of_its_decisions_one_by_one(kind: str, attention: str, folders: dict[str, Path]) -> None:
    import torch

    ours, plain = load(folders[kind], attention), load(folders[kind], attention)
    packing.install_packed_attention(ours)
    for episode in episodes():
        trees = build_trees(episode, numbered([example.answer for example in episode]))
        assert len(trees) == 1 and len(trees[0].branches) == len(episode)
        with torch.inference_mode():
            packed = in_order(*losses(ours, pack(trees)))
            expected = torch.cat([alone(plain, example.ids, len(example.prompt)) for example in episode])
        assert same(packed, expected)


def test_trees_side_by_side_have_the_losses_of_each_alone(models: tuple[Any, Any]) -> None:
    import torch

    ours, plain = models
    flat = [example for episode in episodes() for example in episode]
    given = iter(numbered([example.answer for example in flat]))
    trees = [tree for episode in episodes() for tree in build_trees(episode, [next(given) for _ in episode])]
    row = pack(trees)
    assert len(row.ids) == sum(tree.tokens for tree in trees), "nothing is padded"
    assert len(row.ids) < sum(len(example.ids) for example in flat), "the common history is computed once"
    with torch.inference_mode():
        together, counts = losses(ours, row)
        apart = [losses(ours, pack([tree])) for tree in trees]
        singles = losses(ours, pack([tree for example, own in _each(flat) for tree in build_trees([example], [own])]))
        expected = torch.cat([alone(plain, example.ids, len(example.prompt)) for example in flat])
    assert same(together, torch.cat([nll for nll, _ in apart]))
    assert counts.tolist() == torch.cat([weight for _, weight in apart]).tolist()
    assert same(in_order(together, counts), expected)
    assert same(in_order(*singles), expected), "one-decision examples, packed without attention across them"


def _each(flat: list[Example]) -> Any:
    return zip(flat, numbered([example.answer for example in flat]), strict=True)


tokens = st.lists(st.integers(3, 250), min_size=1, max_size=12).map(tuple)


@st.composite
def any_tree(draw: st.DrawFn) -> tuple[tuple[int, ...], list[tuple[int, tuple[int, ...]]], bool]:
    trunk = draw(tokens)
    branches = draw(st.lists(st.tuples(st.integers(1, len(trunk)), tokens), max_size=5))
    return trunk, sorted(branches, key=lambda branch: branch[0]), draw(st.booleans()) or not branches


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(any_tree(), min_size=1, max_size=4), st.sampled_from([1, 10, 256]))
def test_any_trees_have_the_losses_of_their_sequences(models: tuple[Any, Any], shapes: list[Any], group: int) -> None:
    import torch

    ours, plain = models
    trees, wanted, first = [], [], 1
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_GROUP", group)
        for trunk, branches, text in shapes:
            given = numbered([trunk, *(ids for _, ids in branches)], first)
            first += len(trunk) + sum(len(ids) for _, ids in branches)
            grown = [Branch(at, ids, own) for (at, ids), own in zip(branches, given[1:], strict=True)]
            trees.append(Tree(trunk, tuple(grown), given[0] if text else ()))
            if text and len(trunk) > 1:
                wanted.append(alone(plain, trunk, 1))
            wanted += [alone(plain, trunk[:at] + ids, at) for at, ids in branches]
        if not wanted:
            return
        row = pack(trees)
        assert same(in_order(*losses(ours, row)), torch.cat(wanted))
        assert same(in_order(*plain_losses(plain, row)), torch.cat(wanted))
    assert len(row.target) == sum(tree.supervised for tree in trees)


def test_gradients_are_those_of_the_decisions_one_by_one(models: tuple[Any, Any]) -> None:
    import torch

    ours, plain = models
    some = episodes()
    config = MaskConfig(action_weight=0.5)
    half = [[weights(example, index % 2 == 1, config) for index, example in enumerate(episode)] for episode in some]
    for model in (ours, plain):
        model.zero_grad()
    nll, weight = losses(
        ours, pack([tree for episode, own in zip(some, half, strict=True) for tree in build_trees(episode, own)])
    )
    (nll * weight).sum().backward()
    for episode, own in zip(some, half, strict=True):
        for example, counts in zip(episode, own, strict=True):
            (alone(plain, example.ids, len(example.prompt)) * torch.tensor(counts)).sum().backward()
    compared = 0
    for (name, one), (_, other) in zip(ours.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-5, atol=1e-5 * float(other.grad.abs().max())), name
        compared += int(other.grad.abs().max() > 0)
    assert compared == len(list(plain.parameters())), "no gradient is nothing"


def test_a_layer_that_is_not_known_is_refused_and_computed_plainly(folders: dict[str, Path]) -> None:
    import torch

    model = load(folders["gemma"], "eager")
    (episode, *_) = episodes()
    row = pack(build_trees(episode, numbered([example.answer for example in episode])))
    with torch.inference_mode():
        nll, weight = plain_losses(model, row)
        assert same(in_order(nll, weight), torch.cat([alone(model, one.ids, len(one.prompt)) for one in episode]))
        packing.install_packed_attention(model)
        with pytest.raises(NotImplementedError, match="a layer that our attention does not know"):
            losses(model, row)


# A hand-made batch. The next token depends on the last one alone; how many bits each costs after each:
BITS = [
    [1, 2, 3, 3],
    [3, 1, 2, 3],
    [3, 3, 1, 2],
    [2, 3, 3, 1],
]
PARTS = ("prompt", "think_open", "trace", "think_close", "action_open", "action", "closing")


class Bigrams:
    """A model that is that table."""

    def __call__(self, *, input_ids: Any, logits_to_keep: Any = slice(None), **_: Any) -> Any:
        import torch

        table = -torch.tensor(BITS, dtype=torch.float64) * math.log(2)
        return SimpleNamespace(logits=table[input_ids][:, logits_to_keep])


def made_by_hand(step: int, *parts: tuple[int, ...]) -> Example:
    spans: list[Span] = []
    ids: tuple[int, ...] = ()
    for label, part in zip(PARTS, parts, strict=True):
        spans.append(Span(label, len(ids), len(ids) + len(part)))  # type: ignore[arg-type]
        ids += part
    return Example("hand", step, ids, tuple(spans))


#                                    prompt  <think> trace </think> <action> action </action>
FIRST = made_by_hand(0, (0, 1), (2,), (3,), (1,), (2,), (0, 3), (1,))  # 2 2 3 2 | 3 3 | 3 bits
SECOND = made_by_hand(1, (0, 1, 3, 3), (2,), (0,), (1,), (2,), (1,), (3,))  # 3 3 2 2 | 3 | 3 bits


@pytest.mark.parametrize(
    ("hidden", "action_weight", "bits", "counts", "mean"),
    [
        ((False, False), 0.0, [2, 2, 3, 2, 3, 3, 3, 3, 3, 2, 2, 3, 3], [1] * 13, 34 / 13),
        ((True, False), 0.0, [2, 2, 3, 2, 3, 3, 3, 2, 2, 3, 3], [1] * 11, 28 / 11),
        ((False, True), 0.0, [2, 2, 3, 2, 3, 3, 3, 3, 3, 2, 2, 3], [1] * 12, 31 / 12),
        ((True, True), 0.0, [2, 2, 3, 2, 3, 3, 3, 2, 2, 3], [1] * 10, 25 / 10),
        ((True, False), 0.5, [2, 2, 3, 2, 3, 3, 3, 3, 3, 2, 2, 3, 3], [1, 1, 1, 1, 0.5, 0.5] + [1] * 7, 31 / 13),
        ((True, True), 0.5, [2, 2, 3, 2, 3, 3, 3, 3, 3, 2, 2, 3, 3], [1, 1, 1, 1, 0.5, 0.5, 1, 1, 1, 1, 1, 0.5, 1], 29.5 / 13),
    ],
)
@pytest.mark.parametrize("one_tree", [True, False])
def test_a_batch_made_by_hand(
    one_tree: bool, hidden: tuple[bool, bool], action_weight: float, bits: list[int], counts: list[float], mean: float
) -> None:
    both = [FIRST, SECOND]
    config = MaskConfig(action_weight=action_weight)
    own = [weights(example, hide, config) for example, hide in zip(both, hidden, strict=True)]
    trees = build_trees(both, own) if one_tree else [*build_trees(both[:1], own[:1]), *build_trees(both[1:], own[1:])]
    assert len(trees) == (1 if one_tree else 2)
    row = pack(trees)
    nll, weight = losses(Bigrams(), row)
    if one_tree:  # The last branch is the trunk's end, so it stands in front.
        last = sum(count > 0 for count in own[1])
        nll, weight = nll.roll(-last), weight.roll(-last)
    assert (nll / math.log(2)).tolist() == pytest.approx(bits)
    assert weight.tolist() == counts
    assert float(mean_loss(nll, weight)) == pytest.approx(mean * math.log(2))


@pytest.mark.parametrize(
    ("options", "bits", "remaining", "actions_in_loss"),
    [
        ({}, 34, 13, 3),
        ({"mask_fraction": 1.0}, 25, 10, 0),
        ({"mask_fraction": 1.0, "mask_closing": True}, 19, 8, 0),
        ({"mask_fraction": 1.0, "action_weight": 0.5}, 29.5, 13, 1.5),
        ({"mask_fraction": 1.0, "action_weight": 2.0}, 43, 13, 6),
        ({"trace_weight": 0.5}, 34 - 2.5, 13, 3),
        ({"trace_weight": 0.0, "mask_fraction": 1.0, "action_weight": 3.0}, 34 - 5 + 18, 11, 9),
    ],
)
@pytest.mark.parametrize("compute", [losses, plain_losses])
def test_the_loss_of_a_step_made_by_hand(
    compute: Any, options: dict[str, Any], bits: float, remaining: int, actions_in_loss: float
) -> None:
    masks = Masks.of(MaskConfig(**options), [FIRST, SECOND])
    for parts in ((((0, (0, 1)),),), (((0, (0,)),), ((0, (1,)),))):  # In one pass, or one decision a pass.
        for normalisation, count in (("all", 13), ("remaining", remaining)):
            step = TrainingStep(0, 0.0, parts)
            batch = PackedDataset([step], trees_of_examples([(FIRST, SECOND)], masks), 1, normalisation)[0]  # type: ignore[arg-type]
            assert batch.count == count
            found = [compute(Bigrams(), row) for row in batch.passes]
            loss = sum(float(mean_loss(nll, weight, batch.count)) for nll, weight in found)
            assert loss == pytest.approx(bits * math.log(2) / count)
            in_loss = sum(float(weight.sum()) for _, weight in found) - batch.others
            assert (batch.actions, in_loss) == (3, pytest.approx(actions_in_loss))


@pytest.mark.parametrize("select", ["random", "confident"])
@pytest.mark.parametrize("k", [0.1, 0.3, 0.5, 0.7])
def test_the_share_of_action_tokens_left_out_is_the_fraction(k: float, select: str) -> None:
    chat = Chat(tiny_models.tokenizer())
    turns = 7
    played = [
        Demonstration(
            task=f"t{number}",
            instructions=Instructions("You act."),
            observations=("Look.",) * turns,
            actions=tuple(f"go to desk {turn}" for turn in range(turns)),
            traces=tuple(f"I think of {number}" for _ in range(turns)),
        )
        for number in range(9)
    ]
    made = make_examples(played, chat, {"": Elicitation()}, context=4096)
    scores = {example.id: Score(-(index * 37 % 63), None, index % 3 == 0) for index, example in enumerate(made.flat)}
    masks = Masks.of(MaskConfig(mask_fraction=k, mask_select=select), made.flat, scores)
    row = pack(
        [tree for episode in made.episodes for tree in build_trees(episode, [masks.weights(one, 0, 0.0) for one in episode])]
    )
    actions = sum(len(example.part("action")) for example in made.flat)
    answers = sum(len(example.answer) for example in made.flat)
    in_the_loss = len(row.target) - (answers - actions)
    assert abs((1 - in_the_loss / actions) - k) <= 1 / len(made.flat)
    soft = [weights(one, masks.masked(one.id, 0, 0.0), MaskConfig(action_weight=0.5)) for one in made.flat]
    assert sum(count == 0.5 for counts in soft for count in counts) == actions - in_the_loss
