"""The GPU's way to compute packed trees, on a CPU: its masks by definition, losses and gradients beside those of `packing`."""

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.baselines.training import packing
from cotbench.baselines.training.loss import TreeLosses, losses
from cotbench.baselines.training.model import make_trainable
from cotbench.baselines.training.packing import Packed, pack
from cotbench.baselines.training.sequence_tree import Branch, Tree
from cotbench.baselines.training.tree_row import BLOCK, block_mask, bucket_lengths, dense_mask, padded, tree_row
from tests import tiny_models

tokens = st.lists(st.integers(3, 250), min_size=1, max_size=40).map(tuple)


@st.composite
def any_tree(draw: st.DrawFn) -> Tree:
    trunk = draw(tokens) * draw(st.integers(1, 8))
    ends = draw(st.lists(st.integers(1, len(trunk)), max_size=5))
    branches = [Branch(at, ids, (1.0,) * len(ids)) for at in sorted(ends) if (ids := draw(tokens))]
    return Tree(trunk, tuple(branches), (1.0,) * len(trunk) if draw(st.booleans()) or not branches else ())


def seen_by_definition(trees: list[Tree], length: int) -> Any:
    """Which token sees which: its own segment up to itself, and the trunk up to where its branch leaves it."""
    import torch

    seen, begin = torch.eye(length, dtype=torch.bool), 0
    for tree in trees:
        branches = list(tree.branches)
        trunk = len(tree.trunk)
        if branches and branches[-1].at == trunk:  # Appended to the trunk.
            trunk += len(branches.pop().ids)
        seen[begin : begin + trunk, begin : begin + trunk] = torch.ones(trunk, trunk, dtype=torch.bool).tril()
        row = begin + trunk
        for branch in branches:
            size = len(branch.ids)
            seen[row : row + size, begin : begin + branch.at] = True
            seen[row : row + size, row : row + size] = torch.ones(size, size, dtype=torch.bool).tril()
            row += size
        begin = row
    return seen


