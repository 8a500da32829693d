"""One state, measured by a probe. Invariant: a row is a measurement, an error, or left out for a reason that it names."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ProbeRow(BaseModel):
    """What every probe's row has; a probe adds its own fields, all with defaults.

    Attributes:
        error: an infrastructure failure: the state counts for nothing.
        left_out: why the probe has nothing to say of this state, such as "no donor".
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    task: str
    step: int
    error: str | None = None
    left_out: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """Names the state within its set."""
        return self.task, self.step
