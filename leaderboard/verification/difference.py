"""A difference between a submitted run and its replay. Invariant: it names one place exactly, and shows both sides."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict

_LONGEST = 300


class Difference(BaseModel):
    """The first difference between what was submitted and what the environment says.

    Attributes:
        episode: names it, `alfworld/gen/cool/17#cot`; empty where the difference is in the manifest.
        step: of the episode, counted from 0 as in the episode browser; None where it is not at a step.
        field: what differs: `observation`, `score`, `success`, ...
        submitted: as it was submitted, shortened; `found` is what the environment, or the check, says.
    """

    model_config = ConfigDict(frozen=True)

    episode: str = ""
    step: int | None = None
    field: str
    submitted: str
    found: str

    @classmethod
    def at(cls, field: str, submitted: object, found: object, *, episode: str = "", step: int | None = None) -> Self:
        """Make a difference of two values; long texts are cut to where they begin to differ."""
        first, second = _cut(str(submitted), str(found))
        return cls(episode=episode, step=step, field=field, submitted=first, found=second)

    @property
    def place(self) -> str:
        """Return where it is: `alfworld/gen/cool/17#cot, step 3: observation`."""
        where = self.episode or "manifest"
        return f"{where}, step {self.step}: {self.field}" if self.step is not None else f"{where}: {self.field}"

    def __str__(self) -> str:
        return f"{self.place} is {self.submitted!r}, the replay says {self.found!r}"


def _cut(first: str, second: str) -> tuple[str, str]:
    """Return both texts, short enough to be shown, from a little before the place where they part."""
    if len(first) <= _LONGEST and len(second) <= _LONGEST:
        return first, second
    same = next(
        (place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
    start = max(0, same - _LONGEST // 3)
    return _window(first, start), _window(second, start)


def _window(text: str, start: int) -> str:
    window = text[start : start + _LONGEST]
    return ("…" if start else "") + window + ("…" if start + _LONGEST < len(text) else "")
