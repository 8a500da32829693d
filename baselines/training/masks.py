"""Reduced action supervision: which examples are masked, and the loss weight of their tokens. Invariant: every example has one
place between 0 and 1, that depends on the ids, the seed, the epoch and the scores alone, and is masked where its place is not
above the fraction; so a larger fraction masks everything that a smaller one masks, and the masks follow from the stored places.

Source: paper, "reduced action supervision". Masking takes the action's tokens out of the loss; the trace, all tags (the opening
action tag too) and the end of the turn stay supervised. Selection, schedule and the soft form `action_weight` are ours.
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

MaskSelect = Literal["random", "confident", "revised", "per-task"]
MaskSchedule = Literal["constant", "per-epoch", "warmup", "anneal"]


@dataclass(frozen=True, slots=True)
class Score:
    """Log-probabilities (nats) of an example's action under the base model.

    Attributes:
        prompt: from the prompt alone.
        cot: after the example's trace; needed by `revised` only.
    """

    prompt: float
    cot: float | None = None


class MaskConfig(BaseModel):
    """Options of the masks: which examples have their actions masked, when, and how much of an action is left."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mask_fraction: Annotated[float, Flag(panel=MASKING)] = Field(
        0.0, description="fraction k of the examples whose action is masked, from 0 to 1"
    )
    mask_select: Annotated[MaskSelect, Flag(panel=MASKING)] = Field(
        "random",
        description="which are masked first. random; confident: those whose action the base model expects from the prompt "
        "alone; revised: those whose action the trace makes likelier; per-task: whole tasks, drawn at random",
    )
    mask_schedule: Annotated[MaskSchedule, Flag(panel=MASKING)] = Field(
        "constant",
        description="constant: the same examples throughout; per-epoch: drawn anew each epoch; warmup: the fraction rises "
        "from 0 over the training; anneal: it falls to 0",
    )
    action_weight: Annotated[float, Flag(panel=MASKING)] = Field(
        0.0, description="loss weight of a masked action's tokens, from 0 to 1"
    )
    seed: Annotated[int, Flag(panel=OPTIMISATION)] = Field(0, ge=0, description="decides which examples are masked")

    @field_validator("mask_fraction", "action_weight")
    @classmethod
    def _share(cls, value: float, info: Any) -> float:
        if not 0 <= value <= 1:
            raise UsageError(f"{info.field_name}={value}: give a number from 0 to 1")
        return value

    @field_validator("mask_select", "mask_schedule", mode="before")
    @classmethod
    def _known(cls, value: Any, info: Any) -> Any:
        names = get_args({"mask_select": MaskSelect, "mask_schedule": MaskSchedule}[info.field_name])
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
        return self.mask_fraction > 0 and self.mask_select in ("confident", "revised")


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
        scores: of each id, for `confident` (largest `prompt` first) and `revised` (largest `cot - prompt` first).

    Raises:
        UsageError: an id stands for two examples or has no score, or all examples are of the only task.
    """
    tasks = dict(examples)
    if len(tasks) < len(examples):
        twice = next(id_ for id_, count in Counter(id_ for id_, _ in examples).items() if count > 1)
        raise UsageError(f"two examples are called {twice}: give each its own task or step")
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
    if select == "confident":
        priority = score.prompt
    elif score.cot is None:
        raise UsageError(f"mask_select={select} needs scores after the traces too, {id_} has none: score the data with traces")
    else:
        priority = score.cot - score.prompt
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

    @property
    def action_weight(self) -> float:
        """Loss weight of a masked action's tokens."""
        return self.config.action_weight

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


def weights(example: Example, masked: bool, action_weight: float) -> tuple[float, ...]:
    """Return the loss weight of each token of an example's answer: 1, or `action_weight` for the action of a masked example.

    Args:
        example: the example.
        masked: whether its action is masked.
        action_weight: from 0 to 1.
    """
    return tuple(
        action_weight if masked and span.label == "action" else 1.0
        for span in example.spans[1:]
        for _ in range(span.start, span.end)
    )
