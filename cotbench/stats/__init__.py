"""Statistics: pure functions from numbers to estimates with n and interval. Begin with `estimates`; `bootstrap` resamples
tasks, `crossed` is over tasks and seeds, `equivalence` tests for flatness, `multiple_testing` corrects a family of tests,
`trend` follows checkpoints, `power` says what a comparison can see, `formatting` writes an estimate as text.
"""

from typing import TYPE_CHECKING

from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.stats.bootstrap import Bootstrap
    from cotbench.stats.crossed import CrossedMean, crossed_mean
    from cotbench.stats.equivalence import Equivalence
    from cotbench.stats.estimates import Estimate, average, mcnemar, mean, paired_rate_difference, rate, ratio
    from cotbench.stats.formatting import format_estimate
    from cotbench.stats.multiple_testing import holm
    from cotbench.stats.power import Design, detectable_difference, pairs_needed
    from cotbench.stats.trend import CheckpointSeries, Trend

_HOMES = {
    "Bootstrap": "bootstrap",
    "CheckpointSeries": "trend",
    "CrossedMean": "crossed",
    "Design": "power",
    "Equivalence": "equivalence",
    "Estimate": "estimates",
    "Trend": "trend",
    "average": "estimates",
    "crossed_mean": "crossed",
    "detectable_difference": "power",
    "format_estimate": "formatting",
    "holm": "multiple_testing",
    "mcnemar": "estimates",
    "mean": "estimates",
    "pairs_needed": "power",
    "paired_rate_difference": "estimates",
    "rate": "estimates",
    "ratio": "estimates",
}

__all__ = [
    "Bootstrap",
    "CheckpointSeries",
    "CrossedMean",
    "Design",
    "Equivalence",
    "Estimate",
    "Trend",
    "average",
    "crossed_mean",
    "detectable_difference",
    "format_estimate",
    "holm",
    "mcnemar",
    "mean",
    "paired_rate_difference",
    "pairs_needed",
    "rate",
    "ratio",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
