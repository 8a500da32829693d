"""`hf:` agents, on transformers: `loading` finds and loads a model, `agent` answers queries with one of two engines. `engine`
batches continuously on `attention` (KV caches without padding), with `prompt_lookup` for drafts; `sequential_engine` takes
every other model, one query at a time. Which of the two, `attention_probe` decides, beyond every length that it finds in the
configuration (`length_settings`). `continuation` samples and stops, for both.
"""
