"""The engines that `bench_gpu.py` measures, and what they play: our agent, a batched `generate` loop, continuous batching.
Invariant: all three see the same prompts and generate as many tokens for each decision.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

from cotbench.agents.hf import loading
from cotbench.agents.hf.agent import HFAgent
from cotbench.agents.hf.engine import Engine
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.envs.registry import Instructions
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import MODES, Elicitation, Mode
from cotbench.prompting.query import Query

WORDS = (
    *("<think>", "</think>", "<action>", "</action>", "user", "assistant", "system", "You", "act", "house", "Answer"),
    *("with", "one", "action", "you", "are", "in", "the", "middle", "of", "a", "room", "looking", "around", "see", "desk"),
    *("cabinet", "shelf", "drawer", "fridge", "mug", "plate", "lamp", "book", "on", "is", "open"),
)
"""What the tokenizer has whole; observations are made of it."""

Asked = tuple[int, int, Mode]
"""A decision: episode, turn (from 1), mode."""


@dataclass(frozen=True)
class Workload:
    """Episodes with fixed texts, and what each decision generates.

    Attributes:
        episodes: how many are played side by side.
        turns: of an episode.
        windows: the turns that are played, each window from its first to its last turn.
        trace: fewest and most tokens of a trace.
        action: the same of an action.
        observation: fewest and most words of an observation; a word is 1.3 tokens.
        computed: tokens of an answer that the other engines compute, few and more; the rest is reckoned from the difference.
    """

    episodes: int
    turns: int = 30
    windows: tuple[tuple[int, int], ...] = ((14, 15), (1, 2), (29, 30))
    trace: tuple[int, int] = (64, 256)
    action: tuple[int, int] = (4, 12)
    observation: tuple[int, int] = (45, 75)
    computed: tuple[int, int] = (4, 36)

    @cached_property
    def states(self) -> list[list[Dialogue]]:
        """The state of each episode at each turn."""
        return [self._states(episode) for episode in range(self.episodes)]

    def _states(self, episode: int) -> list[Dialogue]:
        chance = random.Random(f"texts {episode}")

        def text() -> str:
            return " ".join(chance.choices(WORDS, k=chance.randint(*self.observation)))

        states = [Dialogue(Instructions("You act in a house. Answer with one action."), (text(),))]
        while len(states) < self.turns:
            states.append(states[-1].extended(" ".join(chance.choices(WORDS, k=5)), None, text()))
        return states

    def lengths(self, episode: int, turn: int) -> tuple[int, int]:
        """Return how many tokens of a trace and of an action are generated at a turn."""
        chance = random.Random(f"lengths {episode} {turn}")
        return chance.randint(*self.trace), chance.randint(*self.action)

    def query(self, episode: int, turn: int, mode: Mode, lengths: tuple[int, int] | None = None) -> Query:
        """Return what is asked at a turn, from 1; `lengths` are those of trace and action, in tokens."""
        assert turn >= 1, turn
        trace, action = lengths or self.lengths(episode, turn)
        elicitation = Elicitation(trace_tokens=trace, action_tokens=action)
        return Query(f"e{episode}", "", "t", turn, mode, self.states[episode][turn - 1], elicitation)

    def prompt_length(self, chat: Chat, episode: int, turn: int) -> int:
        """Return the tokens of a prompt, its opened tag included."""
        return len(self.request(chat, self.query(episode, turn, "cot"))[0])

    def request(self, chat: Chat, query: Query) -> tuple[list[int], int]:
        """Return a query as a plain request: the ids of prompt and opened tag, and how many tokens to generate behind them."""
        asked, tags = query.elicitation, query.elicitation.tags
        ids = chat.prompt_ids(asked.messages(query.dialogue, query.mode))
        if query.mode == "prompt":
            return ids + chat.encode(tags.action_open), asked.action_tokens
        between = len(chat.encode(f"{tags.think_close}\n")) + len(chat.encode(tags.action_open))
        return ids + chat.encode(tags.think_open), asked.trace_tokens + between + asked.action_tokens


@dataclass
class Leg:
    """Count what one play did.

    Attributes:
        decisions: made.
        passes: forward passes.
        seconds: what they took.
        prefilled: tokens that were computed without being generated.
    """

    decisions: int = 0
    passes: int = 0
    seconds: float = 0.0
    prefilled: int = 0


class Free:
    """Play episodes so that each goes on as soon as its own decisions are there."""

    def __init__(self, work: Workload, turns: Sequence[int], modes: Sequence[Mode], submit: Callable[[Asked], None]) -> None:
        self.work, self.last, self.modes, self.submit = work, turns[-1], modes, submit
        self.left: dict[int, set[Mode]] = {}
        self.turn = dict.fromkeys(range(work.episodes), turns[0] - 1)
        for episode in range(work.episodes):
            self._advance(episode)

    def _advance(self, episode: int) -> None:
        self.left.pop(episode, None)
        if self.turn[episode] < self.last:
            self.turn[episode] += 1
            self.left[episode] = set(self.modes)
            for mode in self.modes:
                self.submit((episode, self.turn[episode], mode))

    def done(self, key: Asked) -> None:
        self.left[key[0]].discard(key[2])
        if not self.left[key[0]]:
            self._advance(key[0])


OWN_ATTENTION = "sdpa"
"""The attention that a model is measured with by the others, whatever one before has left."""


class Ours:
    """`HFAgent`, as of a model that it has loaded itself; with batched attention on a CPU too, which by itself has another way.

    Args:
        model: with random weights.
        tokenizer: with as many tokens.
        work: what is played.
        cache_gb: gigabytes for KV caches, taken at once, for a pool that grows drops its graphs; None: as the agent's own.
    """

    def __init__(self, model: Any, tokenizer: Any, work: Workload, cache_gb: float | None) -> None:
        self.work, self.plays, self.model = work, 0, model
        self.agent = HFAgent.__new__(HFAgent)
        loaded = loading.LoadedModel(model, tokenizer, loading.describe_live(model, tokenizer, "hf:random"))
        try:
            self.agent._open(loaded, "hf:random", "batched", None, cache_gb, False, live=False)
            assert isinstance(self.agent._engine, Engine), self.agent.describe()
            self.engine, pool, runner = self.agent._engine, self.agent._engine._pool, self.agent._engine.runner
            assert pool is not None and runner is not None
            self.pool, self._runner, self._whole = pool, runner, cache_gb is not None
            self._grow()
        except BaseException:  # Out of memory, say: the others must not be measured with our attention.
            model.set_attn_implementation(OWN_ATTENTION)
            raise
        self.compiles = runner.compile_after is not None

    def _grow(self) -> None:
        """Take the whole budget, where it is known and not taken: at the beginning, and after a play that was cut."""
        if self._whole and not self.pool.nbytes:
            self.pool.give_back(self.pool.take(self.pool._budget - 1))  # One is nobody's.

    def compile_soon(self) -> None:
        """Let the layers be compiled by the next passes, not after so many as in a run."""
        if self.compiles:
            self._runner.compile_after = 0

    def warm(self, turn: int) -> None:
        """Play two turns: kernels are compiled, and graphs captured of passes with fewer and fewer rows."""
        self.play((turn,), MODES, Leg(), (8, 4))
        self.play((turn + 1,), MODES, Leg())

    def prime(self, turn: int) -> None:
        """Compute the prompts up to a turn, and drop what an episode has behind it; graphs stay, unlike with `clear_cache`."""
        if turn >= 1:
            self.play((turn,), ("prompt",), Leg(), (1, 1))
            return
        for lane in self.engine._lanes.values():
            lane.cache.free()
        self.engine._lanes.clear()

    def play(self, turns: Sequence[int], modes: Sequence[Mode], leg: Leg, lengths: tuple[int, int] | None = None) -> None:
        self.plays += 1
        self._grow()

        def submit(key: Asked) -> None:
            self.agent.submit((self.plays, key), self.work.query(*key, lengths))

        play = Free(self.work, turns, modes, submit)
        try:
            while play.left:
                leg.passes += 1
                for name, decision in self.agent.collect(0.0):
                    count, key = cast(tuple[int, Asked], name)
                    assert count == self.plays and decision.error is None, f"{decision.error}\n{decision.traceback}"
                    trace, action = lengths or self.work.lengths(*key[:2])
                    generated = decision.trace_tokens, decision.action_tokens
                    assert generated == (0 if key[2] == "prompt" else trace, action), (key, generated)
                    leg.decisions += 1
                    leg.prefilled += decision.prefilled_tokens
                    play.done(key)
        except BaseException:  # Cut: nothing of it may be left for the next.
            self.agent.clear_cache()
            raise

    def close(self) -> None:
        """Give the memory back, and the model its own attention."""
        try:
            self.agent.close()
        finally:  # Also after what was cut while layers were being compiled or a graph captured.
            self.model.set_attn_implementation(OWN_ATTENTION)


def _cut(requests: Sequence[tuple[list[int], int]], most: int) -> list[tuple[list[int], int]]:
    return [(ids, min(tokens, most)) for ids, tokens in requests]


class Generate:
    """A batched `generate` loop: the whole prompt of every episode, each turn and mode."""

    def __init__(self, model: Any, tokenizer: Any, work: Workload) -> None:
        self.model, self.pad, self.work, self.chat = model, tokenizer.pad_token_id, work, Chat(tokenizer)
        model.set_attn_implementation(OWN_ATTENTION)

    def measure(self, turns: Sequence[int], clock: Callable[[Callable[[], None]], float]) -> float:
        """Return the seconds of both modes in the first of some turns, times the number of turns.

        A batch is computed until its longest row is done, each step costs nearly the same, and later ones a little more: so the
        steps beyond `Workload.computed` are reckoned at what the first ones take, which favours it. The longer play is
        repeated, and its first time not counted: it pays for the memory and the kernels of all that follow.

        Args:
            turns: to be played.
            clock: runs something and returns its seconds.
        """
        total, (short, long) = 0.0, self.work.computed
        for mode in MODES:
            requests = [self.work.request(self.chat, self.work.query(e, turns[0], mode)) for e in range(self.work.episodes)]
            steps = max(tokens for _, tokens in requests)
            _, begin, more = (clock(partial(self._turn, _cut(requests, most))) for most in (long, short, long))
            total += more + max(0, steps - long) * max(0.0, more - begin) / (long - short)
        return total * len(turns)

    def warm(self, turn: int) -> None:
        """Compute a short batch."""
        self._turn([(self.work.request(self.chat, self.work.query(e, turn, "cot"))[0], 2) for e in range(self.work.episodes)])

    def _turn(self, requests: Sequence[tuple[list[int], int]]) -> None:
        import torch
        import transformers

        longest = max(len(ids) for ids, _ in requests)
        device = self.model.device
        rows = torch.tensor([[self.pad] * (longest - len(ids)) + ids for ids, _ in requests], device=device)
        mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids, _ in requests], device=device)
        ends = torch.tensor([longest + budget for _, budget in requests], device=device)

        class Lengths(transformers.StoppingCriteria):  # type: ignore[misc]
            def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
                return input_ids.shape[1] >= ends

        config = transformers.GenerationConfig(
            max_new_tokens=max(budget for _, budget in requests), do_sample=False, pad_token_id=self.pad
        )
        criteria = transformers.StoppingCriteriaList([Lengths()])
        out = self.model.generate(rows, attention_mask=mask, generation_config=config, stopping_criteria=criteria)
        assert out.shape[1] == int(ends.max()), out.shape

    def close(self) -> None:
        """Do nothing."""


class ContinuousBatching:
    """Transformers' continuous batching with block sharing and paged SDPA, for which it takes no CUDA graphs.

    Its flash kernels, which it prefers, are packages of their own.
    """

    def __init__(self, model: Any, tokenizer: Any, work: Workload) -> None:
        import transformers

        self.work, self.chat, self.model = work, Chat(tokenizer), model
        block = 64
        last = max(window[-1] for window in work.windows)
        longest = max(work.prompt_length(self.chat, episode, last) for episode in range(work.episodes))
        blocks = work.episodes * ((longest + work.trace[1] + 64) // block + 4)
        model.set_attn_implementation("paged|sdpa")
        self.manager = model.init_continuous_batching(
            generation_config=transformers.GenerationConfig(
                do_sample=False, eos_token_id=-1, pad_token_id=tokenizer.pad_token_id, max_new_tokens=1
            ),
            continuous_batching_config=transformers.ContinuousBatchingConfig(
                block_size=block, num_blocks=blocks, max_batch_tokens=1024, allow_block_sharing=True
            ),
        )
        self.manager.start()
        self.plays = 0

    def measure(self, turns: Sequence[int], clock: Callable[[Callable[[], None]], float]) -> float:
        """Return the seconds of both modes in some turns, the prompts up to the turn before computed already.

        Counted are what the new part of the prompts and the first few tokens take (`Workload.computed`), and for all other
        tokens the time of a step in which every episode reasons, as if no step had fewer rows: that favours it.

        Args:
            turns: to be played.
            clock: runs something and returns its seconds.
        """
        work, (short, long) = self.work, self.work.computed
        if turns[0] > 1:
            self._play(turns[0] - 1, 1)
        begin = min(clock(partial(self._play, turn, short)) for turn in turns)
        again, more = (clock(partial(self._play, turns[-1], most)) for most in (short, long))  # Without a new part.
        step = max(0.0, more - again) / (long - short)
        asked = (
            work.request(self.chat, work.query(e, turn, mode)) for e in range(work.episodes) for turn in turns for mode in MODES
        )
        return begin * len(turns) + sum(max(0, tokens - short) for _, tokens in asked) / work.episodes * step

    def warm(self, turn: int) -> None:
        """Compute a short turn."""
        self._play(turn, 2)

    def _play(self, turn: int, most: int) -> None:
        """Answer a turn in both modes, with so many tokens at most."""
        self.plays += 1
        asked: set[str] = set()
        try:
            for episode in range(self.work.episodes):
                for mode in MODES:
                    ids, tokens = self.work.request(self.chat, self.work.query(episode, turn, mode))
                    name = f"{self.plays}/{episode}/{mode}"
                    asked.add(name)
                    self.manager.add_request(ids, request_id=name, max_new_tokens=min(most, tokens), eos_token_id=-1)
            while asked:
                if not self.manager.is_running():
                    raise RuntimeError("its generation thread ended")
                result = self.manager.get_result(timeout=0.05)
                if result is None or result.request_id not in asked:
                    continue
                if result.error:
                    raise RuntimeError(result.error)
                if result.is_finished():
                    asked.remove(result.request_id)
        finally:
            for name in asked:  # Where it was cut.
                self.manager.cancel_request(name)

    def close(self) -> None:
        self.manager.stop(block=True, timeout=10, hard_stop=True)
        self.model.set_attn_implementation(OWN_ATTENTION)
