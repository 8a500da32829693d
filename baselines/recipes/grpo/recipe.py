"""Recipe `grpo`: group relative policy optimisation on whole episodes, with or without reduced action supervision (paper: GRPO,
GRPO+). Invariant: tasks of split train are played and nothing else is learned from; split dev alone decides when to stop.

As in DeepSeekMath (arXiv 2402.03300): advantages within groups of rollouts of a task, a clipped ratio a token, the divergence
from the start model in the loss. Adapted to agents: a sample is an episode of many turns; its advantage is that of every token
that the model wrote in it, and what the harness or the environment wrote is context. `grpo+`: in each batch a share of the
turns (an episode's step) is drawn, and their action tokens leave the policy loss; the advantages, the denominator and (unless
`kl_on_masked` is off) the divergence stay as they are.

Several processes play a share of the groups each, and learn from all of them together what one process learns.

What is left out: a critic; a bonus for entropy.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cotbench.baselines.recipes.grpo.config import GRPOConfig
from cotbench.baselines.recipes.require import require_training
from cotbench.baselines.recipes.sft import PAPER_FRACTION, masking_of
from cotbench.baselines.recipes.start import check_start, load_start
from cotbench.baselines.training.masks import MaskConfig
from cotbench.baselines.training.recipe_card import CARD, training_folder, write_begun
from cotbench.baselines.training.trackers import require_trackers
from cotbench.envs.registry import TokenSizes
from cotbench.envs.splits import digest
from cotbench.errors import CotbenchError, UsageError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.parsing import USUAL_TAGS
from cotbench.recipes import Masking, Preset, Recipe, StageNeed
from cotbench.runs.manifest import provenance

NAME = "grpo"


@dataclass(frozen=True, slots=True)
class GRPOResult:
    """Result of a finished training.

    Attributes:
        folder: of the trained model.
        steps: number of updates of the weights.
        seen: the counts of the trainer.
        dev: mode -> success on split dev, of the weights that were kept; empty where it was not played.
    """

    folder: Path
    steps: int
    seen: dict[str, float]
    dev: dict[str, float]

    @property
    def summary_line(self) -> str:
        """Size of the training, in a line."""
        flat = f", {self.seen['zero_variance_groups']:.0f} of {self.seen['groups']:.0f} groups without variance"
        masked = f", {self.seen['masked_share']:.1%} of the action tokens masked" if self.seen.get("masked_share") else ""
        dev = f", success on dev: {', '.join(f'{mode} {value:.2f}' for mode, value in self.dev.items())}" if self.dev else ""
        return f"trained {self.steps} steps on {self.seen['episodes']:.0f} episodes{flat}{masked}{dev}"


def train(config: GRPOConfig, out: Path, *, resume: bool = False, progress: Callable[[], Any] | None = None) -> GRPOResult:
    """Train a model; the same as `cotbench train --recipe grpo`.

    Args:
        config: the options.
        out: the folder of the trained model, its checkpoints (`checkpoint-N`) and cards.
        resume: go on from the newest whole checkpoint in `out`.
        progress: makes a callback of transformers that shows how far it is.

    Raises:
        UsageError: tasks that cannot be trained on, a start model of another elicitation, or another training lies in `out`.
        AgentError: the model cannot be loaded, or every rollout of a batch failed.
        CotbenchError: no group had any variance for `patience` batches.
        MissingExtraError: the libraries for training, or the environment's engine, are not installed.
    """
    require_training()
    require_trackers(config.report_to)
    from cotbench.baselines.recipes.grpo.rollouts import dev_plan, train_plan
    from cotbench.baselines.training.processes import weights_are_sharded

    if config.rollouts == "hf" and weights_are_sharded():
        raise UsageError(
            "the weights are divided among the processes (FSDP, DeepSpeed), and --rollouts hf needs all of them in each: add "
            "--rollouts vllm, or start without sharding (torchrun), which takes room for the model on each GPU"
        )

    elicitation = elicitation_of(config)
    check_start(config.model, {config.env: elicitation.fingerprint})
    plan, dev = train_plan(config, elicitation), dev_plan(config, elicitation)
    plan.entry.require()
    tasks = digest(plan.tasks)
    record = {
        "recipe": NAME,
        "config": config.model_dump(mode="json"),
        "data": {
            "env": config.env,
            "tasks": len(plan.tasks),
            "tasks_sha256": tasks,
            "dev_tasks": 0 if dev is None else len(dev.tasks),
            "sha256": digest([tasks, *(dev.tasks if dev is not None else ())]),
            "envs": {config.env: len(plan.tasks)},
        },
        "elicitations": {config.env: elicitation.fingerprint},
        "sampling": {"temperature": 1.0, "top_p": 1.0},
        **provenance(),
    }
    with training_folder(out, record, resume=resume):
        return _train(config, plan, dev, elicitation, record, out, progress)


def _train(
    config: GRPOConfig,
    plan: Any,
    dev: Any,
    elicitation: Elicitation,
    record: dict[str, Any],
    out: Path,
    progress: Callable[[], Any] | None,
) -> GRPOResult:
    from cotbench.baselines.recipes.grpo.batch import PlayedEpisode, PolicyBatch, played_episode, policy_batch
    from cotbench.baselines.recipes.grpo.dev_check import DevCheck, StoppedEarlyError, best_checkpoint
    from cotbench.baselines.recipes.grpo.rollouts import Player, TaskBatch, task_batches
    from cotbench.baselines.recipes.grpo.trainer import GRPOTrainer, UpdateDataset
    from cotbench.baselines.training import loop
    from cotbench.baselines.training.processes import Processes
    from cotbench.baselines.training.signal_hold import SignalHold
    from cotbench.baselines.training.start_pass import try_kernels
    from cotbench.baselines.training.trainer import steps_at

    loop.set_up_torch(config.threads, config.seed)
    trainable = load_start(config)
    try_kernels(trainable, config.dtype)
    args = loop.trainer_arguments(config.training, out, trainable.model)
    processes = Processes(args.world_size)
    chat = trainable.chat.with_tags(elicitation.tags)
    record = {**record, "base": trainable.description, "steps": config.steps, "save_multiple": config.num_iterations}
    write_begun(out, record)
    saves = [batches * config.num_iterations for batches in steps_at(config.checkpoints, config.updates)]
    policy = policy_of(config, trainable, out, processes, lambda: trainer)
    player = Player(policy, plan, dev, seed=config.seed, workers=config.workers, processes=processes)
    check = DevCheck(player.dev_success, saves, config.early_stop)

    def played(batch: TaskBatch) -> list[list[PlayedEpisode]]:
        own = replace(batch, tasks=tuple(processes.share(batch.tasks)))
        groups = player.groups(own, config.group_size)
        return [[played_episode(episode, config, chat, elicitation.tags) for episode in group] for group in groups]

    def sample(batch: TaskBatch) -> PolicyBatch:
        policy.refresh()
        groups = processes.in_order(processes.together(lambda: played(batch)))
        return policy_batch(groups, config, batch.update, batch.progress)

    def card(step: int, seen: dict[str, float]) -> dict[str, Any]:
        return {**record, "step": step, "progress": step / config.steps, "dev": check.results}

    hold = SignalHold()
    try:
        trainer = GRPOTrainer(
            config=config,
            sample=sample,
            reference=reference_of(trainable, config) if config.kl_coef else None,
            processes=processes,
            compute=trainable.losses,
            replace=None,  # They were tried before policy and reference were made of the model.
            card=card,
            saves=saves,
            hold=hold,
            model=trainable.model,
            args=args,
            train_dataset=UpdateDataset(
                task_batches(plan.tasks, config.groups, config.updates, config.seed), config.num_iterations, args.world_size
            ),
            processing_class=trainable.tokenizer,
        )
        check.logs_to(trainer.log)
        trainer.add_callback(check)
        with suppress(StoppedEarlyError):
            loop.run_trainer(trainer, hold, progress)
    finally:
        player.close()
    measured = {**trainer.counts, "masked_share": trainer.masked_share}
    steps = int(trainer.state.global_step)
    chosen = best_checkpoint(check.results) if config.early_stop is not None else steps

    def copy_best() -> None:
        if chosen is not None and chosen != steps:
            copy_model(out / f"checkpoint-{chosen}", out)

    loop.save_trained(trainer, out, {**card(steps, measured), "kept_step": chosen, "seen": measured}, copy_best)
    success = next((dict(one["success"]) for one in check.results if one["step"] == chosen), {})
    return GRPOResult(out, steps, measured, success)


def policy_of(config: GRPOConfig, trainable: Any, out: Path, processes: Any, trainer: Callable[[], Any]) -> Any:
    """Return the model in training as an agent that plays (`policy.Policy`).

    Args:
        config: the options.
        trainable: the model.
        out: the folder of the training.
        processes: that train together.
        trainer: returns the trainer, which has the weights.

    Raises:
        UsageError: the model cannot be served.
        AgentError: vLLM is not installed.
    """
    if config.rollouts == "hf":
        from cotbench.baselines.recipes.grpo.policy import EnginePolicy

        return EnginePolicy(trainable)
    from cotbench.baselines.recipes.grpo.served_policy import ServedPolicy

    def write(folder: Path) -> None:
        trainer().write_model(folder)

    return ServedPolicy(config, trainable, out, write, lambda: int(trainer().state.global_step), processes)


def reference_of(trainable: Any, config: GRPOConfig) -> Callable[[Sequence[Any]], Any]:
    """Return a function that computes log-probabilities under the model that the training begins with.

    Args:
        trainable: the model, before the training; its adapter is switched off, or, without one, a copy of it is kept.
        config: the options.
    """
    import torch

    from cotbench.baselines.training.token_logprobs import token_logprobs

    adapted = config.lora_rank is not None
    model = trainable.model if adapted else copy.deepcopy(trainable.model).requires_grad_(False)

    def reference(rows: Sequence[Any]) -> Any:
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                if not adapted:
                    return _logprobs(rows)
                with model.disable_adapter():
                    return _logprobs(rows)
        finally:
            model.train(training)

    def _logprobs(rows: Sequence[Any]) -> Any:
        return token_logprobs(model, rows, compute=trainable.losses, device=model.device, tokens=config.max_tokens_per_forward)

    return reference


def elicitation_of(config: GRPOConfig) -> Elicitation:
    """Return the elicitation that evaluation will use.

    Args:
        config: the options.

    Raises:
        UsageError: a value that does not fit, or other tags than the usual ones.
    """
    try:
        found = Elicitation.for_env(config.env, **config.elicitation)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"elicitation.{first['loc'][-1]} {first['input']}: {first['msg']}") from error
    if found.tags != USUAL_TAGS:
        raise UsageError(
            f"answers are trained only in the tags {USUAL_TAGS.think_open} and {USUAL_TAGS.action_open}: omit --think-tag and "
            "--action-tag"
        )
    return found


def copy_model(checkpoint: Path, out: Path) -> None:
    """Copy a checkpoint's model, without the state of its training.

    Args:
        checkpoint: its folder.
        out: where the model goes, over the one that is there.

    Raises:
        CotbenchError: the checkpoint is not there.
    """
    from cotbench.baselines.training.trainer import TRAINING_STATE

    if not checkpoint.is_dir():
        raise CotbenchError(f"{checkpoint}, the best on split dev, is missing: start again in another --out")
    patterns = (*TRAINING_STATE, "trainer_state.json", "training_args.bin", CARD)
    state = {path for pattern in patterns for path in checkpoint.glob(pattern)}
    for path in sorted(checkpoint.iterdir()):
        if path.is_file() and path not in state:
            shutil.copyfile(path, out / path.name)


def _complete(options: dict[str, Any]) -> dict[str, Any]:
    """Refuse options without a model."""
    if "model" not in options:
        raise UsageError("--model is missing: name the model to start from, such as the folder of an SFT training")
    return options


def _cost(config: GRPOConfig, sizes: TokenSizes, episodes: int) -> float:
    """Return about how many tokens go through the model, counted as trained ones: playing and the reference cost a third."""
    turns = config.max_episode_steps or 2 * sizes.expert_steps
    episode = sizes.first_prompt + turns * (sizes.step + sizes.answer)
    played = config.updates * config.groups * config.group_size * episode
    tested = 2 * config.dev_episodes * (1 + len(config.checkpoints)) * episode
    return played * ((2 if config.kl_coef else 1) / 3 + config.num_iterations) + tested / 3


def _masking(config: GRPOConfig) -> Masking:
    """Return the masks; schedule per-epoch is the constant one, for each batch is played and drawn anew."""
    return masking_of(config, ("constant", "per-epoch"))


def _arm_refusal(config: GRPOConfig) -> str | None:
    """Return why a study cannot measure such a training: one that stops early lacks the later checkpoints."""
    if config.early_stop is None:
        return None
    return "early_stop ends a training before its last checkpoints, which a study measures: omit it"


def _paper_row(config: GRPOConfig) -> str | None:
    """Return the row of the paper's tables: GRPO without masks, GRPO+ with its own; None where something else is rewarded or
    compared, or the divergence is masked too.
    """
    if config.trace_weight != 1 or config.reward != "success" or config.advantage != "episode":
        return None
    if config.mask_fraction and not config.kl_on_masked:
        return None
    return _masking(config).paper_row("GRPO", PAPER_FRACTION)


PRESETS = {
    "paper": Preset(
        "200 batches of 32 groups of 8 episodes, learning rate 1e-6, KL 0.01 (arXiv:2606.26935)",
        {"updates": 200, "groups": 32},
    ),
    "tiny": Preset(
        "40 batches of 4 groups of 8 episodes of at most 15 steps, learning rate 6e-4, falling (cosine)",
        {
            "updates": 40,
            "groups": 4,
            "max_episode_steps": 15,
            "learning_rate": 6e-4,
            "lr_schedule": "cosine",
            "betas": (0.9, 0.95),
            "dev_episodes": 60,
        },
        models=("tiny",),
    ),
}

GRPO = Recipe(
    name=NAME,
    description="group relative policy optimisation on whole episodes, from an SFT checkpoint",
    config=GRPOConfig,
    run=train,
    cost=_cost,
    presets=PRESETS,
    complete=_complete,
    stages=lambda config: (StageNeed("checkpoint", "model", recipe="sft"),),
    arm_refusal=_arm_refusal,
    compares_with="sft",
    masking=_masking,
    mask_options=frozenset((*MaskConfig.model_fields, "kl_on_masked")) - {"seed", "trace_weight"},
    paper_row=_paper_row,
)

GRPO_PLUS = replace(
    GRPO,
    name="grpo+",
    description=f"the same with reduced action supervision (default mask fraction {PAPER_FRACTION:g})",
    values={"mask_fraction": PAPER_FRACTION},
    compares_with=NAME,
)
