"""A decoder of actions from traces alone. Invariant: it sees no prompt and no observation; what it knows comes from the pairs
of trace and action that it is fitted to, and the same pairs give the same decoder.

Method: the *form* of an action ("take {} from {}") is classified by the words and the pairs of words of the trace (ridge
regression of the classes on tf-idf). Each *argument* is copied: of the mentions in the trace (quotations, numbers, "mug 2",
words such as `report.txt`, and whatever was an argument in the fitted pairs), the one that fits its place best by the words
around it, by its place in the order from the end, and by its name (naive Bayes). Where a copy is right less often than the
usual argument of that place, the latter is taken. What it leaves out: forms that were never seen, synonyms, pronouns, whatever
has to be computed. So it gives a lower bound of what a reader can tell.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from cotbench.envs.reading import ActionParts

_TOKEN = re.compile(r"\w+(?:[./:@_-]\w+)*|[^\w\s]")
_WHOLE = re.compile(r"^(\d+)\.0+$")
_QUOTES = {'"': '"', "“": "”", "`": "`", "'": "'"}
_LONGEST_QUOTE = 60
"""Tokens of a quotation."""
_LONGEST_PHRASE = 6
_LAST = 4
_SMOOTHING = 0.5
_RIDGE = 1.0
_MOST_WORDS = 4096
_DIGITS = re.compile(r"\d+")
_NAME = "<name>"
_EDGE = "<edge>"


def tokens_of(text: str) -> tuple[str, ...]:
    """Return the words, numbers and signs of a text, in lower case; a whole number is written without decimals."""
    return tuple(_WHOLE.sub(r"\1", token) for token in _TOKEN.findall(text.casefold()))


def key_of(text: str) -> str:
    """Return a text as arguments are compared: its tokens with single spaces, without a final stop."""
    tokens = tokens_of(text)
    return " ".join(tokens[:-1] if len(tokens) > 1 and tokens[-1] == "." else tokens)


def holds(tokens: Sequence[str], key: str) -> bool:
    """Return whether a trace holds an argument verbatim, letter case and spaces aside.

    Args:
        tokens: of the trace.
        key: of the argument.
    """
    return bool(key) and f" {key} " in f" {' '.join(tokens)} "


class DecodedAction(NamedTuple):
    """An action as it was decoded.

    Attributes:
        form: see `ActionParts`.
        arguments: the keys of its arguments.
    """

    form: str
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, parts: ActionParts) -> DecodedAction:
        """Return an action as `decode` should return it."""
        return cls(parts.form, tuple(map(key_of, parts.arguments)))


class _Mention(NamedTuple):
    """A name in a trace: tokens [start, end), and its key."""

    start: int
    end: int
    key: str


class _Read(NamedTuple):
    """A trace as the decoder sees it.

    Attributes:
        words: what its form is told by.
        mentions: the key of each mention, in their order, with what is known of it.
    """

    words: tuple[str, ...]
    mentions: tuple[tuple[str, tuple[str, ...]], ...]


class TraceDecoder:
    """Decodes actions from traces.

    Args:
        pairs: tokens of a trace, and its action.
    """

    def __init__(self, pairs: Sequence[tuple[Sequence[str], DecodedAction]]) -> None:
        self._names = frozenset(key for _, action in pairs for key in action.arguments if key)
        lengths: defaultdict[str, set[int]] = defaultdict(set)
        for words in (key.split() for key in self._names):
            lengths[words[0]].add(len(words))
        self._lengths = {word: sorted(found, reverse=True) for word, found in lengths.items()}
        self._before, self._after = _contexts(pairs)
        read = [self._read(tokens) for tokens, _ in pairs]
        self._forms = _FormClassifier([one.words for one in read], [action.form for _, action in pairs])
        slots: defaultdict[_Slot, list[tuple[_Read, str]]] = defaultdict(list)
        for one, (_, action) in zip(read, pairs, strict=True):
            for place, key in enumerate(action.arguments):
                slots[action.form, place].append((one, key))
        self._places = {action.form: range(len(action.arguments)) for _, action in pairs}
        self._slots = {slot: _SlotDecoder(found) for slot, found in slots.items()}

    def decode(self, tokens: Sequence[str]) -> DecodedAction:
        """Return the action that a trace tells best.

        Args:
            tokens: of the trace.
        """
        read = self._read(tokens)
        form = self._forms.best(read.words)
        return DecodedAction(form, tuple(self._slots[form, place].decode(read) for place in self._places[form]))

    def _read(self, tokens: Sequence[str]) -> _Read:
        names = list(self._names_in(tokens))
        quoted = {place for start, end, _ in names if start and tokens[start - 1] in _QUOTES for place in range(start, end)}
        mentions = sorted({*names, *(one for one in self._phrases(tokens) if one.start not in quoted)})
        return _Read(tuple(_words(tokens, names)), tuple(_described(tokens, mentions)))

    def _phrases(self, tokens: Sequence[str]) -> Iterator[_Mention]:
        """Yield what stands between a word that precedes arguments and one that follows them."""
        for place in range(1, len(tokens)):
            if tokens[place - 1] not in self._before:
                continue
            for end in range(place + 1, min(place + _LONGEST_PHRASE, len(tokens) - 1) + 1):
                if not tokens[end - 1][0].isalnum():
                    break
                if tokens[end] in self._after:
                    yield _Mention(place, end, " ".join(tokens[place:end]))
                    break

    def _names_in(self, tokens: Sequence[str]) -> Iterator[_Mention]:
        """Yield quotations, numbers and names by their form, and known arguments."""
        place = 0
        while place < len(tokens):
            if (closing := _QUOTES.get(tokens[place])) is not None:
                limit = min(len(tokens), place + _LONGEST_QUOTE)
                end = next((at for at in range(place + 2, limit) if tokens[at] == closing), None)
                if end is not None:
                    yield _Mention(place + 1, end, " ".join(tokens[place + 1 : end]))
            length = self._length(tokens, place)
            if length:
                yield _Mention(place, place + length, " ".join(tokens[place : place + length]))
            place += max(length, 1)
            if length == 2 and tokens[place - 1].isdecimal():
                yield _Mention(place - 1, place, tokens[place - 1])

    def _length(self, tokens: Sequence[str], place: int) -> int:
        """Return of how many tokens the longest name at a place consists; 0 where there is none."""
        token = tokens[place]
        for length in self._lengths.get(token, ()):
            if " ".join(tokens[place : place + length]) in self._names:
                return length
        if token.isalpha():
            return 2 if place + 1 < len(tokens) and tokens[place + 1].isdecimal() else 0
        return int(token[0].isalnum())


def _contexts(pairs: Sequence[tuple[Sequence[str], DecodedAction]]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the words that stand before arguments in several traces, and those after."""
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    for tokens, action in pairs:
        text = f" {' '.join((*tokens, _EDGE))} "
        for key in {key for key in action.arguments if key}:
            left, found, right = text.partition(f" {key} ")
            if found and left:
                before[left.split()[-1]] += 1
                after[right.split()[0]] += 1
    return tuple(frozenset(word for word, count in counts.items() if count > 1) for counts in (before, after))  # type: ignore[return-value]


