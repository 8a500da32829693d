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
from typing import Any, Final

from cotbench.errors import GameFileError, UnknownNameError

TRAIN: Final = "train"
"""The split that is trained on, in every scheme that has one."""

DEV: Final = "dev"
"""The split for tuning, in every scheme that has one: neither trained on nor scored."""

Rule = Mapping[str, Any]
"""One entry of a manifest: how the ids are made (its own keys), `tasks` (their number) and `sha256`.

`first`, where it is there, is the rule of the tasks that come first in every draw (`envs.tasks.NestedSource`).
"""


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
    return _checked(env, f"{scheme}/{split}", schemes[scheme][split], expand)


def first_of_split(package: str, env: str, scheme: str, split: str, expand: Callable[[Rule], Sequence[str]]) -> tuple[str, ...]:
    """Return the ids that come first in every draw from a split, checked like the split itself: all of it unless its rule says.

    Args:
        package: where `splits.json` lies.
        env: the environment's name; a package may hold several.
        scheme: `paper` or `official`.
        split: the split's name within the scheme.
        expand: makes the ids from the rule.
    """
    tasks = split_tasks(package, env, scheme, split, expand)
    first = manifest(package)[env][scheme][split].get("first")
    return tasks if first is None else _checked(env, f"{scheme}/{split} (its first tasks)", first, expand)


def _checked(env: str, name: str, rule: Rule, expand: Callable[[Rule], Sequence[str]]) -> tuple[str, ...]:
    tasks = tuple(sorted(expand(rule)))
    twice = next((task for task, other in pairwise(tasks) if task == other), None)
    if twice is not None:
        raise GameFileError(f"split {name} of {env}: two tasks have the id {twice}: reinstall cotbench")
    if len(tasks) != rule["tasks"] or digest(tasks) != rule["sha256"]:
        raise GameFileError(
            f"split {name} of {env} is not the committed one ({len(tasks)} tasks, expected {rule['tasks']}): reinstall cotbench"
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
