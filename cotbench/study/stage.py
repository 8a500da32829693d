"""Stages: the units of a study's work. Invariant: a stage is a typed request and the folder that it fills; its key is a hash of
the request and of the keys of the stages that it uses, so that unchanged stages are never computed twice, and a change
invalidates exactly the stages that depend on it. The command line of a stage is derived from its request.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol

from cotbench.flags import to_arguments
from cotbench.probes.config import ProbeConfig
from cotbench.prompting.elicitation import Elicitation
from cotbench.runs.manifest import MANIFEST, RunConfig

FORMAT = 3
"""Incremented when the result of a request changes: then every stage is computed anew."""


@dataclass(frozen=True, slots=True)
class StageOutput:
    """The folder of another stage, or of a checkpoint in it.

    Attributes:
        stage: its name.
        checkpoint: after which share of the training; None: the stage's folder itself.
    """

    stage: str
    checkpoint: float | None = None

    def __str__(self) -> str:
        return f"{{{self.stage}}}" if self.checkpoint is None else f"{{{self.stage}@{self.checkpoint:g}}}"


@dataclass(frozen=True, slots=True)
class AgentRef:
    """An agent of a study: a model, or a checkpoint of a training.

    Attributes:
        kind: the agent's registered name, such as "hf".
        model: a model's name, or where its checkpoint comes from.
        options: of the agent, sorted by name.
    """

    kind: str
    model: str | StageOutput
    options: tuple[tuple[str, str], ...] = ()

    def spec(self, fill: Fill) -> str:
        """Return the agent's spec, with folders in the places of outputs."""
        target = fill(self.model) if isinstance(self.model, StageOutput) else self.model
        query = "&".join(f"{name}={value}" for name, value in self.options)
        return f"{self.kind}:{target}" + (f"?{query}" if query else "")


Fill = Callable[[StageOutput], str]
"""Returns the folder of an output."""


class Request(Protocol):
    """The work of a stage; a frozen dataclass whose fields are data, with `StageOutput` where another stage is used."""

    command: ClassVar[str]
    """The command of cotbench that runs it."""
    begun: ClassVar[str]
    """The file that its folder holds once it can be resumed."""

    def arguments(self, fill: Fill) -> list[str]:
        """Return the command's arguments, without the folder."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """Episodes of an agent.

    Attributes:
        config: fields of `RunConfig`, those of the elicitation left out.
        elicitation: fields of `Elicitation` that are not as usual.
    """

    command: ClassVar[str] = "run"
    begun: ClassVar[str] = MANIFEST

    agent: str | AgentRef
    config: Mapping[str, Any]
    elicitation: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self, fill: Fill) -> list[str]:
        """Return the arguments of `cotbench run`."""
        agent = self.agent if isinstance(self.agent, str) else self.agent.spec(fill)
        return to_arguments(RunConfig, {"agent": agent, **self.config, "elicitation": self.elicitation})


@dataclass(frozen=True, slots=True)
class TracesRequest:
    """Demonstrations of a teacher.

    Attributes:
        config: fields of `RunConfig`, the agent's left out.
    """

    command: ClassVar[str] = "traces"
    begun: ClassVar[str] = MANIFEST

    teacher: str
    config: Mapping[str, Any]

    def arguments(self, fill: Fill) -> list[str]:
        """Return the arguments of `cotbench traces`."""
        return ["--teacher", self.teacher, *to_arguments(RunConfig, self.config)]


@dataclass(frozen=True, slots=True)
class PairsRequest:
    """Preference pairs: a teacher's answers beside worse ones of a model.

    Attributes:
        agent: whose answers are rejected.
        data: the traces of the teacher.
        config: other options of `cotbench pairs`, by name.
        elicitation: fields of `Elicitation` that are not as usual.
    """

    command: ClassVar[str] = "pairs"
    begun: ClassVar[str] = "sampling.json"

    agent: AgentRef
    data: StageOutput
    config: Mapping[str, int]
    elicitation: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self, fill: Fill) -> list[str]:
        """Return the arguments of `cotbench pairs`."""
        words = ["--agent", self.agent.spec(fill), "--data", fill(self.data)]
        words += [word for name, value in sorted(self.config.items()) for word in (f"--{name}", str(value))]
        return [*words, *to_arguments(Elicitation, self.elicitation)]


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """A training.

    Attributes:
        options: fields of the recipe's config.
    """

    command: ClassVar[str] = "train"
    begun: ClassVar[str] = "training.json"

    recipe: str
    options: Mapping[str, Any]
    preset: str | None = None

    def arguments(self, fill: Fill) -> list[str]:
        """Return the arguments of `cotbench train`: options as TOML, so that any recipe's are written in one way."""
        words = ["--recipe", self.recipe, *([] if self.preset is None else ["--preset", self.preset])]
        for name, value in sorted(_filled(self.options, fill).items()):
            words += ["--option", f"{name}={_toml(value)}"]
        return words


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """A probe of an agent at the states of a reference's run.

    Attributes:
        states: how many.
        options: of the probe.
        answers: a probe whose rows hold the agent's answers at these states.
        elicitation: fields of `Elicitation` that are not as usual.
    """

    command: ClassVar[str] = "probe"
    begun: ClassVar[str] = MANIFEST

    probe: str
    agent: AgentRef
    reference: StageOutput
    states: int
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    answers: StageOutput | None = None
    elicitation: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self, fill: Fill) -> list[str]:
        """Return the arguments of `cotbench probe`."""
        fields = {
            "agent": self.agent.spec(fill),
            "reference": fill(self.reference),
            "states": self.states,
            "seed": self.seed,
            "answers": None if self.answers is None else fill(self.answers),
            "elicitation": self.elicitation,
        }
        options = [word for name, text in option_texts(self.options).items() for word in ("--option", f"{name}={text}")]
        return [self.probe, *to_arguments(ProbeConfig, fields), *options]


