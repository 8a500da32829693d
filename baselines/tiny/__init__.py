"""The model of two million parameters that comes with cotbench: `corpus` is what it reads, `tokenizer` its words, `model` its
shape, `demonstrations` what it is taught with; recipe `base` builds it.
"""
