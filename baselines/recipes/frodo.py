"""Recipe `frodo`: a trace writer and an answerer, two models (paper's baseline FRODO; "Making Reasoning Matter", arXiv
2402.13950). Invariant: the writer is trained on traces alone, the answerer on actions alone, both from one start and on the
same pairs of a right and a counterfactual trace; a checkpoint holds both, after the same share of their trainings.

As in the source: two models; the writer learns by preference (DPO's loss, right trace over counterfactual trace, against its
start); the answerer learns the right action after the right trace, the counterfactual action after the counterfactual trace,
and by a hinge that the right action is likelier after the right trace than after the other.

Adapted to agents: a question is a state (goal, history, observation), an answer an action. Counterfactual traces are the
scripted teacher's with the goal of another task at the same state, or another decision's (`data.counterfactuals`); in the
source a large model wrote them. Log-probabilities are sums over tokens in nats, the closing tag included, so margin and beta
mean the same at every length. Both models begin from one checkpoint that writes traces (in a study, of arm `sft`): by
preference alone an untaught model learns which trace is better, not to write one.

Not read: the source's body, beyond abstract, summaries and the authors' public code. beta 0.1, margin 1, three epochs and equal
weights are that code's, whose scale is another (means over tokens, in both losses); it has no term for the counterfactual
action, and its hinge has the wrong sign, which is not followed (`frodo_loss`). Learning rates and batch size are ours.

Clipping: the answerer's loss is a sum over the tokens of two actions, so its gradient is many times that of a mean over tokens
(measured on `tiny`: norm 14 to 21 in the first steps, 6 to 13 later). Clipped at 1, which is usual for such means, every step
would be cut to one length. Its norm is therefore 10; the writer's is 1, as usual for DPO (measured: 1.4, then falling). The
loss is not divided instead: margin and log-probabilities stay nats of a whole action.

Masks (`mask_fraction`, ...) take a decision's actions out of the answerer's losses, the hinge with them; the writer has none.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cotbench.agents.hf.frodo_agent import ANSWERER, WRITER
from cotbench.baselines.data.counterfactuals import Counterfactuals, make_counterfactuals
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.examples import elicitations_of
from cotbench.baselines.data.scored_tasks import check_trainable
from cotbench.baselines.recipes.frodo_config import FrodoConfig
from cotbench.baselines.recipes.frodo_examples import FrodoData, answerer_weights, frodo_data, writer_weights
from cotbench.baselines.recipes.frodo_loss import AnswererLoss
from cotbench.baselines.recipes.require import require_training
from cotbench.baselines.recipes.sft import base_scores, complete_options, masking_of, read_data, write_masks
from cotbench.baselines.recipes.start import check_start, load_start
from cotbench.baselines.training.batching import TrainingStep, make_steps
from cotbench.baselines.training.branch_groups import BranchGroup, group_sizes, group_trees, trees_of_groups
from cotbench.baselines.training.branch_loss import GroupLoss, PairLoss, SigmoidPreference, branch_logprobs
from cotbench.baselines.training.dataset import Trees
from cotbench.baselines.training.loss import Losses
from cotbench.baselines.training.masks import MaskConfig, Masks
from cotbench.baselines.training.recipe_card import CARD, TrainingResult, data_card, first_process, training_folder, write_begun
from cotbench.baselines.training.sequence_tree import Tree
from cotbench.baselines.training.trackers import require_trackers
from cotbench.envs.registry import TokenSizes
from cotbench.errors import RunFolderError
from cotbench.prompting.elicitation import Elicitation
from cotbench.recipes import Preset, Recipe, StageNeed
from cotbench.runs.atomic_file import write_atomically
from cotbench.runs.manifest import provenance

NAME = "frodo"
COUNTERFACTUALS = "counterfactuals.jsonl"

_PARTS = (WRITER, ANSWERER)
_SEEN = ("tokens", "actions", "actions_in_loss", "masked_share")


@dataclass(frozen=True, slots=True)
class _Training:
    """What both parts are trained on, and with.

    Attributes:
        record: contents of the cards.
        others: the counterfactuals.
    """

    config: FrodoConfig
    demonstrations: Sequence[Demonstration]
    elicitations: dict[str, Elicitation]
    others: Counterfactuals
    record: Mapping[str, Any]
    out: Path
    progress: Callable[[], Any] | None


def train(config: FrodoConfig, out: Path, *, resume: bool = False, progress: Callable[[], Any] | None = None) -> TrainingResult:
    """Train writer and answerer, one after the other; the same as `cotbench train --recipe frodo`.

    Args:
        config: the options.
        out: the folder of both models (`writer`, `answerer`), of their common checkpoints (`checkpoint-N`, N counts the steps
            of both) and cards.
        resume: go on from the newest whole checkpoint of either model.
        progress: makes a callback of transformers that shows how far a training is; one for each model.

    Raises:
        UsageError: data that cannot be trained on or has no counterfactuals, a start of another elicitation, or another
            training lies in `out`.
        AgentError: the model cannot be loaded.
        MissingExtraError: the libraries for training are not installed.
    """
    require_training()
    require_trackers(config.report_to)
    demonstrations = [one for path in config.data for one in read_data(path)]
    check_trainable(demonstrations)
    elicitations = elicitations_of(demonstrations, config.elicitation)
    fingerprints = {env: elicitation.fingerprint for env, elicitation in elicitations.items()}
    check_start(config.model, fingerprints)
    others = make_counterfactuals(demonstrations, config.counterfactuals, config.seed)
    record = {
        "recipe": NAME,
        "config": config.model_dump(mode="json"),
        "data": data_card(config.data, demonstrations),
        "elicitations": fingerprints,
        "counterfactuals": others.card,
        **provenance(),
    }
    with training_folder(out, record, resume=resume):
        return _train(_Training(config, demonstrations, elicitations, others, record, out, progress))


def _train(training: _Training) -> TrainingResult:
    cards = {part: _part(training, part) for part in _PARTS}
    record = {**training.record, "base": cards[WRITER]["base"], "examples": cards[ANSWERER]["examples"]}
    last = common_checkpoints(training.out, record, cards, training.config.checkpoints)
    examples = last["examples"]
    return TrainingResult(training.out, last["steps"], last["seen"], examples["examples"], examples["too_long"])


def _part(training: _Training, part: str) -> dict[str, Any]:
    """Train one of the models where that is not done, and return its card."""
    from cotbench.baselines.training import loop
    from cotbench.baselines.training.dataset import PackedDataset
    from cotbench.baselines.training.group_trainer import GroupTrainer

    config, folder = training.config, training.out / part
    if (folder / CARD).is_file():
        return _read_card(folder)
    loop.set_up_torch(config.threads, config.seed)
    trainable = load_start(config)
    options = config.training
    if part == WRITER:
        options = replace(options, learning_rate=config.writer_learning_rate, max_grad_norm=config.writer_max_grad_norm)
    args = loop.trainer_arguments(options, folder, trainable.model)
    data = frodo_data(config, training.demonstrations, training.elicitations, trainable, training.others)
    steps = make_steps(
        group_sizes(data.pairs if part == WRITER else data.triples, config.unit),
        unit=config.unit,
        batch=config.batch_size,
        epochs=config.epochs,
        seed=config.seed,
        tokens=config.max_tokens_per_forward,
        processes=args.world_size,
        max_steps=config.max_steps,
    )
    record = {**training.record, "base": trainable.description, "examples": data.counts}
    write_begun(training.out, record)
    objective = (_writer_objective if part == WRITER else _answerer_objective)(training, trainable, data)
    if args.process_index == 0:
        with loop.disk_full_as_error(training.out):
            rows = (json.dumps(row, ensure_ascii=False) + "\n" for row in training.others.rows())
            write_atomically(training.out / COUNTERFACTUALS, rows)
            if objective.masks is not None:
                write_masks(training.out, objective.masks, steps)
    dataset = PackedDataset(steps, objective.trees, args.world_size, counted=objective.counted)
    record |= {"part": part, "steps": len(steps)}
    loop.train(
        trainable,
        dataset,
        args,
        record,
        folder,
        config.checkpoints,
        training.progress,
        config.ema_decay,
        make_trainer=partial(GroupTrainer, group_loss=objective.loss),
    )
    # Of a launcher's processes the first one writes the card.
    return _read_card(folder) if first_process() else {**record, "seen": dict.fromkeys(_SEEN, 0.0)}


@dataclass(frozen=True, slots=True)
class _Objective:
    """What one of the models learns.

    Attributes:
        counted: (tree) -> number of its groups by which the loss is divided.
        masks: of the actions, where there are any in the loss.
    """

    trees: Trees
    loss: GroupLoss
    counted: Callable[[Tree], int]
    masks: Masks | None = None


def _writer_objective(training: _Training, trainable: Any, data: FrodoData) -> _Objective:
    config = training.config
    pairs = _with_references(config, trainable, data.pairs)
    loss = PairLoss(SigmoidPreference(config.beta), config.writer_likelihood_weight)
    return _Objective(trees_of_groups(pairs, writer_weights), loss, lambda tree: len(tree.branches) // loss.size)


def _answerer_objective(training: _Training, trainable: Any, data: FrodoData) -> _Objective:
    config = training.config
    scores = None
    if config.needs_scores:
        scores = base_scores(config, trainable, training.elicitations, training.demonstrations, data.right)
    masks = Masks.of(config, data.right.flat, scores)
    loss = AnswererLoss(config.margin, config.counterfactual_weight, config.hinge_weight)

    def counted(tree: Tree) -> int:
        third = tree.branches[loss.size - 1 :: loss.size]
        return sum(any(branch.weights) for branch in third) if config.loss_normalisation == "remaining" else len(third)

    return _Objective(trees_of_groups(data.triples, partial(answerer_weights, masks)), loss, counted, masks)


def _with_references(
    config: FrodoConfig, trainable: Any, episodes: Sequence[Sequence[BranchGroup]]
) -> list[tuple[BranchGroup, ...]]:
    """Return groups with the log-probabilities of their answers under the model as it is now, before its training, and in its
    numerics.
    """
    from cotbench.baselines.training.start_pass import start_pass

    start = TrainingStep(0, 0.0, ())
    trees = [group_trees(groups, [own for group in groups for own in writer_weights(group, start)]) for groups in episodes]
    every = [tree for own in trees for tree in own]

    def measure(losses: Losses) -> list[tuple[float, ...]]:
        device, tokens = trainable.model.device, config.max_tokens_per_forward
        return branch_logprobs(trainable.model, every, compute=losses, device=device, tokens=tokens)

    flat = start_pass(trainable, measure, config.dtype)
    numbers = iter([number for tree in flat for number in tree])
    return [
        tuple(replace(group, references=tuple(next(numbers) for _ in group.answers)) for group in groups) for groups in episodes
    ]


def common_checkpoints(
    out: Path, record: Mapping[str, Any], cards: Mapping[str, Mapping[str, Any]], shares: Sequence[float]
) -> dict[str, Any]:
    """Write the checkpoints of both models together, and the card of the whole training, and return that card.

    A checkpoint holds, in `writer` and `answerer`, each model after the same share of its own training. Its files are those of
    the models' own checkpoints under a second name, so that nothing takes room twice; where a disk has no second names they are
    copied. Its card comes last: one without is made anew.

    Args:
        out: the folder of the training.
        record: contents of the cards.
        cards: of the trained writer and answerer.
        shares: after which shares of the training a checkpoint was written; the end is always among them.
    """
    from cotbench.baselines.training.trainer import CHECKPOINT, TRAINING_STATE, steps_at, write_card

    left_out = shutil.ignore_patterns(*TRAINING_STATE, "training_args.bin")  # What only its own training goes on from.
    total = sum(int(card["steps"]) for card in cards.values())
    whole = {**record, "steps": total}
    for share in sorted({*shares, 1.0}):
        steps = {part: steps_at((share,), int(card["steps"]))[0] for part, card in cards.items()}
        number = sum(steps.values())
        folder = out / f"{CHECKPOINT}-{number}"
        if not first_process() or (folder / CARD).is_file():
            continue
        shutil.rmtree(folder, ignore_errors=True)
        for part, step in steps.items():
            own = out / part / f"{CHECKPOINT}-{step}"
            shutil.copytree(own, folder / part, copy_function=_link, ignore=left_out)
        seen = {part: _read_card(folder / part)["seen"] for part in steps}
        write_card(folder, {**whole, "step": number, "progress": share, "parts": steps, "seen": _seen(seen)})
    parts = {part: int(card["steps"]) for part, card in cards.items()}
    seen = {part: card["seen"] for part, card in cards.items()}
    last = {**whole, "step": total, "progress": 1.0, "parts": parts, "seen": _seen(seen)}
    if first_process():
        write_card(out, last)
    return last


def _seen(counts: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the counts of both trainings together; `masked_share` is of the answerer's actions, the only ones in a loss."""
    sums = {name: sum(float(one[name]) for one in counts.values()) for name in _SEEN[:-1]}
    return {**sums, "masked_share": float(counts[ANSWERER]["masked_share"])}


