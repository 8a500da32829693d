"""A judge of the two actions of one state. Begin with `question` (what a judge is asked) and `preference` (the probe); `folder`
writes and reads the judges of a run.
"""

from typing import TYPE_CHECKING

from cotbench.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from cotbench.judge.folder import judge_run, judgements_of, make_judge_plan, read_judges
    from cotbench.judge.gate import JudgeGate, judge_gate
    from cotbench.judge.preference import PreferenceOptions
    from cotbench.judge.question import Question

_HOMES = {
    "JudgeGate": "gate",
    "PreferenceOptions": "preference",
    "Question": "question",
    "judge_gate": "gate",
    "judge_run": "folder",
    "judgements_of": "folder",
    "make_judge_plan": "folder",
    "read_judges": "folder",
}

__all__ = [
    "JudgeGate",
    "PreferenceOptions",
    "Question",
    "judge_gate",
    "judge_run",
    "judgements_of",
    "make_judge_plan",
    "read_judges",
]

__getattr__, __dir__ = lazy_exports(__name__, _HOMES)
