"""Registered environments. Invariant: everything the rest of cotbench knows of an environment before it is started (name,
tasks, missing data, canonical actions, sizes, titles) comes from its entry here; no other file lists environments.

Light: neither Gymnasium nor an engine is imported before an environment is made or described.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import wraps
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from cotbench.envs.face import check_class, check_fields, check_source
from cotbench.envs.reading import ActionParts, are_equivalent, lenient_kind, read_action, read_parts
from cotbench.errors import MissingExtraError, UnknownNameError, UsageError
from cotbench.registry import Registry, check_name, load

if TYPE_CHECKING:
    from pathlib import Path

    from cotbench.envs.base import TextEnv
    from cotbench.envs.tasks import TaskSource

_log = logging.getLogger(__name__)

ENTRY_POINTS = "cotbench.envs"
"""The entry-point group through which an installed package offers environments."""


class Instructions(NamedTuple):
    """Prompt text on acting in an environment.

    Attributes:
        text: the instructions.
        examples: actions that show the spelling.
    """

    text: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TokenSizes:
    """Approximate lengths of an environment's texts, in tokens of a common tokenizer; for estimates of cost alone.

    Attributes:
        first_prompt: the instructions and the first observation.
        step: what one step adds to the prompt.
        answer: a trace with its action.
        expert_steps: steps, not tokens: how many an expert takes.
        candidates: all admissible actions of a state together, each with its closing tag; 0 where they are not all listed.
    """

    first_prompt: int = 500
    step: int = 60
    answer: int = 60
    expert_steps: int = 15
    candidates: int = 200

    @property
    def prompt(self) -> float:
        """Tokens of the prompt at an average state of an expert's episode."""
        return self.first_prompt + self.step * self.expert_steps / 2


class Experts(NamedTuple):
    """Names of an environment's experts: whose actions an agent takes, and whose are recorded where another agent plays."""

    followed: str
    recorded: str


