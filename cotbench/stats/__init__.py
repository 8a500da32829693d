"""Statistics: pure functions from numbers to estimates with n and interval. Begin with `estimates`; `bootstrap` resamples
tasks, `equivalence` tests for flatness, `multiple_testing` corrects a family of tests (Holm), `trend` follows checkpoints,
`formatting` writes an estimate as text.
"""

from typing import TYPE_CHECKING

from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.stats.bootstrap import Bootstrap
    from cotbench.stats.equivalence import Equivalence
    from cotbench.stats.estimates import Estimate, average, mcnemar, mean, paired_rate_difference, rate, ratio
    from cotbench.stats.formatting import format_estimate
    from cotbench.stats.multiple_testing import holm
    from cotbench.stats.trend import CheckpointSeries, Trend

_HOMES = {
    "Bootstrap": "bootstrap",
    "CheckpointSeries": "trend",
    "Equivalence": "equivalence",
    "Estimate": "estimates",
    "Trend": "trend",
    "average": "estimates",
    "format_estimate": "formatting",
    "holm": "multiple_testing",
    "mcnemar": "estimates",
    "mean": "estimates",
    "paired_rate_difference": "estimates",
    "rate": "estimates",
    "ratio": "estimates",
}

__all__ = [
    "Bootstrap",
    "CheckpointSeries",
    "Equivalence",
    "Estimate",
    "Trend",
    "average",
    "format_estimate",
    "holm",
    "mcnemar",
    "mean",
    "paired_rate_difference",
    "rate",
    "ratio",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
