"""The model engine on a GPU, beside a batched `generate` loop and transformers' continuous batching: decisions a second.

    python tests/benchmarks/bench_gpu.py --seconds 240 [--tiny] [--shapes 0.6B,4B,8B] [--only ours,generate,cb] [--out FILE]

Random weights in the shapes of Qwen3, made on the device; 64 episodes of 30 turns with fixed actions and observations of 60 to
100 tokens, so that all three see the same prompts. No model stops by itself: what a decision generates is drawn once (traces of
64 to 256 tokens, actions of 4 to 12), the same for all. A whole play takes minutes, so turns 1-2, 14-15 and 29-30 are played
(`WINDOWS`); where an engine keeps what it computed, the turn before was computed already, not timed.

    ours      `HFAgent` from the live model: queries join as their episode gets to them; no drafts, which random weights favour.
    generate  left-padded batches of all episodes, one `generate` a turn and mode, the whole prompt prefilled (SDPA, its own
              cache), a decision's tokens in one go, each row until its own length.
    cb        continuous batching with paged SDPA and block sharing: requests join as in ours, each decision one request.

Every figure is printed as soon as it is known and appended to --out as JSON, with the card's name. A leg that takes longer than
its share of the time is cut, and says so; one that fails costs itself alone.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cotbench.agents.hf.agent import HFAgent
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.envs.registry import Instructions
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import MODES, Elicitation, Mode
from cotbench.prompting.query import Query
from tests.gpu.shapes import SHAPES, random_model, sized_tokenizer

TURNS, WINDOWS = 30, ((14, 15), (1, 2), (29, 30))
"""Turns of an episode, from 1; the windows of turns that are played, the one in the middle first."""

TRACE, ACTION = (64, 256), (4, 12)
OBSERVATION = (45, 75)
"""Words; a word is 1.3 tokens."""

LEXICON = "<think> </think> <action> </action> user assistant system You act house Answer with one action you are in the middle of a room looking around see desk cabinet shelf drawer fridge mug plate lamp book on is open".split()


class TimeUp(Exception):
    """The share of time of a leg is over."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeUp` in the block when it takes longer; one within another ends no later than that."""

    def ring(*_: object) -> None:
        raise TimeUp

    outer = signal.getitimer(signal.ITIMER_REAL)[0]
    begun = time.perf_counter()
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(0.01, min(seconds, outer or seconds)))
    try:
        yield
    finally:
        left = outer - (time.perf_counter() - begun)
        signal.setitimer(signal.ITIMER_REAL, max(0.01, left) if outer else 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Workload:
    """Episodes with fixed texts, and what each decision generates."""

    episodes: int

    @cached_property
    def states(self) -> list[list[Dialogue]]:
        """The state of each episode at each turn."""
        return [self._states(episode) for episode in range(self.episodes)]

    def _states(self, episode: int) -> list[Dialogue]:
        chance = random.Random(f"texts {episode}")

        def text() -> str:
            return " ".join(chance.choices(LEXICON, k=chance.randint(*OBSERVATION)))

        states = [Dialogue(Instructions("You act in a house. Answer with one action."), (text(),))]
        while len(states) < TURNS:
            states.append(states[-1].extended(" ".join(chance.choices(LEXICON, k=5)), None, text()))
        return states

    def lengths(self, episode: int, turn: int) -> tuple[int, int]:
        """Return how many tokens of a trace and of an action are generated at a turn."""
        chance = random.Random(f"lengths {episode} {turn}")
        return chance.randint(*TRACE), chance.randint(*ACTION)

    def query(self, episode: int, turn: int, mode: Mode, lengths: tuple[int, int] | None = None) -> Query:
        trace, action = lengths or self.lengths(episode, turn)
        elicitation = Elicitation(trace_tokens=trace, action_tokens=action)
        return Query(f"e{episode}", "", "t", turn, mode, self.states[episode][turn - 1], elicitation)

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
    """One measurement: what was done so far, also where it is cut."""

    decisions: int = 0
    seconds: float = 0.0
    prefilled: int = 0


class Free:
    """Play episodes so that each goes on as soon as its own decisions are there."""

    def __init__(self, work: Workload, turns: Sequence[int], modes: Sequence[Mode], submit: Callable[..., None]) -> None:
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

    def done(self, key: tuple[int, int, Mode]) -> None:
        self.left[key[0]].discard(key[2])
        if not self.left[key[0]]:
            self._advance(key[0])


class Ours:
    """`HFAgent` from the live model."""

    def __init__(self, model: Any, tokenizer: Any, work: Workload, cache_gb: float | None) -> None:
        self.work = work
        self.agent = HFAgent.from_model(model, tokenizer, cache_gb=cache_gb, drafts=False)

    def prime(self, turn: int, modes: Sequence[Mode]) -> None:
        """Compute the prompts up to a turn."""
        if turn < 1:
            self.agent.clear_cache()
            return
        for decision in self.agent.decide(
            [self.work.query(episode, turn, modes[0], (1, 1)) for episode in range(self.work.episodes)]
        ):
            assert decision.error is None, decision.error

    def play(self, turns: Sequence[int], modes: Sequence[Mode], leg: Leg, lengths: tuple[int, int] | None = None) -> None:
        def submit(key: tuple[int, int, Mode]) -> None:
            self.agent.submit(key, self.work.query(*key, lengths))

        play = Free(self.work, turns, modes, submit)
        while play.left:
            for key, decision in self.agent.collect(0.0):
                assert decision.error is None, f"{decision.error}\n{decision.traceback}"
                expected = lengths or self.work.lengths(key[0], key[1])  # type: ignore[index]
                generated = decision.trace_tokens, decision.action_tokens
                assert generated == (0 if key[2] == "prompt" else expected[0], expected[1]), (key, generated)  # type: ignore[index]
                leg.decisions += 1
                leg.prefilled += decision.prefilled_tokens
                play.done(key)  # type: ignore[arg-type]

    def close(self) -> None:
        self.agent.clear_cache()


class Generate:
    """A batched `generate` loop: the whole prompt of every episode, each turn and mode."""

    def __init__(self, model: Any, tokenizer: Any, work: Workload) -> None:
        self.model, self.pad, self.work, self.chat = model, tokenizer.pad_token_id, work, Chat(tokenizer)

    def prime(self, turn: int, modes: Sequence[Mode]) -> None:
        """Do nothing: it keeps nothing."""

    def play(self, turns: Sequence[int], modes: Sequence[Mode], leg: Leg) -> None:
        for turn in turns:
            for mode in modes:
                queries = [self.work.query(episode, turn, mode) for episode in range(self.work.episodes)]
                self._turn([self.work.request(self.chat, query) for query in queries])
                leg.decisions += len(queries)

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
    """Transformers' continuous batching: paged SDPA (its flash kernels are not there), block sharing, its own CUDA graphs."""

    def __init__(self, model: Any, tokenizer: Any, work: Workload) -> None:
        import transformers

        self.work, self.chat, self.model = work, Chat(tokenizer), model
        block = 64
        longest = max(len(self.work.request(self.chat, work.query(e, TURNS, "cot"))[0]) for e in range(work.episodes))
        blocks = work.episodes * ((longest + TRACE[1] + 64) // block + 4)
        self.attention = model.config._attn_implementation
        model.set_attn_implementation("paged|sdpa")
        self.manager = model.init_continuous_batching(
            generation_config=transformers.GenerationConfig(
                do_sample=False, eos_token_id=-1, pad_token_id=tokenizer.pad_token_id, max_new_tokens=1
            ),
            continuous_batching_config=transformers.ContinuousBatchingConfig(
                block_size=block, num_blocks=blocks, max_batch_tokens=2048, allow_block_sharing=True
            ),
        )
        self.manager.start()
        self.plays = 0

    def prime(self, turn: int, modes: Sequence[Mode]) -> None:
        """Compute the prompts up to a turn."""
        if turn >= 1:
            self._play((turn,), modes[:1], Leg(), budget=1)

    def play(self, turns: Sequence[int], modes: Sequence[Mode], leg: Leg) -> None:
        self._play(turns, modes, leg, None)

    def _play(self, turns: Sequence[int], modes: Sequence[Mode], leg: Leg, budget: int | None) -> None:
        self.plays += 1

        def submit(key: tuple[int, int, Mode]) -> None:
            ids, tokens = self.work.request(self.chat, self.work.query(*key))
            name = "/".join(map(str, (self.plays, *key)))
            self.manager.add_request(ids, request_id=name, max_new_tokens=budget or tokens, eos_token_id=-1)

        play = Free(self.work, turns, modes, submit)
        while play.left:
            if not self.manager.is_running():
                raise RuntimeError("its generation thread ended")
            result = self.manager.get_result(timeout=0.05)
            if result is None:
                continue
            if result.error:
                raise RuntimeError(result.error)
            count, episode, turn, mode = result.request_id.split("/")
            if int(count) == self.plays and result.is_finished():
                leg.decisions += 1
                play.done((int(episode), int(turn), mode))

    def close(self) -> None:
        self.manager.stop(block=True, timeout=10, hard_stop=True)
        self.model.set_attn_implementation(self.attention)


@dataclass
class Bench:
    """The legs of one run, and where their figures go."""

    deadline: float
    out: Path | None
    card: str
    cuda: bool
    shape: str = ""
    figures: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def left(self) -> float:
        return self.deadline - time.perf_counter()

    def put(self, name: str, value: float, unit: str, **more: object) -> None:
        """Print a figure and append it to the file."""
        self.figures[self.shape, name] = value
        details = "".join(f"; {key} {item}" for key, item in more.items())
        print(f"[{self.card}] {self.shape} {name}: {value:.4g} {unit}{details}", flush=True)
        if self.out is not None:
            line = {"shape": self.shape, "figure": name, "value": value, "unit": unit, "card": self.card, **more}
            with self.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, default=str) + "\n")

    def sync(self) -> None:
        if self.cuda:
            import torch

            torch.cuda.synchronize()

    def timed(self, leg: Leg, work: Callable[[], None]) -> None:
        self.sync()
        begun = time.perf_counter()
        try:
            work()
            self.sync()
        finally:
            leg.seconds = time.perf_counter() - begun

    @contextmanager
    def guarded(self, name: str, seconds: float) -> Iterator[None]:
        """Let a part fail or run out of time without cost to the others."""
        if seconds < 1:
            print(f"  {self.shape} {name}: no time left", flush=True)
            return
        try:
            with time_limit(seconds):
                yield
        except TimeUp:
            print(f"  {self.shape} {name}: cut after {seconds:.0f} s", flush=True)
        except Exception:
            print(f"  {self.shape} {name} failed:\n" + "".join(traceback.format_exc().splitlines(True)[-6:]), flush=True)


