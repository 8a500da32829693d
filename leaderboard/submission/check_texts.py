"""The free texts of a manifest: agent, packages, machine. Invariant: short texts of bounded number, without characters
that move, hide or end what is shown beside them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any, Final

from cotbench.errors import SubmissionError
from cotbench.leaderboard.submission.json_reader import one_line, quote_value
from cotbench.runs.manifest import MANIFEST, Manifest

NAME: Final = 200
"""Characters of a name, a version, a hash."""
SPEC: Final = 1_000
"""Characters of an agent's spec: a path and a few options."""
TEXT: Final = 4_000
"""Characters of what an agent says of itself: a server may explain why it cannot be queried otherwise."""
WORDS: Final = 1_000
"""Texts and numbers in one field: a server may be started with many arguments."""
_UNSEEN: Final = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories: control, format (direction among them), surrogates, line and paragraph separators."""
_BREAKS: Final = "\n\t"


def check_texts(manifest: Manifest) -> None:
    """Refuse texts of a manifest that are too long, too many, or not plain.

    Raises:
        SubmissionError: names the field.
    """
    config = manifest.config
    _check("config.agent", config.agent, SPEC)
    for name, text in (("env", config.env), ("scheme", config.scheme), ("split", config.split)):
        _check(f"config.{name}", text, NAME)
    shas = ("elicitation_fingerprint", "instructions_sha256", "task_list_sha256")
    for name in (*shas, "dialect", "expert", "python", "git_commit", "created"):
        _check(name, getattr(manifest, name) or "", NAME)
    for name in ("data", "packages", "hardware", "agent"):
        longest, breaks = (TEXT, _BREAKS) if name == "agent" else (NAME, "")
        for count, (place, text) in enumerate(_leaves(getattr(manifest, name), name)):
            if count >= WORDS:
                raise SubmissionError(f"{MANIFEST}: {name} holds more than {WORDS:,} values")
            _check(place, text, longest, breaks)


def _check(place: str, text: str, longest: int, breaks: str = "") -> None:
    if len(text) > longest:
        raise SubmissionError(f"{MANIFEST}: {one_line(place)} has {len(text):,} characters; at most {longest:,} are accepted")
    for character in text:
        if unicodedata.category(character) in _UNSEEN and character not in breaks:
            raise SubmissionError(f"{MANIFEST}: {one_line(place)} holds the character {character!a}: {quote_value(text)}")


def _leaves(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield all texts in a JSON value with their places, names of fields among them; numbers count as texts."""
    waiting = [(place, value)]
    while waiting:
        where, one = waiting.pop()
        if isinstance(one, dict):
            yield from ((f"a name in {where}", name) for name in one)
            waiting += [(f"{where}.{name}"[:NAME], inner) for name, inner in one.items()]
        elif isinstance(one, list | tuple):
            waiting += [(f"{where}.{index}"[:NAME], inner) for index, inner in enumerate(one)]
        else:
            yield where, str(one)
