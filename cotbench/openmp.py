"""How torch's OpenMP threads wait for each other. Invariant: what the user has set stands.

A thread that is ready before the others spins by default: on cores that other work keeps busy it takes the time that the
others need, and a small model becomes many times slower than on one thread.
"""

from __future__ import annotations

import os
import sys

WAIT_POLICY = "OMP_WAIT_POLICY"
_OWN_CHOICES = (WAIT_POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables with which a user chooses how threads wait: the standard's, GNU's and LLVM's."""


def wait_passively() -> None:
    """Let threads sleep while they wait, in this process and in those that it starts.

    The runtime reads its variables once, when torch is imported; afterwards, or where the user has chosen, nothing is changed.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in _OWN_CHOICES):
        os.environ[WAIT_POLICY] = "PASSIVE"
