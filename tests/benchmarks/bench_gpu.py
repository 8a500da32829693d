"""The model engine on a GPU, beside a batched `generate` loop and transformers' continuous batching: decisions a second.

    python tests/benchmarks/bench_gpu.py --seconds 240 [--tiny] [--shapes 4B,0.6B,8B] [--windows 14-15,1-2]
        [--only ours,generate,cb,drafts] [--out FILE]

Random weights in the shapes of Qwen3, made on the device; 64 episodes of 30 turns with fixed actions and observations of 60 to
100 tokens, so that all see the same prompts. No model stops by itself: what a decision generates is drawn once (traces of 64 to
256 tokens, actions of 4 to 12), the same for all. A whole play takes minutes, so windows of turns are played
(`Workload.windows`), after the turn before, which is not timed. Which shapes and windows are measured depends on the time there
is (`choose`); what is left out is printed.

    ours      `HFAgent`: queries join as their episode gets to them; whole windows, the median of three rounds after one that is
              not timed; no drafts, which random weights favour. Layers are compiled before it is timed (a run does that after a
              thousand steps).
    generate  left-padded batches of all episodes, one `generate` a turn and mode, the whole prompt prefilled (SDPA, its own
              cache), a decision's tokens in one go. 36 steps are computed and the rest reckoned (`Generate.measure`).
    cb        continuous batching with paged SDPA and block sharing: each decision one request. Here too 36 tokens of an answer
              are computed, and the rest reckoned as if every step were full (`ContinuousBatching.measure`).
    drafts    `hf:smollm2` on 40 episodes of alfworld-gen, three turns with traces of at most 48 tokens, by turns with and
              without prompt lookup: what a real model's drafts bring. Left out where the model is not in the cache.

Every figure is printed as soon as it is known and appended to --out as JSON, with the card's name. A leg that takes longer than
its share of the time is cut, and says so; one that fails costs itself alone.
"""

from __future__ import annotations

import argparse
import gc
import logging
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # For `tests`; last, so that it hides no installed cotbench.

from cotbench.agents.hf.kv_cache import BLOCK
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.prompting.elicitation import MODES, Mode
from tests.benchmarks.gpu_engines import WORDS, ContinuousBatching, Generate, Leg, Ours, Workload
from tests.gpu.figure_file import FigureFile, card
from tests.gpu.shapes import SHAPES, random_model, sized_tokenizer

_UNCOMPILED = "ours before the layers are compiled"

_WEIGHTS = {"ours": 0.5, "generate": 0.25, "cb": 0.25}
"""Shares of the time of a model."""

NEEDED = {"4B": 130.0, "0.6B": 90.0, "8B": 150.0}
"""Seconds that the first window of a shape takes, roughly, in the order in which shapes are wanted."""

_WINDOW_SECONDS = 50.0
"""Seconds that one more window of a shape takes, roughly."""

_DRAFTS_SECONDS = 60.0
"""Seconds that the drafts of a real model get at most."""

_DRAFTS_STEPS, _DRAFTS_TRACE, _DRAFTS_CACHE_GB = 3, 48, 6.0
"""Turns that are played with and without drafts, the longest trace in tokens, and the cache of each: so short that the time
suffices for a round or more.
"""

_UNCOMPILED_SECONDS = 100.0
"""Time that our agent must have for a round before its layers are compiled."""

_ROUNDS = 3

TINY = Workload(3, windows=((14, 15), (1, 2)), trace=(9, 14), observation=(6, 10), computed=(2, 8))


class TimeUp(BaseException):
    """The share of time of a leg is over; no `except Exception` of an engine may take it for its own failure."""


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


