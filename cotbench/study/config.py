"""The settings of a study. Invariant: a study file names everything that its numbers depend on; settings of speed (jobs) are
not in it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cotbench.envs.registry import env_entry
from cotbench.errors import UnknownNameError, UsageError
from cotbench.flags import with_contents
from cotbench.probes.probe import probe_named
from cotbench.prompting.elicitation import Elicitation

PRESETS = ("smoke", "tiny", "tiny-rl", "small", "paper", "paper-scripted")
"""Studies that come with the package: `cotbench study NAME`."""

_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
_NAME = r"^[A-Za-z0-9][A-Za-z0-9+._-]*$"


class Traces(BaseModel):
    """The episodes that the arms are trained on."""

    model_config = _STRICT

    teacher: str = Field("scripted", description="spec of an agent that wins")
    episodes: int | None = Field(None, ge=1, description="number of episodes of split train; default: all")
    seed: int = Field(0, ge=0, description="seed of the draw of episodes and of the teacher")


class Pairs(BaseModel):
    """The preference pairs that the arms are trained on whose recipe needs some."""

    model_config = _STRICT

    samples: int = Field(4, ge=1, description="answers sampled at each state")
    states: int | None = Field(None, ge=1, description="number of states, drawn by the seed; default: all")


def _usual_pairs(pairs: Pairs) -> bool:
    return pairs == Pairs()


class ArmTraces(BaseModel):
    """What an arm is trained on, where that is not what the others are trained on; None: as in the study's traces."""

    model_config = _STRICT

    teacher: str | None = Field(None, description="spec of an agent that wins")
    episodes: int | None = Field(None, ge=1, description="number of episodes of split train")
    seed: int | None = Field(None, ge=0, description="seed of the draw of episodes and of the teacher")

    @property
    def changes(self) -> dict[str, Any]:
        """What differs from the study's traces; not the fields that "were set": a study's folder holds all of them."""
        return self.model_dump(exclude_none=True)


class Arm(BaseModel):
    """One way to train."""

    model_config = _STRICT

    name: str = Field(pattern=_NAME, description="name in file names and figures")
    recipe: str = Field("sft", description="recipe of cotbench train")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the recipe, in addition to those of [train]")
    traces: ArmTraces | None = Field(None, description="the training data; what is omitted is as in the study's [traces]")
    elicitation: dict[str, Any] = Field(
        default_factory=dict, description="elicitation settings of the arm that differ from the study's [elicitation]"
    )
    seeds: tuple[int, ...] | None = Field(None, min_length=1, description="the seeds of the study that the arm is trained with")

    def seeds_of(self, all_seeds: tuple[int, ...]) -> tuple[int, ...]:
        """Return the seeds that the arm is trained with.

        Args:
            all_seeds: the study's.
        """
        return all_seeds if self.seeds is None else self.seeds


class Where(BaseModel):
    """Limits a measurement to some checkpoints, arms, seeds and splits; all of them where left out."""

    model_config = _STRICT

    checkpoints: tuple[float, ...] | None = Field(None, description="fractions of the training; 0: the model before training")
    arms: tuple[str, ...] | None = Field(None, description="names of arms; the model before training belongs to all of them")
    seeds: tuple[int, ...] | None = Field(None, description="seeds of the training")
    splits: tuple[str, ...] | None = Field(None, description="names of splits")

    def holds(self, arm: str | None, seed: int | None, checkpoint: float, split: str) -> bool:
        """Return whether the measurement is made at this place.

        Args:
            arm: None for the model before training.
            seed: seed of the training; None for the model before training.
            checkpoint: share of the training.
            split: name of the split.
        """
        return (
            (self.checkpoints is None or checkpoint in self.checkpoints)
            and (self.arms is None or arm is None or arm in self.arms)
            and (self.seeds is None or seed is None or seed in self.seeds)
            and (self.splits is None or split in self.splits)
        )


class Runs(Where):
    """Episodes that are played, and where."""

    episodes: int | None = Field(None, ge=1, description="number of tasks of each split; default: all")
    max_steps: int | None = Field(None, ge=1, description="step budget; default: the environment's")
    seed: int = Field(0, ge=0, description="seed of the draw of tasks")


