"""`cotbench train`: a model that learns from traces, with or without reduced action supervision."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cotbench.cli.flags import WRITTEN, History, ObservationChars, Resume, Style, TraceTokens

_LEARNED, _MASKED, _STEPPED = "What is learned", "Reduced action supervision", "How it is trained"
_SHARE = {"min": 0, "max": 1}


def train(
    recipe: Annotated[
        str | None,
        typer.Option(
            help="sft; sft+ (mask fraction 0.3); base (the model that tiny begins as).",
            show_default="sft",
            rich_help_panel=_LEARNED,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="What is trained: hub name, alias, folder, smollm2, tiny.", rich_help_panel=_LEARNED),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="Traces: a folder of cotbench traces, a .jsonl or a .parquet file; may be repeated.",
            show_default="with --model tiny: made for it",
            rich_help_panel=_LEARNED,
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Values in place of the defaults: paper, tiny.", show_default="paper; tiny for tiny", rich_help_panel=_LEARNED
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file with the same names; what is typed wins.", rich_help_panel=_LEARNED)
    ] = None,
    mask_fraction: Annotated[
        float | None,
        typer.Option(**_SHARE, help="Share k of the examples with masked action.", show_default="0", rich_help_panel=_MASKED),
    ] = None,
    mask_select: Annotated[
        str | None,
        typer.Option(help="random, confident, revised or per-task.", show_default="random", rich_help_panel=_MASKED),
    ] = None,
    mask_schedule: Annotated[
        str | None,
        typer.Option(help="constant, per-epoch, warmup or anneal.", show_default="constant", rich_help_panel=_MASKED),
    ] = None,
    action_weight: Annotated[
        float | None,
        typer.Option(**_SHARE, help="What a masked token still counts.", show_default="0", rich_help_panel=_MASKED),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="How often the data is gone through.", show_default="5", rich_help_panel=_STEPPED)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", "--lr", help="Of AdamW.", show_default="1e-5", rich_help_panel=_STEPPED)
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch-size", "-b", min=1, help="Decisions a step.", show_default="16", rich_help_panel=_STEPPED),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            help="What is drawn: decision, or episode (computed as one tree).",
            show_default="decision",
            rich_help_panel=_STEPPED,
        ),
    ] = None,
    lr_schedule: Annotated[
        str | None, typer.Option(help="constant, linear or cosine.", show_default="constant", rich_help_panel=_STEPPED)
    ] = None,
    warmup: Annotated[
        float | None,
        typer.Option(help="Share of the steps in which the rate rises.", show_default="0.03", rich_help_panel=_STEPPED),
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(min=0, help="Of AdamW.", show_default="0", rich_help_panel=_STEPPED)
    ] = None,
    ema_decay: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Save a running average of the weights, of this decay.",
            show_default="0",
            rich_help_panel=_STEPPED,
        ),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(min=64, help="Tokens of the longest example.", show_default="the model's", rich_help_panel=_STEPPED),
    ] = None,
    max_tokens_per_forward: Annotated[
        int | None,
        typer.Option(min=64, help="Tokens in the model at once.", show_default="8192", rich_help_panel=_STEPPED),
    ] = None,
    lora_rank: Annotated[
        int | None, typer.Option(min=1, help="Train a LoRA adapter of this rank.", rich_help_panel=_STEPPED)
    ] = None,
    lora_alpha: Annotated[float | None, typer.Option(help="Its scale.", show_default="32", rich_help_panel=_STEPPED)] = None,
    gradient_checkpointing: Annotated[
        bool | None, typer.Option("--gradient-checkpointing", help="Less memory, more time.", rich_help_panel=_STEPPED)
    ] = None,
    checkpoints: Annotated[
        str | None,
        typer.Option(help="After which shares.", show_default="0.2,0.4,0.6,0.8,1", rich_help_panel=_STEPPED),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Of the order, the masks, new weights.", show_default="0", rich_help_panel=_STEPPED),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            "-o",
            metavar="NAME=VALUE",
            help="Any option of the recipe, as the TOML file would have it; may be repeated.",
            rich_help_panel=_STEPPED,
        ),
    ] = None,
    elicitation: Style = None,
    trace_tokens: TraceTokens = None,
    history: History = None,
    observation_chars: ObservationChars = None,
    out: Annotated[Path | None, typer.Option(help="The folder of the trained model.", rich_help_panel=WRITTEN)] = None,
    resume: Resume = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda.", show_default="auto", rich_help_panel=WRITTEN)] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="torch's threads.", show_default="torch's choice", rich_help_panel=WRITTEN)
    ] = None,
    report_to: Annotated[
        list[str] | None, typer.Option(help="A tracker: wandb, tensorboard, ...; may be repeated.", rich_help_panel=WRITTEN)
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the recipe card instead.", rich_help_panel=WRITTEN)] = False,
) -> int:
    """Train a model on traces: checkpoints are loaded as hf:OUT/checkpoint-N, the last state as hf:OUT."""
    from cotbench.cli.options import check_choices, only_given
    from cotbench.prompting.elicitation import Elicitation

    asked = only_given(
        {"style": elicitation, "trace_tokens": trace_tokens, "history": history, "observation_chars": observation_chars}
    )
    check_choices(Elicitation, asked)
    given = options_of(option or []) | only_given(
        {
            "model": model,
            "data": tuple(data) if data else None,
            "mask_fraction": mask_fraction,
            "mask_select": mask_select,
            "mask_schedule": mask_schedule,
            "action_weight": action_weight,
            "epochs": epochs,
            "learning_rate": learning_rate,
            "batch_size": batch,
            "unit": unit,
            "lr_schedule": lr_schedule,
            "warmup": warmup,
            "weight_decay": weight_decay,
            "ema_decay": ema_decay,
            "max_length": max_length,
            "max_tokens_per_forward": max_tokens_per_forward,
            "lora_rank": lora_rank,
            "lora_alpha": lora_alpha,
            "gradient_checkpointing": gradient_checkpointing,
            "checkpoints": None if checkpoints is None else _shares(checkpoints),
            "seed": seed,
            "elicitation": asked or None,
            "device": device,
            "threads": threads,
            "report_to": tuple(report_to) if report_to else None,
        }
    )
    return _train(recipe, preset, config, given, (out, resume), json_)


def _train(
    recipe: str | None,
    preset: str | None,
    file: Path | None,
    given: dict[str, Any],
    where: tuple[Path | None, str | None],
    as_json: bool,
) -> int:
    import sys

    from cotbench.baselines.recipes.require import require_training
    from cotbench.cli.options import emptied
    from cotbench.cli.playing import resume_folder
    from cotbench.errors import UsageError
    from cotbench.recipes import recipe_named

    begun = resume_folder(where[1], where[0])
    if recipe is not None:
        recipe_named(recipe)
    target = begun or where[0]
    if target is None:
        raise UsageError("--out is missing: the folder of the trained model")
    require_training()
    from cotbench.baselines.recipes import resolve
    from cotbench.baselines.training.recipe_card import first_process
    from cotbench.baselines.training.trainer import CARD

    plan = resolve.resolve_config(recipe, preset, file, given, begun)
    again = f"cotbench train --resume {target}"
    try:
        _teach_tiny(plan, quiet=as_json)
        with emptied(target):
            trained = resolve.run_recipe(plan, target, resume=begun is not None, progress=progress(quiet=as_json))
    except KeyboardInterrupt:
        print(f"interrupted; the checkpoints are kept: {again}", file=sys.stderr)
        return 130
    if not first_process():
        return 0
    if as_json:
        typer.echo((target / CARD).read_text("utf-8"), nl=False)
    else:
        typer.echo(trained.summary_line)
        typer.echo(f"play it with: cotbench run --agent hf:{_shown(target)}")
    return 0


def _teach_tiny(plan: Any, *, quiet: bool) -> None:
    """Play the episodes that tiny is taught with, where no data was given and the cache does not hold them."""
    from functools import partial

    from cotbench.baselines.tiny.demonstrations import TINY_DATA, tiny_demonstrations
    from cotbench.baselines.training.recipe_card import first_process
    from cotbench.cli.progress import progress as watch

    if TINY_DATA in getattr(plan.config, "data", ()) and first_process():
        tiny_demonstrations(partial(watch, quiet=quiet))


def options_of(options: list[str]) -> dict[str, Any]:
    """Options as TOML; a value that is no TOML is a text."""
    import tomllib

    from cotbench.errors import UsageError

    found: dict[str, Any] = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise UsageError(f"--option {text}: write it as NAME=VALUE, such as betas=[0.9,0.95]")
        try:
            found[name.strip()] = tomllib.loads(f"value = {value}")["value"]
        except (tomllib.TOMLDecodeError, KeyError):
            found[name.strip()] = value
    return found


def _shown(target: Path) -> str:
    return str(target) if str(target).startswith((".", "/", "~")) else f"./{target}"


def _shares(text: str) -> tuple[float, ...]:
    from cotbench.errors import UsageError

    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if not shares or not all(0 < share <= 1 for share in shares):
        raise UsageError(f"--checkpoints {text}: give shares of the training between 0 and 1, such as 0.25,0.5,1")
    return shares


def progress(*, quiet: bool) -> Any:
    """Makes the callback that shows how far a training is, on standard error; None where nothing is to be shown."""
    import sys

    if quiet and not sys.stderr.isatty():
        return None
    from cotbench.cli.train_progress import Shown

    return Shown
