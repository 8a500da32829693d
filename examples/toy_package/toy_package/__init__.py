"""A package that adds one agent, one environment, one probe and one recipe to cotbench.

Installed, its entry points offer all four. Not installed, `--import toy_package` registers them: importing a module registers
what it defines.
"""

from toy_package import agent, env, probe, recipe

__all__ = ["agent", "env", "probe", "recipe"]
