"""Recipe `dpo`: direct preference optimisation on pairs of answers at one state, with or without reduced action supervision
(paper: DPO, DPO+). Invariant: what a pair holds is what is trained on, token by token; the reference is the model that the
training begins with, and stays as it was.

Chosen is the teacher's trace and action, rejected the starting checkpoint's own sample whose action leaves more steps to go
(`cotbench pairs`). The log-probabilities are sums, not means, over the trace, the action and the tags around both. Where a
pair is masked, its action tokens leave all four sums; the closing tag too with `mask_closing`. A masked pair whose two traces
are the same has nothing left to prefer: it is not in the loss while it is masked, and the card counts how often that happens.
The pairs and the masks are drawn without a look at that, so `dpo` and `dpo+` see the same data.

What is left out compared with TRL's trainer: other losses than the sigmoid, a second model for the reference (its
log-probabilities are computed once, before the first step), and padding.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cotbench.baselines.data.examples import elicitations_for
from cotbench.baselines.data.preference_pair import PreferencePair, check_states, read_pairs
from cotbench.baselines.recipes.dpo_config import DPOConfig
from cotbench.baselines.recipes.require import require_training
from cotbench.baselines.recipes.sft import PAPER_FRACTION, masking_of, write_masks
from cotbench.baselines.recipes.start import check_start, load_start
from cotbench.baselines.training.batching import TrainingStep, make_steps
from cotbench.baselines.training.loss import Losses
from cotbench.baselines.training.masks import MaskConfig, Masks
from cotbench.baselines.training.recipe_card import TrainingResult, training_folder, write_begun
from cotbench.baselines.training.trackers import require_trackers
from cotbench.envs.registry import TokenSizes
from cotbench.envs.splits import digest
from cotbench.errors import UsageError
from cotbench.recipes import Preset, Recipe, StageNeed
from cotbench.runs.manifest import provenance

NAME = "dpo"
START = "sft"
"""The recipe whose checkpoint a study begins with."""

_PAIR_SHARE = 0.35
"""Share of the states that give a pair with four samples each, about (104 of 301 of `tiny-cot`); for estimates of cost."""

Episodes = Sequence[Sequence[PreferencePair]]
"""The pairs of each demonstration, in order of steps."""


def train(config: DPOConfig, out: Path, *, resume: bool = False, progress: Callable[[], Any] | None = None) -> TrainingResult:
    """Train a model; the same as `cotbench train --recipe dpo`.

    Args:
        config: the options.
        out: the folder of the trained model, its checkpoints (`checkpoint-N`) and cards.
        resume: go on from the newest whole checkpoint in `out`.
        progress: makes a callback of transformers that shows how far it is.

    Raises:
        UsageError: pairs that cannot be trained on or that are all left out, a start of another elicitation, or another
            training lies in `out`.
        AgentError: the model cannot be loaded.
        MissingExtraError: the libraries for training are not installed.
    """
    require_training()
    require_trackers(config.report_to)
    files = [read_pairs(Path(path)) for path in config.data]
    check_states(files)
    pairs = [pair for read in files for pair in read]
    elicitations = _elicitations(pairs, config.elicitation)
    check_start(config.model, elicitations)
    record = {
        "recipe": NAME,
        "config": config.model_dump(mode="json"),
        "data": pairs_card(config.data, pairs),
        "elicitations": elicitations,
        **provenance(),
    }
    with training_folder(out, record, resume=resume):
        return _train(config, pairs, record, out, progress)


def _train(
    config: DPOConfig,
    pairs: Sequence[PreferencePair],
    record: dict[str, Any],
    out: Path,
    progress: Callable[[], Any] | None,
) -> TrainingResult:
    from cotbench.baselines.training import loop
    from cotbench.baselines.training.dpo_trainer import DPOTrainer
    from cotbench.baselines.training.pair_rows import PairDataset

    loop.set_up_torch(config.threads, config.seed)
    trainable = load_start(config)
    check_tokenizer(pairs, trainable.chat)
    args = loop.trainer_arguments(config.training, out, trainable.model)
    longest = min(trainable.context, config.max_length or trainable.context)
    episodes, too_long = group_pairs(pairs, longest)
    flat = [pair for episode in episodes for pair in episode]
    if not flat:
        raise UsageError(f"no pair is left of {len(pairs)}: all are longer than {longest} tokens (--max-length)")
    masks = Masks.of(config, [pair.examples()[0] for pair in flat], _scores(config, trainable, flat))
    steps = pair_steps(config, episodes, processes=args.world_size)
    counts = {
        "examples": len(flat),
        "too_long": too_long,
        "identical_traces": sum(pair.identical_traces for pair in flat),
        "masked_identical": masked_identical(episodes, steps, masks),
    }
    scheduled = sum(len(decisions) for step in steps for part in step.parts for _, decisions in part)
    if counts["masked_identical"] == scheduled:
        raise UsageError(
            f"no pairs are left: the traces of all {len(flat)} are the same on both sides, and their actions are masked; "
            "give a smaller --mask-fraction, or pairs of traces that differ"
        )
    record = {**record, "base": trainable.description, "examples": counts, "steps": len(steps)}
    write_begun(out, record)
    if args.process_index == 0:
        with loop.disk_full_as_error(out):
            write_masks(out, masks, steps)
    reference = _reference(config, trainable, flat)
    dataset = PairDataset(steps, episodes, masks, reference, args.world_size, config.loss_normalisation)
    make_trainer = partial(DPOTrainer, beta=config.beta, label_smoothing=config.label_smoothing)
    measured = loop.train(
        trainable, dataset, args, record, out, config.checkpoints, progress, config.ema_decay, make_trainer=make_trainer
    )
    return TrainingResult(out, len(steps), measured, len(flat), too_long)


def _reference(config: DPOConfig, trainable: Any, pairs: Sequence[PreferencePair]) -> Any:
    """Return the log-probabilities of all pairs under the model before the first step, in the numerics of the training."""
    from cotbench.baselines.training.pair_rows import reference_logprobs
    from cotbench.baselines.training.start_pass import start_pass

    def measure(losses: Losses) -> Any:
        device, tokens = trainable.model.device, config.max_tokens_per_forward
        return reference_logprobs(trainable.model, pairs, compute=losses, device=device, tokens=tokens)

    return start_pass(trainable, measure, config.dtype)


def _scores(config: DPOConfig, trainable: Any, pairs: Sequence[PreferencePair]) -> Any:
    """Return the model's scores of the chosen actions, where the masks need them."""
    from cotbench.baselines.training.logprobs import action_logprobs
    from cotbench.baselines.training.start_pass import start_pass

    if not config.needs_scores:
        return None
    chosen = [[pair.examples()[0]] for pair in pairs]

    def measure(losses: Losses) -> Any:
        return action_logprobs(trainable.model, trainable.chat, chosen, compute=losses, device=trainable.model.device)

    return start_pass(trainable, measure)


