"""ALFWorld: household tasks in text. `tasks` names them, `game` reads their files, `generator` makes new ones, `actions`
spells them, `textworld_engine` plays them, `env` is the Gymnasium environment.
"""
