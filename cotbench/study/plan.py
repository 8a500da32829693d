"""From a study's config to its stages. Invariant: a plan is a pure function of the config; nothing is started."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from cotbench.agents.registry import resolve
from cotbench.envs.registry import env_entry
from cotbench.envs.tasks import first_tasks
from cotbench.errors import UsageError
from cotbench.probes.probe import parse_options, probe_named
from cotbench.recipes import StageNeed
from cotbench.study import cost
from cotbench.study.arm_training import arm_config, arm_options, recipe_of, start_of
from cotbench.study.config import Arm, ProbeAt, Runs, StudyConfig, Where
from cotbench.study.stage import (
    AgentRef,
    PairsRequest,
    Place,
    ProbeRequest,
    Request,
    RunRequest,
    Stage,
    StageOutput,
    TracesRequest,
    TrainRequest,
    make_stage,
    option_texts,
)


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """The stages of a study, each after those that it uses."""

    config: StudyConfig
    stages: tuple[Stage, ...]

    def of_kind(self, kind: str) -> list[Stage]:
        """Return the stages of a kind."""
        return [one for one in self.stages if one.kind == kind]

    def until(self, kind: str) -> StudyPlan:
        """Return the plan of the first stages: up to "traces" or "train", reference runs included.

        Args:
            kind: the last kind that is carried out.
        """
        kinds = ("reference", "traces", "pairs", "train")
        wanted = kinds[: kinds.index(kind) + 1]
        return StudyPlan(self.config, tuple(stage for stage in self.stages if stage.kind in wanted))

    def named(self, name: str) -> Stage:
        """Return the stage of that name."""
        return next(one for one in self.stages if one.name == name)


@dataclass(frozen=True, slots=True)
class _Subject:
    """A model at some point of its training: the unit that is measured."""

    place: Place
    name: str
    agent: AgentRef


Add = Callable[..., None]


def make_study_plan(config: StudyConfig) -> StudyPlan:
    """Return all stages of a study.

    Raises:
        UsageError: a recipe or a probe takes no such option, or no such value of it.
    """
    for probe in config.probes:
        parse_options(probe_named(probe.probe), option_texts(probe.options))
    stages: dict[str, Stage] = {}

    def add(name: str, kind: str, request: Request, place: Place, tokens: float = 0.0, trained: bool = False) -> None:
        tokens *= cost.tokenizer(place.model or "")
        stages[name] = make_stage(name, kind, request, place, stages, tokens=tokens, trained=trained)

    for env in config.envs:
        _references(config, env, add)
        if any(share > 0 for share in config.checkpoints):
            _trainings(config, env, add)
    played = cache(lambda number, env, split: _played(config, config.runs[number], env, split))
    for env, splits in config.envs.items():
        for subject in _subjects(config, env):
            for split in splits:
                _measures(config, subject, split, add, played)
    return StudyPlan(config, tuple(stages.values()))


def _trainings(config: StudyConfig, env: str, add: Add) -> None:
    planned: set[str] = set()
    for arm in config.arms:
        needs = recipe_of(arm).stages(arm_config(config, config.models[0], arm))
        name = _traces_stage(config, env, arm.name)
        if all(need.stage not in ("traces", "pairs") for need in needs):
            if arm.traces is not None:
                raise UsageError(f"arm {arm.name}: recipe {arm.recipe} is trained on no traces: omit its traces")
        elif name not in planned:
            planned.add(name)
            add(name, "traces", _traces(config, env, arm.name), Place(env, arm=_traced_as(config, arm.name)))
    source = env_entry(env).source()
    for model in config.models:
        for arm in config.arms:
            resolved = arm_config(config, model, arm)
            traces = _traces_stage(config, env, arm.name)
            episodes = config.traces_of(arm.name).episodes or len(source.tasks(config.scheme, "train"))
            sizes = env_entry(env).sizes
            if any(need.stage == "pairs" for need in recipe_of(arm).stages(resolved)):
                episodes = math.ceil(_paired_states(config, env, arm) / sizes.expert_steps)
            tokens = recipe_of(arm).cost(resolved, sizes, episodes)
            for seed in arm.seeds_of(config.seeds):
                options = arm_options(config, env, model, arm, seed)
                preset = options.pop("preset", None)
                needs = recipe_of(arm).stages(resolved)
                if any(need.option == "model" for need in needs):
                    # Chosen by the study's model: the checkpoint that it begins from has another name.
                    preset = recipe_of(arm).preset_name(options, preset)
                for need in needs:
                    if need.stage == "pairs":
                        _pairs(config, env, model, seed, arm, need, add, planned)
                    options[need.option] = _need(config, env, model, seed, arm, need, traces)
                request = TrainRequest(arm.recipe, options, preset)
                add(
                    _training(config, env, model, arm.name, seed),
                    "train",
                    request,
                    Place(env, model, arm.name, seed),
                    tokens,
                    True,
                )


def _traced_as(config: StudyConfig, arm: str) -> str | None:
    """Return the first arm that is trained on an arm's traces; None where they are the study's."""
    own = config.traces_of(arm)
    return None if own == config.traces else next(one.name for one in config.arms if config.traces_of(one.name) == own)


def _traces_stage(config: StudyConfig, env: str, arm: str) -> str:
    """Return the name of the stage that makes an arm's traces; arms with the same traces share it."""
    first = _traced_as(config, arm)
    return "/".join((_joined("traces", *_env_words(config, env)), *([] if first is None else [first])))


