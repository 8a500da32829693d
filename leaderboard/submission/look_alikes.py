"""Names that look alike. Invariant: two names that a reader can hardly tell apart fold to the same text: they differ in case,
width, accents, spaces, punctuation, characters that are not drawn, or letters that are drawn alike.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_ALIKE: Final = str.maketrans(
    # Letters of Cyrillic, Greek, Armenian and extended Latin, whose small or capital form is drawn as that of a Latin one.
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u0501\u04bb\u051b\u051d\u043a\u043c\u0442\u0432\u043d\u0433\u044c\u0475"
    "\u03b1\u03b2\u03b5\u03b6\u03b7\u03b9\u03ba\u03bc\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7\u03b3\u03c9"
    "\u0585\u0578\u057d\u0570\u0581\u0566\u0575"
    "\u0261\u0131\u0269\u01c0"
    "01|",
    "aeopcyxijsdhqwkmtbhrbvabezhikmnoptyxywonuhgqjgilloll",
)
_SCRIPTS: Final = frozenset({"LATIN", "CYRILLIC", "GREEK", "COPTIC", "ARMENIAN", "CHEROKEE"})
"""Scripts whose letters are drawn alike."""
_WORD: Final = re.compile(r"[^\W\d_]+")
_NOT_DRAWN: Final = re.compile("[\u0300-\u036f\u115f\u1160\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Accents on letters, fillers and variation selectors; other characters that are not drawn are of category Cf."""


def fold_name(name: str) -> str:
    """Return what a name is compared by.

    Symbols such as `+` stay, for `SFT` and `SFT+` are two names; punctuation becomes a separator, so `1.1` is not `11`.
    """
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    drawn = "".join(one for one in _NOT_DRAWN.sub("", text) if unicodedata.category(one) not in ("Cf", "Cc"))
    alike = drawn.casefold().translate(_ALIKE).replace("i", "l")  # Of "I", "l" and "1" none can be told from the others.
    return " ".join("".join(" " if unicodedata.category(one)[0] in "PZ" else one for one in alike).split())


def mixed_word(name: str) -> str | None:
    """Return the first word of a name whose letters are of two scripts that are drawn alike; None where there is none."""
    for word in _WORD.findall(unicodedata.normalize("NFKC", name)):
        scripts = {(unicodedata.name(letter, "") or "NONE").split()[0] for letter in word}
        if len(scripts & _SCRIPTS) > 1:
            return str(word)
    return None
