"""Teachers, training data and recipes. Begin with `recipes` (ways to train) and `teachers` (who shows how); `data` is what is
learned from, `training` what every recipe trains with, `tiny` the small model that comes with cotbench.
"""
