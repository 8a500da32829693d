"""How texts and numbers are spelled where people read them: on the page, in figures, in LaTeX. Invariant: only signs and the
spelling of "CoT" change, never a digit or a word; the files for programs (CSV, JSON) keep the plain spelling.
"""

from __future__ import annotations

import re

_MINUS = re.compile(r"(?<![\w.)\]-])-(?=\.?\d)")
"""A hyphen that begins a number: not within a word, a date or a range."""
_DIFFERENCE = re.compile(r"(?<=[\w)]) - (?=[\w(])")
_PERCENT = re.compile(r"(?<=\d) %(?!\w)")
_COT = re.compile(r"(?<![\w-])cot(?![\w-])")


def typeset(text: str) -> str:
    """Return a text with true minus signs, and percent signs next to their numbers.

    Args:
        text: of ours: a caption, a sentence, a cell.
    """
    return _PERCENT.sub("%", _DIFFERENCE.sub(" − ", _MINUS.sub("−", text)))


def typeset_name(text: str) -> str:
    """Return the name of a column, a line or an axis: as `typeset`, and the mode is spelled CoT.

    Args:
        text: the name; names of agents and arms, such as `tiny-cot`, keep theirs.
    """
    return _COT.sub("CoT", typeset(text))