def _elicitations(pairs: Sequence[PreferencePair], options: Mapping[str, Any]) -> dict[str, str]:
    """Return environment -> fingerprint of the elicitation that evaluation will use.

    Raises:
        UsageError: pairs that were made for another one.
    """
    wanted = elicitations_for({pair.env for pair in pairs}, options)
    for pair in pairs:
        if pair.elicitation != wanted[pair.env].fingerprint:
            raise UsageError(
                f"the pair {pair.id} was made for another elicitation ({pair.elicitation}, not "
                f"{wanted[pair.env].fingerprint}): give the options that cotbench pairs was given"
            )
    return {env: elicitation.fingerprint for env, elicitation in wanted.items()}


def check_tokenizer(pairs: Sequence[PreferencePair], chat: Any) -> None:
    """Refuse pairs whose chosen answers this model encodes otherwise.

    Args:
        pairs: the pairs.
        chat: the model's tokenizer and template.

    Raises:
        UsageError: names the first one.
    """
    from cotbench.agents.tokenization.token_ids import answer_pieces

    for pair in pairs:
        ids = [id_ for _, piece in answer_pieces(chat, pair.chosen.trace, pair.chosen.action) for id_ in piece]
        if tuple(ids) != pair.chosen.ids:
            raise UsageError(f"the pair {pair.id} was encoded by another tokenizer: make pairs with this --model")


def group_pairs(pairs: Sequence[PreferencePair], longest: int) -> tuple[Episodes, int]:
    """Return pairs demonstration by demonstration, in order of steps, and how many are left out for their length.

    Args:
        pairs: in any order.
        longest: the most tokens of a prompt with an answer.
    """
    found: dict[tuple[str, str, int], list[PreferencePair]] = {}
    too_long = 0
    for pair in sorted(pairs, key=lambda one: (one.env, one.task, one.take, one.step)):
        if len(pair.prompt_ids) + max(len(pair.chosen.ids), len(pair.rejected.ids)) > longest:
            too_long += 1
        else:
            found.setdefault((pair.env, pair.task, pair.take), []).append(pair)
    return list(found.values()), too_long


