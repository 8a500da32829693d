"""The web page and the API of the leaderboard: FastAPI, templates, two short scripts. Invariant: everything that can be read
can be read without JavaScript, and nothing is fetched from elsewhere.
"""