def choose(
    shapes: Sequence[str], windows: Sequence[tuple[int, int]], seconds: float
) -> tuple[list[str], list[tuple[int, int]], list[str]]:
    """Return the shapes and windows that there is time for, the first ones first, and in words what is left out.

    A further shape says more than a further window. The first of each is always taken.

    Args:
        shapes: in the order in which they are wanted.
        windows: turns, likewise.
        seconds: the time there is.
    """
    chosen, left_out = list(shapes[:1]), list[str]()
    left = seconds - NEEDED.get(shapes[0], 0.0)
    for shape in shapes[1:]:
        needed = NEEDED.get(shape, 0.0)
        if needed <= left:
            chosen.append(shape)
            left -= needed
        else:
            left_out.append(f"{shape} (needs some {needed:.0f} s)")
    more = min(len(windows) - 1, max(0, int(left / (_WINDOW_SECONDS * len(chosen)))))
    left_out += [f"turns {first}-{last} (some {_WINDOW_SECONDS:.0f} s a shape)" for first, last in windows[1 + more :]]
    return chosen, list(windows[: 1 + more]), left_out


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
        place = {"shape": self.shape} if self.shape else {}
        details = "".join(f"; {key} {item}" for key, item in more.items())
        print(f"[{self.card}] {self.shape} {name}: {value:.4g} {unit}{details}", flush=True)
        FigureFile(self.out, self.card).put(name, value, unit, **place, **more)

    def sync(self) -> None:
        if self.cuda:
            import torch

            torch.cuda.synchronize()

    def clock(self, work: Callable[[], None]) -> float:
        """Return the seconds that something takes, on the device too."""
        self.sync()
        begun = time.perf_counter()
        work()
        self.sync()
        return time.perf_counter() - begun

    def attempt(self, name: str, seconds: float, work: Callable[[], None]) -> None:
        """Do something that may fail or run out of time without cost to the rest."""
        seconds = min(seconds, self.left)
        if seconds < 1:
            print(f"  {self.shape} {name}: no time left", flush=True)
            return
        try:
            with time_limit(seconds):
                work()
        except TimeUp:
            print(f"  {self.shape} {name}: cut after {seconds:.0f} s", flush=True)
        except Exception:
            print(f"  {self.shape} {name} failed:\n" + "".join(traceback.format_exc().splitlines(True)[-6:]), flush=True)


@dataclass(frozen=True)
class Sizes:
    """What of a model decides how many bytes are moved.

    Attributes:
        weights: bytes of all weights.
        read: bytes of the weights that a decode step reads: of an embedding that is no output head too, next to none.
        token: bytes of the keys and values of a token.
    """

    weights: int
    read: int
    token: int


def _sizes(model: Any) -> Sizes:
    config, itemsize = model.config, model.dtype.itemsize
    weights = sum(weight.numel() for weight in model.parameters()) * itemsize
    looked_up = 0 if config.tie_word_embeddings else model.get_input_embeddings().weight.numel() * itemsize
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * itemsize
    return Sizes(weights, weights - looked_up, token)


def _measure_window(
    bench: Bench, ours: Ours, window: tuple[int, int], modes: Sequence[Mode], rounds: int, title: str = "ours"
) -> None:
    """Measure our decisions a second in a window of turns: the median of the rounds that there was time for, after one in which
    graphs are captured.
    """
    turns, legs = range(window[0], window[1] + 1), list[Leg]()
    enough = time.perf_counter() + 0.4 * bench.left
    name = f"{title}, {'both modes' if len(modes) > 1 else modes[0]}, turns {window[0]}-{window[1]}"

    def play() -> None:
        ours.prime(window[0] - 1)
        ours.play(turns, modes, Leg())
        for _ in range(rounds):
            ours.prime(window[0] - 1)
            leg = Leg()
            leg.seconds = bench.clock(lambda leg=leg: ours.play(turns, modes, leg))  # type: ignore[misc]
            legs.append(leg)
            if time.perf_counter() > enough:
                break

    bench.attempt(name, bench.left, play)
    if legs:
        rates = [round(leg.decisions / leg.seconds, 2) for leg in legs]
        ms = statistics.median(1000 * leg.seconds / leg.passes for leg in legs)
        more = {"decisions": legs[0].decisions, "rounds": rates, "passes": legs[0].passes, "ms_a_pass": round(ms, 2)}
        bench.put(name, statistics.median(rates), "decisions/s", **more)


def _ratios(bench: Bench, windows: Sequence[tuple[int, int]]) -> None:
    """Print the ratios that the figures so far allow: in each window, and over all of them."""

    def rates(title: str) -> list[float | None]:
        return [bench.figures.get((bench.shape, f"{title}, turns {first}-{last}")) for first, last in windows]

    ours = rates("ours, both modes")
    if not any(ours):  # There was no time to compile.
        ours = rates(f"{_UNCOMPILED}, both modes")
    for other in ("generate", "cb"):
        pairs = [pair for pair in zip(ours, rates(f"{other}, both modes"), strict=True) if None not in pair]
        for (first, last), one, two in zip(windows, ours, rates(f"{other}, both modes"), strict=True):
            if one and two:
                bench.put(f"ours / {other}, both modes, turns {first}-{last}", one / two, "x")
        if len(pairs) > 1:  # All windows have as many decisions.
            ratio = sum(1 / two for _, two in pairs if two) / sum(1 / one for one, _ in pairs if one)
            bench.put(f"ours / {other}, both modes, {len(pairs)} windows together", ratio, "x")
    for (first, last), one, alone in zip(windows, ours, rates("ours, cot"), strict=True):
        if one and alone:
            bench.put(f"time of both modes / CoT alone, turns {first}-{last}", 2 * alone / one, "x")


