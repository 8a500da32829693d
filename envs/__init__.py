"""The environments. Importing this package registers them with Gymnasium; no engine is loaded before `make`."""

from cotbench.envs.base import EnvOutcome, TextEnv
from cotbench.envs.registry import Instructions, env_entry, env_names, register
from cotbench.envs.space import AnyText

__all__ = ["AnyText", "EnvOutcome", "Instructions", "TextEnv", "env_entry", "env_names", "register"]

register()
