"""Verification: an entry's actions executed again beside the environments."""