def _decode_share(bench: Bench, ours: Ours, sizes: Sizes, bandwidth: float, turn: int) -> None:
    """Measure a decode step of all episodes, and the share of the time that reading weights and keys once would take.

    The time of a step is the difference between long traces and short ones, so that nothing else is in it.
    """
    work, (short, long) = ours.work, ours.work.trace
    ours.prime(turn)
    times = []
    for length in (short, short, long):  # The first may capture graphs.
        times.append(bench.clock(lambda length=length: ours.play((turn,), ("cot",), Leg(), (length, 1))))  # type: ignore[misc]
    step = (times[2] - times[1]) / (long - short)
    keys = sum(work.prompt_length(ours.agent._chat, episode, turn) + (short + long) / 2 for episode in range(work.episodes))
    bound = (sizes.read + keys * sizes.token) / bandwidth
    bench.put("decode step", step * 1000, "ms", episodes=work.episodes, keys=round(keys / work.episodes), turn=turn)
    bench.put("decode", work.episodes / step, "tokens/s")
    bench.put("decode, share of the bandwidth limit", bound / step, "", limit_ms=round(bound * 1000, 3))


def _prefilled(bench: Bench, model: Any, tokenizer: Any, work: Workload) -> None:
    """Count the tokens prefilled in whole episodes, both modes, with answers of one token, in a cache that holds just them."""
    ours = Ours(model, tokenizer, work, _cache_gb(Chat(tokenizer), work, _sizes(model), work.turns))
    try:
        _count_prefilled(bench, ours)
    finally:
        ours.close()


def _count_prefilled(bench: Bench, ours: Ours) -> None:
    work, leg, done = ours.work, Leg(), 0
    for until in (work.turns // 3, work.turns):
        ours.play(range(done + 1, until + 1), MODES, leg, (1, 1))
        done = until
        whole = sum(
            work.prompt_length(ours.agent._chat, episode, turn)
            for episode in range(work.episodes)
            for turn in range(1, until + 1)
        )
        count = until * work.episodes
        bench.put(
            f"prefilled tokens a turn, {until} turns",
            leg.prefilled / count,
            "tokens",
            whole_prompts=round(len(MODES) * whole / count),
        )


def _bandwidth(bench: Bench, device: str) -> float:
    """Return bytes a second of a copy on the device, read and written."""
    import torch

    size = 2**31 if bench.cuda else 2**26
    source, target = (torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2))
    times = [bench.clock(lambda: target.copy_(source)) for _ in range(6)]
    return 2 * size / statistics.median(times[1:])


def _measure_ours(bench: Bench, model: Any, tokenizer: Any, work: Workload, bandwidth: float, *, first: bool) -> None:
    """Measure our agent; of the first model also before its layers are compiled, where there is time."""
    import torch

    sizes = _sizes(model)
    # Few episodes with short answers, and a cache for no more: it costs little, and finds kernels compiled by nobody before.
    few = replace(work, episodes=min(8, work.episodes))
    bench.attempt("prefilled tokens", 0.2 * bench.left, partial(_prefilled, bench, model, tokenizer, few))
    cache_gb = None
    if bench.cuda:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        wanted = _cache_gb(Chat(tokenizer), work, sizes, max(last for _, last in work.windows))
        cache_gb = min(wanted, 0.75 * torch.cuda.mem_get_info()[0] / 1e9)
        print(f"  {bench.shape} ours, a cache of {cache_gb:.1f} GB, {wanted:.1f} wanted", flush=True)
    ours = Ours(model, tokenizer, work, cache_gb)
    try:
        window, early = work.windows[0], max(1, work.windows[0][0] - 3)
        kinds = {name: value for name, value in ours.agent.describe().items() if "attention" in name}
        print(f"  {bench.shape} ours, {kinds}; warming up {bench.clock(lambda: ours.warm(early)):.1f} s", flush=True)
        if ours.compiles:
            if first and bench.left > _UNCOMPILED_SECONDS:
                _measure_window(bench, ours, window, MODES, 1, _UNCOMPILED)
            ours.compile_soon()
            print(f"  {bench.shape} ours, compiling and warming up: {bench.clock(lambda: ours.warm(early)):.1f} s", flush=True)
        _measure_window(bench, ours, window, MODES, _ROUNDS)
        _measure_window(bench, ours, window, ("cot",), _ROUNDS)
        turn = work.windows[0][-1]
        bench.attempt("decode step", bench.left, lambda: _decode_share(bench, ours, sizes, bandwidth, turn))
        for window in work.windows[1:]:
            _measure_window(bench, ours, window, MODES, _ROUNDS)
    finally:
        if cache_gb is not None:  # Also of what was cut. The pool has its whole budget from the start.
            budget = sizes.weights / 1e9 + cache_gb
            for name, peak in (
                ("allocated", torch.cuda.max_memory_allocated()),
                ("reserved", torch.cuda.max_memory_reserved()),
            ):
                title = f"ours, peak memory {name} / (weights + cache budget)"
                bench.put(title, peak / 1e9 / budget, "x", peak_gb=peak / 1e9, budget_gb=budget)
        ours.close()


