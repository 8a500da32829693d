"""What every server here has, the leaderboard's and that of `cotbench view`: which hosts it answers to, headers, files.

Invariant: it knows none of their pages. Begin with `guard`.
"""