def _need(config: StudyConfig, env: str, model: str, seed: int, arm: Arm, need: StageNeed, traces: str) -> Any:
    if need.stage == "traces":
        return (StageOutput(traces),)
    if need.stage == "checkpoint":
        return _end_of(config, env, model, seed, arm, need)
    if need.stage == "pairs":
        return (StageOutput(_pairs_stage(config, env, model, seed, arm, need)),)
    raise UsageError(f"a study knows no stage {need.stage!r}: traces, checkpoint or pairs")


def _end_of(config: StudyConfig, env: str, model: str, seed: int, arm: Arm, need: StageNeed) -> StageOutput:
    return StageOutput(_training(config, env, model, start_of(config, arm, need, seed).name, seed), 1.0)


def _pairs_stage(config: StudyConfig, env: str, model: str, seed: int, arm: Arm, need: StageNeed) -> str:
    """Return the name of the stage that makes an arm's pairs; arms with the same start, traces and elicitation share it."""
    others = (_traced_as(config, arm.name), config.elicited_as(arm.name))
    words = [start_of(config, arm, need, seed).name, f"seed{seed}", *(one for one in others if one is not None)]
    return _joined("pairs", *_env_words(config, env), *_model_words(config, model), *words)


def _paired_states(config: StudyConfig, env: str, arm: Arm) -> int:
    """Return at about how many states of an arm's traces answers are sampled for its pairs."""
    episodes = config.traces_of(arm.name).episodes or len(env_entry(env).source().tasks(config.scheme, "train"))
    every = episodes * env_entry(env).sizes.expert_steps
    return min(config.pairs.states or every, every)


def _pairs(
    config: StudyConfig, env: str, model: str, seed: int, arm: Arm, need: StageNeed, add: Add, planned: set[str]
) -> None:
    """Plan the pairs of an arm, unless another arm has the same."""
    name = _pairs_stage(config, env, model, seed, arm, need)
    if name in planned:
        return
    planned.add(name)
    agent = _agent(config, recipe_of(start_of(config, arm, need, seed)).agent, _end_of(config, env, model, seed, arm, need))
    options = {"seed": seed, **config.pairs.model_dump(exclude_none=True)}
    elicitation = config.elicitation_of(config.elicited_as(arm.name))
    request = PairsRequest(agent, StageOutput(_traces_stage(config, env, arm.name)), options, elicitation)
    sizes = env_entry(env).sizes
    tokens = _paired_states(config, env, arm) * (sizes.prompt + config.pairs.samples * sizes.answer)
    add(name, "pairs", request, Place(env, model, start_of(config, arm, need, seed).name, seed), tokens)


def _training(config: StudyConfig, env: str, model: str, arm: str, seed: int) -> str:
    return _joined("train", *_env_words(config, env), *_model_words(config, model), arm, f"seed{seed}")


def _joined(kind: str, *words: str) -> str:
    return "/".join((kind, "-".join(words))) if words else kind


def _env_words(config: StudyConfig, env: str) -> tuple[str, ...]:
    return (env,) if len(config.envs) > 1 else ()


def _model_words(config: StudyConfig, model: str) -> tuple[str, ...]:
    return (model.rstrip("/").rpartition("/")[2],) if len(config.models) > 1 else ()


def _references(config: StudyConfig, env: str, add: Add) -> None:
    for split in config.envs[env]:
        wanted: dict[str, Any] = {"env": env, "scheme": config.scheme, "split": split, "mode": "cot"}
        needed = max((probe.count(split) for probe in config.probes), default=1)
        episodes = (
            1 << (needed - 1).bit_length()
        )  # In steps, so that a slightly larger number of states leaves the reference runs unchanged.
        source = env_entry(env).source()
        episodes = min(episodes, len(source.tasks(config.scheme, split)))
        if episodes != len(first_tasks(source, config.scheme, split)):
            wanted["episodes"] = episodes
        name = _joined("reference", *_env_words(config, env), split)
        add(name, "reference", RunRequest(config.reference, wanted, config.elicitation), Place(env, split=split))


