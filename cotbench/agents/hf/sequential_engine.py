"""One query after the other on transformers' own cache, for models whose layers `attention.py` does not know: recurrent states,
attention sinks, other kernels. Invariant: a cache always belongs to exactly the token ids beside it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cotbench.agents.decisions import error_decision
from cotbench.agents.hf.continuation import Continuation
from cotbench.agents.hf.lanes import Key
from cotbench.agents.hf.pretrained import is_out_of_memory
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.token_ids import common_prefix, decision_tokens, prefill_ids, prompt_ids
from cotbench.prompting.generation import Generation, GenerationRequest, answer_program
from cotbench.prompting.query import Decision, Query


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Say when a model may go on from transformers' cache, so that each token is what a full forward pass computes.

    Attributes:
        reuse: whether it may at all; else everything is computed each time.
        resets: lengths; a sequence longer than one of them computes all of its tokens otherwise than a shorter one, whose cache
            is of no use to it.
        limit: the longest sequence for which it may. In a longer one each token depends on the length of the whole.
    """

    reuse: bool = True
    resets: tuple[int, ...] = ()
    limit: int = 2**31


class CachedSequence:
    """Hold token ids, and the model's cache after them.

    Args:
        model: a causal model of transformers.
        policy: when its cache may be used (`cache_policy`).
    """

    def __init__(self, model: Any, policy: CachePolicy) -> None:
        self._model, self._policy = model, policy
        self.ids: list[int] = []
        self._cache: Any = None
        self._reset()

    def _reset(self) -> None:
        from transformers import DynamicCache

        self.ids = []
        self._cache = DynamicCache(config=self._model.config)

    def logits_after(self, target: Sequence[int], count: int = 1) -> Any:
        """Return the logits after each of the last `count` tokens of `target`, computing only what is new.

        Returns:
            float32, (count, vocabulary).
        """
        import torch

        start, end = len(target) - count + 1, len(target)  # The lengths after whose last token the logits are.
        cuts = [length for length in self._policy.resets if start <= length < end]
        cuts += range(max(start, self._policy.limit), end)
        parts = []
        for cut in sorted({*cuts, end}):
            parts.append(self._logits_after(target[:cut], cut - start + 1))
            start = cut + 1
        return torch.cat(parts)

    def _logits_after(self, target: Sequence[int], count: int) -> Any:
        """Return the same where all of the logits come out of one forward pass."""
        import torch

        if not self._policy.reuse or len(target) > self._policy.limit:
            with torch.inference_mode():
                out = self._model(input_ids=torch.tensor([list(target)], device=self._model.device), use_cache=False)
            return out.logits[0, -count:].float()
        self._crop(min(self._usable(target), len(target) - count))
        new = list(target[len(self.ids) :])
        tokens = torch.tensor([new], device=self._model.device)
        try:
            with torch.inference_mode():
                out = self._model(input_ids=tokens, past_key_values=self._cache, use_cache=True, logits_to_keep=count)
        except BaseException:
            self._reset()  # Some layers may have taken the new tokens in, others not.
            raise
        self.ids += new
        return out.logits[0, -count:].float()

    def reusable(self, target: Sequence[int]) -> int:
        """Return how many tokens of `target` need not be computed again."""
        prefix_length = self._usable(target)
        return prefix_length if prefix_length == len(self.ids) or self._can_crop() else 0

    def _usable(self, target: Sequence[int]) -> int:
        """Return how many tokens of `target` the cache holds as a sequence of that length computes them."""
        crossed = any((len(self.ids) > length) != (len(target) > length) for length in self._policy.resets)
        return 0 if crossed or len(target) > self._policy.limit else common_prefix(self.ids, target)

    def _crop(self, length: int) -> None:
        """Shorten the cache to so many tokens; where it cannot be shortened, drop it."""
        surplus = len(self.ids) - length
        if surplus <= 0:
            return
        if length > 0 and self._can_crop():
            self._cache.crop(-surplus)  # Transformers 5 takes only the number of tokens to drop, as a negative.
            self.ids = self.ids[:length]
        else:
            self._reset()

    def _can_crop(self) -> bool:
        """Return whether the cache can be shortened: sliding windows and recurrent states forget what that needs."""
        from transformers.cache_utils import DynamicLayer

        return all(type(layer) is DynamicLayer for layer in self._cache.layers)