_Slot = tuple[str, int]
"""A form, and which of its arguments."""


def _words(tokens: Sequence[str], mentions: Sequence[_Mention]) -> Iterator[str]:
    """Yield the words of a trace, and its pairs of words, in which names are but names."""
    ends = {mention.start: mention.end for mention in mentions}  # Of a quotation and a name at one place, the name counts.
    masked = [_EDGE]
    place = 0
    while place < len(tokens):
        masked.append(_NAME if place in ends else tokens[place])
        place = ends.get(place, place + 1)
    yield from dict.fromkeys(tokens)
    yield from dict.fromkeys(f"{one} {two}" for one, two in pairwise([*masked, _EDGE]))


def _described(tokens: Sequence[str], mentions: Sequence[_Mention]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each mention's key and features: the words around it, its place in the order from the end, its name."""
    order: dict[str, int] = {}
    for mention in reversed(mentions):
        order.setdefault(mention.key, len(order))
    padded = (_EDGE, _EDGE, *tokens, _EDGE, _EDGE)
    for start, end, key in mentions:
        second, before, after, next_ = padded[start], padded[start + 1], padded[end + 2], padded[end + 3]
        yield (
            key,
            (
                f"< {before}",
                f"<< {second} {before}",
                f"> {after}",
                f">> {after} {next_}",
                f"from the end {min(order[key], _LAST)}",
                f"kind {_DIGITS.sub('0', key)}",
            ),
        )


class _SlotDecoder:
    """Decodes one argument of one form: which mention it is (naive Bayes), or else the usual argument.

    Args:
        found: traces with such an action, and the key of the argument.
    """

    def __init__(self, found: Sequence[tuple[_Read, str]]) -> None:
        counts = Counter(key for _, key in found)
        self.usual = min(counts, key=lambda key: (-counts[key], key))
        right: Counter[str] = Counter()
        wrong: Counter[str] = Counter()
        for read, argument in found:
            for key, features in read.mentions:
                (right if key == argument else wrong).update(features)
        # Of each kind of feature a mention has one, so the sums are the same for all kinds.
        known = {*right, *wrong}
        sums = (right.total() + _SMOOTHING * len(known), wrong.total() + _SMOOTHING * len(known))
        self._log_odds = {
            one: math.log((right[one] + _SMOOTHING) / sums[0]) - math.log((wrong[one] + _SMOOTHING) / sums[1]) for one in known
        }
        # Whether a copy or the usual argument is right more often is counted on the same traces.
        self._copies = sum(self._copy(read) == key for read, key in found) >= counts[self.usual]

    def decode(self, read: _Read) -> str:
        """Return the key of the argument that a trace tells best."""
        copy = self._copy(read) if self._copies else None
        return self.usual if copy is None else copy

    def _copy(self, read: _Read) -> str | None:
        """Return the mention that fits best, the last of those that fit alike; None where there is none."""
        best, found = -math.inf, None
        for key, features in read.mentions:
            fit = sum(self._log_odds.get(one, 0.0) for one in features)
            if fit >= best:
                best, found = fit, key
        return found


class _FormClassifier:
    """Classifies sets of words: ridge regression of the classes (1 or 0 each) on tf-idf vectors of length 1, in closed form.

    Args:
        examples: the words of each example.
        names: the class of each.
    """

    def __init__(self, examples: Sequence[Sequence[str]], names: Sequence[str]) -> None:
        import numpy as np

        counts = Counter(names)
        self._classes = sorted(counts, key=lambda name: (-counts[name], name))
        traces = Counter(word for words in examples for word in words)
        common = sorted(traces, key=lambda word: (-traces[word], word))[:_MOST_WORDS]
        self._words = {word: place for place, word in enumerate(common)}
        self._idf = np.log(len(examples) / np.array([traces[word] for word in common])) + 0.1
        inputs = np.stack([self._vector(words) for words in examples])
        labels = {name: place for place, name in enumerate(self._classes)}
        wanted = np.eye(len(labels))[[labels[name] for name in names]]
        self._prior = wanted.mean(axis=0)
        shares = np.linalg.solve(inputs @ inputs.T + _RIDGE * np.eye(len(examples)), wanted - self._prior)
        self._weights = inputs.T @ shares

    def best(self, words: Sequence[str]) -> str:
        """Return the class of some words; the most frequent one where nothing is known of them."""
        return self._classes[int((self._prior + self._vector(words) @ self._weights).argmax())]

    def _vector(self, words: Sequence[str]) -> Any:
        import numpy as np

        places = [self._words[word] for word in words if word in self._words]
        vector = np.zeros(len(self._words))
        vector[places] = self._idf[places]
        return vector / max(float(np.linalg.norm(vector)), 1e-9)