def _traces(config: StudyConfig, env: str, arm: str) -> TracesRequest:
    traces = config.traces_of(arm)
    resolve(traces.teacher)  # Raises where the teacher has no such option, before anything is begun.
    wanted = {
        "env": env,
        "scheme": config.scheme,
        "split": "train",
        "episodes": traces.episodes,
        "seed": traces.seed,
    }
    return TracesRequest(traces.teacher, wanted)


def _subjects(config: StudyConfig, env: str) -> Iterator[_Subject]:
    """Yield who is measured: each model before training, asked as each arm is, and each checkpoint of each training."""
    elicited = {arm.name: config.elicited_as(arm.name) for arm in config.arms}
    for model in config.models:
        words = (*_env_words(config, env), *_model_words(config, model))
        for share in sorted(config.checkpoints):
            if share == 0:
                for first in dict.fromkeys(elicited.values()):
                    name = "-".join((*words, "base", *([] if first is None else [first])))
                    yield _Subject(Place(env, model, progress=0.0, elicited_as=first), name, _agent(config, "hf", model))
                continue
            for arm in config.arms:
                for seed in arm.seeds_of(config.seeds):
                    name = "-".join((*words, arm.name, f"seed{seed}", f"{share:g}"))
                    checkpoint = StageOutput(_training(config, env, model, arm.name, seed), share)
                    agent = _agent(config, recipe_of(arm).agent, checkpoint)
                    yield _Subject(Place(env, model, arm.name, seed, share, elicited_as=elicited[arm.name]), name, agent)


def _agent(config: StudyConfig, kind: str, model: str | StageOutput) -> AgentRef:
    options = dict(config.agent_options)
    if config.threads is not None:
        options["threads"] = str(config.threads)
    return AgentRef(kind, model, tuple(sorted(options.items())))


def _measures(config: StudyConfig, subject: _Subject, split: str, add: Add, played: Callable[[int, str, str], float]) -> None:
    env, place = subject.place.env, subject.place

    def holds(where: Where) -> bool:
        limits = where.arms if place.arm is None else None  # A start is measured for the arms that are asked as it is.
        wanted = not limits or place.elicited_as in map(config.elicited_as, limits)
        return wanted and where.holds(place.arm, place.seed, place.progress or 0.0, split)

    for number, runs in enumerate(config.runs):
        if holds(runs):
            name = _joined(_nth("run", number), f"{subject.name}-{split}")
            at = replace(place, split=split, measure=number)
            add(name, "run", _run(config, subject, split, runs), at, played(number, env, split))
    order = sorted(range(len(config.probes)), key=lambda number: probe_named(config.probes[number].probe).answers is None)
    answers: tuple[str, int, int] | None = None
    for number in order:
        probe, entry = config.probes[number], probe_named(config.probes[number].probe)
        if not holds(probe):
            continue
        nth = sum(one.probe == probe.probe for one in config.probes[:number])
        name = _joined(_nth(probe.probe, nth), f"{subject.name}-{split}")
        count, known = probe.count(split), None
        if entry.answers is not None:
            answers = answers or (name, count, probe.seed)
        elif answers is not None and count <= answers[1] and probe.seed == answers[2]:
            known = StageOutput(answers[0])
        at = replace(place, split=split, probe=probe.probe, measure=number)
        tokens = count * entry.cost(env_entry(env).sizes)
        add(name, "probe", _probe(config, subject, split, probe, known), at, tokens)


def _nth(name: str, number: int) -> str:
    return name if number == 0 else f"{name}{number + 1}"


def _run(config: StudyConfig, subject: _Subject, split: str, runs: Runs) -> RunRequest:
    wanted = {
        "env": subject.place.env,
        "scheme": config.scheme,
        "split": split,
        "mode": "both",
        "seed": runs.seed,
        "episodes": runs.episodes,
        "max_steps": runs.max_steps,
    }
    return RunRequest(subject.agent, wanted, config.elicitation_of(subject.place.elicited_as))


def _probe(config: StudyConfig, subject: _Subject, split: str, probe: ProbeAt, answers: StageOutput | None) -> ProbeRequest:
    reference = StageOutput(_joined("reference", *_env_words(config, subject.place.env), split))
    return ProbeRequest(
        probe=probe.probe,
        agent=subject.agent,
        reference=reference,
        states=probe.count(split),
        seed=probe.seed,
        options=probe.options,
        answers=answers,
        elicitation=config.elicitation_of(subject.place.elicited_as),
    )


def _played(config: StudyConfig, runs: Runs, env: str, split: str) -> float:
    episodes = runs.episodes or len(first_tasks(env_entry(env).source(), config.scheme, split))
    return 2 * episodes * cost.episode_tokens(env, runs.max_steps or env_entry(env).max_steps())
