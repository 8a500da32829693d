"""The environments' ids in Gymnasium. Invariant: whichever of cotbench and Gymnasium is imported first, `gymnasium.make` knows
the ids once both are; importing cotbench alone does not import Gymnasium.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

from cotbench.envs.registry import builtin_entries, register_id

_GYMNASIUM = "gymnasium"


def register_ids() -> None:
    """Make the environments that come with cotbench known to `gymnasium.make`, as soon as Gymnasium is imported."""
    if _GYMNASIUM in sys.modules:
        for entry in builtin_entries():
            register_id(entry)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Import hook that waits for Gymnasium's first import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return Gymnasium's own spec, with a loader that registers the ids afterwards."""
        if fullname != _GYMNASIUM:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    """Loader that runs Gymnasium's own loader, then registers the ids."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Let Gymnasium's own loader create the module."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Load Gymnasium, register the ids, and leave the module with its own loader."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        register_ids()
