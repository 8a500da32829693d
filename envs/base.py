"""Base class of the environments. Invariant: `reset` and `step` return the same `info` keys in every environment, success is
upstream's verdict and never `done`, and what was not requested is never computed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, ClassVar, Self

import gymnasium

from cotbench.envs.reading import ActionParts, read_action, word_parts
from cotbench.envs.space import AnyText
from cotbench.errors import EngineError, EpisodeOverError, UnknownNameError, UsageError
from cotbench.notebook import Display, Displayed

REQUESTS = ("admissible_actions", "expert_action")
"""Entries that an environment adds to `info` only on `request=`."""

_SHOWN_CHARS = 180
"""Characters of the last observation in the environment's text form."""
_PICKLED = frozenset({"spec", "observation_space", "action_space", "_np_random", "_np_random_seed"})
"""What a pickle holds of an environment, beside its arguments and its episode: what Gymnasium keeps in it."""


@dataclass(frozen=True, slots=True)
class EnvOutcome:
    """Result of `reset` or of one action.

    Attributes:
        observation: upstream's text, byte for byte.
        score: official score in [0, 1].
        raw_score: upstream's own number.
        success: upstream's verdict.
        ended: the task is won, or lost for good.
        invalid_action: why the action did nothing, or None.
    """

    observation: str
    score: float = 0.0
    raw_score: float = 0.0
    success: bool = False
    ended: bool = False
    invalid_action: str | None = None


