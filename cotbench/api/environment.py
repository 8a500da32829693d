"""`cotbench.make_env`: an environment by its name. Invariant: it is the one that a run plays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cotbench.envs.registry import env_entry

if TYPE_CHECKING:
    from cotbench.envs.base import TextEnv


def make_env(name: str = "alfworld-gen", **options: Any) -> TextEnv:
    """Return a new environment.

    Args:
        name: of the environment (`cotbench list envs`).
        options: arguments of its class: `split`, `scheme`, `max_steps`, `request`, ...

    Raises:
        UnknownNameError: no such environment, split or scheme.
        MissingExtraError: its engine is not installed.
    """
    entry = env_entry(name)
    entry.require()
    return entry.make(**options)