@dataclass(frozen=True, slots=True)
class EnvEntry:
    """Registry entry of one environment: its names, where its code is, and its properties.

    Attributes:
        name: what `--env` accepts.
        title: how pages call it.
        gym_id: its id in Gymnasium.
        env_class: a subclass of `TextEnv`, or "module:attribute"; `task_source` likewise a `TaskSource`.
        kwargs: arguments that its class is always given.
        extra: of this package, for its engine; `modules` are what the extra brings.
        takes_data: it reads a folder of games.
        license: of its tasks.
        expert_at_hand: the expert's actions cost next to nothing, so runs record them.
        lists_all_admissible: whether it lists all actions that do something at a state; one that is not listed then does none.
        elicitation: the options of `Elicitation` whose defaults differ in this environment.
        experts: two of its experts, values of its class's argument `expert`: the one whom an agent follows to win, and the one
            who is recorded at the states of other agents, because it steps in wherever it can. None where it has one expert.
        dialects: where its data may spell actions in several ways: name of the spelling -> the class (or "module:attribute")
            that spells them so, `env_class` first; its task source is a `DialectSource` then.
        benchmark: the name under which papers report it; several entries may play one benchmark.
        official: its tasks are the benchmark's own, not generated here.
        overall: the boards over several environments that it belongs to.
        packages: distributions whose versions a manifest records; `engines` are those of them, and "python", on which its
            texts depend, so that a replay needs the same ones.
        sizes: for estimates of cost.
        teacher: "module:attribute" of the scripted teacher's decision for it (`baselines.teachers.scripted`).
        trace_levels: the trace levels that the scripted teacher writes for it: of "goal", "state" and "full".
        trace_facts: "module:attribute" of the check that a trace names nothing unseen (`baselines.teachers.facts`).
        other_goal: "module:attribute" of what gives a dialogue another one's goal, where the scripted teacher reads it there.
    """

    name: str
    title: str
    gym_id: str
    env_class: str | type[TextEnv]
    task_source: str | Callable[[], TaskSource]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    extra: str = ""
    modules: tuple[str, ...] = ()
    takes_data: bool = False
    license: str = ""
    expert_at_hand: bool = True
    lists_all_admissible: bool = True
    elicitation: Mapping[str, Any] = field(default_factory=dict)
    experts: Experts | None = None
    dialects: Mapping[str, str | type[TextEnv]] = field(default_factory=dict)
    benchmark: str = ""
    official: bool = True
    overall: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    sizes: TokenSizes = TokenSizes()
    teacher: str | None = None
    trace_levels: tuple[str, ...] = ("full",)
    trace_facts: str | None = None
    other_goal: str | None = None

    def require(self) -> None:
        """Raise an error when the engine is not installed.

        Raises:
            MissingExtraError: names the extra.
        """
        if any(find_spec(module) is None for module in self.modules):
            raise MissingExtraError(f"environment {self.name!r}", self.extra)

    def source(self) -> TaskSource:
        """Return the environment's tasks.

        Raises:
            UsageError: what makes its `TaskSource` makes something else.
        """
        make = load(self.task_source) if isinstance(self.task_source, str) else self.task_source
        source = make()
        check_source(self.name, source)
        return cast("TaskSource", source)

    @property
    def own_dialect(self) -> str:
        """The first dialect, in which its own class spells; empty where there is but one."""
        return next(iter(self.dialects), "")

    def dialect_of(self, tasks: Sequence[str], data: Path | None) -> str:
        """Return the dialect of the data of some tasks; empty where there is but one.

        Args:
            tasks: task ids.
            data: the folder of the data; None means the environment's default.

        Raises:
            GameFileError: they are not all of one dialect.
        """
        from cotbench.envs.tasks import DialectSource

        source = self.source() if self.dialects else None
        return source.dialect(tasks, data) if isinstance(source, DialectSource) else ""

    def in_dialect(self, dialect: str) -> EnvEntry:
        """Return the entry for data of a dialect: its actions, instructions and equivalence are spelled so.

        Args:
            dialect: a key of `dialects`; empty: the environment's own.

        Raises:
            UnknownNameError: there is no such dialect.
        """
        if not dialect:
            return self
        if dialect not in self.dialects:
            raise UnknownNameError("dialect", dialect, self.dialects, f"of environment {self.name!r}")
        return replace(self, env_class=self.dialects[dialect])

    def loaded_class(self) -> type[TextEnv]:
        """Import and return the environment's class."""
        return cast("type[TextEnv]", load(self.env_class) if isinstance(self.env_class, str) else self.env_class)

    def canonical(self) -> Callable[[str], str]:
        """Return the environment's spelling rule for actions, as `read_action` applies it to any text."""
        canonical = self.loaded_class().canonical
        return wraps(canonical)(lambda action: read_action(canonical, action))

    def equivalent(self) -> Callable[[str, str], bool]:
        """Return the environment's test of equivalent actions, as `are_equivalent` applies it to any texts."""
        equivalent = self.loaded_class().equivalent
        return wraps(equivalent)(lambda first, second: are_equivalent(equivalent, first, second))

    def action_parts(self) -> Callable[[str], ActionParts]:
        """Return how the environment takes actions apart, as `read_parts` applies it to any canonical action."""
        action_parts = self.loaded_class().action_parts
        return wraps(action_parts)(lambda action: read_parts(action_parts, action))

    def leniently_judged(self) -> Callable[[str, str], str | None]:
        """Return the environment's test of what a right answer was, as `lenient_kind` applies it to any text."""
        judged = self.loaded_class().leniently_judged
        return wraps(judged)(lambda task, answer: lenient_kind(judged, task, answer))

    def instructions(self) -> Instructions:
        """Return the prompt text on acting in this environment."""
        env_class = self.loaded_class()
        return Instructions(env_class.instructions, env_class.examples)

    def max_steps(self) -> int:
        """Return the step budget of an episode, where none is given."""
        return self.loaded_class().default_max_steps

    def budgets_by_task(self) -> bool:
        """Tell whether tasks have step budgets of their own."""
        from cotbench.envs.base import TextEnv

        return self.loaded_class().step_budget is not TextEnv.step_budget

    def make(self, **kwargs: Any) -> TextEnv:
        """Return a new environment, unwrapped. Takes the arguments of the environment's class."""
        return self.loaded_class()(**{**self.kwargs, **kwargs})


_ALFWORLD: dict[str, Any] = {
    "env_class": "cotbench.envs.alfworld.env:ALFWorldEnv",
    "benchmark": "alfworld",
    "experts": Experts("walkthrough", "seen"),
    "dialects": {"move": "cotbench.envs.alfworld.env:ALFWorldEnv", "put": "cotbench.envs.alfworld.env:PutALFWorldEnv"},
    "packages": ("textworld", "alfworld"),
    "sizes": TokenSizes(350, 40, 45, 9, 220),
    "teacher": "cotbench.baselines.teachers.alfworld:decide",
    "trace_levels": ("goal", "state", "full"),
    "trace_facts": "cotbench.baselines.teachers.facts:alfworld_facts",
    "other_goal": "cotbench.baselines.teachers.alfworld:with_goal_of",
}

