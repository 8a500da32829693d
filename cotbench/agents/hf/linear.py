"""A linear layer's product on a CPU. Invariant: it has the bits of `torch.nn.Linear` for any number of rows from four on.

With the weights on the left, `(W @ x.T).T`, the library behind torch shares the work among its threads better than with
`x @ W.T`: a quarter to a third less time on two threads. For fewer than twelve rows it would take another way, whose bits
differ, so there torch's own product stays.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

_ROWS = 12


def use_fast_cpu_linear(model: Any) -> None:
    """Let a model's linear layers compute that way, where it pays: in float32 on a CPU."""
    import torch

    for module in model.modules():
        if type(module) is torch.nn.Linear and module.weight.dtype == torch.float32 and module.weight.device.type == "cpu":
            module.forward = MethodType(_product, module)


def _product(module: Any, rows: Any) -> Any:
    """(..., in) to (..., out)."""
    import torch

    flat = rows.reshape(-1, rows.shape[-1])
    if module.bias is not None or flat.shape[0] < _ROWS:
        return torch.nn.functional.linear(rows, module.weight, module.bias)
    return torch.mm(module.weight, flat.t()).t().contiguous().view(*rows.shape[:-1], -1)