class ProbeAt(Where):
    """A probe, and where it is applied."""

    probe: str = Field(description="name of the probe (cotbench list probes)")
    states: int = Field(200, ge=1, description="number of states of each split, drawn by the seed")
    states_by_split: dict[str, int] = Field(default_factory=dict, description="number of states by split, where it differs")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the probe")
    seed: int = Field(0, ge=0, description="seed of the draw and pairing of states")

    @model_validator(mode="after")
    def _known(self) -> Self:
        probe_named(self.probe)  # Raises where no probe has this name.
        return self

    def count(self, split: str) -> int:
        """Return how many states of a split are probed."""
        return self.states_by_split.get(split, self.states)


class StudyConfig(BaseModel):
    """A study: models x arms x seeds, checkpoints x splits, and the measurements."""

    model_config = _STRICT

    name: str = Field(pattern=_NAME, description="name of the study")
    about: str = Field("", description="one line for the report")
    models: tuple[str, ...] = Field(min_length=1, description="models to train")
    envs: dict[str, tuple[str, ...]] = Field(min_length=1, description="environment -> splits to measure")
    scheme: str = Field("paper", description="split scheme")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="training seeds")
    checkpoints: tuple[float, ...] = Field(
        (0.0, 0.25, 0.5, 0.75, 1.0), description="fractions of the training; 0: before training"
    )
    reference: str = Field("scripted", description="agent that wins: its states and actions are the reference")
    elicitation: dict[str, Any] = Field(default_factory=dict, description="elicitation settings that differ from the defaults")
    traces: Traces = Traces()
    # Left out of dumps at its defaults: the files of earlier studies have none.
    pairs: Pairs = Field(Pairs(), exclude_if=_usual_pairs)
    train: dict[str, Any] = Field(
        default_factory=dict,
        description="options of cotbench train, for every arm; those of learning, such as the learning rate and epochs, not "
        "for an arm that begins from another arm's end",
    )
    arms: tuple[Arm, ...] = Field(min_length=1, description="arms: one recipe with its options each")
    runs: tuple[Runs, ...] = Field((Runs(),), description="runs: which episodes are played")
    probes: tuple[ProbeAt, ...] = Field((), description="probes: what is measured at which states")
    margin: float = Field(0.1, gt=0, lt=1, description="equivalence margin: a gap that changes by less is flat")
    format_kept: float = Field(
        0.9, ge=0, le=1, description="fraction of answers in the right format from which on a series begins"
    )
    threads: int | None = Field(None, ge=1, description="number of torch threads per job")
    agent_options: dict[str, str] = Field(default_factory=dict, description="options of hf: agents, such as dtype")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        arms = [arm.name for arm in self.arms]
        _unique("arm", arms)
        _unique("seed", [str(seed) for seed in self.seeds])
        bad = [share for share in self.checkpoints if not 0 <= share <= 1]
        if bad or len(set(self.checkpoints)) < len(self.checkpoints) or not self.checkpoints:
            raise ValueError("checkpoints are different shares of the training, from 0 (before it) to 1 (its end)")
        for env, splits in self.envs.items():
            known = env_entry(env).source().schemes().get(self.scheme)
            if known is None:
                raise UnknownNameError("scheme", self.scheme, env_entry(env).source().schemes(), f"of {env}")
            for split in splits:
                if split not in known:
                    raise UnknownNameError("split", split, known, f"of {env} {self.scheme}")
            for arm in (None, *arms):
                _elicitation(env, self.elicitation_of(arm), "study" if arm is None else f"arm {arm}")
        for one in self.arms:
            _among("seed", one.seeds, self.seeds)
        splits_ = {split for splits in self.envs.values() for split in splits}
        for one in self.arms:
            if one.traces is not None and not one.traces.changes:
                raise UsageError(f"arm {one.name}: its traces are empty: name a teacher, episodes or seed, or omit them")
        for where in (*self.runs, *self.probes):
            _among("arm", where.arms, arms)
            _among("split", where.splits, splits_)
            _among("seed", where.seeds, self.seeds)
            _among("checkpoint", where.checkpoints, self.checkpoints)
        return self

    def arm(self, name: str) -> Arm:
        """Return the arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)

    def traces_of(self, arm: str) -> Traces:
        """Return what an arm is trained on: the study's traces, with what the arm says of its own."""
        own = self.arm(arm).traces
        return self.traces if own is None else self.traces.model_copy(update=own.changes)

    def elicitation_of(self, arm: str | None) -> dict[str, Any]:
        """Return how an arm's answers are asked for: as the study says, with what the arm says of its own.

        Args:
            arm: its name; None for the study's own elicitation.
        """
        return self.elicitation if arm is None else {**self.elicitation, **self.arm(arm).elicitation}

    def elicited_as(self, arm: str | None) -> str | None:
        """Return the first arm whose answers are asked for as this arm's are; None where that is as the study says.

        Arms for which this is the same share the model before training; others are not compared without saying so.

        Args:
            arm: its name; None for the study's own elicitation.
        """
        return self._elicited_as[arm]

    @cached_property
    def _elicited_as(self) -> dict[str | None, str | None]:
        names = (None, *(arm.name for arm in self.arms))
        resolved = {name: [_elicitation(env, self.elicitation_of(name), "study") for env in self.envs] for name in names}
        return {arm: next(name for name in names if resolved[name] == resolved[arm]) for arm in names}


