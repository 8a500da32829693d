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
