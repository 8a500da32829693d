"""Which checkpoint of a training stands for a share of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cotbench.errors import RunFolderError
from cotbench.study.folder import checkpoint


def _training(folder: Path, saved: Sequence[int], steps: int, **more: Any) -> Path:
    for step in saved:
        (folder / f"checkpoint-{step}").mkdir(parents=True)
        card = {"step": step, "steps": steps, "progress": step / steps, **more}
        (folder / f"checkpoint-{step}" / "recipe.json").write_text(json.dumps(card))
    return folder


def test_it_is_the_first_at_which_the_share_is_done(tmp_path: Path) -> None:
    training = _training(tmp_path, (4, 5, 10), 10)
    shares = {0.4: 4, 0.42: 5, 0.5: 5, 1.0: 10}
    assert {share: int(checkpoint(training, share).name.rpartition("-")[2]) for share in shares} == shares


def test_where_checkpoints_lie_between_batches_it_is_the_end_of_the_batch(tmp_path: Path) -> None:
    training = _training(tmp_path / "o", (48, 52, 100), 100, save_multiple=4)
    shares = {0.45: 48, 0.5: 52, 1.0: 100}
    assert {share: int(checkpoint(training, share).name.rpartition("-")[2]) for share in shares} == shares
    with pytest.raises(RunFolderError, match=r"no checkpoint after 0\.75 of the training"):
        checkpoint(training, 0.75)
    with pytest.raises(RunFolderError, match="is missing from the series"):
        checkpoint(_training(tmp_path / "p", (52,), 100), 0.5)


def test_one_that_was_rounded_down_by_a_step_will_do(tmp_path: Path) -> None:
    assert checkpoint(_training(tmp_path, (2,), 5), 0.5).name == "checkpoint-2"


def test_a_damaged_card_is_named(tmp_path: Path) -> None:
    training = _training(tmp_path, (5,), 10)
    (training / "checkpoint-5" / "recipe.json").write_text("{}")
    with pytest.raises(RunFolderError, match="is damaged: remove"):
        checkpoint(training, 0.5)