@settings(max_examples=4, deadline=None)
@given(st.lists(any_tree(), min_size=1, max_size=4))
def test_masks_are_those_of_the_trees(trees: list[Tree]) -> None:
    import torch
    from torch.nn.attention.flex_attention import create_block_mask

    packed = pack(trees)
    length = padded(len(packed.ids) + 1)
    row = tree_row(packed, "cpu", length)
    seen = seen_by_definition(trees, length)
    assert torch.equal(dense_mask(row), seen)
    assert row.ids[0, : len(packed.ids)].tolist() == packed.ids
    assert row.positions[0, : len(packed.ids)].tolist() == packed.positions
    assert (row.source.tolist(), row.target.tolist()) == (packed.source, packed.target)
    found = block_mask(row)
    expected = create_block_mask(found.mask_mod, None, None, length, length, device="cpu")
    for kind in ("kv", "full_kv", "q", "full_q"):
        counts = getattr(found, f"{kind}_num_blocks")
        assert torch.equal(counts, getattr(expected, f"{kind}_num_blocks")), kind
        for number, ours, theirs in zip(
            counts.flatten(),
            getattr(found, f"{kind}_indices").flatten(0, -2),
            getattr(expected, f"{kind}_indices").flatten(0, -2),
            strict=True,
        ):
            assert ours[:number].tolist() == theirs[:number].tolist(), kind
    assert torch.equal(found.to_dense()[0, 0].bool(), seen.view(length // BLOCK, BLOCK, -1, BLOCK).any(3).any(1))


@pytest.fixture(scope="module", params=["llama", "qwen"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """One model twice, with the attention of the CPU and with the GPU's. In double precision, but for the vocabulary's part."""
    from transformers import AutoModelForCausalLM

    folder = tiny_models.save_model(tmp_path_factory.mktemp("models") / request.param, request.param)
    one, other = (AutoModelForCausalLM.from_pretrained(folder, dtype="float64") for _ in range(2))
    packing.install_packed_attention(one)
    trainable = make_trainable(other, tiny_models.tokenizer(), {}, flex=True)
    assert isinstance(trainable.losses, TreeLosses) and trainable.losses.dense, "FlexAttention has no gradients on a CPU"
    return one, other


def gradients(model: Any, nll: Any, weight: Any) -> dict[str, Any]:
    model.zero_grad()
    (nll * weight).sum().backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def assert_same(models: tuple[Any, Any], row: Packed, compute: Any) -> None:
    import torch

    one, other = models
    expected, counts = losses(one, row)
    found, weight = compute(other, row)
    assert torch.equal(weight, counts)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    if not len(expected):
        return
    wanted, had = gradients(one, expected, counts), gradients(other, found, weight)
    assert wanted.keys() == had.keys() and len(wanted) == len(list(one.parameters()))
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    for name, gradient in wanted.items():
        assert torch.allclose(had[name], gradient, rtol=1e-5, atol=1e-6 * largest), name


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(any_tree(), min_size=1, max_size=3), st.sampled_from([(), (256,), (2048,)]), st.booleans())
def test_losses_and_gradients_are_those_of_the_cpu(
    models: tuple[Any, Any], trees: list[Tree], buckets: Any, own_head: bool
) -> None:
    assert_same(models, pack(trees), TreeLosses(buckets, dense=True, own_head=own_head))


EXAMPLE = [
    Tree(tuple(range(10, 210)), (Branch(40, (5, 6, 7), (1.0, 0.3, 1.0)), Branch(200, (8, 9), (1.0, 0.5)))),
    Tree((11, 12, 13), (), (1.0, 1.0, 2.0)),
    Tree(tuple(range(20, 180)), tuple(Branch(at, tuple(range(30, 60)), (1.0,) * 30) for at in range(10, 160, 30))),
]


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_same_by_flex_attention_in_compiled_layers(
    models: tuple[Any, Any], checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FlexAttention's own rule of its gradients, which it refuses on a CPU; two rows of a length are compiled once."""
    import torch
    from torch.nn.attention import flex_attention

    from cotbench.baselines.training.tree_attention import compile_layers, uncompile_layers

    options = flex_attention._apply_kernel_options

    def with_normaliser(*rest: Any, **more: Any) -> Any:
        return {**options(*rest, **more), "OUTPUT_LOGSUMEXP": True}

    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    monkeypatch.setattr(flex_attention, "_apply_kernel_options", with_normaliser)
    torch._dynamo.reset()
    model = models[1].train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *rest, **more: real(*rest, **{**more, "backend": "aot_eager"}))
    assert compile_layers(model, checkpointing=checkpointing) == 2
    try:
        assert_same(models, pack(EXAMPLE), TreeLosses((640,)))
        torch.compiler.set_stance("fail_on_recompile")
        assert_same(models, pack(EXAMPLE[1:]), TreeLosses((640,)))
    finally:
        torch.compiler.set_stance("default")
        uncompile_layers(model)
        model.gradient_checkpointing_disable()


@pytest.fixture
def strict_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As torch begins, but for a limit that raises an error, and no code generation behind its compiler."""
    import torch

    from cotbench.baselines.training import tree_attention

    real = torch.compile
    monkeypatch.setattr(torch, "compile", functools.wraps(real)(lambda *given, **more: real(*given, **more, backend="eager")))
    torch._dynamo.reset()
    tree_attention._compiled_flex_attention.cache_clear()
    with torch._dynamo.config.patch(recompile_limit=8, fail_on_recompile_limit_hit=True):
        yield
    torch._dynamo.reset()
    tree_attention._compiled_flex_attention.cache_clear()


def test_attention_is_compiled_for_more_lengths_than_torch_allows_by_itself(
    strict_compiler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit it would silently be computed with the scores of all pairs of tokens in memory."""
    import torch
    from torch.nn.attention import flex_attention

    from cotbench.baselines.training import tree_attention

    monkeypatch.setattr(flex_attention, "flex_attention", lambda query, key, value, **_: 2 * query)
    for length in range(1, 12):
        query, key = torch.ones(1, 2, length, 16), torch.ones(1, 1, length, 16)
        out, _ = tree_attention._attention(None, query, key, key, None, cotbench_trees=object())
        assert out.sum() == 2 * 2 * 16 * length


def test_layers_are_compiled_for_more_lengths_than_torch_allows_by_itself(strict_compiler: None) -> None:
    import torch
    from transformers.modeling_layers import GradientCheckpointingLayer

    from cotbench.baselines.training.tree_attention import compile_layers

    class Layer(GradientCheckpointingLayer):  # type: ignore[misc]
        def forward(self, hidden: Any) -> Any:
            return 2 * hidden

    model = torch.nn.Sequential(Layer(), Layer())
    assert compile_layers(model, checkpointing=False) == 2
    for length in range(1, 12):
        assert model(torch.ones(length, 4)).sum() == 16 * length


def test_an_older_torch_has_its_limit_raised_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from cotbench.baselines.training import tree_attention

    older = SimpleNamespace(cache_size_limit=8)
    monkeypatch.setattr(torch._dynamo, "config", older)
    monkeypatch.setattr(torch, "compile", lambda model, *, dynamic: model)
    assert tree_attention._compile_options() == {} and older.cache_size_limit == 64


@pytest.mark.parametrize("rows", [None, 1, 7, 64])
def test_pieces_have_the_loss_and_gradients_of_the_whole(rows: int | None) -> None:
    import torch

    from cotbench.baselines.training.chunked_nll import chunked_nll

    torch.manual_seed(0)
    hidden, weight = (torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in ((20, 8), (50, 8)))
    target, counts = torch.randint(50, (20,)), torch.rand(20)
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T, target, reduction="none")
    found = chunked_nll(hidden, weight, target, rows=rows)
    assert torch.allclose(found.double(), expected, atol=1e-6)
    wanted = torch.autograd.grad((expected * counts).sum(), [hidden, weight])
    for one, other in zip(torch.autograd.grad((found * counts).sum(), [hidden, weight]), wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    frozen = weight.detach()
    (alone,) = torch.autograd.grad((chunked_nll(hidden, frozen, target, rows=rows) * counts).sum(), [hidden])
    assert torch.allclose(alone, wanted[0], atol=1e-6)


@pytest.mark.slow
def test_pieces_of_any_length_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from cotbench.baselines.training import chunked_nll

    torch._dynamo.reset()
    real = torch.compile
    monkeypatch.setattr(chunked_nll, "_on", lambda _, compute: real(compute, dynamic=True, backend="aot_eager"))
    torch.manual_seed(0)
    hidden, weight, target = (
        torch.randn(50, 16).requires_grad_(),
        torch.randn(300, 16).requires_grad_(),
        torch.randint(300, (50,)),
    )
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T, target, reduction="none").sum()
    wanted = torch.autograd.grad(expected, [hidden, weight])
    found = torch.autograd.grad(chunked_nll.chunked_nll(hidden, weight, target, rows=16).sum(), [hidden, weight])
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(found, wanted, strict=True))
    torch.compiler.set_stance("fail_on_recompile")
    try:
        chunked_nll.chunked_nll(hidden[:33], weight, target[:33], rows=20).sum().backward()
    finally:
        torch.compiler.set_stance("default")


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=12), st.integers(1, 4))
def test_buckets_pad_as_little_as_their_number_allows(lengths: list[int], count: int) -> None:
    def padding(buckets: Any) -> int:
        return sum(padded(length, buckets) for length in lengths)

    found = bucket_lengths(lengths, count)
    assert len(found) <= count and found[-1] >= max(lengths) and list(found) == sorted(found)
    edges = sorted({padded(length) for length in lengths})
    choices = itertools.chain.from_iterable(itertools.combinations(edges[:-1], n) for n in range(min(count, len(edges))))
    assert padding(found) == min(padding((*choice, edges[-1])) for choice in choices)


