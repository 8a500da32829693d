"""Generating on a cache. Invariant: the cache always belongs to exactly the token ids in `ids`; a new target continues from
the longest common prefix, so the states of one episode, in both modes, prefill each token once.

Own loop instead of transformers' `generate`: it keeps the cache between calls, cuts it back to where a tag begins, and gives
the log-probability of each token. One sequence at a time; batches over episodes are not computed together yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cotbench.agents.hf.chat import Chat


@dataclass(frozen=True, slots=True)
class Generated:
    """What a model wrote.

    Attributes:
        ids: the generated token ids; an end-of-turn token is left out.
        text: their text up to the stop string, without it.
        stop: the stop string that was met, "eos", or "budget".
        logprobs: natural logarithm of each generated token's probability at temperature 1, end-of-turn token included.
    """

    ids: list[int]
    text: str
    stop: str
    logprobs: list[float]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Temperature (0 is greedy), nucleus and seed."""

    temperature: float
    top_p: float
    seed: int


class CachedSequence:
    """Token ids, and the model's keys and values for them."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.ids: list[int] = []
        self._cache: Any = None
        self._reset()

    def _reset(self) -> None:
        from transformers import DynamicCache

        self.ids = []
        self._cache = DynamicCache(config=self._model.config)

    def logits_after(self, target: Sequence[int]) -> Any:
        """The logits of the token after `target` (one dimension, float32, on the CPU), computing only what is new."""
        import torch

        kept = min(_common_prefix(self.ids, target), len(target) - 1)
        self._cut(kept)
        new = list(target[len(self.ids) :])
        tokens = torch.tensor([new], device=self._model.device)
        try:
            with torch.inference_mode():
                out = self._model(input_ids=tokens, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        except BaseException:
            self._reset()  # Some layers may have taken the new tokens in, others not.
            raise
        self.ids += new
        return out.logits[0, -1].float().cpu()

    def reusable(self, target: Sequence[int]) -> int:
        """How many tokens of `target` need not be computed again."""
        kept = _common_prefix(self.ids, target)
        return kept if kept == len(self.ids) or self._can_go_back() else 0

    def _cut(self, length: int) -> None:
        surplus = len(self.ids) - length
        if surplus <= 0:
            return
        if length > 0 and self._can_go_back():
            self._cache.crop(-surplus)
            self.ids = self.ids[:length]
        else:
            self._reset()

    def _can_go_back(self) -> bool:
        """Sliding windows and recurrent states forget what a shorter prefix needs."""
        from transformers.cache_utils import DynamicLayer

        return all(type(layer) is DynamicLayer for layer in self._cache.layers)


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    shorter = min(len(left), len(right))
    if list(left[:shorter]) == list(right[:shorter]):
        return shorter
    return next(index for index in range(shorter) if left[index] != right[index])


def generate(
    sequence: CachedSequence,
    chat: Chat,
    prefix: Sequence[int],
    *,
    budget: int,
    stops: Sequence[str],
    one_line: bool,
    end_ids: frozenset[int],
    sampling: Sampling,
) -> Generated:
    """Continue `prefix` until a stop string, the end of the turn, or the budget.

    Args:
        sequence: the episode's cache.
        chat: to read the tokens as text.
        prefix: token ids to continue.
        budget: how many tokens at most.
        stops: strings that end the text.
        one_line: whether a line break after some text ends it too.
        end_ids: token ids that end a turn.
        sampling: how the next token is chosen.
    """
    choose = _chooser(sampling)
    ids: list[int] = []
    logprobs: list[float] = []
    text, stop = "", "budget"
    for _ in range(budget):
        token, logprob = choose(sequence.logits_after([*prefix, *ids]))
        logprobs.append(logprob)
        if token in end_ids:
            stop = "eos"
            break
        ids.append(token)
        text = chat.decode(ids)
        found = _first_stop(text, stops, one_line)
        if found is not None:
            text, stop = found
            break
    return Generated(ids, text, stop, logprobs)


def _first_stop(text: str, stops: Sequence[str], one_line: bool) -> tuple[str, str] | None:
    """The text before the first stop string, and that string."""
    places = [(place, stop) for stop in stops if (place := text.find(stop)) >= 0]
    if one_line:
        start = len(text) - len(text.lstrip())
        if (place := text.find("\n", start)) >= 0:
            places.append((place, "\n"))
    if not places:
        return None
    place, stop = min(places)
    return text[:place], stop


def _chooser(sampling: Sampling) -> Callable[[Any], tuple[int, float]]:
    """Picks the next token and tells its log-probability; seeded by itself, so batch neighbours do not matter."""
    import torch

    generator = torch.Generator().manual_seed(sampling.seed)

    def choose(logits: Any) -> tuple[int, float]:
        logprobs = torch.log_softmax(logits, dim=-1)
        if sampling.temperature == 0.0:
            token = int(torch.argmax(logits))
        else:
            chances, order = torch.sort(torch.softmax(logits / sampling.temperature, dim=-1), descending=True)
            # The nucleus: the fewest tokens whose probability reaches top_p; the first always belongs to it.
            chances = torch.where(torch.cumsum(chances, dim=-1) - chances < sampling.top_p, chances, torch.zeros(()))
            token = int(order[int(torch.multinomial(chances, 1, generator=generator))])
        return token, float(logprobs[token])

    return choose


def ids_before(chat: Chat, ids: Sequence[int], text: str) -> list[int]:
    """Token ids of `text`, which is the beginning of what `ids` say: the same tokens as far as they go, the rest encoded anew.

    A tag can begin inside a token; then the token's first part has to become a token of its own.
    """
    for count in range(len(ids), -1, -1):
        start = chat.decode(ids[:count])
        if text.startswith(start):
            rest = text[len(start) :]
            return [*ids[:count], *(chat.encode(rest) if rest else [])]
    return chat.encode(text)
