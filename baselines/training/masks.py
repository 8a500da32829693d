"""Reduced action supervision: which examples are masked, and the loss weight of their tokens. Invariant: every example has one
place between 0 and 1, that depends on the ids, the seed, the epoch and the scores alone, and is masked where its place is not
above the fraction; so a larger fraction masks everything that a smaller one masks, and the masks follow from the stored places.

Source: paper, "reduced action supervision". Masking takes the action's tokens out of the loss; the trace, all tags (the opening
action tag too) and the end of the turn stay supervised, the last two unless `mask_closing` is set. Selection, schedule and the
soft form `action_weight` are ours. The opposite intervention, ActFocus (arXiv 2605.14558), weighs the reasoning down:
`trace_weight` below 1, or `action_weight` above 1 with a fraction of 1.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cotbench.errors import UnknownNameError, UsageError
from cotbench.flags import MASKING, OPTIMISATION, Flag

if TYPE_CHECKING:
    from cotbench.baselines.data.examples import Example

MaskSelect = Literal["random", "confident", "likely", "revised", "per-task"]
MaskSchedule = Literal["constant", "per-epoch", "warmup", "anneal"]
LossNormalisation = Literal["all", "remaining"]

_CHOICES = {"mask_select": MaskSelect, "mask_schedule": MaskSchedule, "loss_normalisation": LossNormalisation}


@dataclass(frozen=True, slots=True)
class Score:
    """What the base model makes of an example's action; each number is needed by some selections only.

    Attributes:
        prompt: log-probability (nats) from the prompt alone.
        cot: log-probability (nats) after the example's trace.
        matches: whether the base model's greedy prompt action is the example's action.
    """

    prompt: float | None = None
    cot: float | None = None
    matches: bool | None = None


class MaskConfig(BaseModel):
    """Options of the masks: which examples have their actions masked, when, and what each kind of token weighs in the loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mask_fraction: Annotated[float, Flag(panel=MASKING)] = Field(
        0.0, description="fraction k of the examples whose action is masked, from 0 to 1"
    )
    mask_select: Annotated[MaskSelect, Flag(panel=MASKING)] = Field(
        "random",
        description="which examples are masked first. random; confident: action = the base model's greedy prompt action; "
        "likely: actions most probable from the prompt alone; revised: actions that the trace makes more probable; "
        "per-task: whole tasks, drawn at random",
    )
    mask_schedule: Annotated[MaskSchedule, Flag(panel=MASKING)] = Field(
        "constant",
        description="constant: the same examples throughout; per-epoch: redrawn each epoch; warmup: the fraction rises "
        "from 0 over the training; anneal: it falls to 0",
    )
    mask_closing: Annotated[bool, Flag(panel=MASKING)] = Field(
        False, description="also mask the closing tag and the end of turn after a masked action"
    )
    action_weight: Annotated[float, Flag(panel=MASKING)] = Field(
        0.0, description="loss weight of a masked action's tokens; above 1, with --mask-fraction 1, of every action's"
    )
    trace_weight: Annotated[float, Flag(panel=MASKING)] = Field(
        1.0, description="loss weight of the trace tokens (without the tags)"
    )
    loss_normalisation: Annotated[LossNormalisation, Flag(panel=MASKING)] = Field(
        "all",
        description="what the loss of a step is divided by. all: the number of answer tokens (recipe dpo: of pairs; frodo: of "
        "states), masked or not; remaining: the number of those that the masks leave in the loss, so that these weigh more",
    )
    seed: Annotated[int, Flag(panel=OPTIMISATION)] = Field(0, ge=0, description="seed of the choice of masked examples")

    @field_validator("mask_fraction")
    @classmethod
    def _share(cls, value: float, info: Any) -> float:
        if not 0 <= value <= 1:
            raise UsageError(f"{info.field_name}={value}: give a number from 0 to 1")
        return value

    @field_validator("action_weight", "trace_weight")
    @classmethod
    def _finite(cls, value: float, info: Any) -> float:
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{info.field_name}={value}: give a number of at least 0")
        return value

    @field_validator(*_CHOICES, mode="before")
    @classmethod
    def _known(cls, value: Any, info: Any) -> Any:
        names = get_args(_CHOICES[info.field_name])
        if isinstance(value, str) and value not in names:
            raise UnknownNameError(info.field_name, value, names)
        return value

    @model_validator(mode="after")
    def _drawn(self) -> Self:
        if self.mask_schedule == "per-epoch" and self.mask_select != "random":
            raise UsageError(
                f"mask_schedule=per-epoch draws at random, but mask_select={self.mask_select} does not: "
                "use mask_select=random, or mask_schedule=constant"
            )
        return self

    @property
    def needs_scores(self) -> bool:
        """True if the examples must have been scored by the base model."""
        return self.mask_fraction > 0 and self.mask_select in ("confident", "likely", "revised")


def rank(
    examples: Sequence[tuple[str, str]],
    select: MaskSelect,
    seed: int,
    epoch: int = 0,
    scores: Mapping[str, Score] | None = None,
) -> dict[str, float]:
    """Return the place of each example, those first that are masked first; the order of the examples does not matter.

    An example is masked where its place is not above the fraction k: of n examples that masks k n, rounded half up. `per-task`
    masks whole tasks: as many as come nearest to k n.

    Args:
        examples: id and task of each.
        select: what decides the order; equal scores are put in random order.
        seed: of the random order.
        epoch: another epoch, another random order.
        scores: of each id, for `confident` (those that match first), `likely` (largest `prompt` first) and `revised` (largest
            `cot - prompt` first).

    Raises:
        UsageError: an id stands for two examples or has no score, or all examples are of the only task.
    """
    tasks = dict(examples)
    if len(tasks) < len(examples):
        twice = next(id_ for id_, count in Counter(id_ for id_, _ in examples).items() if count > 1)
        raise UsageError(f"two examples have the id {twice}: give each its own task or step")
    drawing = random.Random(f"cotbench-mask-{seed}-{epoch}")
    units: list[list[str]]
    if select == "per-task":
        units = _ids_by_task(tasks)
        drawing.shuffle(units)
    else:
        order = sorted(tasks)
        drawing.shuffle(order)
        if select != "random":
            order.sort(key=lambda id_: -_priority(id_, select, scores))  # Stable: ties stay as they were drawn.
        units = [[id_] for id_ in order]
    places: dict[str, float] = {}
    for unit in units:
        # The unit's middle: it is masked from the fraction on at which masking it comes nearer than not masking it.
        places |= dict.fromkeys(unit, (len(places) + len(unit) / 2) / len(tasks))
    return places


