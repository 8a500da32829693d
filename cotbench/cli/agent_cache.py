"""An agent, open while a command runs. Invariant: a command's result does not depend on earlier uses of the agent.

A process that runs many commands keeps the last agent: loading a model takes longer than many commands do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cotbench.agents.base import Agent, agent_code, close_agent
from cotbench.agents.registry import without_secrets
from cotbench.cli.terminal import echo_error


class _Keeper:
    """The agent that was used last."""

    def __init__(self) -> None:
        self.keeping = False
        self.spec = ""
        self.agent: Agent | None = None

    def drop(self) -> None:
        """Close the agent and forget it."""
        if self.agent is not None:
            close_agent(self.agent)
        self.agent, self.spec = None, ""


_keeper = _Keeper()


def keep_agents() -> None:
    """Keep the last agent for the next command with the same spec, where it can forget its past queries (`clear_cache()`)."""
    _keeper.keeping = True


@contextmanager
def open_agent(spec: str, build: Callable[[], Agent]) -> Iterator[Agent]:
    """Open the agent of a spec for a `with` block; it is closed at the end, or kept.

    Args:
        spec: the spec.
        build: builds the agent.
    """
    if _keeper.agent is not None and _keeper.spec == spec:
        agent = _keeper.agent
    else:
        _keeper.drop()
        echo_error(f"loading {without_secrets(spec)}")
        agent = build()
    clear_cache = getattr(agent, "clear_cache", None)
    if not _keeper.keeping or clear_cache is None:
        try:
            yield agent
        finally:
            close_agent(agent)
        return
    _keeper.spec, _keeper.agent = spec, agent
    try:
        yield agent
    except BaseException:
        _keeper.drop()
        raise
    with agent_code(agent):
        clear_cache()
