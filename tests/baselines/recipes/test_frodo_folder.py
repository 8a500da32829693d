"""The folder of a training by recipe `frodo` as users meet it: interrupted, read again, described by a card, of adapters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

import cotbench
from cotbench.agents import make_agent
from cotbench.agents.hf.frodo_agent import ANSWERER, WRITER
from cotbench.baselines.training.trainer import TreeTrainer
from cotbench.bridges.model_card import write_model_card
from cotbench.cli import run_cli

WORDS = (
    *(
        "--recipe",
        "frodo",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--max-steps",
        "2",
        "--batch-size",
        "3",
        "--checkpoints",
        "0.5",
    ),
    *("--logging-steps", "1", "--option", "warmup=0", "--option", "max_tokens_per_forward=1024"),
)


@pytest.fixture
def train(some_traces: Path, learners: dict[str, Path], tmp_path: Path) -> Callable[..., int]:
    """The command, on three games and a small random model."""

    def call(*more: str, out: str = "out", model: str | None = None) -> int:
        words = ("--model", model or str(learners["qwen"]), "--data", str(some_traces), "--out", str(tmp_path / out))
        return run_cli(["train", *WORDS, *words, *more])

    return call


@pytest.fixture
def interrupted(train: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Interrupts a training where one of the models has so many steps behind it."""

    def call(part: str, after: int) -> None:
        step = TreeTrainer.training_step

        def stopping(self: Any, *rest: Any, **more: Any) -> Any:
            if (Path(self.args.output_dir).name, self.state.global_step) == (part, after):
                raise KeyboardInterrupt
            return step(self, *rest, **more)

        with monkeypatch.context() as patched:
            patched.setattr(TreeTrainer, "training_step", stopping)
            assert train() == 130

    return call


def test_an_interrupted_training_names_what_is_saved(
    interrupted: Callable[[str, int], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    interrupted(ANSWERER, 1)
    last = capsys.readouterr().err.splitlines()[-1]
    saved = f"after step 1 in {out / ANSWERER} and after step 2 in {out / WRITER}"
    assert last == f"interrupted; its state was saved {saved}; resume with: cotbench train --resume {out}"
    begun = cotbench.load_training(out)
    assert not begun.finished and begun.checkpoints == ()
    assert list(zip(begun.log["part"], begun.log["step"], strict=True)) == [(ANSWERER, 1), (WRITER, 1), (WRITER, 2)]
    assert run_cli(["train", "--resume", str(out)]) == 0
    whole = cotbench.load_training(out)
    assert whole.finished and whole.agent == f"frodo:{out}"
    assert list(whole.log["part"]) == [ANSWERER, ANSWERER, WRITER, WRITER]
    assert whole.log["margin"].notna().sum() == whole.log["trace_effect"].notna().sum() == 2


def test_interrupted_before_anything_is_saved(
    interrupted: Callable[[str, int], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(WRITER, 0)
    assert "interrupted; no step was saved; resume with" in capsys.readouterr().err


def test_the_card_of_both_models(train: Callable[..., int], tmp_path: Path) -> None:
    assert train() == 0
    for folder in (tmp_path / "out", tmp_path / "out" / "checkpoint-2"):
        text = write_model_card(folder).read_text()
        assert "`writer` and `answerer`, each a fine-tuned" in text and "recipe `frodo`" in text and '"cotbench-frodo"' in text
        assert "cotbench run --agent frodo:FOLDER" in text
        steps = 2 if folder.name == "out" else 1
        assert f"| updates of the writer | {steps} |" in text and f"| updates of the answerer | {steps} |" in text
        assert '"margin": 1.0' in text
    text = write_model_card(tmp_path / "out" / WRITER).read_text()
    assert "The writer, a fine-tuned" in text and "one of several models" in text
    assert "cotbench run --agent hf:FOLDER" in text and "frodo:" not in text


def test_adapters_of_both_models_from_an_adapter(
    train: Callable[..., int], some_traces: Path, tmp_path: Path, learners: dict[str, Path]
) -> None:
    """The start is a LoRA checkpoint of sft: it is merged, and both models are new adapters of what it gave."""
    pytest.importorskip("peft")
    sft = ("--recipe", "sft", "--model", str(learners["qwen"]), "--data", str(some_traces), "--out", str(tmp_path / "sft"))
    assert run_cli(["train", *sft, "--max-steps", "1", "--device", "cpu", "--threads", "1", "--lora-rank", "2"]) == 0
    start = str(tmp_path / "sft")
    assert train(model=start) == 0
    assert (tmp_path / "out" / WRITER / "config.json").is_file()
    assert "cotbench run --agent frodo:FOLDER" in write_model_card(tmp_path / "out").read_text()
    make_agent(f"frodo:{tmp_path / 'out'}").close()
