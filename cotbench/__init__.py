"""cotbench: does a language-model agent's reasoning change what it does?

The public face. Everything is imported when it is first used, so `import cotbench` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cotbench.agents import Agent, make_agent, register_agent
    from cotbench.answer import Answer, parse_answer
    from cotbench.dialogue import Dialogue
    from cotbench.elicitation import Elicitation
    from cotbench.episode import Episode, Step
    from cotbench.errors import CotbenchError
    from cotbench.manifest import Manifest, RunConfig
    from cotbench.query import Decision, Query
    from cotbench.results import Run, load_run
    from cotbench.runner import run
    from cotbench.summary import Summary

_HOMES = {
    "Agent": "agents",
    "Answer": "answer",
    "CotbenchError": "errors",
    "Decision": "query",
    "Dialogue": "dialogue",
    "Elicitation": "elicitation",
    "Episode": "episode",
    "Manifest": "manifest",
    "Query": "query",
    "Run": "results",
    "RunConfig": "manifest",
    "Step": "episode",
    "Summary": "summary",
    "load_run": "results",
    "make_agent": "agents",
    "parse_answer": "answer",
    "register_agent": "agents",
    "run": "runner",
}

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "Answer",
    "CotbenchError",
    "Decision",
    "Dialogue",
    "Elicitation",
    "Episode",
    "Manifest",
    "Query",
    "Run",
    "RunConfig",
    "Step",
    "Summary",
    "load_run",
    "make_agent",
    "parse_answer",
    "register_agent",
    "run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cotbench' has no attribute {name!r}")
    value = getattr(import_module(f"cotbench.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
