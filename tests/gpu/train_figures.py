"""Figures of a training on a GPU: tokens a second, model-flop utilisation, memory, and the same data by others' trainers.

    python -P -m tests.gpu.train_figures --seconds 120 [--out FOLDER] [--tiny] [--only trees,decisions,...]

Random weights in the shape of Qwen3-0.6B, episodes in the sizes of alfworld-gen's (`training_data`), bfloat16 from float32
weights, AdamW, no masks. A token *counts* if the loss is taken over it: all tokens of an answer, the same for all trainers,
however many had to be computed. Parts:

- trees: our trainer, an episode as one tree. decisions: our trainer, decision by decision, for the model-flop utilisation.
- trl: TRL's SFTTrainer with packing, where TRL is installed.
- plain: transformers' model on packed rows, causal over the whole row (as TRL without FlashAttention), logits everywhere.
- profile: where the time of a step of ours goes. variants: other ways to compile one row, forward and backward alone.

Every part has its own time limit and fails by itself. FOLDER gets `train_figures.jsonl`, a part's figures and the card's name a
line, and `train_profile.txt`. With `--tiny` everything is small and runs on a CPU, to try the script.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers

from cotbench.baselines.training import loop
from cotbench.baselines.training.dataset import PackedDataset, trees_of_examples
from cotbench.baselines.training.flops import StepCost, peak_flops
from cotbench.baselines.training.loss import TreeLosses, mean_loss
from cotbench.baselines.training.masks import MaskConfig, Masks
from cotbench.baselines.training.model import make_trainable
from cotbench.baselines.training.options import TrainingOptions
from cotbench.baselines.training.tree_attention import compile_layers, uncompile_layers
from cotbench.baselines.training.tree_row import padded
from tests import tiny_models
from tests.gpu.figure_file import FigureFile, card
from tests.gpu.training_data import episodes, steps_of

PARTS = {"trees": 0.25, "decisions": 0.3, "trl": 0.4, "plain": 0.3, "profile": 0.3, "variants": 1.0}
"""Share of the time that is left which each part may take, in this order."""

_STEPS = 8
"""Steps that a training takes at least: the first ones compile."""


@dataclass
class Bench:
    """What all parts share.

    Attributes:
        out: the folder of what comes back.
        scratch: a folder of what does not: checkpoints.
        end: when the time is over.
    """

    tiny: bool
    device: torch.device
    out: Path
    scratch: Path
    end: float

    @property
    def vocabulary(self) -> int:
        return 500 if self.tiny else 151_936

    @property
    def tokens(self) -> int:
        """Tokens of a forward pass."""
        return 600 if self.tiny else 16_384

    def batch(self, unit: str) -> int:
        """Decisions of a step: they nearly fill one pass as trees, and six decision by decision."""
        return 16 if self.tiny else 96 if unit == "episode" else 118

    def model(self, **more: Any) -> Any:
        if self.tiny:
            shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16}
            heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
        else:
            shape = {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "head_dim": 128}
            heads = {"num_attention_heads": 16, "num_key_value_heads": 8}
        config = transformers.Qwen3Config(
            vocab_size=self.vocabulary, max_position_embeddings=40_960, tie_word_embeddings=True, **shape, **heads
        )
        torch.manual_seed(0)
        with self.device:
            return transformers.AutoModelForCausalLM.from_config(
                config, attn_implementation="sdpa", dtype=torch.float32, **more
            )

    def data(self) -> Any:
        return episodes(40 if self.tiny else 260, self.vocabulary, scale=0.1 if self.tiny else 1.0)

    def dataset(self, episodes: Any, unit: Any) -> PackedDataset:
        steps = steps_of(episodes, unit, batch=self.batch(unit), tokens=self.tokens, epochs=4)
        masks = Masks.of(MaskConfig(mask_fraction=0.0), [example for episode in episodes for example in episode])
        return PackedDataset(steps, trees_of_examples(episodes, masks))

    def mixed(self) -> Any:
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def peak(self) -> float:
        return peak_flops(self.device, "bf16", None) or (1e12 if self.tiny else 989e12)

    def say(self, part: str, **figures: Any) -> None:
        """Print a figure, and write it down."""
        rounded = {name: round(one, 4) if isinstance(one, float) else one for name, one in figures.items()}
        print(f"{part}: " + ", ".join(f"{name} {one}" for name, one in rounded.items()), flush=True)
        FigureFile(self.out / "train_figures.jsonl", card()).write({"part": part, **rounded})

    def wait(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def memory(self) -> float:
        """Peak memory (GB) since the last call."""
        if self.device.type != "cuda":
            return 0.0
        peak = torch.cuda.max_memory_allocated() / 1e9
        torch.cuda.reset_peak_memory_stats()
        return peak


def _until(deadline: float) -> Callable[[], Any]:
    class Stop(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            late = time.perf_counter() > deadline and state.global_step >= _STEPS
            control.should_training_stop = control.should_training_stop or late

    return Stop


def ours(bench: Bench, unit: str, deadline: float) -> None:
    episodes = bench.data()
    trainable = make_trainable(bench.model(), tiny_models.tokenizer(), {}, flex=True)
    assert isinstance(trainable.losses, TreeLosses), trainable.description
    dataset = bench.dataset(episodes, unit)
    options = TrainingOptions(learning_rate=1e-5, logging_steps=2)
    args = loop.trainer_arguments(options, bench.scratch / unit, trainable.model)
    begun = bench.wait()
    loop._BUCKETS, loop._STEPS_A_BUCKET = 2, 1  # As in a long training, but for the time that compiling takes.
    trainer = loop.fit(trainable, dataset, args, {}, (), _until(deadline))
    logs = [one for one in trainer.state.log_history if "tokens_per_second" in one]
    first = logs[0]["tokens"] / logs[0]["tokens_per_second"]
    # Without the times in which something was compiled.
    fastest = max(one["tokens_per_second"] for one in logs)
    steady = [one for one in logs if one["tokens_per_second"] > fastest / 2]
    rows = [len(row.ids) for index in range(len(logs)) for row in dataset[index].passes]
    buckets = trainer._losses.buckets if isinstance(trainer._losses, TreeLosses) else ("loop",)

    def median(name: str) -> float:
        return statistics.median(one.get(name, float("nan")) for one in steady)

    bench.say(
        f"ours {unit}",
        counting_tokens_a_second=median("supervised_tokens_per_second"),
        tokens_a_second=median("tokens_per_second"),
        mfu=median("mfu"),
        best_mfu=max(one.get("mfu", 0.0) for one in steady),
        logs=f"{len(steady)} of {len(logs)}",
        seconds_of_first_steps=first,
        seconds=bench.wait() - begun,
        rows=statistics.mean(rows),
        buckets=list(buckets),
        memory_gb=bench.memory(),
        loss=logs[-1]["loss"],
    )


def _decision_rows(episodes: Any, length: int, count: int) -> list[tuple[list[int], list[int], list[int]]]:
    """First-fit packing of decisions into rows: ids, labels (-100 on prompts), positions."""
    rows: list[tuple[list[int], list[int], list[int]]] = []
    for example in [example for episode in episodes for example in episode]:
        row = next((one for one in rows[-8:] if len(one[0]) + len(example.ids) <= length), None)
        if row is None:
            if len(rows) == count:
                break
            rows.append(row := ([], [], []))
        row[0].extend(example.ids)
        row[1].extend([-100] * len(example.prompt) + list(example.answer))
        row[2].extend(range(len(example.ids)))
    return rows


def with_trl(bench: Bench, deadline: float) -> None:
    if missing := [name for name in ("trl", "datasets", "pyarrow") if find_spec(name) is None]:
        bench.say("trl packed", left_out=f"{', '.join(missing)} not installed")
        return
    import datasets
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    episodes = bench.data()
    length = 256 if bench.tiny else 4096
    rows = [
        {"input_ids": list(one.ids), "labels": [-100] * len(one.prompt) + list(one.answer)}
        for episode in episodes
        for one in episode
    ]
    seen: list[tuple[float, int, int]] = []
    args = SFTConfig(
        output_dir=str(bench.scratch / "trl"),
        max_steps=40,
        per_device_train_batch_size=max(1, bench.tokens // length // 2),
        gradient_accumulation_steps=2 if bench.tiny else 12,
        packing=True,
        max_length=length,
        learning_rate=1e-5,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        max_grad_norm=1.0,
        bf16=bench.device.type == "cuda",
        use_cpu=bench.device.type != "cuda",
        save_strategy="no",
        logging_steps=100,
        disable_tqdm=True,
        report_to="none",
        **{name: False for name in ("activation_checkpointing", "gradient_checkpointing") if hasattr(SFTConfig, name)},
    )
    counts = [0, 0]

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seen.append((bench.wait(), *counts))
            control.should_training_stop = len(seen) >= 8 or (len(seen) >= 3 and time.perf_counter() > deadline)

    trainer = SFTTrainer(
        model=bench.model(),
        args=args,
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tiny_models.tokenizer(),
        callbacks=[Clock()],
    )
    collate = trainer.data_collator

    def counted(some: Any) -> Any:
        batch = collate(some)
        counts[0] += int((batch["labels"] != -100).sum())
        counts[1] += batch["input_ids"].numel()
        return batch

    trainer.data_collator = counted
    trainer.train()
    # The batches of the next step are fetched ahead: a step's counts are an average.
    seconds = seen[-1][0] - seen[0][0]
    bench.say(
        "trl packed",
        counting_tokens_a_second=(seen[-1][1] - seen[0][1]) / seconds,
        tokens_a_second=(seen[-1][2] - seen[0][2]) / seconds,
        steps=len(seen),
        step_seconds=seconds / max(1, len(seen) - 1),
        memory_gb=bench.memory(),
    )


def plain(bench: Bench, deadline: float) -> None:
    """As many decisions a step as ours, in rows of 4,096 tokens, as many rows a pass as ours has tokens."""
    model = bench.model().train()
    length = 256 if bench.tiny else 4096
    each = max(1, bench.tokens // length // 2)  # Logits of all positions: half as many tokens a pass need as much memory.
    passes = 2 if bench.tiny else 12  # About as many decisions a step as ours.
    rows = _decision_rows(bench.data(), length, each * passes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def tensor(some: Any, index: int, fill: int) -> Any:
        return torch.tensor([row[index] + [fill] * (length - len(row[index])) for row in some], device=bench.device)

    batches = [rows[start : start + each] for start in range(0, len(rows), each)]
    given = [{"input_ids": tensor(b, 0, 0), "labels": tensor(b, 1, -100), "position_ids": tensor(b, 2, 0)} for b in batches]
    counting = sum(int((one["labels"] != -100).sum()) for one in given)
    computed = sum(len(row[0]) for row in rows)
    cost = StepCost.of(model)
    mask = torch.ones_like  # All tokens: no mask is made, and SDPA's causal kernel runs.
    times: list[float] = []
    while len(times) < 3 or time.perf_counter() < deadline:
        begun = bench.wait()
        for one in given:
            with bench.mixed():
                loss = model(**one, attention_mask=mask(one["input_ids"]), use_cache=False).loss / len(given)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(bench.wait() - begun)
        if len(times) >= 4:
            break
    seconds = statistics.median(times[1:])
    bench.say(
        "plain packed",
        counting_tokens_a_second=counting / seconds,
        tokens_a_second=computed / seconds,
        mfu_without_pairs=(cost.by_token * computed + cost.by_supervised * counting) / seconds / bench.peak(),
        steps=len(times),
        step_seconds=seconds,
        memory_gb=bench.memory(),
    )


@contextmanager
def _prepared(bench: Bench, *, layers: bool, dynamic: bool, residual: bool) -> Iterator[Any]:
    trainable = make_trainable(bench.model(), tiny_models.tokenizer(), {}, flex=True)
    model = trainable.model.train()
    if not residual:
        model.get_input_embeddings()._forward_hooks.clear()
    if layers:
        compile_layers(model, checkpointing=False, dynamic=dynamic)
    try:
        yield model
    finally:
        uncompile_layers(model)


def _time_passes(bench: Bench, model: Any, compute: Any, row: Any, deadline: float, most: int = 6) -> tuple[float, list[float]]:
    """Seconds of the first pass, and of the following ones, forward and backward."""
    times: list[float] = []
    while len(times) < 3 or (time.perf_counter() < deadline and len(times) < most):
        begun = bench.wait()
        with bench.mixed():
            nll, weight = compute(model, row, bench.device)
            loss = mean_loss(nll, weight)
        loss.backward()
        model.zero_grad()
        times.append(bench.wait() - begun)
    return times[0], times[1:]


def variants(bench: Bench, deadline: float) -> None:
    dataset = bench.dataset(bench.data(), "episode")
    # One row for all, so that all compute the same, and a long one.
    row = max((row for index in range(4) for row in dataset[index].passes), key=lambda row: len(row.ids))
    length = padded(len(row.ids))
    for name, layers, dynamic, residual in (
        ("compiled layers, any length", True, True, True),
        ("compiled layers", True, False, True),
        ("compiled attention alone", False, False, True),
        ("compiled layers, float32 residual stream", True, False, False),
    ):
        if time.perf_counter() > deadline - (0 if bench.tiny else 12):
            bench.say(f"variant {name}", left_out="no time")
            continue
        try:
            torch._dynamo.reset()
            with _prepared(bench, layers=layers, dynamic=dynamic, residual=residual) as model:
                first, times = _time_passes(bench, model, TreeLosses((length,)), row, deadline)
                cost = StepCost.of(model).flops(row)
            bench.say(
                f"variant {name}",
                first_pass_seconds=first,
                pass_seconds=statistics.median(times),
                all_passes=[round(one, 4) for one in times],
                mfu=cost / statistics.median(times) / bench.peak(),
                memory_gb=bench.memory(),
            )
        except Exception:
            _report(f"variant {name}")


def profile(bench: Bench, deadline: float) -> None:
    dataset = bench.dataset(bench.data(), "episode")
    begun = time.perf_counter()
    row = dataset[0].passes[0]
    bench.say("breakdown", data_seconds_a_step=time.perf_counter() - begun)
    with _prepared(bench, layers=True, dynamic=False, residual=True) as model:
        compute = TreeLosses((padded(max(bench.tokens, len(row.ids))),))
        _time_passes(bench, model, compute, row, deadline, most=2)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        marks = [bench.wait()]
        with bench.mixed():
            nll, weight = compute(model, row, bench.device)
            loss = mean_loss(nll, weight)
        launched = time.perf_counter() - marks[0]
        marks.append(bench.wait())
        loss.backward()
        marks.append(bench.wait())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        marks.append(bench.wait())
        optimizer.step()
        optimizer.zero_grad()
        marks.append(bench.wait())
        names = ("forward", "backward", "clipping", "optimizer and its first states")
        bench.say("breakdown", forward_launch=launched, **{n: b - a for n, a, b in zip(names, marks, marks[1:], strict=False)})
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if bench.device.type == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=kinds) as found:
            _time_passes(bench, model, compute, row, 0.0, most=1)
    spent = [(getattr(one, "self_device_time_total", 0) / 3000, one) for one in found.key_averages()]
    total = max(1e-9, sum(one for one, _ in spent))
    lines = [
        f"  {one:9.3f} ms a pass {one / total:6.1%} x{event.count // 3:<5} {event.key[:110]}"
        for one, event in sorted(spent, key=lambda pair: -pair[0])[:40]
    ]
    (bench.out / "train_profile.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(lines[:16]), flush=True)


def _report(part: str) -> None:
    print(f"{part} FAILED:", flush=True)
    print("\n".join("  " + line for line in traceback.format_exc().strip().splitlines()[-9:]), flush=True)


def _stand_in_for_a_gpu() -> None:
    """Let a CPU go the GPU's way: FlexAttention's own rule of its gradients, and no compiler behind torch.compile."""
    from torch.nn.attention import flex_attention

    options, compiled = flex_attention._apply_kernel_options, torch.compile
    flex_attention._validate_device = lambda *_: None
    flex_attention._apply_kernel_options = lambda *a, **k: {**options(*a, **k), "OUTPUT_LOGSUMEXP": True}
    torch.compile = lambda *a, **k: compiled(*a, **{**k, "backend": "aot_eager"})  # type: ignore[assignment]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--only", default=",".join(PARTS))
    given = parser.parse_args()
    begun = time.perf_counter()
    transformers.utils.logging.set_verbosity_error()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        _stand_in_for_a_gpu()
    with tempfile.TemporaryDirectory() as scratch:
        out = given.out or Path(scratch)
        out.mkdir(parents=True, exist_ok=True)
        _measure(Bench(given.tiny, device, out, Path(scratch), begun + given.seconds), given.only.split(","))


def _measure(bench: Bench, only: Sequence[str]) -> None:
    """Do the parts one after the other, each in its share of the time that is left."""
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "python": sys.version.split()[0]}
    bench.say("machine", card=card(), **versions)
    todo: dict[str, Callable[[Bench, float], None]] = {
        "trees": lambda bench, deadline: ours(bench, "episode", deadline),
        "decisions": lambda bench, deadline: ours(bench, "decision", deadline),
        "plain": plain,
        "profile": profile,
        "trl": with_trl,
        "variants": variants,
    }
    for name, share in PARTS.items():
        if name not in only:
            continue
        now = time.perf_counter()
        left = bench.end - now
        if left < (0 if bench.tiny else 8):
            print(f"{name}: left out, {left:.0f} s are left", flush=True)
            continue
        try:
            todo[name](bench, now + share * left)
        except Exception:
            _report(name)
        gc.collect()  # A trainer and its model refer to each other.
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
            bench.memory()
        print(f"  ({name} took {time.perf_counter() - now:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
