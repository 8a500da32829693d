"""The model of two million parameters that comes with cotbench: `corpus` is its pretraining text, `tokenizer` its vocabulary,
`model` its shape, `demonstrations` the data of its fine-tuning; recipe `base` builds it.
"""
