"""Processes of a training, as a launcher has started them. Invariant: what they do together ends in all of them alike: an
exception in one of them ends all, each with a word of which one failed and why.

What is gathered are objects of this package, through a group of its own on the CPUs, whose deadline is that of a batch of
rollouts, not that of a sum of gradients.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from cotbench.agents.hf.pretrained import first_line
from cotbench.errors import CotbenchError

_T = TypeVar("_T")

DEADLINE = timedelta(hours=6)
"""How long a process waits for the others: they play episodes meanwhile, whose lengths differ."""


class Processes:
    """Processes that train one model together.

    Args:
        count: number of processes; above 1, torch.distributed has been set up.
        deadline: how long one waits for the others.

    Attributes:
        rank: number of this process, from 0.
        count: number of processes.
    """

    def __init__(self, count: int = 1, deadline: timedelta = DEADLINE) -> None:
        self.rank, self.count, self._deadline = 0, count, deadline
        self._group: Any = None
        if count > 1:
            import torch.distributed as dist

            self.rank = dist.get_rank()
            self._group = dist.new_group(backend="gloo", timeout=deadline)

    def share(self, items: Sequence[_T]) -> Sequence[_T]:
        """Return this process's share of some items: each item is in the share of one process.

        Args:
            items: the same in every process.
        """
        return items[self.rank :: self.count]

    def together(self, work: Callable[[], _T]) -> list[_T]:
        """Do some work in every process, and return what came out of each, in the order of their numbers.

        Args:
            work: this process's part; what it returns can be pickled.

        Raises:
            Exception: what `work` raised here.
            CotbenchError: it failed in another process, or another process is gone.
        """
        if self.count == 1:
            return [work()]
        own: _T | None = None
        failed: Exception | None = None
        try:
            own = work()
        except Exception as error:  # It is raised below, once the others know.
            failed = error
        found = self._gathered((own, None if failed is None else first_line(failed)))
        if failed is not None:
            raise failed
        for rank, (_, reason) in enumerate(found):
            if reason is not None:
                raise CotbenchError(f"process {rank} of {self.count} failed, so this one ends too: {reason}")
        return [value for value, _ in found]

    def of_first(self, work: Callable[[], _T]) -> _T:
        """Do some work in the first process alone, and return in every process what came out of it.

        Args:
            work: the first process's.

        Raises:
            Exception: what `work` raised, in the first process.
            CotbenchError: it failed there, in the others.
        """
        found: list[_T | None] = self.together(lambda: work() if self.rank == 0 else None)
        return found[0]  # type: ignore[return-value]

    def in_order(self, parts: Sequence[Sequence[_T]]) -> list[_T]:
        """Return the items of all shares in the order that they had before they were shared out.

        Args:
            parts: what was made of the items of each process's share, in order.
        """
        length = sum(map(len, parts))
        return [parts[place % self.count][place // self.count] for place in range(length)]

    def _gathered(self, own: Any) -> list[Any]:
        import torch.distributed as dist

        found: list[Any] = [None] * self.count
        try:
            dist.all_gather_object(found, own, group=self._group)
        except RuntimeError as error:
            raise CotbenchError(
                f"process {self.rank} of {self.count}: another process ended or did not answer for "
                f"{self._deadline} ({first_line(error)}): see its own error, then go on with --resume"
            ) from error
        return found


def use_own_gpu() -> None:
    """Let `cuda` mean this process's GPU, where a launcher has started one process a GPU."""
    import torch

    local = os.environ.get("LOCAL_RANK", "")
    if local.isdigit() and torch.cuda.is_available() and int(local) < torch.cuda.device_count():
        torch.cuda.set_device(int(local))


def weights_are_sharded() -> bool:
    """Tell whether accelerate divides the weights among the processes (FSDP, or DeepSpeed, of which stage 3 does)."""
    names = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    return any(os.environ.get(name, "").lower() in ("true", "1") for name in names)
