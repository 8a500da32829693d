"""Replays on the command line: of bundles and of entries, with a progress bar. Invariant: an entry's state changes only by the
outcome of its replay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cotbench.cli.terminal import console, echo, echo_error, text_column

if TYPE_CHECKING:
    from cotbench.errors import CotbenchError
    from cotbench.leaderboard.store.store import Store
    from cotbench.leaderboard.submission.bundle import Bundle
    from cotbench.leaderboard.verification.run_replay import Verdict


def settle_entry(store: Store, id: str, jobs: int | None, data: Path | None) -> Verdict | CotbenchError:
    """Replay an entry and store the outcome.

    Args:
        store: holds it.
        id: the entry's.
        jobs: processes; None: as many as save time.
        data: folder of the environments' data.

    Returns:
        The verdict, or why the entry cannot be replayed here; then its state is the same as before, or `unchecked` where the
        replay took too long.
    """
    from cotbench.errors import ReplayTimeoutError
    from cotbench.leaderboard.submission.bundle import unpack
    from cotbench.leaderboard.verification.run_replay import Verdict
    from cotbench.leaderboard.verification.verify import versions

    bundle = unpack(store.bundle(id))
    verdict = replay_bundle(bundle, jobs, data, id)
    if isinstance(verdict, ReplayTimeoutError):
        store.give_up(id, str(verdict))
    elif isinstance(verdict, Verdict):
        store.settle(id, verdict.difference, with_versions=versions(bundle.manifest, data), expert=verdict.expert)
    return verdict


def replay_bundle(bundle: Bundle, jobs: int | None, data: Path | None, name: str) -> Verdict | CotbenchError:
    """Return the verdict, or why the bundle cannot be replayed here.

    Args:
        bundle: the submission.
        jobs: processes; None: as many as save time.
        data: folder of the environments' data.
        name: what the progress bar names.
    """
    from cotbench.errors import CotbenchError
    from cotbench.leaderboard.submission.checks import check
    from cotbench.leaderboard.verification.verify import verify_bundle

    try:
        check(bundle)
        with _bar(name) as progress:
            return verify_bundle(bundle, jobs=jobs or _jobs(bundle), data=data, progress=progress)
    except CotbenchError as error:
        return error


def _jobs(bundle: Bundle) -> int:
    """Return the number of processes that save time: a fast engine replays the run before a second one has started."""
    from cotbench.envs.registry import env_entry
    from cotbench.runs.resources import cores

    if env_entry(bundle.manifest.config.env).expert_at_hand:
        return 1
    return cores()


def print_verdict(name: str, verdict: Verdict | CotbenchError, *, quiet: bool = False) -> int:
    """Print a verdict.

    Args:
        name: of the entry or the bundle.
        verdict: or why it cannot be replayed.
        quiet: print to standard error what did not agree, and nothing else.

    Returns:
        1 where the replay did not agree.
    """
    from cotbench.errors import CotbenchError, ReplayTimeoutError

    show = echo_error if quiet else echo
    if isinstance(verdict, ReplayTimeoutError):
        show(f"{name} not checked: {verdict}")
        return 1
    if isinstance(verdict, CotbenchError):
        show(f"{name} cannot be replayed here, and is unchanged: {verdict}")
        return 1
    if verdict.difference is not None:
        show(f"{name} rejected: {verdict.difference}")
        return 1
    if not quiet:
        echo(f"{name} replayed")
        for share in verdict.expert:
            if share.plays_expert:
                echo(f"    {share.mode} mode {share}")
    return 0


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int], None] | None]:
    """Return a callback that draws a progress bar over episodes; None where there is no terminal."""
    import sys

    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (text_column("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"replaying {name}", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
