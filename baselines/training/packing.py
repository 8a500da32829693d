"""Trees packed into one row of tokens, and attention over them. Invariant: nothing is padded, and no token sees a token of
another tree or of another branch; the packed loss is that of each tree alone.

Own attention, for the same reason as in the engine: a mask over the whole row would grow with its square, here each block of
queries meets just the keys that it may see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cotbench.baselines.training.sequence_tree import Tree

ATTENTION = "cotbench_trees"
"""The name of our attention among transformers' own."""

_GROUP = 256
"""Largest number of tokens in a block of several branches, which a mask hides from one another."""


@dataclass(frozen=True, slots=True)
class AttentionBlock:
    """Run of adjacent queries, and the keys that they see.

    Attributes:
        start, end: the queries' rows.
        reach: how many tokens of the trunk before it are seen; beside them the queries see their own block.
        lengths, ats: of each branch in the block, how long it is and how many tokens of the trunk it sees; no branch: a trunk.
    """

    start: int
    end: int
    reach: int = 0
    lengths: tuple[int, ...] = ()
    ats: tuple[int, ...] = ()


@dataclass(slots=True)
class Packed:
    """Row of trees.

    Attributes:
        ids, positions: of each token; positions count within what the token sees.
        source: for each supervised token, the row whose output predicts it; `target` is its id and `weight` its loss weight.
        blocks: which tokens see which.
        trees: the trees of the row.
        masks: cache of `mask`, by block, device and dtype.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    source: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    blocks: list[AttentionBlock] = field(default_factory=list)
    trees: list[Tree] = field(default_factory=list)
    masks: dict[tuple[int, str, str], Any] = field(default_factory=dict)

    def mask(self, index: int, device: Any, dtype: Any) -> Any:
        """Return the additive attention mask of a block of branches, made once for all layers.

        Args:
            index: of the block.
            device: of the mask.
            dtype: of the mask.

        Returns:
            A tensor (queries, trunk's tokens + queries): 0 where a key is seen, else minus infinity.
        """
        import torch

        key = (index, str(device), str(dtype))
        if key not in self.masks:
            block = self.blocks[index]
            rows, row, width = block.end - block.start, 0, block.reach
            seen = torch.full((rows, width + rows), float("-inf"))
            for length, at in zip(block.lengths, block.ats, strict=True):
                seen[row : row + length, :at] = 0
                own = torch.full((length, length), float("-inf")).triu(1)
                seen[row : row + length, width + row : width + row + length] = own
                row += length
            self.masks[key] = seen.to(device=device, dtype=dtype)
        return self.masks[key]


def pack(trees: Sequence[Tree]) -> Packed:
    """Return trees packed one after the other."""
    packed = Packed(trees=list(trees))
    for tree in trees:
        _add(packed, tree)
    return packed


def _add(packed: Packed, tree: Tree) -> None:
    begin = len(packed.ids)
    branches = list(tree.branches)
    trunk, weights = list(tree.trunk), list(tree.weights or [0.0] * len(tree.trunk))
    last = branches[-1] if branches else None
    if last is not None and last.at == len(trunk):
        # A branch at the end of the trunk is appended to it: no other branch sees that far.
        branches.pop()
        trunk += last.ids
        weights += last.weights
    _write(packed, trunk, range(len(trunk)), weights, begin - 1)
    packed.blocks.append(AttentionBlock(begin, len(packed.ids)))
    group: list[Any] = []
    for branch in branches:
        if group and sum(len(one.ids) for one in group) + len(branch.ids) > _GROUP:
            _write_group(packed, group, begin)
            group = []
        group.append(branch)
    if group:
        _write_group(packed, group, begin)


def _write_group(packed: Packed, group: Sequence[Any], begin: int) -> None:
    start = len(packed.ids)
    for branch in group:
        positions = range(branch.at, branch.at + len(branch.ids))
        _write(packed, branch.ids, positions, branch.weights, begin + branch.at - 1)
    reach = max(branch.at for branch in group)
    lengths, ats = tuple(len(branch.ids) for branch in group), tuple(branch.at for branch in group)
    packed.blocks.append(AttentionBlock(start, len(packed.ids), reach, lengths, ats))


def _write(packed: Packed, ids: Sequence[int], positions: Sequence[int], weights: Sequence[float], predictor: int) -> None:
    """Append tokens to the row; `predictor` is the row whose output predicts the first of them."""
    start = len(packed.ids)
    packed.ids += ids
    packed.positions += positions
    for place, (token, weight) in enumerate(zip(ids, weights, strict=True)):
        if weight > 0 and (place or positions[0]):  # Nothing predicts the very first token of a text.
            packed.source.append(start + place - 1 if place else predictor)
            packed.target.append(token)
            packed.weight.append(weight)


def install_packed_attention(model: Any) -> None:
    """Make a model's layers use the attention of this module.

    Args:
        model: a transformers model.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _attention)
    model.set_attn_implementation(ATTENTION)


def _attention(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    *,
    cotbench_packed: Packed | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: Any = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Any, None]:
    """Return attention's output as transformers' layers expect it.

    query is (1, heads, tokens, size), key and value are (1, key heads, tokens, size), the output is (1, tokens, heads, size).
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    if cotbench_packed is None or s_aux is not None or softcap is not None or sliding_window is not None or dropout:
        raise NotImplementedError("a layer that our attention does not know")
    grouped = {"scale": scaling, "enable_gqa": query.shape[1] != key.shape[1]}
    # Split once, not sliced block by block: the gradient of a slice is as long as the whole row.
    sizes = [block.end - block.start for block in cotbench_packed.blocks]
    rows = zip(cotbench_packed.blocks, query.split(sizes, 2), key.split(sizes, 2), value.split(sizes, 2), strict=True)
    pieces, trunk = [], (key[:, :, :0], value[:, :, :0])
    for index, (block, queries, keys, values) in enumerate(rows):
        if not block.lengths:
            trunk = keys, values
            pieces.append(scaled_dot_product_attention(queries, keys, values, is_causal=True, **grouped))
            continue
        seen = (
            torch.cat([trunk[0][:, :, : block.reach], keys], dim=2),
            torch.cat([trunk[1][:, :, : block.reach], values], dim=2),
        )
        mask = cotbench_packed.mask(index, query.device, query.dtype)
        pieces.append(scaled_dot_product_attention(queries, *seen, attn_mask=mask, **grouped))
    return torch.cat(pieces, dim=2).transpose(1, 2), None
