"""A small split: `cotbench probe` plays the first tasks of a split where its reference is an agent. Invariant: here they are
few, and nothing else differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cotbench.envs.alfworld.tasks import GeneratedGames


@contextmanager
def small_split(count: int = 8) -> Iterator[None]:
    """Within it, runs of generated games that are told no number play this many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GeneratedGames, "first_tasks", lambda self, scheme, split: self.tasks(scheme, split)[:count])
        yield
