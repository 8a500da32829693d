"""The KV cache of one sequence. Invariant: keys and values stay where they were written, in whole blocks; the length alone says
how many of them count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BLOCK = 64
"""Tokens of a KV cache block: capacity and attention go by whole blocks."""


class KVCache:
    """Hold keys and values of consecutive tokens, for every layer: tensors of (key heads, capacity, head size).

    Attributes:
        length: how many tokens are held; setting it lower drops the last ones.
    """

    def __init__(self) -> None:
        self.length = 0
        self._layers: dict[int, tuple[Any, Any]] = {}

    @property
    def nbytes(self) -> int:
        """Return the memory held, in bytes."""
        return sum(tensor.nbytes for pair in self._layers.values() for tensor in pair)

    @property
    def capacity(self) -> int:
        """Return how many tokens fit into the memory held; 0 before the first are written."""
        return next((int(keys.shape[1]) for keys, _ in self._layers.values()), 0)

    def layers(self) -> Mapping[int, tuple[Any, Any]]:
        """Return the tensors of every layer, by its number."""
        return self._layers

    def free(self) -> None:
        """Drop all tokens and the memory."""
        self.length = 0
        self._layers = {}

    def write(self, layer: int, keys: Any, values: Any) -> tuple[Any, Any]:
        """Write new tokens of one layer after the first `length` ones; `length` itself is left to the caller.

        Args:
            layer: the layer's number.
            keys, values: (key heads, n, head size).

        Returns:
            The layer's whole tensors, (key heads, capacity, head size). What stands behind the last token written is not valid.
        """
        end = self.length + keys.shape[1]
        held = self._layers.get(layer)
        if held is None or held[0].shape[1] < end:
            capacity = end if held is None else end + end // 2
            capacity += -capacity % BLOCK
            pairs = zip(held or (None, None), (keys, values), strict=True)
            held = tuple(self._enlarged(old, new, capacity) for old, new in pairs)
            self._layers[layer] = held
        held[0][:, self.length : end] = keys
        held[1][:, self.length : end] = values
        return held

    def _enlarged(self, old: Any, new: Any, capacity: int) -> Any:
        tensor = new.new_zeros((new.shape[0], capacity, new.shape[2]))  # A masked key must not be NaN.
        if old is not None:
            tensor[:, : self.length] = old[:, : self.length]
        return tensor

    def read(self, layer: int, count: int) -> tuple[Any, Any]:
        """Return keys and values of the first `count` tokens of one layer, (key heads, count, head size)."""
        keys, values = self._layers[layer]
        return keys[:, :count], values[:, :count]