def pair_steps(config: DPOConfig, episodes: Episodes, *, processes: int) -> list[TrainingStep]:
    """Return the steps of a training.

    Args:
        config: the options.
        episodes: the pairs of each demonstration.
        processes: among how many a step is divided.
    """
    sizes = [
        [
            len(pair.chosen.ids)
            + len(pair.rejected.ids)
            + (0 if config.unit == "episode" and place < len(episode) - 1 else len(pair.prompt_ids))
            for place, pair in enumerate(episode)
        ]
        for episode in episodes
    ]
    return make_steps(
        sizes,
        unit=config.unit,
        batch=config.batch_size,
        epochs=config.epochs,
        seed=config.seed,
        tokens=config.max_tokens_per_forward,
        processes=processes,
        max_steps=config.max_steps,
    )


def masked_identical(episodes: Episodes, steps: Sequence[TrainingStep], masks: Masks) -> int:
    """Return how often in a training a pair is left out because it is masked and its two traces are the same.

    Args:
        episodes: the pairs of each demonstration.
        steps: the schedule.
        masks: which pairs are masked.
    """
    from cotbench.baselines.training.pair_rows import weigh

    return sum(
        not weigh(episodes[episode][decision], masks, step.epoch, step.progress).counted
        for step in steps
        for part in step.parts
        for episode, decisions in part
        for decision in decisions
    )


def pairs_card(paths: Sequence[str], pairs: Sequence[PreferencePair]) -> dict[str, Any]:
    """Return what identifies the data: how many pairs of which environment, by whom, and a sha256 over all of it.

    Args:
        paths: where it was read.
        pairs: all of it.
    """
    sha256 = hashlib.sha256()
    for pair in pairs:
        sha256.update(pair.model_dump_json().encode())
    return {
        "paths": list(paths),
        "pairs": len(pairs),
        "envs": dict(Counter(pair.env for pair in pairs)),
        "chosen": dict(Counter(pair.chosen.author for pair in pairs)),
        "rejected": dict(Counter(pair.rejected.author for pair in pairs)),
        "tasks_sha256": digest(sorted({pair.task for pair in pairs})),
        "sha256": sha256.hexdigest(),
    }


def _complete(options: dict[str, Any]) -> dict[str, Any]:
    """Refuse options without a model or pairs."""
    if "model" not in options:
        raise UsageError("--model is missing: name the checkpoint of recipe sft that the pairs were sampled from")
    if "data" not in options:
        raise UsageError(
            "--data is missing: make pairs with cotbench pairs --agent hf:CHECKPOINT --data TRACES --out DIR, then --data DIR"
        )
    return options


def _cost(config: DPOConfig, sizes: TokenSizes, episodes: int) -> float:
    """Return about how many tokens go through the model: each pair once an epoch, and once for the reference."""
    turns = sizes.expert_steps
    prompt = (sizes.first_prompt + turns * sizes.step) / turns if config.unit == "episode" else sizes.prompt
    pairs = episodes * turns * _PAIR_SHARE
    trained = config.epochs * pairs if config.max_steps is None else config.max_steps * config.batch_size
    return (trained + pairs / 3) * (prompt + 2 * sizes.answer)  # Without gradients it is a third of the work.


def _paper_row(config: DPOConfig) -> str | None:
    """Return the row of the paper's tables: DPO without masks, DPO+ with its own."""
    if config.trace_weight != 1:
        return None
    return masking_of(config).paper_row("DPO", PAPER_FRACTION)


PRESETS = {
    "paper": Preset("1 epoch, learning rate 1e-6, beta 0.1, 16 pairs per step"),
    "tiny": Preset(
        "2 epochs, learning rate 2e-4, whole episodes as trees, at least 16 pairs per step",
        {"epochs": 2.0, "learning_rate": 2e-4, "unit": "episode", "betas": (0.9, 0.95)},
        models=("tiny",),
    ),
}

DPO = Recipe(
    name=NAME,
    description="direct preference optimisation: the teacher's answer over the model's own worse one",
    config=DPOConfig,
    run=train,
    cost=_cost,
    presets=PRESETS,
    complete=_complete,
    stages=lambda config: (StageNeed("pairs", "data", START), StageNeed("checkpoint", "model", START)),
    compares_with=START,
    masking=masking_of,
    mask_options=frozenset(MaskConfig.model_fields) - {"seed", "trace_weight"},
    paper_row=_paper_row,
)

DPO_PLUS = replace(
    DPO,
    name="dpo+",
    description=f"the same with reduced action supervision (default mask fraction {PAPER_FRACTION:g})",
    values={"mask_fraction": PAPER_FRACTION},
    compares_with=NAME,
)
