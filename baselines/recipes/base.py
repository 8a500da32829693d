"""Recipe `base`: the untaught model of `tiny`. Invariant: its weights follow from the package alone: generated games outside
every split, one seed, no download. It reads transcripts (`tiny.corpus`), actions and observations alike, and at some states the
same action behind a trace; so it can act at once and after a short trace, and has been taught neither.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.recipes.require import require_training
from cotbench.baselines.training.batching import make_steps
from cotbench.baselines.training.options import TrainingOptions
from cotbench.baselines.training.recipe_card import TrainingResult, training_folder, write_begun
from cotbench.baselines.training.sequence_tree import Branch, Tree
from cotbench.baselines.training.trackers import require_trackers
from cotbench.envs.registry import TokenSizes
from cotbench.flags import EXECUTION, MODEL, OPTIMISATION, Flag
from cotbench.recipes import Recipe
from cotbench.runs.manifest import provenance

NAME = "base"
_TOKENS = 16_384
"""Tokens that go through the model at once."""


class BaseConfig(BaseModel):
    """Options of recipe `base`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    games: Annotated[int, Flag(panel=MODEL)] = Field(4400, ge=10, description="number of games whose transcripts are read")
    epochs: Annotated[float, Flag(panel=OPTIMISATION)] = Field(1, gt=0, description="training epochs")
    learning_rate: Annotated[float, Flag(names=("--lr",), panel=OPTIMISATION)] = Field(
        2e-3, gt=0, description="learning rate (AdamW), which decays to 0"
    )
    batch_size: Annotated[int, Flag(names=("-b",), panel=OPTIMISATION)] = Field(2, ge=1, description="games per step")
    hidden: Annotated[int, Flag(panel=MODEL)] = Field(192, ge=32, multiple_of=32, description="hidden size of the model")
    layers: Annotated[int, Flag(panel=MODEL)] = Field(4, ge=1, description="number of layers of the model")
    seed: Annotated[int, Flag(panel=OPTIMISATION)] = Field(
        0, ge=0, description="seed of the players, the weights and the order of the data"
    )
    device: Annotated[str, Flag(panel=EXECUTION)] = Field("cpu", description="cpu or cuda")
    threads: Annotated[int | None, Flag(panel=EXECUTION, default="torch's choice")] = Field(
        None, ge=1, description="number of torch threads"
    )
    logging_steps: Annotated[int, Flag(panel=EXECUTION)] = Field(10, ge=1, description="steps between logged losses")
    report_to: Annotated[tuple[str, ...], Flag(panel=EXECUTION)] = Field(
        (), description="experiment tracker (of transformers): wandb, tensorboard, mlflow, ..., all or none; may be repeated"
    )


def train_base(
    config: BaseConfig, out: Path, *, resume: bool = False, progress: Callable[[], Any] | None = None
) -> TrainingResult:
    """Train the base model on every token of the transcripts.

    Args:
        config: number of games, and the shape of the model.
        out: the folder of the model.
        resume: go on from the newest whole checkpoint in `out`.
        progress: makes a callback of transformers that shows how far it is.

    Raises:
        UsageError: `out` holds something else.
        MissingExtraError: the libraries for training are not installed.
    """
    require_training()
    require_trackers(config.report_to)
    from cotbench.baselines.tiny import corpus
    from cotbench.baselines.tiny.model import tiny_elicitation

    record = {
        "recipe": NAME,
        "config": config.model_dump(mode="json"),
        "data": {"games": config.games, "first": corpus.tasks(1)[0], "envs": {corpus.ENV: config.games}},
        "elicitations": {corpus.ENV: tiny_elicitation().fingerprint},
        **provenance(),
    }
    with training_folder(out, record, resume=resume):
        return _train(config, record, out, progress)


