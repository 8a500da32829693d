"""What failed, on the command line. Invariant: one line on standard error says what failed most often and how to go on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cotbench.cli.terminal import echo_error
from cotbench.failure import Failed, failure_in


def print_failures(some: Sequence[tuple[str, Failed]], what: str, again: str) -> int:
    """Print how many failed and the most frequent error, and return the exit code: 1 where any failed.

    Args:
        some: episodes or states with their names; those that did not fail are passed over.
        what: what failed, in words that follow the number: "of 9 episodes failed".
        again: how to do them again: "retry with: cotbench run --resume DIR".
    """
    failures = [(name, failure) for name, one in some if (failure := failure_in(one)) is not None]
    if not failures:
        return 0
    ((reason, count),) = Counter(failure.error for _, failure in failures).most_common(1)
    name, failure = next(one for one in failures if one[1].error == reason)
    which = "the first is" if count == len(failures) else f"{count} of them like"
    hint = " (--debug shows the traceback)" if failure.is_bug else ""
    echo_error(f"error: {len(failures)} {what}, {which} {name}: {' '.join(reason.split())}; {again}{hint}")
    return 1
