"""`hf:` agents, on transformers: `loading` finds and loads a model, `agent` answers queries with one of two engines. `engine`
batches continuously, on `lanes`; `sequential_engine` takes every other model, one query at a time. Which of the two,
`attention_probe` decides, beyond every length that it finds in the configuration (`length_settings`). `continuation` samples
and stops, for both; `prompt_lookup` drafts.

The engine computes its passes in one of two ways. On a CPU, `attention` takes each sequence by itself (`kv_cache`), which gives
the same bits in any company. On a GPU, `pass_runner` computes all of them at once: their keys and values are blocks of one pool
(`block_pool`), `batched_pass` says where the tokens stand, `batched_attention` is one kernel a layer (`triton_attention`) or
plain torch, `compiled_layers` the rest of the layer, and `top_rows` samples where the logits lie.
"""
