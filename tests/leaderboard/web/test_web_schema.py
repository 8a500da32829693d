"""The API against its own schema: schemathesis asks for whatever the schema allows, and for what it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.leaderboard.made import packed
from tests.leaderboard.serving import needs_web, sent, served, variant

pytestmark = [
    needs_web,
    pytest.mark.skipif(find_spec("schemathesis") is None, reason="schemathesis is not installed: pip install -e '.[dev]'"),
]
ROOT = Path(__file__).resolve().parents[3]
HOOKS = "tests.leaderboard.zip_bodies"
FOLDER = "COTBENCH_TEST_BUNDLES"
# Not every body is a bundle, and not every text a name: a schema cannot say that.
TOO_MUCH = "positive_data_acceptance"


@pytest.fixture
def store(tmp_path: Path) -> Any:
    from cotbench.leaderboard.store.store import Store

    with Store.open(tmp_path / "board.sqlite") as opened:
        yield opened


@pytest.mark.parametrize("examples", ["15"])
@pytest.mark.slow
@pytest.mark.ci
def test_nothing_that_can_be_asked_breaks_the_server(store: Any, tmp_path: Path, examples: str) -> None:
    bundles = tmp_path / "bundles"
    bundles.mkdir()
    for number in range(3):
        (bundles / f"{number}.zip").write_bytes(variant(number))
    with served(store, rate=100_000) as server:
        assert sent(server, packed()).status == sent(server, packed(mode="prompt")).status == 201
        command = [sys.executable, "-P", "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"]
        command += [f"{server}/openapi.json", "--checks", "all", "--exclude-checks", TOO_MUCH, "--max-examples", examples]
        command += ["--seed", "1", "--no-color", "--continue-on-failure"]
        environment = {**os.environ, "SCHEMATHESIS_HOOKS": HOOKS, FOLDER: str(bundles), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300, check=False)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert "8 selected / 8 total" in done.stdout and "Tested: 8" in done.stdout
    # Of the bodies the whole bundles were kept, and nothing else.
    assert 2 < store.count() <= 2 + 3
