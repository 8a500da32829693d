"""Who shows how it is done: experts whose reasoning is written out, and models that reason for them."""
