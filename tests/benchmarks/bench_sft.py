"""Recipe `sft` beside TRL's SFTTrainer: the same data, a model of 2.6 million parameters, machine, threads and batch.

    pytest -s tests/benchmarks/bench_sft.py

A *token* is one of a decision's own: the sum over the one-decision examples of their length, the same number for all, so that
padding and what is shared are judged alike; *computed* is what really went through the model. An epoch a round, `ROUNDS` rounds
in turn, seconds from the first step to the last. TRL's trainer is given the same token ids, labels on the answers alone, 16
decisions a step: padded, in the very order of ours, so that the losses of every step can be compared; padded in batches of like
length; and packed (best fit, several decisions a row). Much of TRL's time goes into a loss over all positions, the prompt's
too; so transformers' own Trainer stands beside it, padded in the same batches.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cotbench.agents.registry import make_agent
from cotbench.baselines.data.traces import keep_successes
from cotbench.prompting.elicitation import Elicitation
from cotbench.runs import runner
from cotbench.runs.manifest import RunConfig
from cotbench.runs.plan import make_plan
from cotbench.runs.resources import Resources
from tests.conftest import needs_hf

pytestmark = needs_hf
pytest.importorskip("trl", reason="pip install -e '.[dev]'")

ENV, EPISODES, BATCH, ROUNDS, THREADS, VOCABULARY, ROW = "alfworld-gen", 8, 16, 3, 1, 4096, 4096
RATE = 1e-3


@dataclass
class Seen:
    """One training: its losses step by step, tokens that were computed, seconds."""

    losses: list[float] = field(default_factory=list)
    computed: float = 0.0
    seconds: float = 0.0


def _clock(seen: Seen) -> Any:
    """A callback that takes the time and the losses."""
    import transformers

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            seen.seconds = -time.perf_counter()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            seen.seconds += time.perf_counter()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "loss" in logs:
                seen.losses.append(float(logs["loss"]))

    return Clock()


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Tokenizer and examples of some games of the scripted teacher."""
    from cotbench.agents.tokenization.chat_template import Chat
    from cotbench.baselines.data.examples import make_examples
    from cotbench.baselines.tiny.tokenizer import make_tokenizer

    spec = "scripted?slips=0.05"
    plan = make_plan(RunConfig(agent=spec, env=ENV, split="train", mode="cot", episodes=EPISODES))
    folder = tmp_path_factory.mktemp("traces") / "t"
    outcome = runner.start_run(plan, folder, agent=make_agent(spec), resources=Resources(), observer=runner.SilentObserver())
    played = keep_successes(outcome.records, ENV, spec).demonstrations
    asked = Elicitation.for_env(ENV)
    told = asked.system_text(played[0].dialogue(0), "cot")
    texts = [text or "" for one in played for text in (*one.observations, *one.actions, *one.traces)]
    tokenizer = make_tokenizer(texts, [told], smallest=1)
    made = make_examples(played, Chat(tokenizer), {ENV: asked}, context=4096)
    return tokenizer, made


def _model() -> Any:
    from cotbench.baselines.recipes.base import BaseConfig
    from cotbench.baselines.tiny.model import new_model

    return new_model(BaseConfig(), VOCABULARY)


def _steps(made: Any, unit: Any) -> Any:
    from cotbench.baselines.training.batching import make_steps

    sizes = [
        [len(one.answer) if unit == "episode" and one is not episode[-1] else len(one.ids) for one in episode]
        for episode in made.episodes
    ]
    return make_steps(sizes, unit=unit, batch=BATCH, epochs=1, seed=0, tokens=8192)


def _ours(tokenizer: Any, made: Any, unit: Any, out: Path) -> Seen:
    from cotbench.baselines.recipes.sft import SFTConfig
    from cotbench.baselines.training import loop
    from cotbench.baselines.training.dataset import PackedDataset, trees_of_examples
    from cotbench.baselines.training.masks import MaskConfig, Masks
    from cotbench.baselines.training.model import make_trainable

    seen = Seen()
    learner = make_trainable(_model(), tokenizer, {})
    assert learner.packed
    config = SFTConfig(model="", data=("",), learning_rate=RATE, warmup=0, batch_size=BATCH, unit=unit)
    feed = PackedDataset(_steps(made, unit), trees_of_examples(made.episodes, Masks.of(MaskConfig(), made.flat)))
    args = loop._arguments(config, out, learner.model)
    args.logging_steps = 1
    trainer = loop.fit(learner, feed, args, {}, (), lambda: _clock(seen))
    seen.computed = trainer.counts["tokens"]
    return seen


