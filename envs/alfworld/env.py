"""ALFWorld as a Gymnasium environment. Invariant: the text is upstream's, and success is that the game's goal holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import ClassVar

from cotbench.envs.alfworld import actions
from cotbench.envs.alfworld.engine import Engine
from cotbench.envs.alfworld.expert import Expert, Mind
from cotbench.envs.alfworld.game import Game
from cotbench.envs.alfworld.native_engine import NativeEngine
from cotbench.envs.alfworld.tasks import GeneratedGames, OfficialGames, load_game
from cotbench.envs.alfworld.textworld_engine import TextWorldEngine
from cotbench.envs.alfworld.walkthrough import Walkthrough
from cotbench.envs.base import EnvOutcome, TextEnv
from cotbench.envs.tasks import TaskSource, playable
from cotbench.errors import EngineError, UnknownNameError

_ENGINES: dict[str, Callable[[Game], Engine]] = {"native": NativeEngine, "textworld": TextWorldEngine}
_EXPERTS = ("walkthrough", "seen")
_HANDLED = re.compile(r"((?:take|move|clean|heat|cool|slice|use) .+?) \d+((?: (?:from|to|with) .+)?)")
"""An action on an object: all but the object's number."""
_GAMES: dict[str, Callable[[], TaskSource]] = {"official": OfficialGames, "generated": GeneratedGames}


