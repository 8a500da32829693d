"""Training on a GPU: FlexAttention over packed trees, in compiled layers, against the textbook on the same GPU."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU (CUDA)"),
]

from cotbench.baselines.training.dataset import PackedDataset, trees_of_examples
from cotbench.baselines.training.loss import TreeLosses, plain_losses
from cotbench.baselines.training.masks import MaskConfig, Masks
from cotbench.baselines.training.model import make_trainable
from cotbench.baselines.training.options import TrainingOptions
from cotbench.baselines.training.packing import pack
from cotbench.baselines.training.sequence_tree import Branch, Tree, build_trees
from cotbench.baselines.training.tree_attention import compile_layers, uncompile_layers
from tests import tiny_models
from tests.gpu.training_data import episodes, steps_of

DEVICE = "cuda"
SHAPES = {
    "size 64": {"heads": 4, "key_heads": 2, "size": 64},
    "9 heads": {"heads": 9, "key_heads": 3, "size": 64},
    "size 128": {"heads": 2, "key_heads": 1, "size": 128},
}
"""Of attention; 9 heads in groups of 3 are SmolLM2's."""

MADE = [
    *(
        tree
        for episode in episodes(2, 400, scale=0.25)
        for tree in build_trees(episode, [[1.0] * len(one.answer) for one in episode])
    ),
    Tree((11, 12, 13), (), (1.0, 1.0, 2.0)),
    Tree(tuple(range(20, 180)), tuple(Branch(at, tuple(range(30, 60)), (0.3,) * 30) for at in range(10, 160, 30))),
]
ROW = 1024
"""Tokens that the row of them is padded to."""


@pytest.fixture(autouse=True)
def _exact(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Matrix products in float32 are float32's, not those of TF32; a training compiles for one length."""
    assert not torch.backends.cuda.matmul.allow_tf32
    monkeypatch.setattr("cotbench.baselines.training.loop._BUCKETS", 1)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def new_model(shape: str, *, vocabulary: int = 1000) -> Any:
    sizes = SHAPES[shape]
    torch.manual_seed(3)
    config = transformers.Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=sizes["heads"],
        num_key_value_heads=sizes["key_heads"],
        head_dim=sizes["size"],
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        initializer_range=0.1,
    )
    return transformers.AutoModelForCausalLM.from_config(config).to(DEVICE)


def gradients(model: Any, nll: Any, weight: Any) -> dict[str, Any]:
    model.zero_grad()
    (nll * weight).sum().backward()
    return {name: one.grad.float().clone() for name, one in model.named_parameters() if one.grad is not None}


def assert_close(found: dict[str, Any], expected: dict[str, Any], share: float) -> None:
    """No gradient differs by more than this share of its matrix's norm, or of the largest one's thousandth."""
    assert found.keys() == expected.keys()
    least = max(float(one.norm()) for one in expected.values()) / 1000
    for name, one in expected.items():
        assert float((found[name] - one).norm()) <= share * max(float(one.norm()), least), name


@functools.cache
def textbook(shape: str) -> tuple[Any, dict[str, Any]]:
    """Losses (sorted) and gradients of each decision on its own, by the model's own attention, in float32."""
    model = new_model(shape)
    nll, weight = plain_losses(model, pack(MADE), DEVICE)
    return nll.detach().sort().values, gradients(model, nll, weight)


@pytest.mark.parametrize(
    ("shape", "compiled", "checkpointing"),
    [("size 128", True, False), ("9 heads", True, True), ("9 heads", False, False)],
)
def test_losses_and_gradients_are_those_of_each_decision(shape: str, compiled: bool, checkpointing: bool) -> None:
    expected, wanted = textbook(shape)
    trainable = make_trainable(new_model(shape), tiny_models.tokenizer(), {})
    assert isinstance(trainable.losses, TreeLosses) and not trainable.losses.dense, trainable.description
    model = trainable.model.train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if compiled:
        compile_layers(model, checkpointing=checkpointing)
    compute = TreeLosses((ROW,))
    nll, weight = compute(model, pack(MADE), DEVICE)
    assert torch.allclose(nll.sort().values, expected, atol=1e-4, rtol=1e-4)
    assert_close(gradients(model, nll, weight), wanted, 1e-3)
    # Once compiled, another row neither compiles again nor waits for the GPU.
    torch.compiler.set_stance("fail_on_recompile")
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        nll, weight = compute(model, pack(MADE[1:]), DEVICE)
        (nll * weight).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.compiler.set_stance("default")
        uncompile_layers(model)


@pytest.mark.parametrize(("kind", "shape"), [("autocast", "size 128"), pytest.param("pure", "9 heads", marks=pytest.mark.slow)])
def test_bfloat16_is_close(kind: str, shape: str) -> None:
    expected, wanted = textbook(shape)
    dtype: Any = "auto" if kind == "autocast" else "bfloat16"
    trainable = make_trainable(new_model(shape), tiny_models.tokenizer(), {}, dtype=dtype)
    model = trainable.model.train()
    compile_layers(model, checkpointing=False)
    mixed = torch.autocast(DEVICE, dtype=torch.bfloat16) if kind == "autocast" else contextlib.nullcontext()
    with mixed:
        nll, weight = TreeLosses((ROW,))(model, pack(MADE), DEVICE)
    found = gradients(model, nll, weight)
    uncompile_layers(model)
    difference = (nll.sort().values - expected).abs()
    assert float(difference.mean()) < 0.02 and float(difference.max()) < 0.5
    assert_close(found, wanted, 0.1)