class TextEnv(Displayed, gymnasium.Env[str, str]):
    """Base of the text environments: task choice, step budget, the `info` contract, rendering.

    A subclass implements which tasks a split has (`_split_tasks`), how one is started (`_start`), how an action is executed
    (`_act`) and, on request, the admissible actions (`_admissible_actions`) and the expert's next action (`_expert_action`).

    An environment can be pickled and copied while an episode runs: the copy starts an engine of its own, repeats the actions,
    and raises an `EngineError` where the last text is not the same. One whose episode is over comes back without an episode.

    Args:
        split: which split `reset` draws from when no task is named.
        scheme: the family of splits, `paper` or `official`.
        max_steps: the step budget; reaching it truncates the episode. None: the environment's own.
        request: any of `admissible_actions`, `expert_action`: added to every `info`.
        render_mode: None or "ansi" (the last action and observation as text).
    """

    metadata: dict[str, Any] = {"render_modes": ["ansi"], "render_fps": 1}
    instructions: ClassVar[str]
    """Prompt text on acting in this environment; the same for every task."""
    default_max_steps: ClassVar[int]
    """The step budget where none is given; an environment may set others task by task in `step_budget`."""
    examples: ClassVar[tuple[str, ...]]
    """Actions of every kind, to show how they are spelled; none is about a particular task."""

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make an environment that remembers its arguments, for a copy or a pickle of it."""
        env = super().__new__(cls)
        env._arguments = args, kwargs
        return env

    def __init__(
        self,
        *,
        split: str = "id",
        scheme: str = "paper",
        max_steps: int | None = None,
        request: Collection[str] = (),
        render_mode: str | None = None,
    ) -> None:
        if max_steps is not None and max_steps < 1:
            raise UsageError(f"max_steps must be at least 1, not {max_steps}")
        if render_mode not in (None, "ansi"):
            raise UnknownNameError("render mode", str(render_mode), ["ansi"])
        for name in request:
            if name not in REQUESTS:
                raise UnknownNameError("request", name, REQUESTS)
        self.observation_space = AnyText()
        self.action_space = AnyText()
        self.split = split
        self.scheme = scheme
        self.max_steps = max_steps
        self.render_mode = render_mode
        self._request = frozenset(request)
        self._task: str | None = None
        self._executed_actions: list[str] = []
        self._goal = ""
        self._steps = 0
        self._budget = 0
        self._running = False
        self._rendered = ""
        self._last_score = 0.0

    def expect(self, observation: str) -> None:
        """Note what the next action returned when the episode was recorded, before it is repeated.

        An environment in which the speed of the machine decides something takes that from the record; others need nothing.
        """

    @property
    def restarts(self) -> int:
        """Number of times that the engine was lost in this episode and restored to the same state."""
        return 0

    def step_budget(self, task: str) -> int:
        """Return how many steps an episode of this task may take."""
        return self.max_steps if self.max_steps is not None else self.default_max_steps

    @staticmethod
    @abstractmethod
    def canonical(action: str) -> str:
        """Return the one spelling under which an action is executed, recorded and compared. Pure.

        Args:
            action: the text of an agent's action.
        """

    def _executed(self, action: str) -> str:
        """Return the spelling under which an action is executed here: where tasks differ in it, that of the running one."""
        return self.canonical(action)

    @classmethod
    def equivalent(cls, first: str, second: str) -> bool:
        """Tell whether two actions have the same effect, however they are worded. Pure, and an equivalence relation.

        Args:
            first: an action in any spelling.
            second: another one.
        """
        one, other = cls.canonical(first), cls.canonical(second)
        return one == other or cls._meaning(one) == cls._meaning(other)

    @staticmethod
    def _meaning(action: str) -> Hashable:
        """Return a key that is equal for canonical actions with the same effect; an environment with synonyms overrides it.
        Pure.
        """
        return action

    @staticmethod
    def action_parts(action: str) -> ActionParts:
        """Return an action's form and its arguments; an environment whose arguments are not single words overrides it. Pure.

        Args:
            action: a canonical action.
        """
        return word_parts(action)

    @classmethod
    def leniently_judged(cls, task: str, answer: str) -> str | None:
        """Return what a right answer to a task was, where upstream's verdict also passes what is no action; else None. Pure.

        Args:
            task: the task id.
            answer: the last action of a successful episode, as the agent wrote it.
        """
        return None

    @abstractmethod
    def _split_tasks(self) -> Sequence[str]:
        """Return the tasks of this environment's split, sorted."""

    @abstractmethod
    def _start(self, task: str) -> tuple[EnvOutcome, str]:
        """Load and start a task; return its first outcome and the goal."""

    @abstractmethod
    def _act(self, action: str) -> EnvOutcome:
        """Execute a canonical action."""

    @abstractmethod
    def _admissible_actions(self) -> list[str]:
        """Return the actions that do something in this state, sorted and without duplicates."""

    @abstractmethod
    def _expert_action(self) -> str | None:
        """Return the expert's next action in this state, or None where it is not known."""

    def _more_info(self) -> dict[str, Any]:
        """Return the `info` entries that only this environment has."""
        return {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: seeds the choice of the task (and whatever in the task is random).
            options: `{"task": id}` starts that very task.

        Returns:
            The first observation, which holds the task, and `info`.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        task = options.pop("task", None)
        if options:
            raise UnknownNameError("reset option", sorted(options)[0], ["task"])
        if task is None:
            tasks = self._split_tasks()
            task = tasks[int(self.np_random.integers(len(tasks)))]
        if not isinstance(task, str):
            raise UsageError(f"a task id is a string, not {task!r}")
        outcome = self._start_episode(task)
        return outcome.observation, self._info(outcome)

    def _start_episode(self, task: str) -> EnvOutcome:
        self._running = False
        outcome, goal = self._start(task)
        self._task, self._goal, self._steps, self._last_score = task, goal, 0, outcome.score
        self._executed_actions = []
        self._budget = self.step_budget(task)
        self._running = True
        self._rendered = outcome.observation
        return outcome

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Execute an action.

        Args:
            action: the action in any spelling that `canonical` accepts.

        Returns:
            Observation, reward (the gain in score), terminated, truncated and `info`.

        Raises:
            EpisodeOverError: before `reset`, or after the episode ended.
        """
        if not self._running:
            raise EpisodeOverError("no episode is running: call reset() first")
        if not isinstance(action, str):
            raise UsageError(f"an action is a string, not {type(action).__name__}")
        before = self._last_score
        outcome = self._take_action(read_action(self._executed, action))
        truncated = not outcome.ended and not self._running
        return outcome.observation, outcome.score - before, outcome.ended, truncated, self._info(outcome)

    def _take_action(self, action: str) -> EnvOutcome:
        outcome = self._act(action)
        self._executed_actions.append(action)
        self._steps += 1
        self._running = not (outcome.ended or self._steps >= self._budget)
        self._rendered = f"> {action}\n{outcome.observation}"
        self._last_score = outcome.score
        return outcome

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how to make this environment again: its arguments, and the actions of the episode that is running."""
        state = {name: value for name, value in vars(self).items() if name in _PICKLED}
        episode = (self._task, tuple(self._executed_actions), self._rendered) if self._running else None
        return _restored, (type(self), *self._arguments, state, episode)

    def admissible_actions(self) -> list[str]:
        """Return the actions that do something in the running state, sorted and without duplicates.

        Raises:
            EpisodeOverError: no episode is running.
        """
        if not self._running:
            raise EpisodeOverError("no episode is running: call reset() first")
        return self._admissible_actions()

    def remaining_steps(self, action: str | None = None) -> int | None:
        """Return how many steps an expert that knows the whole task takes from here to its end; the state stays as it is.

        Args:
            action: an action in any spelling, to be executed first; it is not counted. None: none.

        Returns:
            The number of steps, or None where the environment has no such expert, or cannot be copied.
        """
        return None

    def render(self) -> str | None:
        """Return the last action and observation, in render mode "ansi"."""
        return self._rendered if self.render_mode == "ansi" else None

    def __str__(self) -> str:
        """Return the name by which Gymnasium calls it in its wrappers."""
        name = type(self).__name__
        return f"<{name} instance>" if self.spec is None else f"<{name}<{self.spec.id}>>"

    def _display(self) -> Display:
        begun = self._task is not None
        state = f"step {self._steps} of {self._budget}" if self._running else "over" if begun else "call reset()"
        shown = [("task", self._task or ""), ("goal", self._goal), ("episode", state)] if begun else [("episode", state)]
        return Display(
            f"{type(self).__name__}, split {self.split} of {self.scheme}",
            figures=tuple(f"{name}: {value}" for name, value in shown),
            columns=("", "value"),
            rows=tuple(shown),
            notes=(shorten(self._rendered, _SHOWN_CHARS, placeholder=" ..."),) if begun else (),
        )

    def _info(self, outcome: EnvOutcome) -> dict[str, Any]:
        info: dict[str, Any] = {
            "task": self._task,
            "goal": self._goal,
            "score": outcome.score,
            "raw_score": outcome.raw_score,
            "success": outcome.success,
            "steps": self._steps,
            "invalid_action": outcome.invalid_action,
            "restarts": self.restarts,
            **self._more_info(),
        }
        if "admissible_actions" in self._request:
            info["admissible_actions"] = self._admissible_actions()
        if "expert_action" in self._request:
            info["expert_action"] = self._expert_action()
        return info


def _restored(
    env_class: type[TextEnv],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    attributes: dict[str, Any],
    episode: tuple[str, tuple[str, ...], str] | None,
) -> TextEnv:
    """Return a pickled environment, in the state in which it was pickled.

    Raises:
        EngineError: its episode, repeated, went another way.
    """
    env = env_class(*args, **kwargs)
    vars(env).update(attributes)
    if episode is None:
        return env
    task, actions, rendered = episode
    try:
        env._start_episode(task)
        for action in actions:
            env._take_action(action)
        if env._rendered != rendered:
            raise EngineError(
                f"the episode of {task} cannot be restored: repeated, its {len(actions)} actions led to another text; "
                "was the pickle made with other data, or another version?"
            )
    except BaseException:
        env.close()
        raise
    return env