def _train(config: BaseConfig, record: dict[str, Any], out: Path, progress: Callable[[], Any] | None) -> TrainingResult:
    from cotbench.baselines.tiny import corpus
    from cotbench.baselines.tiny.model import new_model, new_tokenizer
    from cotbench.baselines.training import loop
    from cotbench.baselines.training.dataset import PackedDataset, trees_of_texts
    from cotbench.baselines.training.model import make_trainable

    loop.set_up_torch(config.threads, config.seed)
    transcripts = list(corpus.transcripts(config.games, config.seed))
    tokenizer = new_tokenizer(transcripts)
    model = new_model(hidden=config.hidden, layers=config.layers, vocabulary=len(tokenizer), seed=config.seed)
    for settings in (model.config, model.generation_config):
        settings.eos_token_id = settings.pad_token_id = tokenizer.eos_token_id
    trainable = make_trainable(model.to(config.device), tokenizer, {})
    trees = [text_tree(one, trainable.chat) for one in transcripts]
    options = TrainingOptions(
        learning_rate=config.learning_rate,
        lr_schedule="linear",
        weight_decay=0.1,
        betas=(0.9, 0.95),
        seed=config.seed,
        logging_steps=config.logging_steps,
        report_to=config.report_to,
    )
    args = loop.trainer_arguments(options, out, model)
    sizes = [[tree.tokens] for tree in trees]
    steps = make_steps(
        sizes,
        unit="episode",
        batch=config.batch_size,
        epochs=config.epochs,
        seed=config.seed,
        tokens=_TOKENS,
        processes=args.world_size,
    )
    record = {**record, "examples": {"examples": len(trees)}, "steps": len(steps)}
    write_begun(out, record)
    # A branch's opened tag has no weight and does not count either.
    dataset = PackedDataset(steps, trees_of_texts(trees), args.world_size, normalisation="remaining")
    measured = loop.train(trainable, dataset, args, record, out, (), progress)
    return TrainingResult(out, len(steps), measured, len(trees), 0)


def text_tree(transcript: Demonstration, chat: Any) -> Tree:
    """Return a transcript as a tree whose loss counts every token but those of the instructions.

    The trunk is the transcript without traces, as evaluation shows a history; an action that has a trace is a branch too: the
    trace and the action again, as evaluation has them written at that state.

    Args:
        transcript: an episode as a demonstration.
        chat: the model's tokenizer and template.
    """
    from cotbench.agents.tokenization.token_ids import answer_pieces
    from cotbench.baselines.tiny.model import tiny_elicitation

    elicitation, last = tiny_elicitation(), len(transcript.actions) - 1
    messages = elicitation.messages(transcript.dialogue(last), "cot")
    system = len(chat.encode(messages[0].content))
    ids = [*chat.prompt_ids(messages), *chat.encode(elicitation.past_answer(transcript.actions[last], None))]
    branches = []
    for step, (action, trace) in enumerate(zip(transcript.actions, transcript.traces, strict=True)):
        if trace is not None:
            at = len(chat.prompt_ids(elicitation.messages(transcript.dialogue(step), "cot")))
            answer = [id_ for _, piece in answer_pieces(chat, trace, action, ended=True) for id_ in piece]
            # Evaluation opens the tag, so nothing has to predict it.
            branches.append(Branch(at, tuple(answer), (0.0,) + (1.0,) * (len(answer) - 1)))
    return Tree(tuple(ids), tuple(branches), (0.0,) * (system + 1) + (1.0,) * (len(ids) - system - 1))


def _cost(config: BaseConfig, sizes: TokenSizes, episodes: int) -> float:
    """Return about how many tokens are read; the data is its own, whatever a study has."""
    from cotbench.baselines.tiny import corpus

    return config.epochs * config.games * (sizes.first_prompt + corpus.STEPS * (sizes.step + corpus.TRACES * sizes.answer))


BASE = Recipe(
    name=NAME,
    description="pretraining of tiny: on transcripts of generated games, some actions after a short trace",
    config=BaseConfig,
    run=train_base,
    cost=_cost,
    stages=lambda config: (),
    arm=False,
)
