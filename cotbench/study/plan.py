"""From a study's config to its stages. Invariant: a plan is a pure function of the config; nothing is started."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cotbench.envs.registry import env_entry
from cotbench.study import cost
from cotbench.study.config import Arm, ProbeAt, Runs, StudyConfig
from cotbench.study.stage import Kind, Place, Stage, stage

ANSWERS = "alignment"
"""The probe whose rows hold an agent's answers: the others at the same place do not ask for them again."""


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """The stages of a study, each after those that it uses."""

    config: StudyConfig
    stages: tuple[Stage, ...]

    def of_kind(self, kind: Kind) -> list[Stage]:
        """The stages of a kind."""
        return [one for one in self.stages if one.kind == kind]

    def named(self, name: str) -> Stage:
        """The stage of that name."""
        return next(one for one in self.stages if one.name == name)


@dataclass(frozen=True, slots=True)
class _Subject:
    """A model at some point of its training: the unit that is measured."""

    place: Place
    name: str
    agent: str


def make_plan(config: StudyConfig) -> StudyPlan:
    """All stages of a study."""
    stages: dict[str, Stage] = {}

    def add(name: str, kind: Kind, command: tuple[str, ...], place: Place, tokens: float = 0.0, trained: bool = False) -> None:
        tokens *= cost.tokenizer(place.model or "")
        stages[name] = stage(name, kind, command, place, stages, tokens=tokens, trained=trained)

    for env in config.envs:
        _references(config, env, add)
        if _trains(config):
            traces = _joined("traces", *_env_words(config, env))
            add(traces, "traces", _traces(config, env), Place(env))
            for model in config.models:
                for arm in config.arms:
                    for seed in config.seeds:
                        name = _joined("train", *_env_words(config, env), *_model_words(config, model), arm.name, f"seed{seed}")
                        command = _train(config, model, arm, seed, traces)
                        add(name, "train", command, Place(env, model, arm.name, seed), _learned(config, env, arm), True)
    for env, splits in config.envs.items():
        for subject in _subjects(config, env):
            for split in splits:
                _measures(config, subject, split, add, stages)
    return StudyPlan(config, tuple(stages.values()))


def _trains(config: StudyConfig) -> bool:
    return any(share > 0 for share in config.checkpoints)


def _joined(kind: str, *words: str) -> str:
    return "/".join((kind, "-".join(words))) if words else kind


def _env_words(config: StudyConfig, env: str) -> tuple[str, ...]:
    return (env,) if len(config.envs) > 1 else ()


def _model_words(config: StudyConfig, model: str) -> tuple[str, ...]:
    return (_short(model),) if len(config.models) > 1 else ()


def _short(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2]


Add = Callable[..., None]


def _references(config: StudyConfig, env: str, add: Add) -> None:
    for split in config.envs[env]:
        command: tuple[str, ...] = (
            "run",
            "--agent",
            config.reference,
            "--env",
            env,
            "--scheme",
            config.scheme,
            "--split",
            split,
        )
        needed = max((probe.count(split) for probe in config.probes), default=1)
        episodes = 1 << (needed - 1).bit_length()  # In steps, so that a few states more do not change all that there are.
        if episodes < len(env_entry(env).source().tasks(config.scheme, split)):
            command = (*command, "--episodes", str(episodes))
        name = _joined("reference", *_env_words(config, env), split)
        add(name, "reference", (*command, "--mode", "cot", *_asked(config)), Place(env, split=split))


def _asked(config: StudyConfig) -> tuple[str, ...]:
    """The flags of the elicitation."""
    flags = {"style": "elicitation-style"}
    found: list[str] = []
    for name, value in sorted(config.elicitation.items()):
        flag = "--" + flags.get(name, name).replace("_", "-")
        if value is True:
            found.append(flag)
        elif value is not False:
            found += [flag, str(value)]
    return tuple(found)


def _traces(config: StudyConfig, env: str) -> tuple[str, ...]:
    asked = config.traces
    command = ("traces", "--teacher", asked.teacher, "--env", env, "--scheme", config.scheme, "--split", "train")
    drawn = () if asked.episodes is None else ("--episodes", str(asked.episodes))
    return (*command, *drawn, "--seed", str(asked.seed))


def _train(config: StudyConfig, model: str, arm: Arm, seed: int, traces: str) -> tuple[str, ...]:
    given: dict[str, Any] = {**config.train, **arm.options, "seed": seed}
    given["checkpoints"] = [share for share in config.checkpoints if share > 0]
    if config.elicitation:
        given["elicitation"] = config.elicitation
    if config.threads is not None:
        given["threads"] = config.threads
    named = {name: given.pop(name) for name in ("preset",) if name in given}
    command = ["train", "--recipe", arm.recipe, "--model", model, "--data", f"{{{traces}}}"]
    command += [word for name, value in named.items() for word in (f"--{name}", str(value))]
    for name, value in sorted(given.items()):
        command += ["--option", f"{name}={_toml(value)}"]
    return tuple(command)