class SequentialEngine:
    """Answer one query after the other, with the methods of `Engine`.

    Args:
        model: a causal model of transformers.
        chat: its tokenizer and template.
        end_ids: token ids that end the assistant's turn.
        context: the longest prompt and answer together, in tokens.
        policy: when the model's cache may be used (`cache_policy`).
        episodes: how many episodes keep their cache; the least recently used is dropped.
    """

    def __init__(
        self,
        model: Any,
        chat: Chat,
        end_ids: frozenset[int],
        context: int,
        policy: CachePolicy,
        episodes: int = 8,
    ) -> None:
        self._model, self._chat, self._end_ids, self._context = model, chat, end_ids, context
        self._policy, self._episodes = policy, episodes
        self._sequences: OrderedDict[tuple[str, int], CachedSequence] = OrderedDict()
        self._waiting: deque[tuple[Key, Query]] = deque()

    def release(self) -> None:
        """Let go of the model; nothing can be answered any more."""
        self.close()
        self._model = None

    def submit(self, key: Key, query: Query) -> None:
        """Take a query in; `step` returns its decision under the key."""
        self._waiting.append((key, query))

    def step(self) -> list[tuple[Key, Decision]]:
        """Answer the next query; return its decision."""
        if not self._waiting:
            return []
        key, query = self._waiting.popleft()
        try:
            return [(key, self._answer(query))]
        except Exception as error:  # A broken template, a prompt too long: this query's failure alone.
            failure, again = error_decision(error), is_out_of_memory(error) and len(self._sequences) > 1
        self._sequences.pop((query.episode, query.rollout), None)
        if not again:
            return [(key, failure)]
        self._sequences.clear()  # The memory that lacked may be that of other episodes.
        self._waiting.appendleft((key, query))
        return self.step()

    @property
    def idle(self) -> bool:
        """Return whether no query is left to be answered."""
        return not self._waiting

    def close(self) -> None:
        """Drop all caches, and the queries that wait."""
        self._sequences.clear()
        self._waiting.clear()

    def _answer(self, query: Query) -> Decision:
        prompt, dropped = prompt_ids(query, self._chat, self._context)
        sequence = self._sequence(query)
        reused = sequence.reusable(prompt)
        prefilled = len(prompt) - reused
        history: list[tuple[list[int], Generation]] = []
        program = answer_program(query)
        request = next(program)
        while True:
            turn = prefill_ids(self._chat, request.prefill)
            target = prompt + turn
            prefilled += len(target) - max(len(prompt), common_prefix(sequence.ids, target))
            generation = self._generate(query, sequence, target, request)
            history.append((turn, generation))
            try:
                request = program.send(generation)
            except StopIteration as end:
                decision: Decision = end.value
                return replace(
                    decision,
                    prompt_tokens=len(prompt),
                    reused_tokens=reused,
                    prefilled_tokens=prefilled,
                    dropped_observations=dropped,
                    tokens=decision_tokens(prompt, history) if query.return_tokens else None,
                )

    def _generate(self, query: Query, sequence: CachedSequence, prefix: list[int], request: GenerationRequest) -> Generation:
        continuation = Continuation(request, query.elicitation, self._chat, self._end_ids)
        if request.forced is not None:
            return continuation.score(sequence.logits_after([*prefix, *continuation.ids[:-1]], continuation.logit_rows))
        while True:
            generation = continuation.append_token(sequence.logits_after([*prefix, *continuation.ids])[0])
            if generation is not None:
                return generation

    def _sequence(self, query: Query) -> CachedSequence:
        """Return the cached sequence of a query's episode, and forget the least recently used beyond `episodes`."""
        name = query.episode, query.rollout
        sequence = self._sequences.setdefault(name, CachedSequence(self._model, self._policy))
        self._sequences.move_to_end(name)
        while len(self._sequences) > self._episodes:
            self._sequences.popitem(last=False)
        return sequence
