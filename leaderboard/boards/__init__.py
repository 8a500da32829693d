"""Boards: ranks and their tests, what a board shows, in the terminal too."""