def option_texts(options: Mapping[str, Any]) -> dict[str, str]:
    """Return a probe's options as they are typed: lists with commas, sorted by name."""
    return {
        name: ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        for name, value in sorted(options.items())
    }


@dataclass(frozen=True, slots=True)
class Place:
    """The coordinates of a stage in its study, for the code that collects the numbers.

    Attributes:
        arm, seed: None for the model before training, and for stages without a model.
        progress: share of the training; 0 before it.
        probe: its name, where the stage is a probe.
        measure: index of the study's run or probe.
        elicited_as: the first arm that is asked in the same way (`StudyConfig.elicited_as`); None: as the study says.
    """

    env: str
    model: str | None = None
    arm: str | None = None
    seed: int | None = None
    progress: float | None = None
    split: str | None = None
    probe: str | None = None
    measure: int | None = None
    elicited_as: str | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """One request with its folder and key.

    Attributes:
        name: unique, a path: "train/sft-seed0".
        kind: "reference", "traces", "pairs", "train", "run" or "probe".
        uses: the names of the stages whose outputs it uses.
        key: see the module.
        tokens: estimate of the tokens that a model computes, read and written.
        trained: whether it is trained on them.
    """

    name: str
    kind: str
    request: Request
    uses: tuple[str, ...]
    key: str
    place: Place
    tokens: float = 0.0
    trained: bool = False

    @property
    def agent(self) -> str | None:
        """Spec of the measured agent, as text: stages of one agent are best run one after the other."""
        agent = getattr(self.request, "agent", None)
        return agent.spec(str) if isinstance(agent, AgentRef) else agent

    @property
    def folder(self) -> str:
        """Path of the stage's folder, relative to the study's."""
        return f"{self.name}-{self.key[:8]}"

    @property
    def command(self) -> list[str]:
        """Arguments of the command, with `{NAME}` for the folder of stage NAME and `{NAME@0.5}` for a checkpoint."""
        return [self.request.command, *self.request.arguments(str)]


def make_stage(
    name: str,
    kind: str,
    request: Request,
    place: Place,
    before: Mapping[str, Stage],
    *,
    tokens: float = 0.0,
    trained: bool = False,
) -> Stage:
    """Return a stage with its key.

    Args:
        before: the stages that it may use, by name.
        tokens, trained: see `Stage`.
    """
    outputs: list[StageOutput] = []

    def keyed(output: StageOutput) -> dict[str, Any]:
        outputs.append(output)
        return {"key": before[output.stage].key, "checkpoint": output.checkpoint}

    request_text = json.dumps([FORMAT, kind, _filled(request, keyed)], sort_keys=True)
    uses = tuple(dict.fromkeys(output.stage for output in outputs))
    return Stage(name, kind, request, uses, hashlib.sha256(request_text.encode()).hexdigest(), place, tokens, trained)


def _filled(value: Any, fill: Callable[[StageOutput], Any]) -> Any:
    """Return a request's data as plain data, with something in the place of each output."""
    if isinstance(value, StageOutput):
        return fill(value)
    if isinstance(value, Mapping):
        return {name: _filled(one, fill) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [_filled(one, fill) for one in value]
    if hasattr(value, "__dataclass_fields__"):
        return {one.name: _filled(getattr(value, one.name), fill) for one in fields(value)}
    return value


def _toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {_toml(one)}" for name, one in sorted(value.items())) + "}"
    return json.dumps(value)
