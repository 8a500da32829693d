"""What the commands do, as functions for scripts and notebooks: `cotbench.make_env`, `compare`, `probe`, `train`, `study`,
`report`, and what reads their folders again. Each stands on the rooms below; `cotbench.run` is `runs.runner`.
"""