def _ids_by_task(tasks: Mapping[str, str]) -> list[list[str]]:
    members: dict[str, list[str]] = {}
    for id_ in sorted(tasks):
        members.setdefault(tasks[id_], []).append(id_)
    if len(members) == 1:
        raise UsageError(f"mask_select=per-task: all examples are of task {next(iter(members))!r}; use mask_select=random")
    return [members[task] for task in sorted(members)]


def _priority(id_: str, select: MaskSelect, scores: Mapping[str, Score] | None) -> float:
    score = (scores or {}).get(id_)
    if score is None:
        raise UsageError(f"mask_select={select} needs the base model's score of every action, {id_} has none: score the data")
    missing = UsageError(f"mask_select={select} needs another score of every action, {id_} has none: score the data for it")
    if select == "confident":
        if score.matches is None:
            raise missing
        return float(score.matches)
    if score.prompt is None or (select == "revised" and score.cot is None):
        raise missing
    priority = score.prompt if select == "likely" or score.cot is None else score.cot - score.prompt
    if math.isnan(priority):
        raise UsageError(f"mask_select={select}: the score of {id_} is not a number; score the data again, in float32")
    return priority


def fraction_at(schedule: MaskSchedule, fraction: float, progress: float) -> float:
    """Return the share of the examples that is masked at a point of the training.

    `warmup` and `anneal` are straight lines: over the whole training they mask half the fraction.

    Args:
        schedule: of the fraction.
        fraction: the full fraction, from 0 to 1.
        progress: share of the training that is done, from 0 to 1.

    Raises:
        ValueError: `progress` lies outside.
    """
    if not 0 <= progress <= 1:
        raise ValueError(f"progress is a share of the training, not {progress}")
    if schedule == "warmup":
        return fraction * progress
    if schedule == "anneal":
        return fraction * (1 - progress)
    return fraction


@dataclass(frozen=True, slots=True)
class Masks:
    """Masks of one training.

    Attributes:
        config: how they are chosen.
        examples: id and task of each example.
        scores: of each id, where the config needs them.

    Raises:
        UsageError: as `rank`.
    """

    config: MaskConfig
    examples: tuple[tuple[str, str], ...]
    scores: Mapping[str, Score] | None = None
    _ranks: dict[int, dict[str, float]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.places(0)  # So that errors in the examples are raised before the training.

    @classmethod
    def of(cls, config: MaskConfig, examples: Iterable[Example], scores: Mapping[str, Score] | None = None) -> Self:
        """Return the masks for these examples.

        Args:
            config: how they are chosen.
            examples: all examples of the training.
            scores: of each id, where the config needs them.
        """
        return cls(config, tuple((example.id, example.task) for example in examples), scores)

    def weights(self, example: Example, epoch: int, progress: float) -> tuple[float, ...]:
        """Return the loss weight of each token of an example's answer.

        Args:
            example: one of the training.
            epoch, progress: as `masked` takes them.
        """
        return weights(example, self.masked(example.id, epoch, progress), self.config)

    def places(self, epoch: int) -> Mapping[str, float]:
        """Return the place of each id in an epoch (counted from 0); none where nothing is ever masked."""
        if not self.config.mask_fraction:
            return {}
        drawn = epoch if self.config.mask_schedule == "per-epoch" else 0
        if drawn not in self._ranks:
            config = self.config
            self._ranks[drawn] = rank(self.examples, config.mask_select, config.seed, drawn, self.scores)
        return self._ranks[drawn]

    def masked(self, id_: str, epoch: int, progress: float) -> bool:
        """Tell whether an example is masked.

        Args:
            id_: the example's.
            epoch: counted from 0.
            progress: how much of the whole training is done, from 0 to 1.
        """
        places = self.places(epoch)
        return bool(places) and places[id_] <= fraction_at(self.config.mask_schedule, self.config.mask_fraction, progress)

    def record(self, epochs: int) -> dict[str, Any]:
        """Return the masks as JSON data: the config, and the places of each epoch that has its own, those masked first in
        front.

        Args:
            epochs: number of epochs of the training.
        """
        drawn = range(epochs if self.config.mask_schedule == "per-epoch" else 1)
        return {
            "config": self.config.model_dump(include=set(MaskConfig.model_fields)),
            "places": [dict(self.places(epoch)) for epoch in drawn],
        }


def weights(example: Example, masked: bool, config: MaskConfig) -> tuple[float, ...]:
    """Return the loss weight of each token of an example's answer.

    Args:
        example: the example.
        masked: whether its action is masked.
        config: what an action, a trace and the closing tokens weigh.
    """
    by_label: dict[str, float] = {"trace": config.trace_weight}
    if masked:
        by_label |= dict.fromkeys(("action", "closing") if config.mask_closing else ("action",), config.action_weight)
    return tuple(by_label.get(span.label, 1.0) for span in example.spans[1:] for _ in range(span.start, span.end))
