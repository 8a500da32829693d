"""cotbench: does a language-model agent's reasoning change what it does?

The public face. Everything is imported when it is first used, so `import cotbench` costs nothing.
"""

from typing import TYPE_CHECKING

from cotbench.envs.gymnasium_ids import register_ids
from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.agents import Agent, make_agent, register_agent
    from cotbench.errors import CotbenchError
    from cotbench.prompting.dialogue import Dialogue
    from cotbench.prompting.elicitation import Elicitation
    from cotbench.prompting.parsing import Answer, parse_answer
    from cotbench.prompting.query import Decision, Query
    from cotbench.runs.episode import Episode, Step
    from cotbench.runs.manifest import Manifest, RunConfig
    from cotbench.runs.results import Run, load_run
    from cotbench.runs.runner import run
    from cotbench.runs.summary import Summary

_HOMES = {
    "Agent": "agents",
    "Answer": "prompting.parsing",
    "CotbenchError": "errors",
    "Decision": "prompting.query",
    "Dialogue": "prompting.dialogue",
    "Elicitation": "prompting.elicitation",
    "Episode": "runs.episode",
    "Manifest": "runs.manifest",
    "Query": "prompting.query",
    "Run": "runs.results",
    "RunConfig": "runs.manifest",
    "Step": "runs.episode",
    "Summary": "runs.summary",
    "load_run": "runs.results",
    "make_agent": "agents",
    "parse_answer": "prompting.parsing",
    "register_agent": "agents",
    "run": "runs.runner",
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


__getattr__, __dir__ = lazy_exports(__name__, _HOMES)

register_ids()
