"""A whole study from one command: stages, their order, what they found."""
