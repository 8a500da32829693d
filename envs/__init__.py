"""The environments, as uniform Gymnasium environments of text. Begin with `registry` (which exist), `base` (what one is) and
`tasks` (what a split is made of); each benchmark has a package of its own.

Imported lazily: neither Gymnasium nor an engine is loaded before it is needed.
"""

from typing import TYPE_CHECKING

from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.envs.base import EnvOutcome, TextEnv
    from cotbench.envs.registry import (
        EnvEntry,
        Instructions,
        TokenSizes,
        env_entries,
        env_entry,
        env_names,
        register_env,
    )
    from cotbench.envs.space import AnyText
    from cotbench.envs.tasks import TaskSource

_HOMES = {
    "AnyText": "space",
    "EnvEntry": "registry",
    "EnvOutcome": "base",
    "Instructions": "registry",
    "TaskSource": "tasks",
    "TextEnv": "base",
    "TokenSizes": "registry",
    "env_entries": "registry",
    "env_entry": "registry",
    "env_names": "registry",
    "register_env": "registry",
}

__all__ = [
    "AnyText",
    "EnvEntry",
    "EnvOutcome",
    "Instructions",
    "TaskSource",
    "TextEnv",
    "TokenSizes",
    "env_entries",
    "env_entry",
    "env_names",
    "register_env",
]


__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
