"""The store: entries, results, tokens, in SQLite or PostgreSQL."""
