"""Teachers, training data and recipes. Begin with `recipes` (ways to train) and `teachers` (agents that demonstrate); `data`
holds the training data, `training` what every recipe trains with, `tiny` the small model that comes with cotbench.
"""
