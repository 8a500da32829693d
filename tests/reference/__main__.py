"""`python -m tests.reference alfworld [--all] [--data DIR]`: hold our engines against the upstream ones."""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from rich.progress import Progress

from cotbench.envs.alfworld.game import Game
from tests.reference import alfworld


def main() -> int:
    """Compare, print each difference; 0 if there is none."""
    parser = argparse.ArgumentParser(prog="python -m tests.reference", description=__doc__)
    parser.add_argument("env", choices=["alfworld"])
    parser.add_argument("--data", type=Path, default=os.environ.get("ALFWORLD_DATA"), help="the folder with the games")
    parser.add_argument("--all", action="store_true", help="every game, not one in fifty")
    parser.add_argument("--first", type=int, help="at most so many games of each split folder")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--transcripts", type=Path, help="keep what the stock engine said here, and read it from here")
    options = parser.parse_args()
    if options.data is None or not Path(options.data).is_dir():
        parser.error(f"no folder with games: {options.data} (give --data or set ALFWORLD_DATA)")
    games = _chosen(list(alfworld.find_games(Path(options.data))), options.all, options.first)
    if not games:
        parser.error(f"0 games in {options.data}: no game.tw-pddl below it")
    differences = steps = 0
    with Progress() as progress, ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        bar = progress.add_task(f"{len(games)} games", total=len(games))
        for done in as_completed([pool.submit(alfworld.check, game, options.transcripts) for game in games]):
            length, found = done.result()
            steps += length
            progress.advance(bar)
            if found is not None:
                differences += 1
                progress.console.print(found, markup=False, highlight=False, soft_wrap=True)
    print(f"{len(games)} games, {steps} steps: {differences} games differ")
    return 1 if differences else 0


def _chosen(games: list[Game], everything: bool, first: int | None) -> list[Game]:
    chosen = games if everything or first else games[::50]
    if first:
        chosen = []
        # The folders of a split are sorted by task type: every so many games, so that all types come.
        splits: dict[str, list[Game]] = {}
        for game in games:
            splits.setdefault(game.task.split("/")[-3] if game.task.count("/") >= 2 else "", []).append(game)
        for own in splits.values():
            count = min(first, len(own))
            chosen += [own[index * len(own) // count] for index in range(count)]
    return chosen


if __name__ == "__main__":
    sys.exit(main())
