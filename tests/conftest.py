"""What all tests share: real games, a quiet environment, few threads."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # For `tests.…`; last, so that the checkout's `cotbench/` hides no installed one.
SHARED = Path(__file__).resolve().parents[2] / "shared"

os.environ.setdefault("OMP_NUM_THREADS", "1")
# A test's Java lives for seconds: what the second compiler makes faster it never sees, and pays for.
os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")

needs_stock_engine = pytest.mark.skipif(
    find_spec("textworld") is None or find_spec("alfworld") is None,
    reason="the stock engine is not installed: pip install -e '.[reference]'",
)
needs_scienceworld = pytest.mark.skipif(
    find_spec("scienceworld") is None or find_spec("py4j") is None,
    reason="the simulator is not installed: pip install -e '.[scienceworld]'",
)
needs_bfcl = pytest.mark.skipif(
    find_spec("mpmath") is None,
    reason="the services' arithmetic is not installed: pip install -e '.[bfcl]'",
)
needs_hf = pytest.mark.skipif(
    find_spec("torch") is None or find_spec("transformers") is None,
    reason="transformers is not installed: pip install -e '.[hf]'",
)
needs_openai = pytest.mark.skipif(
    find_spec("openai") is None or find_spec("tenacity") is None,
    reason="the client is not installed: pip install -e '.[openai]'",
)
needs_pyarrow = pytest.mark.skipif(
    find_spec("pyarrow") is None,
    reason="pyarrow is not installed: pip install -e '.[train]'",
)
needs_datasets = pytest.mark.skipif(find_spec("datasets") is None, reason="datasets is not installed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--list-skipped", metavar="FILE", help="write the ids of the tests that were skipped, one a line")
    parser.addoption("--no-skips", action="store_true", help="a test that would be skipped fails")


def pytest_configure(config: pytest.Config) -> None:
    if find_spec("hypothesis") is not None:
        from hypothesis import HealthCheck, settings

        # How long an example takes to make says how busy the machine is.
        settings.register_profile("cotbench", deadline=None, suppress_health_check=[HealthCheck.too_slow])
        settings.load_profile("cotbench")
    if config.getoption("--list-skipped") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_ListSkipped(Path(config.getoption("--list-skipped"))))


LONG = (
    *("study/test_smoke.py", "study/test_scheduler.py", "recipes/test_train_command.py", "recipes/test_sft.py"),
    *("scienceworld/test_scienceworld.py", "openai/test_openai_agent.py", "hf/test_hf_engine.py", "hf/test_hf_agent.py"),
    *("runs/test_run.py", "tests/test_toy_package.py", "hf/test_attention_kinds.py", "envs/test_contract.py"),
    *("faults/test_waits.py", "web/test_web.py", "leaderboard/test_command.py", "bfcl/test_bfcl_upstream.py"),
    *("submission/test_checks.py", "cli/test_failures.py", "verification/test_replay.py", "docs/test_pages.py"),
    *("recipes/test_frodo.py", "recipes/test_dpo.py", "faults/test_board_attacks.py"),
)
"""Files that take longest. They begin first, so that at the end no process waits for another's long file."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONG))  # Stable: the others keep their order.


def pytest_collection_finish() -> None:
    """Libraries and collected tests stay until the end: what collects garbage (a training does, each time) need not look
    through these millions of objects.
    """
    gc.collect()
    gc.freeze()


class _ListSkipped:
    """Writes down what was skipped: tests, and files that skip as a whole."""

    def __init__(self, file: Path) -> None:
        self.file, self.found = file, dict[str, None]()

    def _add(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.found[report.nodeid] = None

    pytest_runtest_logreport = pytest_collectreport = _add

    def pytest_sessionfinish(self) -> None:
        self.file.write_text("".join(f"{nodeid}\n" for nodeid in self.found))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _no_skip(item.config, (yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _no_skip(collector.config, (yield))


def _no_skip(config: pytest.Config, report: Any) -> Any:
    if config.getoption("--no-skips") and report.skipped and not hasattr(report, "wasxfail"):
        *_, reason = report.longrepr
        report.outcome, report.longrepr = "failed", f"{report.nodeid}: {reason}"
    return report


@pytest.fixture(scope="session")
def real_games(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the 140 real valid_seen games."""
    restore = SHARED / "alfworld" / "restore.py"
    if not restore.is_file():
        pytest.skip("real ALFWorld games lie in ../shared, which is not here")
    folder = tmp_path_factory.mktemp("alfworld_data")
    subprocess.run([sys.executable, str(restore), str(folder), "--split", "valid_seen"], check=True)
    return folder


@pytest.fixture(autouse=True, scope="session")
def _no_wait_for_the_disk() -> Iterator[None]:
    """Processes are killed here, never the machine: what one has written, another reads, on the disk or not yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True)
def _no_games_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test sees the games that it names, not those of whoever runs it."""
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)


_BROWSER = (shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver"))
_BROWSER_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
needs_browser = [
    pytest.mark.skipif(find_spec("selenium") is None, reason="selenium is not installed: pip install -e '.[dev]'"),
    pytest.mark.skipif(None in _BROWSER, reason="no chromium and chromedriver on this machine"),
]


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser, driven."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(_BROWSER[0])
    for flag in (*_BROWSER_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chrome')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(_BROWSER[1])))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()