def test_a_training_takes_the_same_steps(tmp_path: Path) -> None:
    from cotbench.baselines.training import loop
    from cotbench.baselines.training.dataset import PackedDataset, trees_of_examples
    from cotbench.baselines.training.masks import MaskConfig, Masks
    from cotbench.baselines.training.options import TrainingOptions
    from tests.gpu.training_data import episodes, steps_of

    made = episodes(6, 250, scale=0.1)
    masks = Masks.of(MaskConfig(mask_fraction=0.3), [example for episode in made for example in episode])
    dataset = PackedDataset(steps_of(made, "episode", batch=8, tokens=200, epochs=1)[:3], trees_of_examples(made, masks))
    logs = []
    for flex in (False, True):
        torch_model = _loaded(tiny_models.save_model(tmp_path / f"model-{flex}", "qwen"))
        trainable = make_trainable(torch_model, tiny_models.tokenizer(), {}, flex=flex)
        args = loop.trainer_arguments(TrainingOptions(1e-3, warmup=0.0, logging_steps=1), tmp_path / f"out-{flex}", torch_model)
        trainer = loop.fit(trainable, dataset, args, {}, (), None)
        logs.append([one for one in trainer.state.log_history if "loss" in one])
        assert trainer.counts["actions_in_loss"] < trainer.counts["actions"]
    assert [one["loss"] for one in logs[0]] == pytest.approx([one["loss"] for one in logs[1]], abs=1e-3) and len(logs[0]) == 3
    for name in ("tokens", "masked_share"):
        assert [one[name] for one in logs[0]] == [one[name] for one in logs[1]]
    assert all(0 < one["supervised_tokens_per_second"] < one["tokens_per_second"] and "mfu" not in one for one in logs[1])


def _loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32")


def test_a_model_that_it_does_not_know_is_computed_as_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from transformers import AutoModelForCausalLM

    folder = tiny_models.save_model(tmp_path / "gemma", "gemma")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    trainable = make_trainable(model, tiny_models.tokenizer(), {}, flex=True)
    assert not trainable.packed and not isinstance(trainable.losses, TreeLosses)
    assert "attention is computed sequence by sequence" in caplog.text