def _trl(tokenizer: Any, rows: list[Any], out: Path, *, sampling: str, packing: bool = False, plain: bool = False) -> Seen:
    """TRL's trainer; `plain`: transformers' with TRL's collator."""
    import datasets
    import transformers
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    seen = Seen()
    data = [
        {"input_ids": list(one.ids), "labels": [-100] * len(one.prompt) + list(one.answer)}
        | ({} if packing else {"length": len(one.ids)})
        for one in rows
    ]
    args = SFTConfig(
        output_dir=str(out),
        num_train_epochs=1,
        per_device_train_batch_size=1 if packing else BATCH,
        gradient_accumulation_steps=1,
        packing=packing,
        max_length=ROW if packing else None,
        train_sampling_strategy=sampling,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        max_grad_norm=1.0,
        activation_checkpointing=False,
        bf16=False,
        use_cpu=True,
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=False,
        seed=0,
    )
    given = {
        "model": _model(),
        "args": args,
        "train_dataset": datasets.Dataset.from_list(data),
        "processing_class": tokenizer,
        "callbacks": [_clock(seen)],
    }
    if plain:
        collator = DataCollatorForLanguageModeling(tokenizer.pad_token_id)
        trainer = transformers.Trainer(data_collator=collator, **given)
    else:
        trainer = SFTTrainer(**given)
    trainer.remove_callback(transformers.PrinterCallback)
    collate = trainer.data_collator

    def counted(examples: Any) -> Any:
        batch = collate(examples)
        seen.computed += batch["input_ids"].numel()
        return batch

    trainer.data_collator = counted
    trainer.train()
    return seen


def test_tokens_a_second_beside_trl(lesson: Any, tmp_path: Path) -> None:
    import datasets
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    torch.set_num_threads(THREADS)
    tokenizer, made = lesson
    in_order = [
        made.episodes[episode][decision]
        for step in _steps(made, "decision")
        for part in step.parts
        for episode, decisions in part
        for decision in decisions
    ]
    tokens = sum(len(one.ids) for one in made.flat)
    named: dict[str, Callable[[], Seen]] = {
        "sft, unit=decision": lambda: _ours(tokenizer, made, "decision", tmp_path / "d"),
        "sft, unit=episode": lambda: _ours(tokenizer, made, "episode", tmp_path / "e"),
        "TRL, padded": lambda: _trl(tokenizer, in_order, tmp_path / "p", sampling="sequential"),
        "TRL, padded, like lengths": lambda: _trl(tokenizer, in_order, tmp_path / "g", sampling="group_by_length"),
        f"TRL, packed in rows of {ROW}": lambda: _trl(tokenizer, in_order, tmp_path / "b", sampling="sequential", packing=True),
        "transformers' Trainer, padded": lambda: _trl(tokenizer, in_order, tmp_path / "t", sampling="sequential", plain=True),
    }
    print(
        f"\n{len(made.episodes)} games, {len(made.flat)} decisions of {tokens / len(made.flat):.0f} tokens, {tokens} in all, "
        f"{sum(one.numel() for one in _model().parameters()) / 1e6:.1f} M parameters, {THREADS} threads:"
    )
    runs: dict[str, list[Seen]] = {name: [] for name in named}
    for _ in range(ROUNDS):
        for name, train in named.items():
            runs[name].append(train())
            print(f"  {name}: {runs[name][-1].seconds:.1f} s", flush=True)
    rates = {name: tokens / statistics.median(one.seconds for one in some) for name, some in runs.items()}
    best = max(rate for name, rate in rates.items() if name.startswith("TRL"))
    print(f"  {'':<30}  tokens/s  x best TRL  x TRL padded  computed  computed/s  seconds")
    for name, rate in rates.items():
        computed = runs[name][0].computed
        print(
            f"  {name:<30}{rate:>10.0f}{rate / best:>12.2f}{rate / rates['TRL, padded']:>14.2f}{computed:>10.0f}"
            f"{computed * rate / tokens:>12.0f}  " + " ".join(f"{one.seconds:.1f}" for one in runs[name])
        )
    ours, theirs = runs["sft, unit=decision"][0].losses, runs["TRL, padded"][0].losses
    print(f"  losses of {len(ours)} steps: ours {ours[0]:.4f} ... {ours[-1]:.4f}, TRL {theirs[0]:.4f} ... {theirs[-1]:.4f}")
    assert len(ours) == len(theirs) == -(-len(made.flat) // BATCH)
    assert ours[0] == pytest.approx(theirs[0], abs=1e-3)
    assert ours == pytest.approx(theirs, abs=2e-2)
    assert ours[0] == pytest.approx(runs["transformers' Trainer, padded"][0].losses[0], abs=1e-3)
