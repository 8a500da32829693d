"""Agents: who decides. `base` is the protocol, `registry` finds one by its spec; each other file is one agent."""

from cotbench.agents.base import Agent
from cotbench.agents.registry import agent_names, make_agent, register_agent

__all__ = ["Agent", "agent_names", "make_agent", "register_agent"]
