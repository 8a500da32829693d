"""A training's arguments and kernels, where several GPUs or a card of another kind would be needed to see them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf


def test_one_process_trains_on_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On several the Trainer would cut a row's tensors into pieces (DataParallel)."""
    import torch
    import transformers

    from cotbench.baselines.training.loop import trainer_arguments
    from cotbench.baselines.training.options import TrainingOptions

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    usual = transformers.TrainingArguments(output_dir=str(tmp_path), report_to="none")
    assert (usual.n_gpu, usual.train_batch_size) == (2, 16), "what transformers does by itself"
    model: Any = SimpleNamespace(device=torch.device("cuda"))
    args = trainer_arguments(TrainingOptions(learning_rate=1e-3), tmp_path, model)
    assert (args.n_gpu, args.train_batch_size) == (1, 1)
    assert args.parallel_mode is transformers.training_args.ParallelMode.NOT_PARALLEL


@pytest.mark.parametrize("longest", [1, 501, 999])
def test_rows_of_all_steps_decide_what_they_are_padded_to(longest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A longer row in the middle of a training would be compiled for there, on every card of a training."""
    import torch

    from cotbench.baselines.training import loop
    from cotbench.baselines.training.loss import TreeLosses

    def portion(index: int) -> Any:
        return SimpleNamespace(passes=[SimpleNamespace(ids=range(2000 if index == longest else 500 + index % 100))])

    monkeypatch.setattr(loop, "compile_layers", lambda *_, **__: 0)
    dataset: Any = type("Steps", (), {"__len__": lambda _: 1000, "__getitem__": lambda _, index: portion(index)})()
    trainable: Any = SimpleNamespace(losses=TreeLosses(), model=SimpleNamespace(device=torch.device("cuda")))
    prepared: Any = loop.prepare_kernels(trainable, dataset, checkpointing=False)
    assert prepared.buckets == (640, 2048)
