"""One sequence at a time on transformers' own cache, for models whose layers `rows` does not know: recurrent states, attention
sinks, other kernels. Invariant: the cache always belongs to exactly the token ids in `ids`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from cotbench.agents.decisions import error_decision
from cotbench.agents.hf.continuation import Continuation
from cotbench.agents.hf.engine import Key
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.token_ids import common_prefix, prefill_ids
from cotbench.prompting.generation import Generation, GenerationRequest, answer_program
from cotbench.prompting.query import Decision, Query


class CachedSequence:
    """Token ids, and the model's state after them.

    Args:
        model: of transformers.
        keep: whether there is a state to keep (`can_reuse_cache`); else everything is computed each time.
    """

    def __init__(self, model: Any, keep: bool = True) -> None:
        self._model, self._keep = model, keep
        self.ids: list[int] = []
        self._cache: Any = None
        self._reset()

    def _reset(self) -> None:
        from transformers import DynamicCache

        self.ids = []
        self._cache = DynamicCache(config=self._model.config)

    def logits_after(self, target: Sequence[int], count: int = 1) -> Any:
        """The logits after each of the last `count` tokens of `target`, (count, vocabulary), computing only what is new."""
        import torch

        if not self._keep:
            with torch.inference_mode():
                whole = self._model(input_ids=torch.tensor([list(target)], device=self._model.device), use_cache=False)
            return whole.logits[0, -count:].float()
        kept = min(common_prefix(self.ids, target), len(target) - count)
        self._cut(kept)
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
        """How many tokens of `target` need not be computed again."""
        kept = common_prefix(self.ids, target)
        return kept if kept == len(self.ids) or self._can_go_back() else 0

    def _cut(self, length: int) -> None:
        surplus = len(self.ids) - length
        if surplus <= 0:
            return
        if length > 0 and self._can_go_back():
            self._cache.crop(-surplus)  # Transformers 5 takes only the number of tokens to drop, as a negative.
            self.ids = self.ids[:length]
        else:
            self._reset()

    def _can_go_back(self) -> bool:
        """Sliding windows and recurrent states forget what a shorter prefix needs."""
        from transformers.cache_utils import DynamicLayer

        return all(type(layer) is DynamicLayer for layer in self._cache.layers)


def can_reuse_cache(model: Any, ids: Sequence[int], logits: Any) -> bool:
    """Whether a model goes on from transformers' cache; some take another kind of state, and silently.

    Args:
        model: of transformers.
        ids: some tokens.
        logits: what the model says after each of them, without a cache.
    """
    half = len(ids) // 2
    try:
        sequence = CachedSequence(model)
        sequence.logits_after(ids[:half])
        again = sequence.logits_after(ids, len(ids) - half)
    except Exception:  # Whatever a model's code does with a cache that it does not know.
        return False
    return logits_agree(again, logits[half:], model.dtype)


def logits_agree(ours: Any, theirs: Any, dtype: Any) -> bool:
    """Whether two computations of the same logits agree, as far as the number format allows."""
    import torch

    return bool((ours - theirs).norm() <= (1e-3 if dtype == torch.float32 else 0.1) * theirs.norm())


class SequentialEngine:
    """Answers one query after the other; the same face as `Engine`.

    Args:
        model: of transformers.
        chat: its tokenizer.
        end_ids: token ids that end a turn.
        prompt: gives a query's prompt and how many observations were dropped for it.
        keep: whether the model goes on from a cache (`can_reuse_cache`).
        episodes: how many episodes keep their cache; the least recently used is dropped.
    """

    def __init__(
        self,
        model: Any,
        chat: Chat,
        end_ids: frozenset[int],
        prompt: Callable[[Query], tuple[list[int], int]],
        keep: bool = True,
        episodes: int = 8,
    ) -> None:
        self._keep = keep
        self._model, self._chat, self._end_ids, self._prompt, self._episodes = model, chat, end_ids, prompt, episodes
        self._sequences: OrderedDict[str, CachedSequence] = OrderedDict()
        self._waiting: deque[tuple[Key, Query]] = deque()

    def submit(self, key: Key, query: Query) -> None:
        """Take a query in."""
        self._waiting.append((key, query))

    def step(self) -> list[tuple[Key, Decision]]:
        """Answer the next query."""
        if not self._waiting:
            return []
        key, query = self._waiting.popleft()
        try:
            return [(key, self._answer(query))]
        except Exception as error:  # Out of memory, a broken template, a prompt too long: this query's failure alone.
            self._sequences.pop(query.episode, None)
            return [(key, error_decision(error))]

    def close(self) -> None:
        """Drop all caches."""
        self._sequences.clear()
        self._waiting.clear()

    def _answer(self, query: Query) -> Decision:
        prompt, dropped = self._prompt(query)
        sequence = self._sequence(query.episode)
        reused = sequence.reusable(prompt)
        prefilled = len(prompt) - reused
        running = answer_program(query)
        ask = next(running)
        while True:
            target = prompt + prefill_ids(self._chat, ask.prefill)
            prefilled += len(target) - max(len(prompt), common_prefix(sequence.ids, target))
            said = self._write(query, sequence, target, ask)
            try:
                ask = running.send(said)
            except StopIteration as end:
                decision: Decision = end.value
                return replace(
                    decision,
                    prompt_tokens=len(prompt),
                    reused_tokens=reused,
                    prefilled_tokens=prefilled,
                    dropped_observations=dropped,
                )

    def _write(self, query: Query, sequence: CachedSequence, prefix: list[int], ask: GenerationRequest) -> Generation:
        passage = Continuation(ask, query.elicitation, self._chat, self._end_ids)
        if ask.forced is not None:
            return passage.score(sequence.logits_after([*prefix, *passage.ids[:-1]], passage.logit_rows))
        while True:
            said = passage.append_token(sequence.logits_after([*prefix, *passage.ids])[0])
            if said is not None:
                return said

    def _sequence(self, episode: str) -> CachedSequence:
        sequence = self._sequences.setdefault(episode, CachedSequence(self._model, self._keep))
        self._sequences.move_to_end(episode)
        while len(self._sequences) > self._episodes:
            self._sequences.popitem(last=False)
        return sequence
