"""Longer comparisons than the tests make.

python -m tests.reference alfworld [--all]   hold our engine against the stock one, word for word
python -m tests.reference expert             how often, and how fast, the expert that sees what a player sees wins
python -m tests.reference households         count the real training games: the table that the generator draws from
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from rich.progress import Progress

from cotbench.envs.alfworld.game import Game
from cotbench.errors import CotbenchError
from tests.reference import alfworld, households, seen


def main() -> int:
    """Run what the command line asks for; 0 if all is well."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.reference", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["alfworld", "expert", "households"])
    parser.add_argument("--data", type=Path, default=os.environ.get("ALFWORLD_DATA") or None, help="the folder with the games")
    parser.add_argument("--all", action="store_true", help="every game, not one in fifty")
    parser.add_argument("--first", type=int, help="so many games of each split, spread over the task types")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--transcripts", type=Path, help="keep what the stock engine said here, and read it from here")
    parser.add_argument("--out", type=Path, default=Path("households.json"), help="where the table of households goes")
    options = parser.parse_args()
    if options.data is None or not Path(options.data).is_dir():
        parser.error(f"no folder with games: {options.data} (give --data or set ALFWORLD_DATA)")
    if options.jobs < 1 or (options.first is not None and options.first < 1):
        parser.error("--jobs and --first are at least 1")
    try:
        if options.what == "households":
            households.write(Path(options.data), options.out)
            print(f"wrote {options.out}")
            return 0
        games = _chosen(list(alfworld.find_games(Path(options.data))), options.all, options.first)
    except CotbenchError as error:
        parser.error(str(error))
    if not games:
        parser.error(f"0 games in {options.data}: no game.tw-pddl below it")
    return _compare(games, options.jobs, options.transcripts) if options.what == "alfworld" else _play(games)


def _compare(games: list[Game], jobs: int, transcripts: Path | None) -> int:
    differences = failures = steps = 0
    with Progress() as progress, ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        bar = progress.add_task(f"{len(games)} games", total=len(games))
        for done in as_completed([pool.submit(alfworld.check, game, transcripts) for game in games]):
            length, found = done.result()
            steps += length
            progress.advance(bar)
            if found is not None:
                differences += length > 0
                failures += length == 0
                progress.console.print(found, markup=False, highlight=False, soft_wrap=True)
    print(f"{len(games)} games, {steps} steps: {differences} games differ, {failures} could not be compared")
    return 1 if differences or failures else 0


def _play(games: list[Game]) -> int:
    lengths: dict[str, list[int | None]] = defaultdict(list)
    plans: dict[str, list[int]] = defaultdict(list)
    for game in games:
        kind = game.task.rpartition("/")[0].rpartition("/")[2].split("-")[0]
        lengths[kind].append(seen.play(game))
        plans[kind].append(len(game.walkthrough))
        if lengths[kind][-1] is None:
            print("lost:", game.task)
    for kind, steps in sorted(lengths.items()):
        won = [step for step in steps if step is not None]
        mean = statistics.mean(won) if won else float("nan")
        plan = statistics.mean(plans[kind])
        print(f"{kind:32} {len(won):4} of {len(steps):4} won, {mean:5.2f} steps on average (plan: {plan:.2f})")
    return 0


def _chosen(games: list[Game], everything: bool, first: int | None) -> list[Game]:
    if not first:
        return games if everything else games[::50]
    splits: dict[str, list[Game]] = defaultdict(list)
    for game in games:
        splits[game.task.split("/")[-3] if game.task.count("/") >= 2 else ""].append(game)
    chosen = []
    for own in splits.values():
        # The folders of a split are sorted by task type: every so many games, so that all types come.
        count = min(first, len(own))
        chosen += [own[index * len(own) // count] for index in range(count)]
    return chosen


if __name__ == "__main__":
    sys.exit(main())
