"""`cotbench view`: a local page over a folder of runs and studies, live while they run. Invariant: nothing in the folder is
changed, nothing outside of it is read, and what a model wrote is text, never markup. Begin with `app`.
"""
