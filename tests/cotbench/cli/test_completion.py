"""What a shell completes: commands, and the options of the command that is typed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("cotbench st", {"study"}), ("cotbench train --recipe base --ga", {"--games"})],
    ids=["a command", "an option of a recipe"],
)
def test_the_shell_completes(typed: str, offered: set[str]) -> None:
    asked = {"_COTBENCH_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    command = [sys.executable, "-P", "-m", "cotbench"]
    done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered and done.stderr == ""


def test_the_script_for_a_shell() -> None:
    command = [sys.executable, "-P", "-m", "cotbench", "--show-completion", "zsh"]
    environment = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # Else the parent's shell is taken.
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "compdef" in done.stdout and "_COTBENCH_COMPLETE" in done.stdout
