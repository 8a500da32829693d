"""Trackers of a training: none breaks it, none stays open."""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.baselines.recipes.sft import SFTConfig, train
from cotbench.baselines.training import trackers
from cotbench.baselines.training.trackers import require_trackers

FAST: dict[str, Any] = {"warmup": 0, "checkpoints": (1.0,), "device": "cpu", "threads": 1, "epochs": 0.5, "batch_size": 4}
CALLS: list[tuple[str, Any]] = []
BROKEN: set[str] = set()


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A tracker `spy` of transformers, whose client is a module with a run for the whole process, as wandb's is."""
    import transformers
    from transformers.integrations import integration_utils

    client: Any = ModuleType("spy")
    client.run = None

    def finish() -> None:
        CALLS.append(("finish", client.run))
        client.run = None

    client.finish = finish
    monkeypatch.setitem(sys.modules, "spy", client)

    class Spy(transformers.TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if client.run is None:
                client.run = str(args.output_dir)
            self.told("begin", client.run)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            self.told("log", (client.run, state.global_step, logs))

        def told(self, what: str, value: Any) -> None:
            CALLS.append((what, value))
            if what in BROKEN:
                raise RuntimeError("no\nnetwork")

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "spy", Spy)
    CALLS.clear()
    BROKEN.clear()
    yield


def _train(out: Path, model: Path, data: Path, **more: Any) -> Path:
    config = SFTConfig(model=str(model), data=(str(data),), **{**FAST, **more})
    return train(config, out).folder


def _losses(out: Path) -> list[tuple[int, float]]:
    return [
        (step, logs["loss"])
        for kind, value in CALLS
        if kind == "log"
        for run, step, logs in [value]
        if "loss" in logs and run == str(out)
    ]


def test_each_training_is_reported_in_a_run_of_its_own(learners: dict[str, Path], some_traces: Path, tmp_path: Path) -> None:
    for name, steps in (("one", 1), ("two", 2)):
        _train(tmp_path / name, learners["qwen"], some_traces, report_to=("spy",), logging_steps=steps)
    assert [value for kind, value in CALLS if kind in ("begin", "finish")] == [
        *[str(tmp_path / "one")] * 2,
        *[str(tmp_path / "two")] * 2,
    ]
    one, two = _losses(tmp_path / "one"), _losses(tmp_path / "two")
    assert [step for step, _ in one] == [1, 2, 3, 4] and [step for step, _ in two] == [2, 4]
    assert two[0][1] == pytest.approx((one[0][1] + one[1][1]) / 2, rel=1e-3), "a logged loss is the mean since the last"


def test_a_run_that_the_caller_has_opened_stays_open(learners: dict[str, Path], some_traces: Path, tmp_path: Path) -> None:
    client: Any = sys.modules["spy"]
    client.run = "mine"
    _train(tmp_path / "o", learners["qwen"], some_traces, report_to=("spy",))
    assert client.run == "mine" and ("finish", "mine") not in CALLS


@pytest.mark.parametrize("broken", ["begin", "log"])
def test_what_fails_in_a_tracker_is_a_warning(
    broken: str, learners: dict[str, Path], some_traces: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    BROKEN.add(broken)
    with caplog.at_level(logging.WARNING):
        tracked = _train(tmp_path / "tracked", learners["qwen"], some_traces, report_to=("spy",), logging_steps=1)
    plain = _train(tmp_path / "plain", learners["qwen"], some_traces)
    assert (tracked / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()
    assert [one.getMessage() for one in caplog.records if one.name == trackers.__name__] == [
        "tracker spy is switched off for the rest of the run: RuntimeError: no network"
    ]
    assert [kind for kind, _ in CALLS].count(broken) == 1


def test_names() -> None:
    assert require_trackers(()) == require_trackers(("none",)) == []
    assert require_trackers(("spy",)) == ["spy"]
    assert isinstance(require_trackers(("all",)), list)