class ALFWorldEnv(TextEnv):
    """Household tasks in text: find things, clean, heat or cool them, bring them somewhere.

    ## Description
    A text adventure over a simulated home (Shridhar et al., 2021). The agent walks between receptacles, opens them, takes and
    moves objects and uses appliances until the task sentence holds. Six task types: pick & place, examine in light, clean &
    place, heat & place, cool & place, pick two & place.

    ## Observation Space
    `AnyText`: the engine's text. The first observation holds the room and the task sentence.

    ## Action Space
    `AnyText`: one command, such as `go to desk 1`, `take mug 1 from desk 1`, `move mug 1 to shelf 2`. Case, spacing and a
    final stop do not matter; `put X in/on Y` is read as `move X to Y`. A command that is not admissible costs a step, is
    answered "Nothing happens.", and `info["invalid_action"]` says why.

    ## Rewards
    1 when the goal is reached, else 0. `score` and `raw_score` are the same number.

    ## Termination
    `terminated`: the task is won (it cannot be lost for good). `truncated`: `max_steps` steps (50) were taken.

    ## Registered Configurations
    `cotbench/ALFWorld-v0`: the official games, read from `data` or `$ALFWORLD_DATA`. `cotbench/ALFWorldGen-v0`: games made from
    a seed. Task ids of either kind are accepted by both.

    Args:
        split: the split to draw tasks from.
        scheme: `paper` or `official` (upstream's split names).
        games: "official" or "generated".
        engine: "native", our own, or "textworld", the stock engine, with the same texts some hundred times slower (extra
            `reference`).
        expert: who answers a request for `expert_action`: "walkthrough", the game's own plan, which knows the whole household
            and is silent once it was left; or "seen", a player that knows what the episode has shown so far, and can step in
            anywhere.
        expert_seed: which of equally likely places "seen" looks into first.
        data: the folder that holds `json_2.1.1`; None means `$ALFWORLD_DATA`.
        available_only: draw from the games that are on this machine, instead of refusing an incomplete split.
        max_steps: the step budget; None means 50.
        request: any of `admissible_actions`, `expert_action`.
        render_mode: None or "ansi".
    """

    instructions: ClassVar[str] = (
        "You act in a household to fulfil the task that is given below. You do one action at a time and are then told what "
        "happened. Things are named with their number. You must stand at a receptacle to use it, closed ones must be opened "
        'first, and you can carry one object. "Nothing happens." means that the action was not possible.'
    )
    default_max_steps: ClassVar[int] = 50
    examples: ClassVar[tuple[str, ...]] = (
        "go to desk 1",
        "open drawer 2",
        "close drawer 2",
        "take mug 2 from desk 1",
        "move mug 2 to shelf 3",
        "clean mug 2 with sinkbasin 1",
        "heat mug 2 with microwave 1",
        "cool mug 2 with fridge 1",
        "use desklamp 1",
        "slice apple 1 with knife 1",
        "examine mug 2",
        "look",
        "inventory",
    )

    def __init__(
        self,
        *,
        split: str = "id",
        scheme: str = "paper",
        games: str = "official",
        engine: str = "native",
        expert: str = "walkthrough",
        expert_seed: int = 0,
        data: str | Path | None = None,
        available_only: bool = False,
        max_steps: int | None = None,
        request: Collection[str] = (),
        render_mode: str | None = None,
    ) -> None:
        super().__init__(split=split, scheme=scheme, max_steps=max_steps, request=request, render_mode=render_mode)
        if games not in _GAMES:
            raise UnknownNameError("kind of games", games, _GAMES)
        if engine not in _ENGINES:
            raise UnknownNameError("engine", engine, _ENGINES)
        if expert not in _EXPERTS:
            raise UnknownNameError("expert", expert, _EXPERTS)
        self._source = _GAMES[games]()
        self._make_engine = _ENGINES[engine]
        self._data = Path(data) if data is not None else None
        self._available_only = available_only
        # The names are checked here, so that a typing error does not wait for the first reset.
        self._tasks: Sequence[str] = self._source.tasks(scheme, split)
        self._checked = False
        self._loaded: str | None = None
        self._game_goal = ""
        self._engine: Engine | None = None
        self._names: frozenset[str] = frozenset()
        self._expert_sees = expert == "seen"
        self._expert_seed = expert_seed
        self._expert: Expert | None = None
        self._walkthrough = Walkthrough(())
        self._walkthrough_commands: tuple[str, ...] = ()

    canonical = staticmethod(actions.canonical)

    @staticmethod
    def _meaning(action: str) -> str:
        """Return the action without the number of the object that it handles.

        Objects of one type are interchangeable, receptacles are not.
        """
        found = _HANDLED.fullmatch(action)
        return action if found is None else found[1] + found[2]

    def _split_tasks(self) -> Sequence[str]:
        if not self._checked:
            self._tasks = playable(self._source, self._tasks, self._data, self.split, self._available_only)
            self._checked = True
        return self._tasks

    def _start(self, task: str) -> tuple[EnvOutcome, str]:
        engine = self._open(task)
        text = engine.reset()
        self._walkthrough = Walkthrough(self._walkthrough_commands)
        self._expert = Expert(text, self._expert_seed) if self._expert_sees else None
        return EnvOutcome(text), self._game_goal

    def _open(self, task: str) -> Engine:
        if self._engine is None or self._loaded != task:
            self.close()
            game = load_game(task, self._data)
            self._engine = self._make_engine(game)
            self._loaded = task
            self._game_goal = game.goal
            self._names = self._engine.names()
            self._walkthrough_commands = game.walkthrough
        return self._engine

    def _act(self, action: str) -> EnvOutcome:
        engine = self._playing()
        feedback = engine.step(action)
        self._walkthrough.observe(action, feedback.valid)
        if self._expert is not None:
            self._expert.observe(action, feedback.text)
        reason = None if feedback.valid else actions.why_invalid(action, self._names, engine.admissible())
        score = float(feedback.won)
        return EnvOutcome(feedback.text, score, score, feedback.won, feedback.won, reason)

    def _admissible_actions(self) -> list[str]:
        return self._playing().admissible()

    def _expert_action(self) -> str | None:
        return self._expert.mind().action if self._expert is not None else self._walkthrough.next_action()

    def expert_mind(self) -> Mind | None:
        """Return the state of mind of the expert "seen" before the next action; None for the expert "walkthrough", which has
        none.
        """
        return self._expert.mind() if self._expert is not None else None

    def _playing(self) -> Engine:
        if self._engine is None:
            raise EngineError("the environment is closed: call reset() first")
        return self._engine

    def close(self) -> None:
        """Free the running game and its engine; the environment can be reset again."""
        engine, self._engine, self._loaded = self._engine, None, None
        self._running = False
        if engine is not None:
            engine.close()
