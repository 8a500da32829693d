"""Agents. Begin with `base` (the protocol of an agent) and `registry` (finds an agent by its spec); `hf/`, `openai/` and `vllm`
query models, `tokenization/` turns what they are shown into token ids, each other file is one agent.
"""

from typing import TYPE_CHECKING

from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.agents.base import Agent, StreamingAgent
    from cotbench.agents.decisions import check_decision, error_decision, tagged_decision
    from cotbench.agents.registry import agent_names, make_agent, register_agent

_HOMES = {
    "Agent": "base",
    "StreamingAgent": "base",
    "agent_names": "registry",
    "check_decision": "decisions",
    "error_decision": "decisions",
    "make_agent": "registry",
    "register_agent": "registry",
    "tagged_decision": "decisions",
}

__all__ = [
    "Agent",
    "StreamingAgent",
    "agent_names",
    "check_decision",
    "error_decision",
    "make_agent",
    "register_agent",
    "tagged_decision",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
