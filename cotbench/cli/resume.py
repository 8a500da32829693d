"""`--resume [DIR]`, the same for every command. Invariant: alone it means the folder of `--out`; with DIR, config and state are
read from DIR.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from cotbench.cli.interruption import INTERRUPTED
from cotbench.cli.terminal import echo_error
from cotbench.errors import UsageError

RESUMED = ("run", "traces", "pairs", "train", "probe", "judge", "study")
"""The commands that have `--resume`."""

RESUME_OUT = "@out"
"""Value of a `--resume` without a value: the folder of `--out`."""


def with_resume_value(arguments: list[str]) -> list[str]:
    """Return a command line in which a `--resume` without a value has the value `RESUME_OUT`.

    In typer an option takes either no value or exactly one.
    """
    if not arguments or arguments[0] not in RESUMED:
        return arguments
    ready = []
    for place, argument in enumerate(arguments):
        ready.append(argument)
        following = arguments[place + 1 : place + 2]
        if argument == "--resume" and (not following or following[0].startswith("-")):
            ready.append(RESUME_OUT)
    return ready


def resume_folder(resume: str | None, out: Path | None, usual: Path | None = None) -> Path | None:
    """Return the folder to resume; None where a new one is wanted.

    Args:
        resume: of `--resume`.
        out: of `--out`.
        usual: the command's folder without `--out`, if that is a fixed one.

    Raises:
        UsageError: `--resume` names no folder, or they name two.
    """
    if resume is None:
        return None
    if resume == RESUME_OUT:
        folder = out or usual
        if folder is None:
            raise UsageError("--resume needs a folder: --resume DIR, or --out DIR --resume")
        return folder
    if out is not None and out != Path(resume):
        raise UsageError(f"--resume {resume} and --out {out} name different folders: omit --out")
    return Path(resume)


def resume_command(
    command: str, folder: Path, imports: Sequence[str] = (), data: Path | None = None, *, config: object = None
) -> str:
    """Return the command line that resumes a folder.

    Args:
        command: the name of the command.
        folder: the folder.
        imports: values of `--import`.
        data: of `--data`.
        config: what the folder will hold; `--trust` is added where that has to be confirmed.
    """
    from cotbench.agents.trust import concerns

    words = ["cotbench", command, "--resume", str(folder)]
    words += [word for name in imports for word in ("--import", name)]
    words += ["--trust"] if concerns(config) else []
    return shlex.join([*words, *(["--data", str(data)] if data is not None else [])])


def print_interrupted(what: str, again: str, manifest: Path) -> int:
    """Print that a command was interrupted, with the command line that goes on where there is something to go on with.

    Args:
        what: what has survived: "played episodes are kept".
        again: the command line that resumes the folder.
        manifest: the file that it needs.

    Returns:
        The exit code.
    """
    found = f"; {what}; resume with: {again}" if manifest.is_file() else " before anything was written: start it again"
    echo_error(f"interrupted{found}")
    return INTERRUPTED
