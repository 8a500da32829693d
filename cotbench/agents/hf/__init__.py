"""`hf:` agents, on transformers. `models` finds and loads, `chat` makes the prompt's token ids, `decode` generates on a cache
that each state continues, `agent` answers queries.
"""
