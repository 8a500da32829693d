"""Sampling where the logits lie on a GPU. Invariant: a token depends on its own row of logits and on one random number of its own
continuation; how many candidates reach the host changes nothing.

Of each row the host gets the most probable candidates and the mass of all. The token is the one at which the cumulative
probability, from the most probable candidate on, reaches a uniform random number (within the nucleus, for top-p). Where the
candidates do not reach so far, the whole row is fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CANDIDATES = 128
"""Candidates of a row that reach the host; a nucleus of language models rarely has more."""


class TopRows:
    """Hold the most probable candidates of some rows of logits.

    Args:
        logits: float32, (rows, vocabulary), on any device.
        temperatures: one a row, above 0.
        count: candidates of a row.
    """

    def __init__(self, logits: Any, temperatures: Sequence[float], count: int = CANDIDATES) -> None:
        import numpy as np
        import torch

        self._logits = logits
        self._temperatures = temperatures
        count = min(count, logits.shape[1])
        divisors = torch.tensor(temperatures, dtype=torch.float32).to(logits.device)
        values, ids = torch.topk(logits, count, dim=-1)
        sums = torch.stack([torch.logsumexp(logits, -1), torch.logsumexp(logits / divisors[:, None], -1)], -1)
        packed = torch.cat([values, ids.int().view(torch.float32), sums], dim=-1).cpu().numpy()
        values, ids, sums = packed[:, :count], packed[:, count : 2 * count].view(np.int32), packed[:, 2 * count :]
        order = np.lexsort((ids, -values), axis=-1)  # Ties in the order of their ids, as a stable sort has them.
        self._values = np.take_along_axis(values, order, -1)
        self._ids = np.take_along_axis(ids, order, -1)
        self._log_sums = sums[:, 0]
        scaled = self._values.astype(np.float64) / np.asarray(temperatures)[:, None] - sums[:, 1:].astype(np.float64)
        self._cumulative = np.cumsum(np.exp(scaled), axis=-1)

    def choose(self, row: int, top_p: float, uniform: float) -> tuple[int, float]:
        """Return a row's token, and the natural logarithm of its probability at temperature 1.

        Args:
            row: which row.
            top_p: the nucleus: the fewest tokens whose probability reaches it.
            uniform: a random number of [0, 1).
        """
        import numpy as np

        cumulative, values, ids = self._cumulative[row], self._values[row], self._ids[row]
        reach = uniform if top_p >= 1.0 else top_p
        if cumulative[-1] <= reach and len(ids) < self._logits.shape[1]:
            cumulative, values, ids = self._whole_row(row)
        size = len(ids) if top_p >= 1.0 else min(int(np.searchsorted(cumulative, top_p)) + 1, len(ids))
        mass = max(1.0, float(cumulative[-1])) if top_p >= 1.0 else float(cumulative[size - 1])
        place = min(int(np.searchsorted(cumulative[:size], uniform * mass, side="right")), size - 1)
        return int(ids[place]), float(values[place] - self._log_sums[row])

    def _whole_row(self, row: int) -> tuple[Any, Any, Any]:
        """Return cumulative probabilities, logits and ids of a whole row, the most probable first."""
        import numpy as np

        logits = self._logits[row].cpu().numpy()
        ids = np.argsort(-logits, kind="stable")
        values = logits[ids]
        scaled = values.astype(np.float64) / self._temperatures[row]
        top = scaled[0]
        cumulative = np.cumsum(np.exp(scaled - top))
        return cumulative / cumulative[-1], values, ids
