"""Parse the text of an answer. Invariant: `parse_answer` is a pure function of any string; it never raises, never runs what it
reads, and takes time linear in the length of the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
ACTION_OPEN, ACTION_CLOSE = "<action>", "</action>"
TAGS = (THINK_OPEN, THINK_CLOSE, ACTION_OPEN, ACTION_CLOSE)
"""The tags, where an elicitation names no others."""


@dataclass(frozen=True, slots=True)
class Tags:
    """The tags around a trace and around an action.

    Attributes:
        think: name of the trace's.
        action: name of the action's.
    """

    think: str = "think"
    action: str = "action"

    @property
    def think_open(self) -> str:
        """The tag before a trace."""
        return f"<{self.think}>"

    @property
    def think_close(self) -> str:
        """The tag behind a trace."""
        return f"</{self.think}>"

    @property
    def action_open(self) -> str:
        """The tag before an action."""
        return f"<{self.action}>"

    @property
    def action_close(self) -> str:
        """The tag behind an action."""
        return f"</{self.action}>"

    @property
    def all(self) -> tuple[str, str, str, str]:
        """All four, in the order of `TAGS`."""
        return self.think_open, self.think_close, self.action_open, self.action_close

    def rename(self, text: str) -> str:
        """Return a text of our own, in which `TAGS` stand, with these tags in their places."""
        if self == USUAL_TAGS:
            return text
        names = dict(zip(TAGS, self.all, strict=True))
        return _USUAL.sub(lambda tag: names[tag[0]], text)


USUAL_TAGS = Tags()
_USUAL = re.compile("|".join(map(re.escape, TAGS)))

MAX_ACTION = 100_000
"""Characters of an action that are kept: no environment has a longer one, and logs stay readable."""

_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’"}
_LABELS = ("action:", "next action:", "the action:", "action is:", "**action:**", "**action**:", "> ")


@lru_cache(maxsize=64)
def _any_case(tags: Tags) -> re.Pattern[str]:
    return re.compile(rf"</?(?:{tags.think}|{tags.action})>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """One parsed answer.

    Attributes:
        trace: the reasoning, or None when there was none.
        action: the action, without tags, fences, quotes and labels; empty when there was none.
        format_ok: whether the answer was exactly an optional closed trace and one closed action.
        problems: the deviations from that form, in fixed words.
    """

    trace: str | None
    action: str
    format_ok: bool
    problems: tuple[str, ...]


def parse_answer(text: str, tags: Tags = USUAL_TAGS) -> Answer:
    """Parse a free answer.

    The trace is the text before the last `</think>` that comes before the action. Without a closing tag it reaches to the
    action, or to the end. The action is the first closed `<action>` block after the trace; failing that an unclosed one (its
    first line); failing that the first one before the trace; failing that the last one inside it; failing that, where no tag
    was used at all, the first line of the remaining text.

    Args:
        text: the answer.
        tags: of its elicitation; lower or upper case.
    """
    problems: list[str] = []
    text = _any_case(tags).sub(lambda tag: tag[0].lower(), text)
    before, trace, rest = _split_trace(text, tags, problems)
    action = _find_action(rest, tags, problems)
    if action is None and tags.action_open in before:
        problems.append("action before trace")
        action = _find_action(before, tags, problems)
    if action is None and trace is not None and tags.action_open in trace:
        problems.append("action inside trace")
        trace, _, inside = trace.rpartition(tags.action_open)
        action = inside.partition(tags.action_close)[0]
    if action is None:
        action = _untagged_action(rest, problems)
    if any(tag in action for tag in tags.all):
        problems.append("tags inside action")
        action = _without_tags(action, tags)
    cleaned = clean_action(action)
    if not cleaned:
        problems.append("no action")
    if trace is not None:
        trace = _without_tags(trace, tags).strip()
    return Answer(trace, cleaned, not problems, tuple(dict.fromkeys(problems)))


def _split_trace(text: str, tags: Tags, problems: list[str]) -> tuple[str, str | None, str]:
    """Return the text before the trace, the trace (tags may still be inside), and the text after it."""
    opened = text.find(tags.think_open)
    closed = text.find(tags.think_close)
    if opened < 0 and closed < 0:
        return "", None, text
    if closed < 0:
        problems.append("trace not closed")
        start = opened + len(tags.think_open)
        action = text.find(tags.action_open, start)
        if action < 0:
            return text[:opened], text[start:], ""
        return text[:opened], text[start:action], text[action:]
    if opened < 0 or opened > closed:
        problems.append("trace not opened")
        opened = start = 0
    else:
        start = opened + len(tags.think_open)
        if text[:opened].strip():
            problems.append("text before trace")
    # A doubled closing tag: the trace reaches to the last one that stands before the first action after the first.
    action = text.find(tags.action_open, closed)
    last = text.rfind(tags.think_close, closed, action if action >= 0 else len(text))
    if last > closed or text.count(tags.think_open, start, last) > 0:
        problems.append("trace tags repeated")
    return text[:opened], text[start:last], text[last + len(tags.think_close) :]


def _find_action(rest: str, tags: Tags, problems: list[str]) -> str | None:
    opened = rest.find(tags.action_open)
    closed = rest.find(tags.action_close)
    if opened < 0:
        if closed < 0:
            return None
        problems.append("action not opened")
        return rest[:closed]
    start = opened + len(tags.action_open)
    closed = rest.find(tags.action_close, start)
    if rest[:opened].strip():
        problems.append("text before action")
    if closed < 0:
        problems.append("action not closed")
        return without_partial_tag(_first_line(rest[start:]), tags.action_close)
    after = rest[closed + len(tags.action_close) :]
    if tags.action_open in after:
        problems.append("several actions")
        if not rest[start:closed].strip():
            return after.partition(tags.action_open)[2].partition(tags.action_close)[0]
    elif after.strip():
        problems.append("text after action")
    return rest[start:closed]


def _untagged_action(rest: str, problems: list[str]) -> str:
    problems.append("no action tag")
    lines = [line.strip() for line in rest.splitlines()]
    lines = [line for line in lines if line and not line.startswith("```")]
    labelled = [line for line in lines if line.lower().startswith(_LABELS)]
    return (labelled or lines or [""])[0]


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")


def without_partial_tag(text: str, tag: str) -> str:
    """Return a text without the beginning of `tag` at its end, where a token budget cut the tag in two."""
    for length in range(len(tag) - 1, 0, -1):
        if text.endswith(tag[:length]):
            return text[:-length]
    return text


def _without_tags(text: str, tags: Tags) -> str:
    for tag in tags.all:
        text = text.replace(tag, " ")
    return text


def clean_action(text: str) -> str:
    """Return an action without what models wrap around it: code fences, quotes, backticks, labels, blanks."""
    text = text[:MAX_ACTION].strip()
    if text.startswith("```"):
        body = text[3:].partition("```")[0]
        first, newline, rest = body.partition("\n")
        # The word right after a fence names a language, unless the fence is all on one line.
        text = (rest if newline and first.strip().isalnum() else body).strip()
    while label := next((label for label in _LABELS if text.lower().startswith(label)), None):
        text = text[len(label) :].strip()
    if len(text) >= 3 and text.endswith(".") and _QUOTES.get(text[0]) == text[-2]:
        text = text[:-1]
    while len(text) >= 2 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text
