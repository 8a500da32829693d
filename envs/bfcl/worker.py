"""The process in which calls are executed and judged. Invariant: it answers every request with one JSON line a call, and the
operating system ends it when a request takes more processor time than `CPU_SECONDS`, whatever it is doing.

Processor time, not the clock: on a busy machine a harmless call must not be taken for an endless one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

CPU_SECONDS = 1.0
MEMORY_BYTES = 4 << 30


def main() -> None:
    """Serve requests from standard input until it is closed."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Upstream's checkers print.
    _limit_memory()
    sys.set_int_max_str_digits(4300)  # Python's default, whatever the environment says: it decides what is an error.
    from cotbench.envs.bfcl.answers import check_answer
    from cotbench.envs.bfcl.session import MultiTurn

    game: MultiTurn | None = None
    for line in sys.stdin:
        request = json.loads(line)
        match request["do"]:
            case "start":
                game = MultiTurn(request["task"])
                _reply(replies, True)
            case "call" if game is not None:
                with _limited():
                    for text in request["texts"]:
                        _reply(replies, game.call(text))
            case "try" if game is not None:
                for text in request["texts"]:
                    with _limited():
                        possible = game.possible(text)
                    _reply(replies, possible)
            case "skip" if game is not None:
                game.skip(request["result"])
                _reply(replies, True)
            case "end turn" if game is not None:
                with _limited():
                    verdict = game.end_turn()
                _reply(replies, [verdict.valid, verdict.why])
            case "drop turn" if game is not None:
                game.drop_turn()
                _reply(replies, True)
            case "judge":
                with _limited():
                    answer = check_answer(request["task"], request["text"])
                _reply(replies, answer)


def _reply(replies: TextIO, value: Any) -> None:
    replies.write(json.dumps(value) + "\n")
    replies.flush()


@contextmanager
def _limited() -> Iterator[None]:
    """Limit the processor time of the block.

    The default action of the timer's signal ends the process, even in the middle of a calculation in C.
    """
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _limit_memory() -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


if __name__ == "__main__":
    main()
