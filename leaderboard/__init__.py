"""Entries that anyone can verify: submission, replay, ranking, the web page."""
