"""A judge of the two actions of one state: its question, its judgements, probe `preference`, and the judges of a run."""

from cotbench.judge.folder import judgements_of, read_judges

__all__ = ["judgements_of", "read_judges"]
