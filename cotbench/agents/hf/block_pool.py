"""KV caches as blocks of one pool, for batched attention. Invariant: a block belongs to one cache or is free, and a token's
keys and values stay where they were written; a continuation reads its prompt's blocks, which are never copied.

`PagedCache` has the methods of `KVCache` that the engine uses, so that the engine is the same for both.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from cotbench.agents.hf.kv_cache import BLOCK
from cotbench.agents.hf.pretrained import is_out_of_memory

_FIRST_SHARE = 8
"""A pool begins with this fraction of its budget, and grows to all of it as blocks are needed."""

_LEAST_BLOCKS = 16
"""Blocks of the smallest pool."""

_GROWTH_SHARE = 0.9
"""What a pool takes at most of the memory that is free on a GPU when it grows: a pass needs some too."""

_LARGEST_HEAD = 256
"""Numbers of a key or value at most, so that a block of them fits into the shared memory of a multiprocessor."""

_KERNEL_DTYPES = ("float32", "bfloat16", "float16")
"""Number formats that the attention kernel knows."""

SPARE_BLOCK = 0
"""The block that rows without a sequence (a filled-up batch) write to; no cache holds it."""


class PoolFullError(MemoryError):
    """There is no memory for further blocks; the pool is what it was."""


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Hold what one layer keeps of a token: its key heads, and the sizes of a key and of a value."""

    heads: int
    key_size: int
    value_size: int