ENGINES: dict[str, Callable[..., Any]] = {"ours": Ours, "generate": Generate, "cb": ContinuousBatching}


def _windows(bench: Bench, engine: Any, name: str, windows: Sequence[Sequence[int]], modes: Sequence[Mode], share: float) -> None:
    """Measure decisions a second in windows of turns."""
    title = f"{name}, {'both modes' if len(modes) > 1 else modes[0]}"
    for window in windows:
        part, leg = f"{title}, turns {window[0]}-{window[-1]}", Leg()
        seconds = min(share, bench.left)
        with bench.guarded(part, seconds):
            engine.prime(window[0] - 1, modes)
            try:
                bench.timed(leg, lambda window=window, leg=leg: engine.play(window, modes, leg))  # type: ignore[misc]
            except TimeUp:
                if leg.decisions and leg.seconds:
                    bench.put(f"{part}, cut", leg.decisions / leg.seconds, "decisions/s", decisions=leg.decisions)
                raise
            bench.put(part, leg.decisions / leg.seconds, "decisions/s", decisions=leg.decisions, seconds=round(leg.seconds, 2))


def _ratios(bench: Bench, windows: Sequence[Sequence[int]]) -> None:
    """Print the ratios that the figures so far allow."""
    for window in windows:
        turns = f"turns {window[0]}-{window[-1]}"
        ours = bench.figures.get((bench.shape, f"ours, both modes, {turns}"))
        if ours is None:
            continue
        for other in ("generate", "cb"):
            for cut in ("", ", cut"):
                if (theirs := bench.figures.get((bench.shape, f"{other}, both modes, {turns}{cut}"))) is not None:
                    bench.put(f"ours / {other}{cut}, both modes, {turns}", ours / theirs, "x")
        if (alone := bench.figures.get((bench.shape, f"ours, cot, {turns}"))) is not None:
            bench.put(f"both modes / CoT alone in time, {turns}", 2 * alone / ours, "x")


