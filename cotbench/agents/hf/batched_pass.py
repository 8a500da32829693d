"""Where the new tokens of a forward pass stand, for all sequences at once. Invariant: everything that a layer's attention needs
to know is made once a pass, and reaches the device in one transfer; no layer looks at a Python list.

The rows of a pass are cut into *tiles*: consecutive new tokens of one sequence, computed by one program of the attention kernel.
A tile's keys are the blocks of the prompt that its sequence continues (`prefix`), then the blocks of the sequence's own cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cotbench.agents.hf.block_pool import BlockPool
from cotbench.agents.hf.kv_cache import BLOCK

TILE_FIELDS = 6
"""Numbers that describe a tile: first row, rows, position of the first row, prefix length, and where in the block table the blocks
of the prefix and its own begin."""

_WARP_ROWS = 16
"""Rows of the smallest matrix product of a tensor core."""

_TENSOR_CORE_BYTES = 2
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
    rows = _WARP_ROWS if longest * group <= 2 * _WARP_ROWS or itemsize > _TENSOR_CORE_BYTES else 4 * _WARP_ROWS
    return max(1, rows // group)


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

    table: list[int] = []
    places: dict[int, int] = {}  # Where the blocks of a prompt begin, which several spans may continue.
    head = np.zeros(shape.header, dtype=np.int32)
    tokens, logits = shape.tokens, shape.logits
    ids, positions = head[:tokens], head[tokens : 2 * tokens]
    logit_rows, targets = head[2 * tokens : 2 * tokens + logits], head[2 * tokens + logits : 2 * (tokens + logits)]
    slots = head[2 * (tokens + logits) : 3 * tokens + 2 * logits]
    tiles: list[tuple[int, int, int, int, int, int]] = []
    row = kept = longest = 0
    for span in spans:
        span.cache.reserve(len(span.ids))
        # A prefix first: its own span of the same pass has reserved its blocks, for it comes before.
        prefix, prefix_length, prefix_place = span.prefix, span.prefix_length, 0
        if prefix_length:
            if id(prefix) not in places:
                places[id(prefix)] = len(table)
                table += prefix.blocks
            prefix_place = places[id(prefix)]
        own_place = places.setdefault(id(span.cache), len(table)) if prefix_length == 0 else len(table)
        if own_place == len(table):
            table += span.cache.blocks
        count, own, first = len(span.ids), span.cache.length, span.position
        span.row = row
        ids[row : row + count] = span.ids
        positions[row : row + count] = range(first, first + count)
        places_of = np.arange(own, own + count)
        blocks = np.asarray(span.cache.blocks[own // BLOCK :], dtype=np.int32)
        slots[row : row + count] = blocks[places_of // BLOCK - own // BLOCK] * BLOCK + places_of % BLOCK
        for start in range(0, count, shape.tile_rows):
            rows = min(shape.tile_rows, count - start)
            tiles.append((row + start, rows, first + start, prefix_length, prefix_place, own_place))
        row += count
        longest = max(longest, first + count)
        wanted = len(span.logits_from_end)
        logit_rows[kept : kept + wanted] = [row - back for back in span.logits_from_end]
        if span.targets:
            targets[kept : kept + wanted] = span.targets
        kept += wanted
    flat = head[3 * tokens + 2 * logits :].reshape(shape.tiles, TILE_FIELDS)
    flat[: len(tiles)] = tiles
    return np.concatenate([head, np.asarray(table, dtype=np.int32)]), longest
