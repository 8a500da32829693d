"""Registered BFCL tasks. Invariant: the same index is the same scenario in all four multi-turn categories, and a scenario (with
those that share its data) is either trained on or scored, never both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cotbench.envs import wheels
from cotbench.envs.bfcl import data
from cotbench.envs.splits import Rule, is_out_of_domain, manifest, split_tasks

LINKED: tuple[frozenset[int], ...] = tuple(map(frozenset, ((40, 43), (63, 83), (66, 70, 74), (100, 104, 133), (120, 124))))
"""Groups of indices that count as one scenario: the same data, or the same ground truth, worded differently."""

UNPASSABLE = frozenset(
    data.PREFIX + name
    for name in (
        "live_simple_106-63-0",
        "live_simple_112-68-0",
        "live_multiple_862-181-3",
        "live_multiple_964-207-0",
        "simple_java_36",
        "simple_java_64",
        "simple_java_65",
    )
)
"""Tasks that upstream's checker lets no right answer pass: a required argument is listed as absent, an argument is not in the
function's description, or the listed value cannot be written in the language (simple_java_64 takes a wrong one alone).
"""


def scenario(task: str) -> int | None:
    """Return the scenario of a multi-turn task, the smallest index among those linked to it; None for a single-turn task."""
    if data.category_of(task) not in data.MULTI_TURN:
        return None
    index = int(task.rsplit("_", 1)[1])
    return min(next((group for group in LINKED if index in group), {index}))


class BFCLTasks:
    """Entries of upstream's multi-turn and single-turn categories."""

    def schemes(self) -> Mapping[str, Sequence[str]]:
        """Return scheme -> names of its splits."""
        return {scheme: list(splits) for scheme, splits in manifest(data.PACKAGE)["bfcl"].items()}

    def tasks(self, scheme: str, split: str) -> tuple[str, ...]:
        """Return the sorted ids of a split."""
        return split_tasks(data.PACKAGE, "bfcl", scheme, split, expand)

    def task_type(self, task: str) -> str:
        """Return upstream's category."""
        return data.category_of(task)

    def scenario(self, task: str) -> int | str:
        """Return the scenario of a multi-turn task, in whichever category it is; of others the task itself."""
        shared = scenario(task)
        return task if shared is None else shared

    def out_of_domain(self, scheme: str, split: str) -> bool:
        """Tell whether a split tests outside of what is trained on."""
        return is_out_of_domain(data.PACKAGE, "bfcl", scheme, split)

    def missing(self, tasks: Sequence[str], data: Path | None) -> list[str]:
        """Return no task: the wheel is fetched when a run begins."""
        return []

    def remedy(self, data: Path | None) -> str:
        """Return the command that fetches the data."""
        return "cotbench data fetch bfcl"

    def data_version(self, tasks: Sequence[str], data: Path | None) -> dict[str, str]:
        """Return the wheel's measured sha256; fetches the wheel, so that a run does not fail later."""
        return {"bfcl_wheel_sha256": wheels.measured_sha256("bfcl")}

    def unpassable(self, tasks: Sequence[str]) -> list[str]:
        """Return those of the tasks on which upstream counts every right answer as wrong."""
        return [task for task in tasks if task in UNPASSABLE]


def expand(rule: Rule) -> list[str]:
    """Return the ids of a manifest's rule: all of the `categories`, or those of the `scenarios` in them.

    Args:
        rule: the split's entry in `splits.json`.
    """
    wanted = rule.get("scenarios")
    return [
        task
        for category in rule["categories"]
        for task in data.ids(category)
        if wanted is None or int(task.rsplit("_", 1)[1]) in wanted
    ]
