"""Names of things in ALFWorld: "mug 2" for `mug_bar__plus_01_dot_84_bar_…`.

Source: `alfworld.agents.utils.misc.Demangler`. Invariant: the same ids get the same names as upstream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

_SIGNS = {"_bar_": "|", "_minus_": "-", "_plus_": "+", "_dot_": ".", "_comma_": ","}


def spoken_names(ids: Iterable[str]) -> dict[str, str]:
    """Return id -> the name under which texts speak of the thing.

    Things of a kind are numbered downwards in the order of their ids. An id without `_bar_` (a type, the agent) is the only one
    of its kind: it has no number, and keeps upstream's space after the name.

    Args:
        ids: all ids of a game, since the numbers depend on all of a kind.
    """
    kinds: dict[str, str] = {}
    for id in sorted(ids):
        kind, bar, _ = id.partition("_bar_")
        kinds[id] = f"{kind}basin" if bar and "basin" in id else kind if bar else ""
    left = Counter(kind for kind in kinds.values() if kind)
    names: dict[str, str] = {}
    for id, kind in kinds.items():
        if kind:
            names[id] = f"{_plain(kind)} {left[kind]}"
            left[kind] -= 1
        else:
            names[id] = f"{_plain(id)} "
    return names


def _plain(text: str) -> str:
    for code, sign in _SIGNS.items():
        text = text.replace(code, sign)
    return text
