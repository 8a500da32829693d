"""Numbers on their way to the device that trains. Invariant: nothing here waits for the device: what it still computes goes on
while they come, which is what pinned memory is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def to_device(host: Any, device: Any) -> Any:
    """Return a tensor on a device; to a GPU one asynchronous copy is made.

    Args:
        host: a tensor of the CPU, which is not changed afterwards.
        device: a torch device.
    """
    import torch

    if torch.device(device).type == "cuda":
        host = host.pin_memory()
    return host.to(device, non_blocking=True)


def device_tensor(values: Sequence[float], device: Any, dtype: Any = None) -> Any:
    """Return numbers as a tensor on a device.

    Args:
        values: the numbers.
        device: a torch device.
        dtype: of torch; default: as `torch.tensor` chooses it.
    """
    import torch

    return to_device(torch.tensor(values, dtype=dtype), device)