def _elicitation(env: str, options: Mapping[str, Any], where: str) -> Elicitation:
    """Return an environment's elicitation with some options.

    Raises:
        UsageError: a name or a value that does not fit.
    """
    for name in options:
        if name not in Elicitation.model_fields:
            raise UnknownNameError("elicitation option", name, Elicitation.model_fields, f"of {where}")
    try:
        return Elicitation.for_env(env, **options)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{where}: elicitation.{first['loc'][-1]} {first['input']}: {first['msg']}") from error


def _unique(what: str, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two {what}s have the name {twice!r}")


def _among(kind: str, names: Sequence[Any] | None, known: Any) -> None:
    for name in names or ():
        if name not in known:
            raise UnknownNameError(kind, str(name), [str(one) for one in known], "of this study")


def read_study(named: str) -> StudyConfig:
    """Return a study by the name of a preset, or from its TOML file.

    Args:
        named: a preset, or the path of a file.

    Raises:
        UsageError: no such file or preset, not TOML, or a value that does not fit; with near matches where it is a name.
    """
    if named in PRESETS:
        return parse_study(resources.files("cotbench.study").joinpath(f"presets/{named}.toml").read_text("utf-8"), named)
    path = Path(named)
    if path.suffix != ".toml" and not path.exists():
        raise UnknownNameError("study", named, PRESETS, "(a preset, or a TOML file)")
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise UsageError(f"study file {named}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"study file {named} is not text: give a TOML file") from error
    return parse_study(text, named, path.parent)


def parse_study(text: str, named: str, folder: Path = Path()) -> StudyConfig:
    """Return a study from the text of its file.

    Args:
        text: TOML.
        named: preset or path; for messages.
        folder: where the files lie that it names.

    Raises:
        UsageError: not TOML, or a value that does not fit.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"study file {named} is not TOML: {error}") from error
    arms = values.get("arms")
    for table in (values, *(arms if isinstance(arms, list) else ())):
        if isinstance(table, dict) and isinstance(table.get("elicitation"), dict):
            table["elicitation"] = with_contents(Elicitation, table["elicitation"], folder)
    try:
        return StudyConfig.model_validate(values)
    except ValidationError as error:
        raise _usage_error(error, named) from error


def _usage_error(error: ValidationError, named: str) -> UsageError:
    errors = error.errors()
    first = next(
        (one for one in errors if one["type"] == "extra_forbidden"), errors[0]
    )  # A misspelt name also leads to a missing one, which is less helpful.
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return UnknownNameError("option", place, _names_beside(first["loc"]), f"of study {named}")
    message = first["msg"].removeprefix("Value error, ")
    return UsageError(f"study {named}: {place or 'whole'}: {message}")


def _names_beside(place: Sequence[int | str]) -> list[str]:
    """Return the names that are valid at a place, written as the place is."""
    parents: dict[str, type[BaseModel]] = {"traces": Traces, "pairs": Pairs, "arms": Arm, "runs": Runs, "probes": ProbeAt}
    tables = [parents[part] for part in map(str, place[:-1]) if part in parents]  # arms.0.traces.name: the last one.
    model = tables[-1] if tables else StudyConfig
    before = "".join(f"{part}." for part in place[:-1])
    return [f"{before}{name}" for name in model.model_fields]
