"""cotbench: does a language-model agent's reasoning change what it does?

The public face. Everything is imported when it is first used, so `import cotbench` costs nothing.
"""

from typing import TYPE_CHECKING

from cotbench.envs.gymnasium_ids import register_ids
from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.agents.base import Agent
    from cotbench.agents.registry import make_agent, register_agent
    from cotbench.envs.base import TextEnv
    from cotbench.envs.registry import register_env
    from cotbench.errors import CotbenchError
    from cotbench.probes.probe import Probe, register_probe
    from cotbench.prompting.dialogue import Dialogue
    from cotbench.prompting.elicitation import Elicitation
    from cotbench.prompting.parsing import Answer, parse_answer
    from cotbench.prompting.query import Decision, DecisionTokens, Query
    from cotbench.recipes import Recipe, register_recipe
    from cotbench.runs.comparison import compare_runs
    from cotbench.runs.episode import Episode, Step
    from cotbench.runs.manifest import Manifest, RunConfig
    from cotbench.runs.results import Run, load_run
    from cotbench.runs.runner import run
    from cotbench.runs.summary import Summary

_HOMES = {
    "Agent": "agents.base",
    "Answer": "prompting.parsing",
    "CotbenchError": "errors",
    "Decision": "prompting.query",
    "DecisionTokens": "prompting.query",
    "Dialogue": "prompting.dialogue",
    "Elicitation": "prompting.elicitation",
    "Episode": "runs.episode",
    "Manifest": "runs.manifest",
    "Probe": "probes.probe",
    "Query": "prompting.query",
    "Recipe": "recipes",
    "Run": "runs.results",
    "RunConfig": "runs.manifest",
    "Step": "runs.episode",
    "Summary": "runs.summary",
    "TextEnv": "envs.base",
    "compare_runs": "runs.comparison",
    "load_run": "runs.results",
    "make_agent": "agents.registry",
    "parse_answer": "prompting.parsing",
    "register_agent": "agents.registry",
    "register_env": "envs.registry",
    "register_probe": "probes.probe",
    "register_recipe": "recipes",
    "run": "runs.runner",
}

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "Answer",
    "CotbenchError",
    "Decision",
    "DecisionTokens",
    "Dialogue",
    "Elicitation",
    "Episode",
    "Manifest",
    "Probe",
    "Query",
    "Recipe",
    "Run",
    "RunConfig",
    "Step",
    "Summary",
    "TextEnv",
    "compare_runs",
    "load_run",
    "make_agent",
    "parse_answer",
    "register_agent",
    "register_env",
    "register_probe",
    "register_recipe",
    "run",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)

register_ids()
