"""The environments that exist. Invariant: everything the rest of cotbench knows of an environment before it is started
(name, tasks, missing data, canonical actions) is asked here, never of the environment's own modules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, cast

import gymnasium

from cotbench.envs.base import TextEnv
from cotbench.envs.tasks import TaskSource
from cotbench.errors import MissingExtraError, UnknownNameError


class Instructions(NamedTuple):
    """What a model is told about acting in an environment: a text, and actions that show the spelling."""

    text: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EnvEntry:
    """One environment: its names, and where its code is.

    Attributes:
        extra: of this package, for its engine; `modules` are what the extra brings.
        takes_data: it reads a folder of games.
        expert_at_hand: the expert's actions cost next to nothing, so runs record them.
        elicitation: how the answers to this environment are asked for, where that is not as usual.
    """

    name: str
    gym_id: str
    extra: str
    modules: tuple[str, ...]
    takes_data: bool
    license: str
    env_class: str
    task_source: str
    kwargs: Mapping[str, Any]
    expert_at_hand: bool = True
    elicitation: Mapping[str, Any] = field(default_factory=dict)

    def require(self) -> None:
        """Fail in one line when the engine is not installed.

        Raises:
            MissingExtraError: names the extra.
        """
        if any(find_spec(module) is None for module in self.modules):
            raise MissingExtraError(f"environment {self.name!r}", self.extra)

    def source(self) -> TaskSource:
        """The environment's tasks."""
        return cast(TaskSource, _load(self.task_source)())

    def canonical(self) -> Callable[[str], str]:
        """The environment's spelling rule for actions."""
        return cast(type[TextEnv], _load(self.env_class)).canonical

    def equivalent(self) -> Callable[[str, str], bool]:
        """The environment's rule for actions that come to the same though they are worded otherwise."""
        return cast(type[TextEnv], _load(self.env_class)).equivalent

    def instructions(self) -> Instructions:
        """What a model is told about acting here."""
        env_class = cast(type[TextEnv], _load(self.env_class))
        return Instructions(env_class.instructions, env_class.examples)

    def max_steps(self) -> int:
        """The step budget of an episode, where none is given."""
        return cast(type[TextEnv], _load(self.env_class)).default_max_steps

    def budgets_by_task(self) -> bool:
        """Whether tasks have step budgets of their own."""
        return cast(type[TextEnv], _load(self.env_class)).step_budget is not TextEnv.step_budget

    def make(self, **kwargs: Any) -> TextEnv:
        """A new environment, unwrapped. Takes the arguments of the environment's class."""
        return cast(TextEnv, _load(self.env_class)(**{**self.kwargs, **kwargs}))


_ENTRIES = (
    EnvEntry(
        name="alfworld",
        gym_id="cotbench/ALFWorld-v0",
        extra="",
        modules=(),
        takes_data=True,
        license="MIT",
        env_class="cotbench.envs.alfworld.env:ALFWorldEnv",
        task_source="cotbench.envs.alfworld.tasks:OfficialGames",
        kwargs={"games": "official"},
    ),
    EnvEntry(
        name="alfworld-gen",
        gym_id="cotbench/ALFWorldGen-v0",
        extra="",
        modules=(),
        takes_data=False,
        license="MIT (domain and grammar)",
        env_class="cotbench.envs.alfworld.env:ALFWorldEnv",
        task_source="cotbench.envs.alfworld.tasks:GeneratedGames",
        kwargs={"games": "generated"},
    ),
    EnvEntry(
        name="scienceworld",
        gym_id="cotbench/ScienceWorld-v0",
        extra="scienceworld",
        modules=("scienceworld", "py4j"),
        takes_data=False,
        license="Apache-2.0",
        env_class="cotbench.envs.scienceworld.env:ScienceWorldEnv",
        task_source="cotbench.envs.scienceworld.tasks:ScienceWorldTasks",
        kwargs={},
        expert_at_hand=False,  # A gold path takes up to 13 s to find.
    ),
    EnvEntry(
        name="bfcl",
        gym_id="cotbench/BFCL-v0",
        extra="bfcl",
        modules=("mpmath",),
        takes_data=False,
        license="Apache-2.0",
        env_class="cotbench.envs.bfcl.env:BFCLEnv",
        task_source="cotbench.envs.bfcl.tasks:BFCLTasks",
        kwargs={},
        elicitation={"one_line": False, "action_tokens": 512},  # A turn of the ground truth has up to 34 calls.
    ),
)


def _load(path: str) -> Any:
    module, name = path.split(":")
    return getattr(import_module(module), name)


def env_names() -> list[str]:
    """The names that `--env` accepts."""
    return [entry.name for entry in _ENTRIES]


def env_entry(name: str) -> EnvEntry:
    """The environment of that name."""
    for entry in _ENTRIES:
        if entry.name == name:
            return entry
    raise UnknownNameError("environment", name, env_names())


def register() -> None:
    """Make the environments known to `gymnasium.make`; safe to call twice."""
    for entry in _ENTRIES:
        if entry.gym_id not in gymnasium.registry:
            # The budget and the order of calls are kept by our own base class: Gymnasium's wrappers would only repeat it.
            gymnasium.register(
                id=entry.gym_id,
                entry_point=entry.env_class,
                kwargs=dict(entry.kwargs),
            )
