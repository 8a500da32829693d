"""The process in which calls are executed and judged. Invariant: it answers every request with one JSON line a call, no line is
longer than the request allows, and the operating system ends the process when a request takes more processor time or memory
than it may have, whatever it is doing.

Processor time, not the clock: on a busy machine a harmless call must not be taken for an endless one.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from cotbench.envs.bfcl.session import MultiTurn

CPU_SECONDS = 1.0
PATIENCE = 10.0
"""How many times as much time a call has that was executed before: on a slower moment, or on a slower machine."""

MEMORY_BYTES = 1 << 30
OUT_OF_MEMORY = 86
"""Exit code after a request that needed more than `MEMORY_BYTES`."""

_LONGEST_REASON = 1000


def main() -> None:
    """Serve requests from standard input until it is closed."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Upstream's checkers print.
    _limit_memory()
    sys.set_int_max_str_digits(4300)  # Python's default, whatever the environment says: it decides what is an error.
    from cotbench.envs.bfcl.answers import check_answer

    game: MultiTurn | None = None
    for line in sys.stdin:
        request = json.loads(line)
        seconds = CPU_SECONDS * (PATIENCE if request.get("patient") else 1)
        match request["do"]:
            case "start":
                first, game = game is None, MultiTurn(request["task"])
                _reply(replies, True)
                if first:
                    gc.freeze()  # Every episode's modules are garbage after it: what stays is not looked through for it.
            case "call" if game is not None:
                room = request["room"]
                game.begin_response()
                with _limited(seconds):
                    for text in request["texts"]:
                        result = game.call(text)
                        room -= len(result) + 1
                        _reply(replies, result if room >= 0 else None)
            case "try" if game is not None:
                for possible in _trials(game, request["texts"]):
                    _reply(replies, possible)
            case "end turn" if game is not None:
                with _limited(seconds):
                    verdict = game.end_turn()
                _reply(replies, [verdict.valid, verdict.why[:_LONGEST_REASON]])
            case "drop turn" if game is not None:
                game.drop_turn()
                _reply(replies, True)
            case "judge":
                with _limited(seconds):
                    valid, why = check_answer(request["task"], request["text"])
                _reply(replies, [valid, why[:_LONGEST_REASON]])


def _reply(replies: TextIO, value: Any) -> None:
    replies.write(json.dumps(value) + "\n")
    replies.flush()


def _trials(game: MultiTurn, texts: Sequence[str]) -> Iterator[bool]:
    """Yield of each call whether it would be executed without an error, tried in a forked copy of this process.

    One that ends the copy is not possible; the rest is tried in another.
    """
    while texts:
        reader, writer = os.pipe()
        copy = os.fork()
        if copy == 0:
            _try(game, texts, writer)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            tried = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1])
        yield from (sign == b"1"[0] for sign in tried)
        texts = texts[len(tried) :]
        if texts and not own_fault(code):
            raise ChildProcessError(f"the process that tries calls ended with {code}")
        if texts:
            yield False
            texts = texts[1:]


def _try(game: MultiTurn, texts: Sequence[str], writer: int) -> None:
    try:
        for text in texts:
            with _limited(CPU_SECONDS):
                possible = game.possible(text)
            os.write(writer, b"1" if possible else b"0")
    finally:
        os._exit(0)


def own_fault(code: int | None) -> bool:
    """Tell whether a process ended for what its own request did.

    Args:
        code: its exit code; a signal's number below zero.
    """
    return code in (OUT_OF_MEMORY, -signal.SIGPROF, -signal.SIGSEGV)  # Not every system has these signals.


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Limit the processor time and the memory of the block.

    The default action of the timer's signal ends the process, even in the middle of a calculation in C.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _limit_memory() -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


if __name__ == "__main__":
    main()
