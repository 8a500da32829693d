"""Training data: demonstrations, traces folders, training examples."""
