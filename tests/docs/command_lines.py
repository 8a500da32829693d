"""Command lines in texts, held against the command line itself: the commands and their options exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from cotbench.cli.app import COMMANDS, load_command
from cotbench.cli.resume import with_resume_value

_FENCED = re.compile(r"^ *```.*?\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_PROGRAM = re.compile(r"^(?:\.venv/bin/)?cotbench$")


def command_lines(text: str) -> Iterator[list[str]]:
    """Yield the words after `cotbench` of each command in a page's code blocks; assignments before it are left out."""
    for line in "".join(_FENCED.findall(text)).replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words.pop(0)
        if words and _PROGRAM.match(words[0]):
            yield words[1:]


def check_command(words: list[str]) -> None:
    """Read a command's options as the command line does, and do nothing.

    Args:
        words: after `cotbench`.

    Raises:
        AssertionError: there is no such command or option.
    """
    assert words, "a command is missing"
    name = words[0]
    assert name in COMMANDS, f"there is no command {name}"
    command: Any = load_command(name, with_resume_value(words)[1:])
    rest = with_resume_value(words)[1:]
    while getattr(command, "commands", None) is not None:
        assert rest and rest[0] in command.commands, f"cotbench {name} has no command {rest[:1]}"
        command, rest = command.commands[rest[0]], rest[1:]
    context = command.context_class(command, info_name=name)
    try:
        _, extra, _ = command.make_parser(context).parse_args(args=list(rest))
    except Exception as error:
        raise AssertionError(f"cotbench {shlex.join(words)}: {getattr(error, 'message', error)}") from error
    assert not extra, f"cotbench {shlex.join(words)}: {extra} is not read"
