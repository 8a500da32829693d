"""Texts of models, servers, files and people, as a terminal or a log may show them. Invariant: what comes out changes nothing
on a screen but by its characters: no control character but line break and tab, nothing that turns or hides what stands beside
it.
"""

from __future__ import annotations

import json
import re
import unicodedata

_UNUSUAL = re.compile(r"[^\n\t -~]")


def printable(text: str) -> str:
    r"""Return a text in which control characters, and those of direction, zero width or no meaning, have the form of `\x1b`.

    Args:
        text: the text; a backslash in it stays as it is.
    """
    return text if text.isascii() and text.isprintable() else _UNUSUAL.sub(lambda one: _visible(one[0]), text)


def printable_json(text: str) -> str:
    r"""Return a JSON text with the same characters in JSON's form, `\u001b`: its value stays the same.

    Args:
        text: JSON; such a character can stand inside of its strings alone.
    """
    return _UNUSUAL.sub(lambda one: _visible_in_json(one[0]), text)


def one_line(text: str) -> str:
    """Return a text in one line, printable."""
    return printable(" ".join(text.split()))


def _shows(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _visible(character: str) -> str:
    return character if _shows(character) else character.encode("unicode_escape").decode("ascii")


def _visible_in_json(character: str) -> str:
    if _shows(character):
        return character
    return r"\u007f" if character == "\x7f" else json.dumps(character)[1:-1]