def fit(model: Any, out: Path, *, lora: bool = False, device: str = DEVICE, callback: Any = None, **options: Any) -> Any:
    """Three steps of a training, the second of two passes; returns the losses of each and the trainer."""
    from cotbench.baselines.training import loop
    from cotbench.baselines.training.lora import LoraOptions

    some = episodes(6, 400, scale=0.4)
    adapter = LoraOptions(4, 8.0, 0.0, ()) if lora else None
    dtype = options.get("dtype", "float32")
    torch.manual_seed(5)
    trainable = make_trainable(model.to(device), tiny_models.tokenizer(), {}, adapter, dtype=dtype)
    examples = [example for episode in some for example in episode]
    steps = steps_of(some, "episode", batch=8, tokens=600, epochs=1)[:3]
    dataset = PackedDataset(steps, trees_of_examples(some, Masks.of(MaskConfig(mask_fraction=0.3), examples)))
    args = loop.trainer_arguments(
        TrainingOptions(**{"dtype": dtype, "learning_rate": 1e-3, "warmup": 0.0, "logging_steps": 1, **options}), out, model
    )
    trainer = loop.fit(trainable, dataset, args, {}, (), callback)
    return [one["loss"] for one in trainer.state.log_history if "loss" in one], trainer


def test_steps_of_the_optimiser_are_those_of_the_cpu(tmp_path: Path) -> None:
    expected, _ = fit(new_model("9 heads"), tmp_path / "cpu", device="cpu")
    found, trainer = fit(new_model("9 heads"), tmp_path / "gpu")
    assert len(found) == 3 and found == pytest.approx(expected, abs=2e-3)
    assert isinstance(trainer._losses, TreeLosses) and trainer._losses.buckets


@pytest.mark.parametrize("checkpointing", [False, True])
def test_rows_of_several_lengths_take_the_same_steps(
    checkpointing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a long training: each length has layers of its own, compiled; none is compiled twice."""
    monkeypatch.setattr("cotbench.baselines.training.loop._BUCKETS", 3)
    monkeypatch.setattr("cotbench.baselines.training.loop._STEPS_A_BUCKET", 1)
    expected, _ = fit(new_model("9 heads"), tmp_path / "cpu", device="cpu")
    found, trainer = fit(new_model("9 heads"), tmp_path / "gpu", gradient_checkpointing=checkpointing)
    assert len(found) == 3 and found == pytest.approx(expected, abs=2e-3)
    assert isinstance(trainer._losses, TreeLosses) and len(trainer._losses.buckets) > 1, "it did not fall back"


def test_a_step_does_not_wait_for_the_gpu(tmp_path: Path) -> None:
    """Not once, however many passes it has, from the second step on: the first one compiles."""
    waits: list[list[str]] = []

    class Watch(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.caught = warnings.catch_warnings(record=True)
            self.found = self.caught.__enter__()
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")

        def on_step_end(self, *_: Any, **__: Any) -> None:
            torch.cuda.set_sync_debug_mode("default")
            self.caught.__exit__(None, None, None)
            places = [
                f"{one.filename}:{one.lineno}" for one in self.found if "synchronizing CUDA operation" in str(one.message)
            ]
            waits.append(places)

    try:
        _, trainer = fit(new_model("size 128"), tmp_path, callback=Watch, dtype="auto", logging_steps=3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert isinstance(trainer._losses, TreeLosses) and trainer._losses.buckets
    assert waits[1:] == [[], []]


@pytest.mark.parametrize("lora", [True, False])
def test_steps_in_bfloat16_are_close(lora: bool, tmp_path: Path) -> None:
    expected, _ = fit(new_model("9 heads"), tmp_path / "cpu", lora=lora, device="cpu")
    found, trainer = fit(new_model("9 heads"), tmp_path / "gpu", lora=lora, dtype="auto", gradient_checkpointing=not lora)
    assert found == pytest.approx(expected, abs=5e-2)
    assert isinstance(trainer._losses, TreeLosses) and trainer._losses.buckets
    logged = [one for one in trainer.state.log_history if "loss" in one][-1]
    assert logged["tokens_per_second"] > logged["supervised_tokens_per_second"] > 0
    trained = {one.dtype for one in trainer.model.parameters() if one.requires_grad}
    frozen = {one.dtype for one in trainer.model.parameters() if not one.requires_grad}
    assert trained == {torch.float32}, "the weights that are trained are float32"
    assert frozen == ({torch.bfloat16} if lora else set())


def test_a_kernel_that_fails_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    from cotbench.baselines.training import tree_attention

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no kernel")

    monkeypatch.setattr(torch.nn.attention.flex_attention, "flex_attention", broken)
    tree_attention._compiled_flex_attention.cache_clear()
    expected, _ = fit(new_model("size 128"), tmp_path / "cpu", device="cpu")
    found, _ = fit(new_model("size 128"), tmp_path / "gpu")
    tree_attention._compiled_flex_attention.cache_clear()
    assert found == pytest.approx(expected, abs=2e-3)
    assert "attention is computed sequence by sequence" in caplog.text
