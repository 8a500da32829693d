"""The file that the scripts on a GPU write their figures to. Invariant: each line stands by itself: it says what was measured,
and which card gave it, so that lines of several calls can be concatenated.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


def card() -> str:
    """Return the name of the GPU, or CPU."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"  # type: ignore[no-any-return]


@dataclass(frozen=True)
class FigureFile:
    """Append figures to a file.

    Args:
        path: of the file; None: nothing is written.
        card: the name that each line has.
    """

    path: Path | None
    card: str

    def put(self, name: str, value: float, unit: str, **more: object) -> None:
        """Append a figure.

        Args:
            name: what was measured.
            value: the number.
            unit: of the number.
            more: what else belongs to the line.
        """
        self.write({"figure": name, "value": value, "unit": unit, **more})

    def write(self, line: dict[str, object]) -> None:
        """Append a line, with the card's name."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**line, "card": self.card}, default=str) + "\n")
