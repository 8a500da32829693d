"""Where the new tokens of a forward pass stand, for all sequences at once. Invariant: everything that a layer's attention needs
to know is made once a pass, and reaches the device in one transfer; no layer looks at a Python list.

The rows of a pass are cut into *tiles*: consecutive new tokens of one sequence, computed by one program of the attention
kernel. A tile's keys are the blocks of the prompt that its sequence continues (`prefix`), then those of the sequence's own
cache.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cotbench.agents.hf.block_pool import BlockPool
from cotbench.agents.hf.kv_cache import BLOCK

TILE_FIELDS = 6
"""Numbers that describe a tile: first row, rows, position of the first row, prefix length, and where in the block table the
blocks of the prefix and its own begin."""

WARP_ROWS, WARP_GROUP_ROWS = 16, 64
"""Rows of the smallest matrix product of a tensor core, and of that of a warp group."""

TENSOR_CORE_BYTES = 2
"""Numbers of so many bytes go through tensor cores."""

_PROGRAMS, _MOST_SPLITS = 512, 32
"""Programs that keep all multiprocessors of a GPU busy, and parts of a tile's keys at most."""


@dataclass(frozen=True, slots=True)
class PassShape:
    """Bound a pass: how much of each thing there is room for.

    Attributes:
        tokens: rows of the pass.
        logits: rows of logits.
        tiles: tiles.
        tile_rows: rows of a tile at most.
    """

    tokens: int
    logits: int
    tiles: int
    tile_rows: int

    @property
    def header(self) -> int:
        """Return how many numbers stand before the block table."""
        return 3 * self.tokens + 2 * self.logits + TILE_FIELDS * self.tiles


@dataclass(frozen=True, slots=True, eq=False)
class BatchedPass:
    """Say where the new tokens of a pass stand: views of one packed int32 tensor on the device.

    Attributes:
        pool: keys and values.
        shape: how many rows, tiles and so on the tensors have; what is not used of them is filled up.
        packed: all numbers, int32.
        longest: keys that one tile sees at most; the host knows it for `gather` alone.
        splits: into how many parts the keys of a tile are split.
    """

    pool: BlockPool
    shape: PassShape
    packed: Any
    longest: int
    splits: int = 1

    def _part(self, start: int, count: int) -> Any:
        return self.packed[start : start + count]

    @property
    def ids(self) -> Any:
        """Return the token ids, (tokens,)."""
        return self._part(0, self.shape.tokens)

    @property
    def positions(self) -> Any:
        """Return each token's position in its sequence, (tokens,)."""
        return self._part(self.shape.tokens, self.shape.tokens)

    @property
    def logit_rows(self) -> Any:
        """Return the rows after which logits are wanted, (logits,)."""
        return self._part(2 * self.shape.tokens, self.shape.logits)

    @property
    def targets(self) -> Any:
        """Return for each row of logits the token whose log-probability is wanted, (logits,)."""
        return self._part(2 * self.shape.tokens + self.shape.logits, self.shape.logits)

    @property
    def slots(self) -> Any:
        """Return where in the pool each token's keys and values go, (tokens,)."""
        return self._part(2 * self.shape.tokens + 2 * self.shape.logits, self.shape.tokens)

    @property
    def tiles(self) -> Any:
        """Return the tiles, (tiles, `TILE_FIELDS`)."""
        start = 3 * self.shape.tokens + 2 * self.shape.logits
        return self._part(start, TILE_FIELDS * self.shape.tiles).view(self.shape.tiles, TILE_FIELDS)

    @property
    def table(self) -> Any:
        """Return the numbers of all sequences' blocks, one sequence after the other."""
        return self.packed[self.shape.header :]


def tile_rows_for(longest: int, group: int, itemsize: int) -> int:
    """Return how many rows a tile takes: as many as one matrix product of a tensor core, or of a warp group for long spans.

    Args:
        longest: new tokens of the longest span.
        group: query heads that share a key head; a product has so many rows for each row of a tile.
        itemsize: bytes of a number; float32 has no tensor core, and more rows do not fit into the registers.
    """
    padded = 1 << (group - 1).bit_length()  # As the kernel folds them.
    small = longest * group <= 2 * WARP_ROWS or itemsize > TENSOR_CORE_BYTES
    return max(1, (WARP_ROWS if small else WARP_GROUP_ROWS) // padded)


def split_count(tiles: int, pool: BlockPool) -> int:
    """Return into how many parts the keys of each tile are split, so that all multiprocessors have work; a power of two."""
    programs = tiles * min(shape.heads for shape in pool.shapes.values())
    splits = 1
    while programs * splits < _PROGRAMS and splits < _MOST_SPLITS:
        splits *= 2
    return splits


def count_tiles(spans: Sequence[Any], tile_rows: int) -> int:
    """Return how many tiles the spans take."""
    return sum(-(-len(span.ids) // tile_rows) for span in spans)


def pack_pass(spans: Sequence[Any], shape: PassShape) -> tuple[Any, int]:
    """Reserve blocks for the new tokens, and write down where they stand.

    Args:
        spans: token spans whose caches are `PagedCache`s; `row` of each is set.
        shape: room for them, at least what they need.

    Returns:
        The packed numbers, int32, (header + block table,); and how many keys one tile sees at most.
    """
    import numpy as np

    ids, positions, slots, logit_rows, targets, tiles, table = (array("i") for _ in range(7))
    places: dict[int, int] = {}  # Where the blocks of a cache begin, which several spans may continue.
    longest = 0
    for span in spans:
        cache, count, prefix_length, own = span.cache, len(span.ids), span.prefix_length, span.cache.length
        cache.reserve(count)
        # The prefix's own span of the same pass has reserved its blocks, for it comes before.
        prefix_place = _table_place(table, places, span.prefix) if prefix_length else 0
        own_place = _table_place(table, places, cache)
        span.row, first = len(ids), prefix_length + own
        ids.extend(span.ids)
        positions.extend(range(first, first + count))
        slots.extend([cache.blocks[place // BLOCK] * BLOCK + place % BLOCK for place in range(own, own + count)])
        for start in range(0, count, shape.tile_rows):
            rows = min(shape.tile_rows, count - start)
            tiles.extend((span.row + start, rows, first + start, prefix_length, prefix_place, own_place))
        longest = max(longest, first + count)
        logit_rows.extend([span.row + count - back for back in span.logits_from_end])
        targets.extend(span.targets or [0] * len(span.logits_from_end))
    parts = (
        (ids, shape.tokens),
        (positions, shape.tokens),
        (logit_rows, shape.logits),
        (targets, shape.logits),
        (slots, shape.tokens),
        (tiles, TILE_FIELDS * shape.tiles),
    )
    packed, start = np.zeros(shape.header + len(table), dtype=np.int32), 0
    for numbers, room in parts:
        packed[start : start + len(numbers)] = numbers
        start += room
    packed[start:] = table
    return packed, longest


def _table_place(table: array[int], places: dict[int, int], cache: Any) -> int:
    """Return where a cache's blocks begin in the table, and put them there where they are not yet."""
    place = places.get(id(cache))
    if place is None:
        place = places[id(cache)] = len(table)
        table.extend(cache.blocks)
    return place
