"""Submissions: a run as a bundle, read warily, and all that can be checked of it without an engine. Begin with `bundle`."""

from typing import TYPE_CHECKING

from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.leaderboard.submission.bundle import Bundle, pack, pack_run, repack, unpack
    from cotbench.leaderboard.submission.checks import check
    from cotbench.leaderboard.submission.client import Receipt, submit
    from cotbench.leaderboard.submission.details import Details
    from cotbench.leaderboard.submission.run_reader import read_finished, run_folders

_HOMES = {
    "Bundle": "bundle",
    "Details": "details",
    "Receipt": "client",
    "check": "checks",
    "pack": "bundle",
    "pack_run": "bundle",
    "read_finished": "run_reader",
    "repack": "bundle",
    "run_folders": "run_reader",
    "submit": "client",
    "unpack": "bundle",
}

__all__ = [
    "Bundle",
    "Details",
    "Receipt",
    "check",
    "pack",
    "pack_run",
    "read_finished",
    "repack",
    "run_folders",
    "submit",
    "unpack",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