_BUILTIN = (
    EnvEntry(
        name="alfworld",
        title="ALFWorld",
        gym_id="cotbench/ALFWorld-v0",
        takes_data=True,
        license="MIT",
        task_source="cotbench.envs.alfworld.tasks:OfficialGames",
        kwargs={"games": "official"},
        overall=("all",),
        **_ALFWORLD,
    ),
    EnvEntry(
        name="alfworld-gen",
        title="ALFWorld (generated)",
        gym_id="cotbench/ALFWorldGen-v0",
        license="MIT (domain and grammar)",
        task_source="cotbench.envs.alfworld.tasks:GeneratedGames",
        kwargs={"games": "generated"},
        official=False,
        overall=("all-gen",),
        **_ALFWORLD,
    ),
    EnvEntry(
        name="scienceworld",
        title="ScienceWorld",
        gym_id="cotbench/ScienceWorld-v0",
        extra="scienceworld",
        modules=("scienceworld", "py4j"),
        license="Apache-2.0",
        env_class="cotbench.envs.scienceworld.env:ScienceWorldEnv",
        task_source="cotbench.envs.scienceworld.tasks:ScienceWorldTasks",
        expert_at_hand=False,  # A gold path takes up to 13 s to find.
        benchmark="scienceworld",
        overall=("all", "all-gen"),
        packages=("scienceworld", "py4j"),
        engines=("scienceworld",),
        sizes=TokenSizes(900, 80, 80, 30, 4500),
        teacher="cotbench.baselines.teachers.scienceworld:decide",
        trace_levels=("goal", "state", "full"),
        trace_facts="cotbench.baselines.teachers.facts:scienceworld_facts",
    ),
    EnvEntry(
        name="bfcl",
        title="BFCL",
        gym_id="cotbench/BFCL-v0",
        extra="bfcl",
        modules=("mpmath",),
        license="Apache-2.0",
        env_class="cotbench.envs.bfcl.env:BFCLEnv",
        task_source="cotbench.envs.bfcl.tasks:BFCLTasks",
        lists_all_admissible=False,  # A call of each function, with plain values.
        elicitation={"one_line": False, "action_tokens": 512},  # A turn of the ground truth has up to 34 calls.
        experts=Experts("turn", "resume"),
        benchmark="bfcl",
        overall=("all", "all-gen"),
        packages=("mpmath",),
        engines=("mpmath", "python"),  # The error text of a failed call is Python's.
        sizes=TokenSizes(8000, 300, 150, 14, 0),
        teacher="cotbench.baselines.teachers.bfcl:decide",
        trace_levels=("goal", "state", "full"),
        trace_facts="cotbench.baselines.teachers.facts:bfcl_facts",
    ),
)

_GROUPS = frozenset(group for entry in _BUILTIN for group in entry.overall)


def _check(name: str, entry: EnvEntry) -> None:
    """Raise an error for an environment that cannot be played."""
    if name in _GROUPS:
        raise UsageError(f"an environment cannot be named {name!r}: that names several together")
    for env_class in (entry.env_class, *entry.dialects.values()):
        if not isinstance(env_class, str):
            check_class(name, env_class)


_registry: Registry[EnvEntry] = Registry("environment", ENTRY_POINTS, EnvEntry, {one.name: one for one in _BUILTIN}, _check)

E = TypeVar("E", bound="type[TextEnv]")


def register_env(
    name: str, *, task_source: str | Callable[[], TaskSource], title: str = "", gym_id: str = "", **about: Any
) -> Callable[[E], E]:
    """Return a decorator that makes a subclass of `TextEnv` the environment called `name`.

    Args:
        name: what `--env` accepts.
        task_source: makes the environment's `TaskSource`.
        title: how pages call it; the name where it is left out.
        gym_id: its id in Gymnasium, `NAMESPACE/Name-v0`; `cotbench/NAME-v0` where it is left out.
        about: other fields of `EnvEntry`.

    Raises:
        UnknownNameError: `about` has a field that there is not.
        UsageError: the name is taken or is no name, the class is not that of an environment, or the task source is none.
    """
    check_name("environment", name)
    check_fields(name, about, [one.name for one in fields(EnvEntry)], task_source)

    def register(env_class: E) -> E:
        values = {"title": title or name, "gym_id": gym_id or f"cotbench/{name}-v0", "benchmark": name, **about}
        entry = EnvEntry(name=name, env_class=env_class, task_source=task_source, **values)
        _registry.register(name, entry)
        register_id(entry)
        return env_class

    return register


def register_id(entry: EnvEntry) -> None:
    """Make one environment known to `gymnasium.make`; safe to call twice.

    Raises:
        UsageError: its id is none of Gymnasium's form.
    """
    import gymnasium

    if entry.gym_id not in gymnasium.registry:
        # The budget and the order of calls are kept by our own base class: Gymnasium's wrappers would only repeat it.
        try:
            gymnasium.register(id=entry.gym_id, entry_point=cast("Any", entry.env_class), kwargs=dict(entry.kwargs))
        except gymnasium.error.Error as error:
            raise UsageError(f"environment {entry.name!r}: gym_id {entry.gym_id!r}: {error}") from error


def env_names() -> list[str]:
    """Return the names that `--env` accepts."""
    return _registry.names()


def env_entry(name: str) -> EnvEntry:
    """Return the environment of that name.

    Raises:
        UnknownNameError: there is none.
    """
    return _registry.get(name)


def env_entries() -> list[EnvEntry]:
    """Return every environment, those of cotbench first; one that cannot be loaded is left out with a warning."""
    found = []
    for name in env_names():
        try:
            found.append(env_entry(name))
        except UsageError as error:
            _log.warning("%s", error)
    return found


def builtin_entries() -> tuple[EnvEntry, ...]:
    """Return the environments that come with cotbench."""
    return _BUILTIN
