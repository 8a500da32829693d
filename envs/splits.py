"""Split manifests: the tasks of each split. Invariant: the ids that come out are sorted, unique, and have the sha256 that was
committed with them; a split that changed silently is an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

from cotbench.errors import GameFileError, UnknownNameError

Rule = Mapping[str, Any]
"""One entry of a manifest: how the ids are made (its own keys), `tasks` (their number) and `sha256`."""


def digest(tasks: Iterable[str]) -> str:
    """Return the sha256 of a list of task ids: UTF-8, one id a line, each line ended."""
    return hashlib.sha256("".join(task + "\n" for task in tasks).encode()).hexdigest()


@cache
def manifest(package: str) -> dict[str, dict[str, dict[str, Rule]]]:
    """Return the manifest `splits.json` that lies in a package: environment -> scheme -> split -> rule."""
    loaded: dict[str, dict[str, dict[str, Rule]]] = json.loads(files(package).joinpath("splits.json").read_text("utf-8"))
    return loaded


def split_tasks(package: str, env: str, scheme: str, split: str, expand: Callable[[Rule], Sequence[str]]) -> tuple[str, ...]:
    """Return the ids of one split, checked against the committed number and sha256.

    Args:
        package: where `splits.json` lies.
        env: the environment's name; a package may hold several.
        scheme: `paper` or `official`.
        split: the split's name within the scheme.
        expand: makes the ids from the rule.
    """
    schemes = manifest(package)[env]
    if scheme not in schemes:
        raise UnknownNameError("scheme", scheme, schemes, f"of {env}")
    if split not in schemes[scheme]:
        raise UnknownNameError("split", split, schemes[scheme], f"of {env} in scheme {scheme!r}")
    rule = schemes[scheme][split]
    tasks = tuple(sorted(expand(rule)))
    twice = next((task for task, other in pairwise(tasks) if task == other), None)
    if twice is not None:
        raise GameFileError(f"split {scheme}/{split} of {env}: two tasks have the id {twice}: reinstall cotbench")
    if len(tasks) != rule["tasks"] or digest(tasks) != rule["sha256"]:
        raise GameFileError(
            f"split {scheme}/{split} of {env} is not the committed one "
            f"({len(tasks)} tasks, expected {rule['tasks']}): reinstall cotbench"
        )
    return tasks


def is_out_of_domain(package: str, env: str, scheme: str, split: str) -> bool:
    """Tell whether a split tests outside of what is trained on: its rule says so, or its name begins with "ood".

    Args:
        package: where `splits.json` lies.
        env: the environment's name; a package may hold several.
        scheme: `paper` or `official`.
        split: the split's name within the scheme.
    """
    return bool(manifest(package)[env][scheme][split].get("out_of_domain", split.startswith("ood")))
