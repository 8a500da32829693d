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
from cotbench.envs.alfworld.informed_expert import InformedPlayer
from cotbench.envs.alfworld.native_engine import NativeEngine
from cotbench.envs.alfworld.tasks import GeneratedGames, OfficialGames, load_game
from cotbench.envs.alfworld.textworld_engine import TextWorldEngine
from cotbench.envs.alfworld.walkthrough import Walkthrough
from cotbench.envs.base import EnvOutcome, TextEnv
from cotbench.envs.reading import read_action
from cotbench.envs.tasks import TaskSource, playable
from cotbench.errors import EngineError, GameFileError, UnknownNameError

_ENGINES: dict[str, Callable[[Game], Engine]] = {"native": NativeEngine, "textworld": TextWorldEngine}
_EXPERTS = ("walkthrough", "seen")
_HANDLED = re.compile(r"((?:take|move|clean|heat|cool|slice|use) .+?) \d+((?: (?:from|to|with) .+)?)")
"""An action on an object: all but the object's number."""
_EXAMPLES = (
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
    final stop do not matter. Games since ALFWorld 0.4 say `move X to Y`, those from before `put X in/on Y`: commands are
    listed, and given by the experts, as the running game spells them, and either spelling is understood in both. A command
    that is not admissible costs a step, is answered "Nothing happens.", and `info["invalid_action"]` says why.

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
            anywhere (silent only where it does not understand the task).
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
    examples: ClassVar[tuple[str, ...]] = tuple(map(actions.MOVE.canonical, _EXAMPLES))

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
        self._dialect = actions.MOVE
        self._engine: Engine | None = None
        self._names: frozenset[str] = frozenset()
        self._expert_sees = expert == "seen"
        self._expert_seed = expert_seed
        self._expert: Expert | None = None
        self._walkthrough = Walkthrough(())
        self._walkthrough_commands: tuple[str, ...] = ()
        self._player: InformedPlayer | None = None

    canonical = staticmethod(actions.MOVE.canonical)

    def _executed(self, action: str) -> str:
        """Return the action as the running game spells it."""
        return self._dialect.canonical(action)

    @staticmethod
    def _meaning(action: str) -> str:
        """Return the action without the number of the object that it handles.

        Objects of one type are interchangeable, receptacles are not.
        """
        action = actions.MOVE.canonical(action)
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
        self._walkthrough = Walkthrough(self._walkthrough_commands, self._dialect)
        self._expert = self._seen_expert(text) if self._expert_sees else None
        return EnvOutcome(text), self._game_goal

    def _seen_expert(self, text: str) -> Expert | None:
        """Return the expert "seen" at the first observation; None where it does not understand the task."""
        try:
            return Expert(text, self._expert_seed, self._dialect)
        except GameFileError:
            return None

    def _open(self, task: str) -> Engine:
        if self._engine is None or self._loaded != task:
            self.close()
            game = load_game(task, self._data)
            self._dialect = game.dialect
            # Of the class for everybody else, of this game for whoever asks the running environment.
            self.examples = tuple(map(self._dialect.canonical, _EXAMPLES))  # type: ignore[misc]
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
        reason = None if feedback.valid else actions.why_invalid(action, self._names, engine.admissible(), self._dialect)
        score = float(feedback.won)
        return EnvOutcome(feedback.text, score, score, feedback.won, feedback.won, reason)

    def _admissible_actions(self) -> list[str]:
        return self._playing().admissible()

    def _expert_action(self) -> str | None:
        if not self._expert_sees:
            return self._walkthrough.next_action()
        try:
            return self._expert.mind().action if self._expert is not None else None
        except GameFileError:  # It looks for something that this room does not have.
            return None

    def expert_mind(self) -> Mind | None:
        """Return the state of mind of the expert "seen" before the next action; None for the expert "walkthrough", which has
        none.
        """
        return self._expert.mind() if self._expert is not None else None

    def remaining_steps(self, action: str | None = None) -> int | None:
        """Return how many steps an expert that knows the whole household takes to the end; see `informed_expert`.

        The running game is copied, so only the engine "native" can tell.
        """
        engine = self._playing()
        if not isinstance(engine, NativeEngine) or not self._running:
            return None
        if self._player is None or not self._player.began(self._task, self._executed_actions):
            self._player = InformedPlayer(self._task, engine, self._dialect)
        self._player.follow(self._executed_actions)
        return self._player.steps_left(None if action is None else read_action(self._executed, action))

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


class PutALFWorldEnv(ALFWorldEnv):
    """ALFWorld over games from before release 0.4, which say `put X in/on Y`: the same environment, whose actions are recorded
    and shown in that spelling.
    """

    examples: ClassVar[tuple[str, ...]] = tuple(map(actions.PUT.canonical, _EXAMPLES))
    canonical = staticmethod(actions.PUT.canonical)