def _decode_share(bench: Bench, ours: Ours, model: Any, bandwidth: float, turn: int) -> None:
    """Measure a decode step of all episodes, and the share of the time that reading weights and keys once would take."""
    short, long = TRACE
    legs = {}
    ours.prime(turn, ("cot",))
    for length in (short, long):
        legs[length] = Leg()
        bench.timed(legs[length], lambda length=length: ours.play((turn,), ("cot",), legs[length], (length, 1)))  # type: ignore[misc]
    step = (legs[long].seconds - legs[short].seconds) / (long - short)
    config = model.config
    token_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * model.dtype.itemsize
    chat = ours.agent._chat
    work = ours.work
    keys = sum(len(work.request(chat, work.query(e, turn, "cot"))[0]) + (short + long) / 2 for e in range(work.episodes))
    weights = sum(weight.numel() for weight in model.parameters()) * model.dtype.itemsize
    if not config.tie_word_embeddings:
        weights -= model.get_input_embeddings().weight.numel() * model.dtype.itemsize
    bound = (weights + keys * token_bytes) / bandwidth
    bench.put("decode step", step * 1000, "ms", episodes=work.episodes, keys=round(keys / work.episodes), turn=turn)
    bench.put("decode", work.episodes / step, "tokens/s")
    bench.put("decode, share of the bandwidth limit", bound / step, "", limit_ms=round(bound * 1000, 3))


