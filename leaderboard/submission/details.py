"""The name, team and link of an entry. Invariant: plain text of one line that can open no tag of HTML and no formula of a
spreadsheet, and a link that is a web address; whatever else is refused, nothing is silently changed.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from cotbench.errors import SubmissionError
from cotbench.leaderboard.submission.look_alikes import mixed_word

_ALSO: Final = frozenset(" -_.,:;/@+()[]#&'?=%*!~")
_QUOTED: Final = 60
_WORDS: Final = "LNM"
"""Letters, numbers and marks of any script, by the first letter of their Unicode category."""


def _plain(text: str) -> str:
    """Return the text if it may be shown anywhere."""
    if text != text.strip() or "  " in text:
        raise ValueError("begins or ends with a space, or has two in a row")
    if text != unicodedata.normalize("NFC", text):
        raise ValueError("is not in Unicode's normal form C")
    for character in text:
        if character not in _ALSO and unicodedata.category(character)[0] not in _WORDS:
            raise ValueError(
                f"holds the character {character!r}; letters, digits, spaces and {''.join(sorted(_ALSO))} may stand"
            )
    if text and unicodedata.category(text[0])[0] not in "LN":
        raise ValueError("does not begin with a letter or a digit")
    if (word := mixed_word(text)) is not None:
        raise ValueError(f"mixes letters of two scripts in the word {word!r} ({word!a}): write it in one")
    return text


def _address(text: str) -> str:
    """Return the text if it is a web address or empty."""
    if not text:
        return text
    if not text.isascii() or not text.isprintable() or any(character in text for character in " <>\"'`\\"):
        raise ValueError("is not a web address: it holds a character that none has unescaped")
    try:
        parts = urlsplit(text)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError as error:  # A bracket or a port that is none.
        raise ValueError(f"is not a web address: {error}") from error
    if parts.scheme not in ("http", "https") or not named:
        raise ValueError("is not a web address that begins with https:// or http://")
    if "@" in parts.netloc:
        raise ValueError("names a user before its host, which no public address does")
    return text


class Details(BaseModel):
    """Name, team and link of an entry.

    Attributes:
        name: what is shown; entries of one name and team are one system on the overall board.
        team: who submits; may be empty.
        link: to a paper, a model or code; http or https, may be empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_plain)]
    team: Annotated[str, Field(max_length=100), AfterValidator(_plain)] = ""
    link: Annotated[str, Field(max_length=500), AfterValidator(_address)] = ""

    @classmethod
    def checked(cls, name: str, team: str = "", link: str = "") -> Self:
        """Make details of texts from outside.

        Raises:
            SubmissionError: names the field and says what is wrong with it.
        """
        try:
            return cls(name=name, team=team, link=link)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field, given = first["loc"][0], first["input"]
            text = str(given)
            quoted = f" {text[:_QUOTED]!r}{'…' if len(text) > _QUOTED else ''}" if text else ""
            raise SubmissionError(f"the entry's {field}{quoted} {_problem(first)}") from error


def _problem(error: ErrorDetails) -> str:
    """Describe what is wrong with a field, in words that go on after its name."""
    match error["type"]:
        case "string_too_long":
            return f"has {len(error['input'])} characters: at most {error['ctx']['max_length']} are accepted"
        case "string_too_short":
            return "is empty: give one"
        case "string_type" | "string_unicode":
            return "is not a text"
        case "value_error":
            return str(error["ctx"]["error"])
    return f"cannot stand there ({error['msg']})"