def _cache_gb(chat: Chat, work: Workload, sizes: Sizes, turn: int) -> float:
    """Return the gigabytes of a cache in which all episodes can be answered side by side at a turn.

    The engine begins no answer for which it could not hold the prompt and the answer twice.
    """
    longest = max(work.prompt_length(chat, episode, turn) for episode in range(work.episodes))
    return 2.1 * work.episodes * (longest + work.trace[1] + work.action[1] + BLOCK) * sizes.token / 1e9


def _measure_other(bench: Bench, name: str, model: Any, tokenizer: Any, work: Workload) -> None:
    engine: Any = {"generate": Generate, "cb": ContinuousBatching}[name](model, tokenizer, work)
    try:
        begun = time.perf_counter()
        engine.warm(max(1, work.windows[0][0] - 2))
        print(f"  {bench.shape} {name}, warming up: {time.perf_counter() - begun:.1f} s", flush=True)
        for first, last in work.windows:
            turns, begun = range(first, last + 1), time.perf_counter()
            seconds = engine.measure(turns, bench.clock)
            decisions = len(turns) * work.episodes * len(MODES)
            took = round(time.perf_counter() - begun, 1)
            bench.put(
                f"{name}, both modes, turns {first}-{last}",
                decisions / seconds,
                "decisions/s",
                decisions=decisions,
                measured_in_s=took,
            )
    finally:
        engine.close()


def _run_shape(bench: Bench, shape: str, work: Workload, names: Sequence[str], bandwidth: float, *, first: bool) -> None:
    """Measure the engines on one model, each with an equal part of what is left of the time."""
    import torch

    begun = time.perf_counter()
    tokenizer = sized_tokenizer(SHAPES[shape].vocabulary, [" ".join(WORDS)])
    model = random_model(SHAPES[shape], "cuda" if bench.cuda else "cpu", torch.bfloat16 if bench.cuda else torch.float32)
    bench.put("weights", _sizes(model).weights / 1e9, "GB", made_in=f"{time.perf_counter() - begun:.1f} s")
    deadline = bench.deadline
    left = {name: _WEIGHTS[name] for name in names}
    for name in names:
        # What an engine leaves of its share goes to the later ones.
        seconds = (deadline - time.perf_counter()) * left[name] / sum(left.values())
        del left[name]
        bench.deadline = time.perf_counter() + seconds

        def measure(name: str = name) -> None:
            if name == "ours":
                _measure_ours(bench, model, tokenizer, work, bandwidth, first=first)
            else:
                _measure_other(bench, name, model, tokenizer, work)

        bench.attempt(name, seconds, measure)
        gc.collect()
        if bench.cuda:
            torch.cuda.empty_cache()
    bench.deadline = deadline
    _ratios(bench, work.windows)