def _linear(bench: Bench, ours: Ours, turns: Sequence[int]) -> None:
    """Count the tokens prefilled in whole episodes, both modes, with answers of one token."""
    ours.agent.clear_cache()
    leg, begun = Leg(), 1
    for until in turns:
        ours.play(range(begun, until + 1), MODES, leg, (1, 1))
        begun = until + 1
        peers = sum(
            len(ours.work.request(ours.agent._chat, ours.work.query(episode, turn, mode))[0])
            for episode in range(ours.work.episodes)
            for turn in range(1, until + 1)
            for mode in MODES
        )
        bench.put(f"prefilled tokens a turn and episode, {until} turns", leg.prefilled / until / ours.work.episodes, "tokens",
                  whole_prompts=round(peers / until / ours.work.episodes))


def _bandwidth(bench: Bench, device: str) -> float:
    """Return bytes a second of a copy on the device, read and written."""
    import torch

    size = 2**31 if bench.cuda else 2**26
    source, target = (torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2))
    times = []
    for _ in range(6):
        leg = Leg()
        bench.timed(leg, lambda: target.copy_(source))
        times.append(leg.seconds)
    return 2 * size / statistics.median(times[1:])


def _run_shape(bench: Bench, shape: str, work: Workload, names: Sequence[str], bandwidth: float, seconds: float) -> None:
    import torch

    device = "cuda" if bench.cuda else "cpu"
    windows = [window for window in WINDOWS if window[-1] <= TURNS]
    begun = time.perf_counter()
    tokenizer = sized_tokenizer(SHAPES[shape].vocabulary, [" ".join(LEXICON)])
    own = len(tokenizer.backend_tokenizer.get_vocab()) - sum(word.startswith("Ġw") and word[2:].isdigit() for word in tokenizer.get_vocab())
    model = random_model(SHAPES[shape], own, device, torch.bfloat16 if bench.cuda else torch.float32)
    weights = sum(weight.numel() * weight.itemsize for weight in model.parameters())
    bench.put("weights", weights / 1e9, "GB", made_in=f"{time.perf_counter() - begun:.1f} s")
    until = min(bench.deadline, time.perf_counter() + seconds)
    whole, bench.deadline = bench.deadline, until
    cache_gb = None
    if bench.cuda:
        config = model.config
        token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * model.dtype.itemsize
        cache_gb = 1.1 * work.episodes * (TURNS * 110 + 2 * TRACE[1] + 256) * token / 1e9
    try:
        made: dict[str, Any] = {}
        for name in names:
            with bench.guarded(name, bench.left):
                if name == "ours":
                    if bench.cuda:
                        torch.cuda.reset_peak_memory_stats()
                    made[name] = ours = Ours(model, tokenizer, work, cache_gb)
                    _windows(bench, ours, name, windows[:1], MODES, bench.left / 3)
                    _windows(bench, ours, name, windows[:1], ("cot",), bench.left / 4)
                    with bench.guarded("decode", bench.left / 3):
                        _decode_share(bench, ours, model, bandwidth, windows[0][-1])
                    _windows(bench, ours, name, windows[1:], MODES, bench.left / 4)
                    if bench.cuda and cache_gb is not None:
                        peak = torch.cuda.max_memory_allocated() / 1e9
                        bench.put("ours, peak memory / (weights + cache budget)", peak / (weights / 1e9 + cache_gb), "x",
                                  peak_gb=round(peak, 2), budget_gb=round(cache_gb, 2))
                    with bench.guarded("prefilled tokens", bench.left / 6):
                        small = Ours(model, tokenizer, Workload(min(8, work.episodes)), None if cache_gb is None else cache_gb / 4)
                        ours.close()
                        _linear(bench, small, (10, 20, 30))
                        small.close()
                else:
                    engine = made[name] = ENGINES[name](model, tokenizer, work)
                    _windows(bench, engine, name, windows, MODES, bench.left / (2 if name == names[-1] else 3))
            with bench.guarded(f"closing {name}", 15):
                if name in made:
                    made[name].close()
            if bench.cuda:
                torch.cuda.empty_cache()
        _ratios(bench, windows)
    finally:
        bench.deadline = whole
        del model
        if bench.cuda:
            torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=240, help="time limit")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, for a dry run on a CPU")
    parser.add_argument("--shapes", default="0.6B,4B,8B")
    parser.add_argument("--only", default="ours,generate,cb", help="the engines to measure, in this order")
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    begun = time.perf_counter()

    import torch
    import transformers

    global TURNS, WINDOWS, TRACE, OBSERVATION  # noqa: PLW0603
    cuda = torch.cuda.is_available()
    shapes = options.shapes.split(",")
    if options.tiny:
        shapes, options.episodes = ["tiny"], 3
        TURNS, WINDOWS, TRACE, OBSERVATION = 30, ((14, 15), (1, 2)), (3, 9), (6, 10)
    if not cuda:
        torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    bench = Bench(begun + options.seconds - 3, options.out, torch.cuda.get_device_name() if cuda else "CPU", cuda)
    bandwidth = _bandwidth(bench, "cuda" if cuda else "cpu")
    bench.put("copy bandwidth", bandwidth / 1e9, "GB/s", torch=torch.__version__, transformers=transformers.__version__)
    work = Workload(options.episodes)
    for number, shape in enumerate(shapes):
        bench.shape = shape
        with bench.guarded("shape", bench.left):
            _run_shape(bench, shape, work, options.only.split(","), bandwidth, bench.left / (len(shapes) - number))


if __name__ == "__main__":
    main()
