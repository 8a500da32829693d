"""The scripts of examples/, as modules."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"


def example(name: str) -> ModuleType:
    """A script of `examples/`, found as where it is run from there."""
    if str(EXAMPLES) not in sys.path:
        sys.path.append(str(EXAMPLES))
    return importlib.import_module(name)
