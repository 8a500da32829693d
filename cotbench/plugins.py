"""Python files and modules that register agents, environments, probes or recipes (`--import`). Invariant: what this process has
imported is known, so that a process that it starts imports the same.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from cotbench.errors import UsageError
from cotbench.failure import exception_line

_loaded: dict[str, None] = {}


def load_plugins(names: Iterable[str]) -> None:
    """Import Python files or modules; each once.

    Args:
        names: paths of .py files, or dotted names of modules.

    Raises:
        UsageError: not found, or it fails while it is imported.
    """
    for name in names:
        path = Path(name).resolve()
        key = str(path) if path.suffix == ".py" else name
        if key in _loaded:
            continue
        try:
            if path.suffix == ".py":
                _import_file(name, path)
            else:
                importlib.import_module(name)
        except UsageError:
            raise
        except (Exception, SystemExit) as error:
            module = module_name(path) if path.suffix == ".py" else name
            raise UsageError(f"--import {name}: {exception_line(error, {module})}") from error
        _loaded[key] = None


def loaded_plugins() -> tuple[str, ...]:
    """What this process has imported: absolute paths and names of modules, for `load_plugins` of another process."""
    return tuple(_loaded)


def _import_file(name: str, path: Path) -> None:
    module = module_name(path)
    spec = importlib.util.spec_from_file_location(module, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"--import {name}: no such file")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[module] = loaded
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[module]
        raise


def module_name(path: Path) -> str:
    """Return the name of the module that a file is imported as; a file called random.py takes no other module's place."""
    return f"cotbench_plugin_{path.stem}"
