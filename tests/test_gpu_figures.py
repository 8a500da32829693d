"""What the figures of a GPU are made of, checked on a CPU: what is compared is compared, and what is timed is what is meant."""

from __future__ import annotations

import gc
import json
import sys
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf


@dataclass(frozen=True)
class Launch:
    """Of a kernel."""

    warps: int
    stages: int


def _kernel(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Put a kernel in the place of Triton's, which no CPU has: right, but for a factor."""
    from cotbench.agents.hf.batched_attention import gather_attention

    module: Any = ModuleType("cotbench.agents.hf.triton_attention")
    module.Launch = Launch
    module.paged_attention = lambda *given: factor * gather_attention(*given[:5])
    monkeypatch.setitem(sys.modules, module.__name__, module)


def _varlen(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Put torch's attention over block tables in the place of that which this torch may not have."""
    import torch
    from torch.nn.attention import varlen

    from tests.gpu.attention_variants import plain_attention

    def varlen_attn(
        q: Any, k: Any, v: Any, rows: Any, starts: Any, longest: int, held: int, *, block_table: Any, seqused_k: Any, **_: Any
    ) -> Any:
        parts = []
        for number, (table, used) in enumerate(zip(block_table, seqused_k, strict=True)):
            keys, values = (some[table.long()].flatten(0, 1)[: int(used)] for some in (k, v))
            parts.append(plain_attention(q[rows[number] : rows[number + 1]], keys, values))
        return (factor * torch.cat(parts)).to(q.dtype)

    monkeypatch.setattr(varlen, "varlen_attn", varlen_attn)


@pytest.mark.parametrize(("part", "fake"), [("prefill", _kernel), ("varlen", _varlen), ("decode", _kernel)])
@pytest.mark.parametrize(("factor", "wrong"), [(1.0, False), (1.05, True)])
def test_a_variant_that_is_wrong_everywhere_is_found(
    part: str,
    fake: Callable[[pytest.MonkeyPatch, float], None],
    factor: float,
    wrong: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A kernel that is compared with itself is always right."""
    fake(monkeypatch, factor)
    out = tmp_path / "figures.jsonl"
    monkeypatch.setattr(sys, "argv", ["attention_variants.py", "--tiny", "--only", part, "--out", str(out)])
    from tests.gpu import attention_variants

    attention_variants.main()
    printed = capsys.readouterr().out
    assert ("WRONG" in printed) == wrong and "FAILED" not in printed, printed
    figures = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert {figure["card"] for figure in figures} == {"CPU"}
    errors = [figure["error"] for figure in figures if "error" in figure]
    assert errors and all((error > 0.04) == wrong for error in errors), errors


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    import torch

    from tests.benchmarks.gpu_engines import WORDS
    from tests.gpu.shapes import SHAPES, random_model, sized_tokenizer

    return random_model(SHAPES["tiny"], "cpu", torch.float32), sized_tokenizer(SHAPES["tiny"].vocabulary, [" ".join(WORDS)])


def _workload(episodes: int = 2) -> Any:
    from tests.benchmarks.gpu_engines import Workload

    return Workload(
        episodes, turns=4, windows=((3, 4), (1, 2)), trace=(3, 5), action=(2, 3), observation=(6, 10), computed=(2, 8)
    )


def test_graphs_outlive_what_is_played(tiny: tuple[Any, Any]) -> None:
    """Turn 1 begins without anything held, and no turn makes the pool grow: either would drop the graphs."""
    from cotbench.prompting.elicitation import MODES
    from tests.benchmarks.gpu_engines import Leg, Ours

    ours = Ours(*tiny, _workload(4), 0.002)
    try:
        assert ours.agent.describe()["batched_attention"].startswith("gather"), "on a CPU too, not each sequence by itself"
        captured: Any = object()
        ours._runner._graphs[captured] = captured
        free, version = len(ours.pool._free), ours.pool.version
        ours.play((3, 4), MODES, Leg())
        assert len(ours.pool._free) < free
        ours.prime(0)
        assert len(ours.pool._free) == free
        leg = Leg()
        ours.play((1, 2), MODES, leg)
        assert leg.prefilled > 0 and ours.pool.version == version and captured in ours._runner._graphs
        ours.agent.clear_cache()  # As after a play that was cut.
        ours.prime(1)
        version = ours.pool.version
        ours.play((2, 3, 4), MODES, leg)
        assert ours.pool.version == version
    finally:
        ours._runner._graphs.clear()
        ours.close()


def test_the_others_never_have_our_attention(tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where our agent fails while it is being made, as when there is no memory for its cache."""
    from cotbench.agents.hf.attention import ATTENTION
    from cotbench.agents.hf.block_pool import BlockPool
    from tests.benchmarks.gpu_engines import Generate, Ours

    def no_memory(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(BlockPool, "take", no_memory)
        with pytest.raises(RuntimeError, match="out of memory"):
            Ours(*tiny, _workload(), 0.002)
    assert tiny[0].config._attn_implementation != ATTENTION
    tiny[0].set_attn_implementation(ATTENTION)
    Generate(*tiny, _workload())
    assert tiny[0].config._attn_implementation == "sdpa"


def test_what_generate_does_first_is_not_counted(tiny: tuple[Any, Any]) -> None:
    """The first play pays for memory and kernels: counted as the short one it made a step cheap, or free."""
    from tests.benchmarks.gpu_engines import Generate

    work = _workload()
    engine, times = Generate(*tiny, work), iter([100.0, 1.0, 4.0, 200.0, 2.0, 2.0])
    requests = [
        [work.request(engine.chat, work.query(episode, 3, mode))[1] for episode in range(2)] for mode in ("prompt", "cot")
    ]
    prompt, cot = (max(0, max(some) - 8) for some in requests)
    assert cot > 0
    # A step of the first mode takes half a second, of the second nothing.
    assert engine.measure(range(3, 5), lambda _: next(times)) == pytest.approx(2 * (4.0 + prompt * 0.5 + 2.0))
    assert not list(times)


def test_what_there_is_no_time_for_is_named() -> None:
    from tests.benchmarks.bench_gpu import NEEDED, choose

    windows = ((14, 15), (1, 2), (29, 30))
    shapes = list(NEEDED)
    assert shapes[0] == "4B"
    for seconds, some, many in ((60, ["4B"], 1), (190, ["4B"], 2), (225, ["4B", "0.6B"], 1), (2000, shapes, 3)):
        found, played, left_out = choose(shapes, windows, seconds)
        assert (found, len(played)) == (some, many) and played == list(windows[:many])
        assert len(left_out) == len(shapes) - len(found) + len(windows) - len(played)
    assert choose(shapes, windows, 60)[2][0] == "0.6B (needs some 90 s)"


def test_drafts_that_are_cut_leave_figures_of_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without drafts take turns, after a short run of each that is not counted."""
    from cotbench.agents.hf import agent as agents
    from cotbench.runs import runner
    from tests.benchmarks.bench_gpu import Bench, TimeUp, _drafts

    played: list[tuple[bool, int]] = []
    closed: list[bool] = []

    class Agent:
        def __init__(self, model: str, *, drafts: bool, cache_gb: float | None) -> None:
            self.drafts = drafts

        def close(self) -> None:
            closed.append(self.drafts)

    def run(config: Any, *, out: Path, agent: Agent, progress: bool) -> Any:
        if len(played) == 5:
            raise TimeUp
        assert not out.exists() and config.elicitation.trace_tokens == 48
        played.append((agent.drafts, config.max_steps))
        return SimpleNamespace(records=[SimpleNamespace(steps=config.max_steps)])

    monkeypatch.setattr(agents, "HFAgent", Agent)
    monkeypatch.setattr(runner, "run", run)
    out = tmp_path / "figures.jsonl"
    with pytest.raises(TimeUp):
        _drafts(Bench(0.0, out, "CPU", cuda=False))
    assert played == [(False, 1), (True, 1), (False, 3), (True, 3), (False, 3)] and sorted(closed) == [False, True]
    figures = {line["figure"]: line for line in map(json.loads, out.read_text("utf-8").splitlines())}
    assert [len(figures[f"hf:tiny, {kind} drafts"]["rounds"]) for kind in ("without", "with")] == [2, 1]
    assert figures["hf:tiny, with drafts / without"]["value"] > 0


def _train_bench(tmp_path: Path) -> Any:
    import torch

    from tests.gpu.train_figures import Bench

    return Bench(True, torch.device("cpu"), tmp_path, tmp_path / "scratch", time.perf_counter() + 1000)


@pytest.mark.parametrize("unit", ["episode", "decision"])
def test_all_trainers_count_the_same_tokens(unit: str, tmp_path: Path) -> None:
    """Masks of ours would take away tokens that the others' losses have."""
    bench = _train_bench(tmp_path)
    made = bench.data()
    dataset = bench.dataset(made, unit)
    answers = sum(len(one.answer) for episode in made for one in episode)
    counted = sum(len(row.target) for index in range(len(dataset)) for row in dataset[index].passes)
    assert counted == 4 * answers, "four epochs"


def test_variants_compute_the_same_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.gpu import train_figures

    computed: list[tuple[Any, tuple[int, ...]]] = []

    def times(bench: Any, model: Any, compute: Any, row: Any, deadline: float) -> tuple[float, list[float]]:
        computed.append((row, tuple(compute.buckets)))
        return 1.0, [0.5]

    monkeypatch.setattr(train_figures, "_time_passes", times)
    train_figures.variants(_train_bench(tmp_path), time.perf_counter() + 1000)
    (row, buckets), *others = computed
    assert len(others) == 3 and all(one is row and lengths == buckets for one, lengths in others)
    assert len(buckets) == 1 and len(row.ids) <= buckets[0] < len(row.ids) + 128
    figures = [json.loads(line) for line in (tmp_path / "train_figures.jsonl").read_text("utf-8").splitlines()]
    assert len({line["mfu"] for line in figures}) == 1, "the cost is that of the row"


def test_a_part_leaves_no_memory_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer and its model refer to each other: without a collection the next part's peak has both."""
    from tests.gpu import train_figures

    class Trainer:
        def __init__(self) -> None:
            self.model = self

    left: list[Any] = []
    monkeypatch.setattr(train_figures, "plain", lambda *_: left.append(weakref.ref(Trainer())))
    monkeypatch.setattr(train_figures, "profile", lambda *_: left.append(left[0]() is not None))
    gc.disable()
    try:
        train_figures._measure(_train_bench(tmp_path), ["plain", "profile"])
    finally:
        gc.enable()
    assert left[1:] == [False]


def test_decoding_is_timed_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of one short sequence fit into a card's cache, where repeated calls would find them."""
    from tests.gpu import attention_variants
    from tests.gpu.figure_file import FigureFile
    from tests.gpu.timing import cold_copies, in_turn

    for size in (1, 5 * 2**20, 2**26, 2**27 - 1, 2**27, 2**30):
        between = (cold_copies(size) - 1) * size  # Read until the same copy comes again.
        assert between + size * (size >= 2**27) >= 2**27 and between < 2**27 + size
    runs: list[Any] = ["a", "b", "c"]
    assert in_turn(runs, 10) == runs * 4 and in_turn(runs[:1], 10) == runs[:1] * 10

    read: list[set[int]] = []

    def timed(runs: Any, **_: Any) -> float:
        read.append({one.args[1].data_ptr() for one in runs})
        return 1.0

    _kernel(monkeypatch, 1.0)
    monkeypatch.setattr(attention_variants, "timed", timed)
    attention_variants.decode(FigureFile(tmp_path / "figures.jsonl", "CPU"), True, 1e9)
    assert [len(places) for places in read] == [2, 2], "kernel and gather, each over two layers"
