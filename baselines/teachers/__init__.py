"""Teachers: agents whose episodes become training data.

`scripted` writes an expert's reasoning out, with one module a benchmark (an environment's entry names its `decide` function);
`expert_fill` lets any agent reason towards the expert's action; `facts` checks that a trace names nothing unseen.
"""
