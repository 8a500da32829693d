"""Verification: an entry's actions executed again in the environments. Begin with `verify`."""

from typing import TYPE_CHECKING

from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.leaderboard.verification.difference import Difference
    from cotbench.leaderboard.verification.replay import Replayer
    from cotbench.leaderboard.verification.run_replay import Verdict
    from cotbench.leaderboard.verification.verify import verify_bundle, versions

_HOMES = {
    "Difference": "difference",
    "Replayer": "replay",
    "Verdict": "run_replay",
    "verify_bundle": "verify",
    "versions": "verify",
}

__all__ = [
    "Difference",
    "Replayer",
    "Verdict",
    "verify_bundle",
    "versions",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