def _link(source: str, target: str) -> None:
    """Give a file a second name, or copy it where that cannot be done."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _read_card(folder: Path) -> dict[str, Any]:
    try:
        card = dict(json.loads((folder / CARD).read_text("utf-8")))
        return {**card, "steps": int(card["steps"]), "seen": dict(card["seen"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{folder / CARD} is damaged: start again in another --out") from error


def _cost(config: FrodoConfig, sizes: TokenSizes, episodes: int) -> float:
    """Return about how many tokens go through the models: two traces and a prompt for the writer, and once more, forward alone,
    under its reference; three answers and a prompt for the answerer.
    """
    turns = sizes.expert_steps
    each = sizes.first_prompt / turns + sizes.step if config.unit == "episode" else sizes.first_prompt + sizes.step * turns / 2
    decisions = config.epochs * episodes * turns if config.max_steps is None else config.max_steps * config.batch_size
    return decisions * (2 * each + 5 * sizes.answer) + episodes * turns * (each + 2 * sizes.answer) / 3


def _stages(config: FrodoConfig) -> tuple[StageNeed, ...]:
    """Return what a study computes first: the teacher's traces, and the supervised model from which both begin."""
    return StageNeed("traces", "data"), StageNeed("checkpoint", "model", "sft")


PRESETS = {
    "paper": Preset("3 epochs, learning rate 1e-5 (writer 1e-6), 16 decisions per step"),
    "tiny": Preset(
        "1 epoch, learning rate 2e-4 (writer 1e-4), whole episodes as trees, at least 16 decisions per step",
        {
            "epochs": 1.0,
            "learning_rate": 2e-4,
            "writer_learning_rate": 1e-4,
            "batch_size": 16,
            "unit": "episode",
            "betas": (0.9, 0.95),
            "weight_decay": 0.1,
        },
        models=("tiny",),
    ),
}

FRODO = Recipe(
    name=NAME,
    description="two models: a trace writer trained by preference, and an answerer that is to act on its trace",
    config=FrodoConfig,
    run=train,
    cost=_cost,
    presets=PRESETS,
    complete=complete_options,
    stages=_stages,
    agent="frodo",
    compares_with="sft",
    masking=masking_of,
    mask_options=frozenset(MaskConfig.model_fields) - {"seed", "trace_weight"},
    paper_row=lambda config: None if config.mask_fraction else "FRODO",
)
