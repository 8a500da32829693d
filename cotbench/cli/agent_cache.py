"""An agent for the time of a command. Invariant: a command's result does not depend on what was done with the agent before.

A process that carries out many commands keeps the last agent: loading a model takes longer than many a command does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cotbench.agents.base import Agent
from cotbench.cli.options import emptied


class _Keeper:
    """The agent that was used last."""

    def __init__(self) -> None:
        self.keeping = False
        self.spec = ""
        self.agent: Agent | None = None

    def drop(self) -> None:
        """Close it."""
        if self.agent is not None:
            self.agent.close()
        self.agent, self.spec = None, ""


_keeper = _Keeper()


def keep_agents() -> None:
    """From now on, an agent that can forget what it has seen (`clear_cache()`) stays for the next command that names it."""
    _keeper.keeping = True


@contextmanager
def open_agent(spec: str, build: Callable[[], Agent], folder: Path) -> Iterator[Agent]:
    """The agent of a spec, closed in the end, or kept; where it cannot be loaded, no empty `folder` stays."""
    if _keeper.agent is not None and _keeper.spec == spec:
        agent = _keeper.agent
    else:
        _keeper.drop()
        print(f"loading {spec}", file=sys.stderr)
        with emptied(folder):
            agent = build()
    clear_cache = getattr(agent, "clear_cache", None)
    if not _keeper.keeping or clear_cache is None:
        try:
            yield agent
        finally:
            agent.close()
        return
    _keeper.spec, _keeper.agent = spec, agent
    try:
        yield agent
    except BaseException:
        _keeper.drop()
        raise
    clear_cache()