class BlockPool:
    """Hold keys and values of all sequences: for each layer tensors of (slots, key heads, size); 64 slots are a block.

    Args:
        shapes: what each layer keeps, by the layer's number.
        dtype: torch dtype of keys and values.
        device: where they lie.
        cache_bytes: the budget. The pool grows beyond it only for one sequence that needs more by itself.

    Attributes:
        dtype, device: of keys and values.
        shapes: what each layer keeps.
        block_bytes: memory of a block, in bytes.
        version: changes when the tensors move to another place, as a CUDA graph must know.
    """

    def __init__(self, shapes: Mapping[int, LayerShape], dtype: Any, device: Any, cache_bytes: int) -> None:
        self.dtype, self.device = dtype, device
        token_values = sum(shape.heads * (shape.key_size + shape.value_size) for shape in shapes.values())
        self.block_bytes: int = BLOCK * token_values * dtype.itemsize
        self.shapes = dict(shapes)
        self.version = 0
        self._budget = 0
        self.limit(cache_bytes)
        self._blocks = 0
        self._free: list[int] = []
        self._layers: dict[int, tuple[Any, Any]] = {}

    @cached_property
    def kernel_error(self) -> str | None:
        """Return why the attention kernel (`triton_attention`) cannot be used; None where it can."""
        largest = max(max(shape.key_size, shape.value_size) for shape in self.shapes.values())
        if largest > _LARGEST_HEAD:
            return f"heads of {largest} numbers (the kernel: at most {_LARGEST_HEAD})"
        if self.device.type != "cuda":
            return f"a model on {self.device.type}"
        if (dtype := str(self.dtype).removeprefix("torch.")) not in _KERNEL_DTYPES:
            return f"numbers of {dtype}"
        return None if find_spec("triton") is not None else "triton is not installed"

    def limit(self, cache_bytes: int) -> None:
        """Set the budget; memory that is held already stays."""
        self._budget = max(_LEAST_BLOCKS, cache_bytes // self.block_bytes + 1)  # The spare block is nobody's.

    def on_device(self) -> AbstractContextManager[Any]:
        """Return a context in which a GPU's pool lies on the current one: kernels of Triton and CUDA graphs go to no other."""
        import torch

        return torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext()

    @property
    def nbytes(self) -> int:
        """Return the memory held, in bytes."""
        return self._blocks * self.block_bytes

    def layer(self, number: int) -> tuple[Any, Any]:
        """Return keys and values of one layer, each (slots, key heads, size)."""
        return self._layers[number]

    def take(self, count: int) -> list[int]:
        """Return the numbers of so many free blocks, which now belong to the caller.

        Raises:
            PoolFullError: the device has no memory for them.
        """
        if count > len(self._free):
            self._grow(count - len(self._free))
        return [self._free.pop() for _ in range(count)]

    def give_back(self, blocks: Sequence[int]) -> None:
        """Make blocks free again."""
        self._free.extend(reversed(blocks))

    def drop(self) -> None:
        """Free all memory; no cache may be in use."""
        self._layers, self._free, self._blocks = {}, [], 0
        self.version += 1

    def _grow(self, missing: int) -> None:
        """Make room for more blocks: up to the budget by doubling, beyond it by what is missing."""
        self.version += 1  # Before the first tensor moves.
        held = self._blocks
        needed = held + missing + (held == 0)  # The spare block is nobody's.
        most = max(self._budget, needed)
        wanted = min(max(_LEAST_BLOCKS, self._budget // _FIRST_SHARE, 2 * held, needed), most)
        wanted = max(needed, min(wanted, held + self._affordable_blocks()))
        if not self._resize_all(wanted):
            wanted = needed
            if not self._resize_all(wanted):
                raise PoolFullError(
                    f"no memory for {needed - held} more blocks of {self.block_bytes} bytes for keys and values"
                )
        first_new = max(held, SPARE_BLOCK + 1)
        self._free = [*range(wanted - 1, first_new - 1, -1), *self._free]
        self._blocks = wanted

    def _affordable_blocks(self) -> int:
        """Return how many more blocks the device has memory for, which others may have taken since the budget was set."""
        if self.device.type != "cuda":
            return self._budget
        import torch

        self._release_unused()
        free = torch.cuda.mem_get_info(self.device)[0] * _GROWTH_SHARE
        moving = max(shape.heads * (shape.key_size + shape.value_size) for shape in self.shapes.values())
        return int(free - self._blocks * BLOCK * moving * self.dtype.itemsize) // self.block_bytes  # A layer is held twice.

    def _resize(self, number: int, blocks: int) -> bool:
        """Give a layer room for so many blocks, keeping what it holds; return False where there is no memory."""
        import torch

        shape, old = self.shapes[number], self._layers.get(number)
        pair = []
        try:
            for place, size in enumerate((shape.key_size, shape.value_size)):
                # Zeros: a masked key or value must not be NaN.
                tensor = torch.zeros((blocks * BLOCK, shape.heads, size), dtype=self.dtype, device=self.device)
                if old is not None:
                    slots = min(self._blocks, blocks) * BLOCK
                    tensor[:slots] = old[place][:slots]
                pair.append(tensor)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return False
        self._layers[number] = (pair[0], pair[1])
        del old
        if self._blocks:
            self._release_unused()  # So that never more than one layer is held twice.
        return True

    def _resize_all(self, blocks: int) -> bool:
        """Give all layers room for so many blocks; return False, and leave them as they were, where there is no memory."""
        grown: list[int] = []
        for number in self.shapes:
            if not self._resize(number, blocks):
                break
            grown.append(number)
        else:
            return True
        self._release_unused()
        for number in grown:
            if self._blocks:
                self._resize(number, self._blocks)
            else:
                del self._layers[number]
        return False

    def _release_unused(self) -> None:
        """Give the driver back what torch keeps for later."""
        if self.device.type == "cuda":
            import torch

            with suppress(RuntimeError):  # torch refuses for ever after a capture that failed.
                torch.cuda.empty_cache()


class PagedCache:
    """Hold keys and values of consecutive tokens in blocks of a pool.

    Args:
        pool: where the blocks come from.

    Attributes:
        blocks: the numbers of its blocks, in the order of its tokens.
    """

    def __init__(self, pool: BlockPool) -> None:
        self.pool = pool
        self.blocks = array("i")
        self._length = 0

    @property
    def length(self) -> int:
        """Return how many tokens are held; setting it lower drops the last ones and frees their blocks."""
        return self._length

    @length.setter
    def length(self, length: int) -> None:
        if length < self._length:
            count = -(-length // BLOCK)
            self.pool.give_back(self.blocks[count:])
            del self.blocks[count:]
        self._length = length

    @property
    def nbytes(self) -> int:
        """Return the memory held, in bytes."""
        return len(self.blocks) * self.pool.block_bytes

    @property
    def capacity(self) -> int:
        """Return how many tokens fit into the memory held."""
        return len(self.blocks) * BLOCK

    def reserve(self, count: int) -> None:
        """Take blocks for so many tokens after the first `length` ones."""
        missing = -(-(self._length + count) // BLOCK) - len(self.blocks)
        if missing > 0:
            self.blocks.extend(self.pool.take(missing))

    def free(self) -> None:
        """Drop all tokens and free their blocks."""
        self.pool.give_back(self.blocks)
        self.blocks, self._length = array("i"), 0
