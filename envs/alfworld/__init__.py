"""ALFWorld: household tasks in text. `tasks` names them, `game` reads their files and `generator` makes new ones, `actions`
spells them, `native_engine` plays them (over `pddl`) and `textworld_engine` does so with upstream's programs, `expert` knows
what to do, `env` is the Gymnasium environment.
"""
