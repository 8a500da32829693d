"""Ways to train, one a file: each a `cotbench.recipes.Recipe`. Begin with `sft`; `resolve` goes from options to a config.

A new recipe is a module with a config model, a function that trains, and an entry (see CONTRIBUTING, "Adding a recipe").
"""
