"""Without the framework a bridge says in one line what to install, and the other bridges and exports work."""

import importlib
import sys

import pytest

from cotbench.errors import MissingExtraError
from cotbench.installation import install_command

BRIDGES = {"inspect_tasks": ("inspect_ai", "inspect"), "verifiers_taskset": ("verifiers.v1", "verifiers")}


@pytest.mark.parametrize("bridge", BRIDGES)
def test_a_missing_framework_is_one_line(bridge: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, extra = BRIDGES[bridge]
    monkeypatch.setitem(sys.modules, module, None)  # As if it were not installed.
    monkeypatch.delitem(sys.modules, f"cotbench.bridges.{bridge}", raising=False)
    with pytest.raises(MissingExtraError) as raised:
        importlib.import_module(f"cotbench.bridges.{bridge}")
    assert install_command(extra) in str(raised.value)
    assert "without constraints.txt" in str(raised.value)
    assert "\n" not in str(raised.value)
