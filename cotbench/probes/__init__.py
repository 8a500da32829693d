"""Measurements on states and checkpoints (paper: alignment, consistency, conflicting traces, attention and gradient shares)."""
