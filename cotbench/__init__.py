"""cotbench: does a language-model agent's reasoning change what it does?

    run = cotbench.run(cotbench.RunConfig(agent="hf:tiny-cot", episodes=40))
    run  # a notebook shows the modes side by side, with intervals
    run.episodes, run.steps  # pandas

Everything below is imported when it is first used, so `import cotbench` costs nothing.

To do:
    run: play tasks in each mode -> Run
    compare: two runs on the same tasks -> Comparison
    probe: measure an agent on a fixed set of states -> ProbeResult
    pairs: preference pairs for recipe dpo, sampled from a model -> PairSet
    train: train a model on traces -> Training
    study: traces, training, runs and probes at every checkpoint -> Study
    report: write a page of runs or of a study -> Report
    make_env, make_agent: an environment (TextEnv), an agent (Agent) by name
    parse_answer: read an answer of a model -> Answer

To read a folder again:
    load_run, load_probe, load_pairs, load_training, load_study

Settings:
    RunConfig, ProbeConfig, StudyConfig, Elicitation

What a run holds:
    Manifest, Summary, Episode, Step, Query, Dialogue, Decision, DecisionTokens

To add one's own:
    register_agent, register_env, register_probe (Probe), register_recipe (Recipe)

CotbenchError: the base of everything that is raised on purpose.
"""

from typing import TYPE_CHECKING

from cotbench.envs.gymnasium_ids import register_ids
from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.agents.base import Agent
    from cotbench.agents.registry import make_agent, register_agent
    from cotbench.api.comparison import compare
    from cotbench.api.environment import make_env
    from cotbench.api.measurement import load_probe, probe
    from cotbench.api.pairs import PairSet, load_pairs, pairs
    from cotbench.api.report import Report, report
    from cotbench.api.study import Study, load_study, study
    from cotbench.api.training import Training, load_training, train
    from cotbench.envs.base import TextEnv
    from cotbench.envs.registry import register_env
    from cotbench.errors import CotbenchError
    from cotbench.probes.config import ProbeConfig
    from cotbench.probes.folder import ProbeResult
    from cotbench.probes.probe import Probe, register_probe
    from cotbench.prompting.dialogue import Dialogue
    from cotbench.prompting.elicitation import Elicitation
    from cotbench.prompting.parsing import Answer, parse_answer
    from cotbench.prompting.query import Decision, DecisionTokens, Query
    from cotbench.recipes import Recipe, register_recipe
    from cotbench.runs.comparison import Comparison
    from cotbench.runs.episode import Episode, Step
    from cotbench.runs.manifest import Manifest, RunConfig
    from cotbench.runs.results import Run, load_run
    from cotbench.runs.runner import run
    from cotbench.runs.summary import Summary
    from cotbench.study.config import StudyConfig

_HOMES = {
    "Agent": "agents.base",
    "Answer": "prompting.parsing",
    "Comparison": "runs.comparison",
    "CotbenchError": "errors",
    "Decision": "prompting.query",
    "DecisionTokens": "prompting.query",
    "Dialogue": "prompting.dialogue",
    "Elicitation": "prompting.elicitation",
    "Episode": "runs.episode",
    "Manifest": "runs.manifest",
    "PairSet": "api.pairs",
    "Probe": "probes.probe",
    "ProbeConfig": "probes.config",
    "ProbeResult": "probes.folder",
    "Query": "prompting.query",
    "Recipe": "recipes",
    "Report": "api.report",
    "Run": "runs.results",
    "RunConfig": "runs.manifest",
    "Step": "runs.episode",
    "Study": "api.study",
    "StudyConfig": "study.config",
    "Summary": "runs.summary",
    "TextEnv": "envs.base",
    "Training": "api.training",
    "compare": "api.comparison",
    "load_pairs": "api.pairs",
    "load_probe": "api.measurement",
    "load_run": "runs.results",
    "load_study": "api.study",
    "load_training": "api.training",
    "make_agent": "agents.registry",
    "make_env": "api.environment",
    "pairs": "api.pairs",
    "parse_answer": "prompting.parsing",
    "probe": "api.measurement",
    "register_agent": "agents.registry",
    "register_env": "envs.registry",
    "register_probe": "probes.probe",
    "register_recipe": "recipes",
    "report": "api.report",
    "run": "runs.runner",
    "study": "api.study",
    "train": "api.training",
}
_ROOMS = frozenset({"report", "study"})
"""Names that are packages too."""

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "Answer",
    "Comparison",
    "CotbenchError",
    "Decision",
    "DecisionTokens",
    "Dialogue",
    "Elicitation",
    "Episode",
    "Manifest",
    "PairSet",
    "Probe",
    "ProbeConfig",
    "ProbeResult",
    "Query",
    "Recipe",
    "Report",
    "Run",
    "RunConfig",
    "Step",
    "Study",
    "StudyConfig",
    "Summary",
    "TextEnv",
    "Training",
    "compare",
    "load_pairs",
    "load_probe",
    "load_run",
    "load_study",
    "load_training",
    "make_agent",
    "make_env",
    "pairs",
    "parse_answer",
    "probe",
    "register_agent",
    "register_env",
    "register_probe",
    "register_recipe",
    "report",
    "run",
    "study",
    "train",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES, _ROOMS)

register_ids()
