"""The folder of a training: one training, one writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cotbench.baselines.training.recipe_card import BEGUN, training_folder, write_begun
from cotbench.errors import RunFolderError, UsageError

RECORD: dict[str, Any] = {
    "recipe": "sft",
    "config": {"seed": 0, "device": "cpu"},
    "data": {"sha256": "a"},
    "elicitations": {},
}


def test_two_trainings_do_not_write_into_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with training_folder(out, RECORD, resume=False):
        in_use = "is in use by another cotbench train: wait for it"
        with pytest.raises(RunFolderError, match=in_use), training_folder(out, RECORD, resume=False):
            pass
        assert not (out / BEGUN).exists(), "it is locked before it is begun"
        write_begun(out, RECORD)
        before = {path: path.read_bytes() for path in out.iterdir()}
        for resume, said in ((True, "is in use by another cotbench train"), (False, f"cotbench train --resume {out}")):
            with pytest.raises(RunFolderError, match=said), training_folder(out, RECORD, resume=resume):
                pass
        assert {path: path.read_bytes() for path in out.iterdir()} == before
    with training_folder(out, RECORD, resume=True):
        pass


def test_another_training_is_not_gone_on_with(tmp_path: Path) -> None:
    with training_folder(tmp_path, RECORD, resume=False):
        write_begun(tmp_path, RECORD)
    other, said = {**RECORD, "config": {"seed": 1, "device": "cpu"}}, "holds another training: its seed is 0, not 1"
    with pytest.raises(RunFolderError, match=said), training_folder(tmp_path, other, resume=True):
        pass
    with training_folder(tmp_path, {**RECORD, "config": {"seed": 0, "device": "cuda"}}, resume=True):
        pass


def test_nothing_to_go_on_with_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no training"), training_folder(tmp_path / "out", RECORD, resume=True):
        pass
    with pytest.raises(ZeroDivisionError), training_folder(tmp_path / "out", RECORD, resume=False):
        raise ZeroDivisionError
    assert not (tmp_path / "out").exists()


def test_the_processes_beside_the_first_take_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with training_folder(tmp_path, RECORD, resume=False):
        monkeypatch.setenv("RANK", "1")
        with training_folder(tmp_path, RECORD, resume=False):
            write_begun(tmp_path, RECORD)
    assert not (tmp_path / BEGUN).exists()
