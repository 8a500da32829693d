"""Runs: plan, rollout, run folder, summary, tables, comparison of two runs. Begin with `runner`."""
