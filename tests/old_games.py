"""ALFWorld games as they were before release 0.4: the five changes of that release to domain and grammar, undone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

from cotbench.envs.alfworld.game import Game

_CHANGES = (
    ('template :: "move {o} to {r}";', 'template :: "put {o} in/on {r}";'),
    ("You move the {o.name} to the {r.name}.", "You put the {o.name} in/on the {r.name}."),
    ("You arrive at {r.name}. ", "You arrive at {lend.name}. "),
)
_HELP = re.compile(r"^action help \{$.*?^\}\n*", re.DOTALL | re.MULTILINE)
_HELP_ACTION = re.compile(r"\(:action help\s.*?\(checked \?a\)\s*\)\s*\)\s*", re.DOTALL)


def old_grammar(grammar: str) -> str:
    """Return a grammar of 0.4 as it was before."""
    for new, old in _CHANGES:
        assert new in grammar
        grammar = grammar.replace(new, old)
    changed, count = _HELP.subn("", grammar)
    assert count == 1
    return changed


def old_domain(domain: str) -> str:
    """Return a domain of 0.4 as it was before: without the action help."""
    changed, count = _HELP_ACTION.subn("", domain)
    assert count == 1
    return changed


def old_command(command: str) -> str:
    """Return a command of a walkthrough as it was spelled before."""
    return re.sub(r"move (.+) to (.+)", r"put \1 in/on \2", command)


def old_game(game: Game) -> Game:
    """Return a game of 0.4 as it was before."""
    return replace(
        game,
        pddl_domain=old_domain(game.pddl_domain),
        grammar=old_grammar(game.grammar),
        walkthrough=tuple(map(old_command, game.walkthrough)),
    )


def write_old_game(source: Path, target: Path) -> None:
    """Write the game file `target`: the game file `source` as it was before."""
    loaded = json.loads(source.read_text("utf-8"))
    loaded["pddl_domain"] = old_domain(loaded["pddl_domain"])
    loaded["grammar"] = old_grammar(loaded["grammar"])
    loaded["walkthrough"] = [old_command(command) for command in loaded["walkthrough"]]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(loaded), "utf-8")