def _drafts(bench: Bench) -> None:
    """Measure decisions a second of a real model with and without drafts, in turn, so that a cut leaves both.

    In a dry run the model is a tiny one.
    """
    from cotbench.agents.hf.agent import HFAgent
    from cotbench.agents.hf.bundled import TINY as TINY_MODEL
    from cotbench.envs.cache import cache_folder
    from cotbench.prompting.elicitation import Elicitation
    from cotbench.runs.manifest import RunConfig
    from cotbench.runs.runner import run

    name, episodes = ("smollm2", 40) if bench.cuda else (TINY_MODEL, 2)
    if name == "smollm2" and not list(cache_folder().glob("models/smollm2-*/config.json")):
        print(f"  drafts: left out, hf:{name} is not in {cache_folder()} (pack.sh --model)", flush=True)
        return
    elicitation = Elicitation.for_env("alfworld-gen", trace_tokens=_DRAFTS_TRACE)
    cache_gb = _DRAFTS_CACHE_GB if bench.cuda else None  # Both hold one at a time, and the first would take most of the memory.
    rates: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as agents:

        def rate(agent: Any, drafts: bool, steps: int, seed: int) -> float:
            # Mostly other tasks each time: a prompt that comes again would be drafted from the answer that it had.
            spec = f"hf:{name}?drafts={str(drafts).lower()}"
            config = RunConfig(agent=spec, episodes=episodes, max_steps=steps, elicitation=elicitation, seed=seed)
            out, begun = Path(tempfile.mkdtemp(dir=scratch), "run"), time.perf_counter()
            played = run(config, out=out, agent=agent, progress=False)
            return sum(one.steps for one in played.records) / (time.perf_counter() - begun)

        try:
            both = {drafts: agents.enter_context(closing(HFAgent(name, drafts=drafts, cache_gb=cache_gb))) for drafts in rates}
            for drafts, agent in both.items():
                rate(agent, drafts, 1, 0)  # It captures graphs.
            for number in range(1, _ROUNDS + 1):
                for drafts, agent in both.items():
                    rates[drafts].append(rate(agent, drafts, _DRAFTS_STEPS, number))
        finally:  # Also of what was cut.
            for drafts, some in rates.items():
                if some:
                    title = f"hf:{name}, {'with' if drafts else 'without'} drafts"
                    more = {"episodes": episodes, "steps": _DRAFTS_STEPS, "rounds": [round(one, 2) for one in some]}
                    bench.put(title, statistics.median(some), "decisions/s", **more)
            ratios = [one / other for one, other in zip(rates[True], rates[False], strict=False)]
            if ratios:
                bench.put(f"hf:{name}, with drafts / without", statistics.median(ratios), "x")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=240, help="time limit")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, for a dry run on a CPU")
    parser.add_argument("--shapes", default="", help="such as 4B,0.6B; left out: those that there is time for")
    parser.add_argument("--only", default="ours,generate,cb,drafts", help="the engines to measure, in this order")
    parser.add_argument(
        "--windows",
        default="",
        help="turns to play, such as 14-15,1-2; the first window has most figures; left out: those that there is time for",
    )
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    begun = time.perf_counter()

    import torch
    import transformers

    cuda = torch.cuda.is_available()
    legs = options.only.split(",")
    if not cuda:
        torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)  # A line for each request; errors are raised.
    bench = Bench(begun + options.seconds - 3, options.out, card(), cuda)
    bandwidth = _bandwidth(bench, "cuda" if cuda else "cpu")
    if cuda:
        torch.cuda.empty_cache()
    bench.put("copy bandwidth", bandwidth / 1e9, "GB/s", torch=torch.__version__, transformers=transformers.__version__)
    work = TINY if options.tiny else Workload(options.episodes)
    if options.windows:
        pairs = [window.split("-") for window in options.windows.split(",")]
        work = replace(work, windows=tuple((int(first), int(last)) for first, last in pairs))
    end = bench.deadline - ((10.0 if options.tiny else min(_DRAFTS_SECONDS, 0.15 * bench.left)) if "drafts" in legs else 0.0)
    shapes = ["tiny"] if options.tiny else options.shapes.split(",") if options.shapes else list(NEEDED)
    if not options.tiny:
        affordable, windows, left_out = choose(shapes, work.windows, end - time.perf_counter())
        shapes = shapes if options.shapes else affordable
        work = work if options.windows else replace(work, windows=tuple(windows))
        requested = {*(shapes if options.shapes else ()), *(("turns",) if options.windows else ())}
        if words := [one for one in left_out if one.split()[0] not in requested]:
            print(f"  left out, for want of time: {', '.join(words)}", flush=True)
    engines = [name for name in legs if name != "drafts"]
    for number, shape in enumerate(shapes if engines else []):
        bench.shape = shape
        seconds = (end - time.perf_counter()) / (len(shapes) - number)
        bench.deadline = time.perf_counter() + seconds
        bench.attempt(
            "measurements",
            seconds,
            partial(_run_shape, bench, shape, work, engines, bandwidth, first=number == 0),
        )
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()
    if "drafts" in legs:
        bench.shape, bench.deadline = "", begun + options.seconds - 3
        bench.attempt("drafts", bench.left, partial(_drafts, bench))


if __name__ == "__main__":
    main()
