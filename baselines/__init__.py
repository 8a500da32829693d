"""Teachers, training data and recipes. Empty in this release: the room is here so that names do not move later."""