def _toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {_toml(one)}" for name, one in sorted(value.items())) + "}"
    return json.dumps(value)


def _subjects(config: StudyConfig, env: str) -> Iterator[_Subject]:
    """Who is measured: each model before training, and each checkpoint of each training."""
    for model in config.models:
        words = (*_env_words(config, env), *_model_words(config, model))
        for share in sorted(config.checkpoints):
            if share == 0:
                spec = _spec(model, config)
                yield _Subject(Place(env, model, progress=0.0), "-".join((*words, "base")), spec)
                continue
            for arm in config.arms:
                for seed in config.seeds:
                    training = _joined("train", *words, arm.name, f"seed{seed}")
                    name = "-".join((*words, arm.name, f"seed{seed}", f"{share:g}"))
                    spec = _spec(f"{{{training}@{share:g}}}", config)
                    yield _Subject(Place(env, model, arm.name, seed, share), name, spec)


def _spec(model: str, config: StudyConfig) -> str:
    options = dict(config.agent_options)
    if config.threads is not None:
        options["threads"] = str(config.threads)
    return f"hf:{model}" + ("?" + "&".join(f"{name}={value}" for name, value in sorted(options.items())) if options else "")


def _measures(config: StudyConfig, subject: _Subject, split: str, add: Add, stages: Mapping[str, Stage]) -> None:
    env, place = subject.place.env, subject.place
    where = (place.arm, place.seed, place.progress or 0.0, split)
    for number, runs in enumerate(config.runs):
        if runs.holds(*where):
            name = _joined(_nth("run", number), f"{subject.name}-{split}")
            at = _at(place, split, None, number)
            add(name, "run", _run(config, subject, split, runs), at, _played(config, runs, env, split))
    order = sorted(range(len(config.probes)), key=lambda number: config.probes[number].probe != ANSWERS)
    answers: tuple[str, int, int] | None = None
    for number in order:
        probe = config.probes[number]
        if not probe.holds(*where):
            continue
        nth = sum(one.probe == probe.probe for one in config.probes[:number])
        name = _joined(_nth(probe.probe, nth), f"{subject.name}-{split}")
        command = _probe(config, subject, split, probe)
        count = probe.count(split)
        if probe.probe == ANSWERS:
            answers = answers or (name, count, probe.seed)
        elif answers is not None and count <= answers[1] and probe.seed == answers[2]:
            command += ("--answers", f"{{{answers[0]}}}")
        add(name, "probe", command, _at(place, split, probe.probe, number), count * cost.state_tokens(env, probe.probe))


def _nth(name: str, number: int) -> str:
    return name if number == 0 else f"{name}{number + 1}"


def _at(place: Place, split: str, probe: str | None, measure: int) -> Place:
    return Place(place.env, place.model, place.arm, place.seed, place.progress, split, probe, measure)


def _run(config: StudyConfig, subject: _Subject, split: str, runs: Runs) -> tuple[str, ...]:
    command = ["run", "--agent", subject.agent, "--env", subject.place.env, "--scheme", config.scheme, "--split", split]
    command += ["--mode", "both", "--seed", str(runs.seed)]
    if runs.episodes is not None:
        command += ["--episodes", str(runs.episodes)]
    if runs.max_steps is not None:
        command += ["--max-steps", str(runs.max_steps)]
    return (*command, *_asked(config))


def _probe(config: StudyConfig, subject: _Subject, split: str, probe: ProbeAt) -> tuple[str, ...]:
    reference = _joined("reference", *_env_words(config, subject.place.env), split)
    command = ["probe", probe.probe, "--agent", subject.agent, "--reference", f"{{{reference}}}"]
    command += ["--states", str(probe.count(split)), "--seed", str(probe.seed)]
    for name, value in sorted(probe.options.items()):
        text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        command += ["--option", f"{name}={text}"]
    return (*command, *_asked(config))


def _learned(config: StudyConfig, env: str, arm: Arm) -> float:
    given: dict[str, Any] = (
        {"epochs": 5.0, "unit": "decision"} | cost.preset(config.train.get("preset")) | config.train | arm.options
    )
    source = env_entry(env).source()
    episodes = config.traces.episodes or len(source.tasks(config.scheme, "train"))
    return float(given["epochs"]) * episodes * cost.training_tokens(env, given["unit"] == "episode")


def _played(config: StudyConfig, runs: Runs, env: str, split: str) -> float:
    episodes = runs.episodes or len(env_entry(env).source().tasks(config.scheme, split))
    return 2 * episodes * cost.episode_tokens(env, runs.max_steps or env_entry(env).max_steps())
