"""Tests of what only a GPU can show; without one they skip. They need nothing but what `pack.sh` carries."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what lies in this folder `gpu`, so that no file can forget it and run elsewhere."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True)
def _needs_a_gpu() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[hf]'")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The device, with matrix products of float32 in float32 (not TF32), as the CPU has them."""
    import torch

    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return torch.device("cuda")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Print a failure as soon as it is known: a time limit may end the tests before their summary."""
    report = yield
    terminal = item.config.pluginmanager.get_plugin("terminalreporter")
    if report.failed and terminal is not None:
        terminal.write_line(f"\n{report.nodeid} FAILED in {report.duration:.0f} s\n{report.longreprtext[-3000:]}")
    return report
