"""Which lanes may hold keys and values. Invariant: together they hold no more than the budget, but for one that needs more by
itself; what is dropped belongs to lanes that nobody uses, or to queries that begin again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from cotbench.agents.hf.block_pool import BlockPool, PagedCache
from cotbench.agents.hf.kv_cache import BLOCK, KVCache
from cotbench.agents.hf.lanes import Branch, Lane, LaneKey
from cotbench.prompting.generation import TAG_ALLOWANCE


class LaneMemory:
    """Hold the lanes, and decide which of them may hold keys and values.

    Args:
        cache_bytes: the budget, in bytes.
        pool: where the caches lie as blocks; None where each is memory of its own.

    Attributes:
        cache_bytes: the budget, in bytes.
        lanes: all lanes by name, the least recently used first.
    """

    def __init__(self, cache_bytes: int, pool: BlockPool | None) -> None:
        self.cache_bytes = cache_bytes
        self.lanes: OrderedDict[LaneKey, Lane] = OrderedDict()
        self._pool = pool
        self._token_bytes = 0 if pool is None else pool.block_bytes // BLOCK

    def new_cache(self) -> KVCache | PagedCache:
        """Return an empty cache."""
        return KVCache() if self._pool is None else PagedCache(self._pool)

    def lane(self, name: LaneKey) -> Lane:
        """Return the lane of this name, a new one where there is none."""
        if name not in self.lanes:
            self.lanes[name] = Lane(cache=self.new_cache())
        return self.lanes[name]

    def note_size(self, cache: KVCache | PagedCache) -> None:
        """Note how much memory a token takes, by a cache that holds some."""
        self._token_bytes = self._token_bytes or cache.nbytes // cache.capacity

    def make_room(self, name: LaneKey, branch: Branch) -> bool:
        """Make room for a query on a free lane; return False while others, that are being answered, need the memory."""
        need = self._bytes_for(branch, [branch, branch])  # Both modes of it, so that the second never waits for the first.
        if not self._evict(name, need) and any(other != name for other in self.lanes):
            return False
        self.lane(name).reserved_bytes = need
        return True

    def make_room_beside(self, name: LaneKey, branch: Branch) -> bool:
        """Make room for a query that continues the prompt of others; return False while it has to wait for them."""
        lane = self.lanes[name]
        need = self._bytes_for(branch, [*lane.running, branch])
        if need > lane.reserved_bytes:
            if not self._evict(name, need):
                return False
            lane.reserved_bytes = need
        return True

    def forget(self, lane: Lane) -> None:
        """Drop what a lane holds, once nobody uses it."""
        if not lane.running:
            lane.cache.free()
            for name in [name for name, other in self.lanes.items() if other is lane]:
                del self.lanes[name]

    def drop_idle(self) -> bool:
        """Drop the lanes that are not in use, as there was no memory for all; return whether there were any."""
        idle = [lane for lane in self.lanes.values() if not lane.running and lane.cache.length]
        if idle:
            self._take_no_more()
        for lane in idle:
            self.forget(lane)
        return bool(idle)

    def withdraw_last(self) -> list[Branch]:
        """Take the queries of the lane that came last off, as there was no memory for all, and return them, to begin again.

        So do queries of lanes that hold nothing yet; and where there is one lane alone, half of its queries, of one none.
        """
        first, *others = [lane for lane in self.lanes.values() if lane.running]
        holding = [lane for lane in others if lane.held_bytes]
        leaving = {id(lane) for lane in others if not lane.held_bytes} | {id(lane) for lane in holding[-1:]}
        rest = {id(lane): [] if id(lane) in leaving else lane.running for lane in (first, *others)}
        if not leaving:
            rest[id(first)] = first.running[: (len(first.running) + 1) // 2]
        withdrawn = [branch for lane in (first, *others) for branch in lane.running if branch not in rest[id(lane)]]
        if withdrawn:
            self._take_no_more()
        for lane in (first, *others):
            if len(rest[id(lane)]) < len(lane.running):
                lane.reserved_bytes = self._bytes_for(lane.running[0], rest[id(lane)])
                lane.running = rest[id(lane)]
                self.forget(lane)
        for branch in withdrawn:
            branch.cache.free()
        return withdrawn

    def _evict(self, name: LaneKey, need: int) -> bool:
        """Drop idle lanes, the least recently used first, until one lane can have so many bytes; return whether it can."""
        others = {other: lane for other, lane in self.lanes.items() if other != name}
        while need + sum(lane.nbytes for lane in others.values()) > self.cache_bytes:
            idle = next((other for other, lane in others.items() if not lane.running), None)
            if idle is None:
                return False
            self.lanes.pop(idle).cache.free()
            del others[idle]
        return True

    def _bytes_for(self, branch: Branch, branches: Sequence[Branch]) -> int:
        """Return how much memory a lane may need with a branch's prompt and some branches that continue it."""
        return self._token_bytes * (self._room(len(branch.prompt)) + sum(self._room(_answer_tokens(one)) for one in branches))

    def _room(self, tokens: int) -> int:
        """Return for how many tokens a cache takes memory: it grows by half of itself, or block by block."""
        return tokens + (tokens // 2 if self._pool is None else -tokens % BLOCK)

    def _take_no_more(self) -> None:
        """Bound the lanes by what they hold now, if anything."""
        if self._pool is None:
            held = sum(lane.nbytes for lane in self.lanes.values())
        else:
            held = self._pool.nbytes - self._pool.block_bytes  # The spare block is nobody's.
        if held > 0:
            self.cache_bytes = min(self.cache_bytes, held)


def _answer_tokens(branch: Branch) -> int:
    """Return how many tokens a branch may add to its prompt, tags included."""
    continuation, elicitation = branch.continuation, branch.query.elicitation
    forced = continuation.request.forced is not None
    return TAG_ALLOWANCE + (len(continuation.ids) if forced else elicitation.trace_tokens + elicitation.action_tokens)
