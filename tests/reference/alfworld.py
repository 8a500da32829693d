"""ALFWorld's stock engine against our own, word for word.

A *transcript* is what an engine says to a fixed list of commands. The commands of a game are drawn by the stock engine's
answers and the game's name, so that a transcript can be kept, and any later version of our engine can be held against it
in a moment.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from cotbench.envs.alfworld.engine import Engine
from cotbench.envs.alfworld.game import Game, read_game
from cotbench.envs.alfworld.native_engine import NativeEngine
from cotbench.envs.alfworld.textworld_engine import TextWorldEngine

RANDOM_STEPS = 50
MALFORMED_STEPS = 10


@dataclass(frozen=True)
class Said:
    """What an engine said to one command; to None, the reset."""

    command: str | None
    text: str
    won: bool
    admissible: list[str]


@dataclass(frozen=True)
class Difference:
    """The first place where two engines part."""

    game: str
    step: int
    command: str | None
    what: str
    stock: object
    ours: object

    def __str__(self) -> str:
        return (
            f"{self.game}\n  step {self.step}, {self.command!r}: {self.what} differs\n"
            f"  stock: {self.stock!r}\n  ours:  {self.ours!r}"
        )


def find_games(root: Path) -> Iterator[Game]:
    """Every game file under a folder, in the order of their paths."""
    for path in sorted(root.rglob("game.tw-pddl")):
        yield read_game(path, str(path.parent.relative_to(root)))


def record(engine: Engine, game: Game) -> list[Said]:
    """Play the walkthrough and a random walk with malformed commands in between; every other game starts with the walk."""
    seed = int.from_bytes(hashlib.sha256(game.task.encode()).digest()[:8])
    rng = random.Random(seed)
    said = [Said(None, engine.reset(), False, engine.admissible())]

    def do(command: str) -> None:
        feedback = engine.step(command)
        said.append(Said(command, feedback.text, feedback.won, engine.admissible()))

    def walk() -> None:
        malformed = set(rng.sample(range(RANDOM_STEPS), MALFORMED_STEPS))
        for step in range(RANDOM_STEPS):
            if step in malformed:
                do(_malformed(said[-1].admissible, rng))
            # Verbs first, or nearly every step of a walk would be a "go to".
            verbs = sorted({command.split()[0] for command in said[-1].admissible})
            verb = rng.choice(verbs)
            do(rng.choice([command for command in said[-1].admissible if command.split()[0] == verb]))

    if seed % 4 == 0:
        walk()
        said.append(Said(None, engine.reset(), False, engine.admissible()))
    for command in game.walkthrough:
        do(command)
    if seed % 4:
        walk()
    return said


def replay(engine: Engine, commands: list[str | None]) -> Iterator[Said]:
    """What an engine says to the commands of a transcript."""
    for command in commands:
        if command is None:
            yield Said(None, engine.reset(), False, engine.admissible())
        else:
            feedback = engine.step(command)
            yield Said(command, feedback.text, feedback.won, engine.admissible())


def stock_transcript(game: Game, kept: Path | None = None) -> list[Said]:
    """The stock engine's transcript of a game; read from the folder `kept` if it lies there, else written to it."""
    file = kept / f"{_key(game)}.json.gz" if kept else None
    if file is not None and file.is_file():
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            return [Said(**line) for line in json.load(stream)]
    engine = TextWorldEngine(game)
    try:
        said = record(engine, game)
    finally:
        engine.close()
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        with gzip.open(part, "wt", encoding="utf-8") as stream:
            json.dump([asdict(line) for line in said], stream)
        part.replace(file)
    return said


def compare(game: Game, stock: list[Said]) -> Difference | None:
    """The first difference between a stock transcript and our engine, if there is one."""
    ours = replay(NativeEngine(game), [line.command for line in stock])
    for step, (theirs, line) in enumerate(zip(stock, ours, strict=True)):
        for what in ("text", "won", "admissible"):
            if getattr(theirs, what) != getattr(line, what):
                return Difference(game.task, step, theirs.command, what, getattr(theirs, what), getattr(line, what))
    return None


def check(game: Game, kept: Path | None) -> tuple[int, str | None]:
    """The number of steps compared, and what differs, in words. (A worker process finds this function by name.)"""
    try:
        stock = stock_transcript(game, kept)
        found = compare(game, stock)
    except Exception as error:  # One broken game must not end the comparison of all.
        return 0, f"{game.task}\n  {type(error).__name__}: {error}"
    return len(stock), None if found is None else str(found)


def _key(game: Game) -> str:
    parts = (game.task, game.pddl_domain, game.pddl_problem, game.grammar, *game.walkthrough, version("textworld"))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _malformed(admissible: list[str], rng: random.Random) -> str:
    """A command that is wrong in one of many ways."""
    command = rng.choice(admissible)
    words = command.split()
    ways = (
        command.upper(),
        f"{command}.",
        command.replace(" ", "  ", 1),
        f"  {command}\t",
        f"{command} {rng.choice(words)}",
        " ".join(words[:-1]),
        " ".join(reversed(words)),
        command.replace("1", "99"),
        f"go to {rng.choice(('', 'nowhere 1', '{r}', 'agent1'))}",
        f"take {words[-1]} from {words[-1]}",
        rng.choice(("", " ", "\n", "\0", "xyzzy", "look around", "go", "{}", "%s", "ünïcödé", "a" * 5000, "open close 1")),
    )
    return rng.choice(ways)
