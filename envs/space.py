"""The space of all strings. Invariant: it contains every `str` and nothing else, and batches under `make_vec`.

Gymnasium's `Text` accepts a fixed alphabet up to a fixed length; what an environment says and what a model answers
has neither. Importing this module teaches Gymnasium's asynchronous vector environment to carry our strings through shared
memory.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Sequence
from typing import Any

from gymnasium import Space
from gymnasium.vector.utils import create_shared_memory, read_from_shared_memory, write_to_shared_memory

_SAMPLES = ("look", "inventory", "help", "go to shelf 1", "", "ünïcode ✓", "[ls(a=True)]")

SHARED_BYTES = 4 * 2**20
"""Room for one observation in shared memory, UTF-8. Pages are touched only when written."""

_HEADER = 8


class AnyText(Space[str]):
    """Every Python string, of any length and alphabet.

    `sample` draws from a few short strings: enough to exercise an environment, not to play it.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(shape=None, dtype=None, seed=seed)

    def contains(self, x: Any) -> bool:
        """Tell whether `x` is a string."""
        return isinstance(x, str)

    def sample(self, mask: None = None, probability: None = None) -> str:
        """Return one of a few fixed strings, drawn by the space's own generator."""
        return _SAMPLES[int(self.np_random.integers(len(_SAMPLES)))]

    @property
    def is_np_flattenable(self) -> bool:
        """False: strings do not flatten to an array."""
        return False

    def to_jsonable(self, sample_n: Iterable[str]) -> list[str]:
        """Return the strings as they are: they are JSON already."""
        return list(sample_n)

    def from_jsonable(self, sample_n: list[Any]) -> list[str]:
        """Return the strings of a list made by `to_jsonable`."""
        return [str(sample) for sample in sample_n]

    def __repr__(self) -> str:
        return "AnyText()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyText)

    def __hash__(self) -> int:
        return hash(AnyText)


@create_shared_memory.register(AnyText)
def _create(space: AnyText, n: int = 1, ctx: Any = multiprocessing) -> Any:
    return ctx.RawArray("c", n * (_HEADER + SHARED_BYTES))


@write_to_shared_memory.register(AnyText)
def _write(space: AnyText, index: int, value: str, shared_memory: Any) -> None:
    data = value.encode("utf-8", "surrogatepass")
    if len(data) > SHARED_BYTES:
        raise ValueError(f"an observation of {len(data)} bytes exceeds shared memory; pass shared_memory=False")
    start = index * (_HEADER + SHARED_BYTES)
    view = memoryview(shared_memory).cast("B")
    view[start : start + _HEADER] = len(data).to_bytes(_HEADER, "little")
    view[start + _HEADER : start + _HEADER + len(data)] = data


class _SharedText(Sequence[str]):
    """Observations in shared memory, read when accessed; copying them (as the vector environment does) gives a tuple."""

    def __init__(self, memory: Any, n: int) -> None:
        self._memory = memory
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self[position] for position in range(*index.indices(self._n)))
        view = memoryview(self._memory).cast("B")
        start = range(self._n)[index] * (_HEADER + SHARED_BYTES)
        size = int.from_bytes(view[start : start + _HEADER], "little")
        return bytes(view[start + _HEADER : start + _HEADER + size]).decode("utf-8", "surrogatepass")

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[str, ...]:
        return tuple(self)


@read_from_shared_memory.register(AnyText)
def _read(space: AnyText, shared_memory: Any, n: int = 1) -> Any:
    return _SharedText(shared_memory, n)
