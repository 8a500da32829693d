"""`cotbench.train`: a trained model, its checkpoints and its log. Invariant: the same as `cotbench train`; what is read of a
folder is what its cards say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotbench.api.trust import require_trust
from cotbench.baselines.recipes.require import require_training
from cotbench.baselines.recipes.resolve import RecipePlan, resolve_config, run_recipe
from cotbench.baselines.tiny.demonstrations import TINY_DATA, Watch, tiny_demonstrations
from cotbench.baselines.training.recipe_card import BEGUN, CARD, first_process, read_begun
from cotbench.errors import RunFolderError
from cotbench.json_text import parse_json
from cotbench.notebook import Display, Displayed, data_frame
from cotbench.recipes import agent_of
from cotbench.runs.status import RunStatus
from cotbench.status_line import StatusLine, in_notebook

if TYPE_CHECKING:
    import pandas as pd

_STATE = "trainer_state.json"
CHECKPOINT = "checkpoint"
"""Name of the folders `checkpoint-N`."""


@dataclass(frozen=True, slots=True, repr=False)
class Training(Displayed):
    """A training, finished or not.

    Attributes:
        path: the folder of the trained model.
        card: how it was trained: recipe, config, data, and what was counted; of a training that is not finished, how it began.
        checkpoints: the folders of the checkpoints with how much of the training they have, ascending.
    """

    path: Path
    card: Mapping[str, Any]
    checkpoints: tuple[tuple[Path, float], ...]

    @property
    def finished(self) -> bool:
        """Whether the training was carried out to its end."""
        return "progress" in self.card

    @property
    def recipe(self) -> str:
        """Name of the recipe."""
        return str(self.card["recipe"])

    @property
    def agent(self) -> str:
        """Spec of the agent that plays the trained model."""
        text = str(self.path)
        return f"{agent_of(self.recipe)}:{text if text.startswith(('.', '/', '~')) else f'./{text}'}"

    @property
    def log(self) -> pd.DataFrame:
        """What was logged, as a table of pandas: step, loss, learning rate, tokens, ...; up to the newest checkpoint.

        Where several models were trained, as by recipe frodo, the first column, `part`, names the model.
        """
        for folder, _ in self.checkpoints[-1:]:
            if (folder / _STATE).is_file():
                return data_frame(_logged(folder))
        parts = sorted(path for path in self.path.glob("*/") if not path.name.startswith(CHECKPOINT))
        newest = {part: _checkpoints_of(part)[-1:] for part in parts}
        return data_frame(
            [{"part": part.name, **row} for part, found in newest.items() for folder, _ in found for row in _logged(folder)]
        )

    def _display(self) -> Display:
        config, data, seen = (self.card.get(name) or {} for name in ("config", "data", "seen"))
        fields = {
            "model": config.get("model"),
            "seed": config.get("seed"),
            "training data": _counted(data.get("episodes"), "episodes") or _counted(data.get("pairs"), "pairs"),
            "examples": (self.card.get("examples") or {}).get("examples"),
            "steps": self.card.get("steps"),
            "tokens": None if seen.get("tokens") is None else f"{seen['tokens']:.0f}",
            "masked share of action tokens": None if not seen.get("masked_share") else f"{seen['masked_share']:.1%}",
            "checkpoints": ", ".join(f"{share:.0%}" for _, share in self.checkpoints) or None,
        }
        rows = tuple((name, str(value)) for name, value in fields.items() if value is not None)
        return Display(
            f"Training by recipe {self.recipe}",
            figures=(", ".join(f"{name}: {value}" for name, value in rows),),
            columns=("", "value"),
            rows=rows,
            notes=tuple(self._notes()),
        )

    def _notes(self) -> Iterable[str]:
        if not self.finished:
            yield "NOT FINISHED: call it again with resume=True"
        yield f"agent: {self.agent}"


def _counted(count: object, what: str) -> str | None:
    return None if count is None else f"{count} {what}"


def train(
    out: str | Path,
    *,
    recipe: str | None = None,
    preset: str | None = None,
    config: str | Path | None = None,
    resume: bool = False,
    trust: bool = False,
    progress: bool = True,
    **options: Any,
) -> Training:
    """Train a model on traces, with or without reduced action supervision.

    Args:
        out: the folder of the trained model.
        recipe: name of the recipe (`cotbench list recipes`); `sft` when left out.
        preset: values in place of the defaults.
        config: a TOML file of options.
        resume: continue the training in `out` where one was begun.
        trust: use addresses and names of keys that the folder or the file names.
        progress: in a notebook, show how far the training is.
        options: of the recipe, by the names of its config's fields, such as `model`, `data`, `epochs`, `mask_fraction`.

    Raises:
        MissingExtraError: the libraries for training are not installed.
        UnknownNameError: no such recipe, preset or option.
        UsageError: a value that does not fit, or a missing one.
        RunFolderError: the folder holds another training, or one that is not to be resumed.
    """
    require_training()
    target = Path(out)
    begun = target if resume and (target / BEGUN).is_file() else None
    file = None if config is None else Path(config)
    plan = resolve_config(recipe, preset, file, options, begun)
    if begun is not None or file is not None:
        require_trust(plan.config.model_dump(mode="json"), begun or file, given=options, trust=trust)
    line = StatusLine(visible=progress)
    play_tiny_episodes(plan, lambda played, *_: nullcontext(RunStatus(line, len(played.rollouts))))
    run_recipe(plan, target, resume=begun is not None, progress=_callback(line) if progress and in_notebook() else None)
    return load_training(target)


def _callback(line: StatusLine) -> Callable[[], Any]:
    def make() -> Any:
        from cotbench.api.training_status import TrainingStatus

        return TrainingStatus(line)

    return make


def play_tiny_episodes(plan: RecipePlan, watch: Watch) -> None:
    """Play the episodes that tiny is trained on, where no data was given and the cache does not hold them.

    Args:
        plan: the recipe and its config.
        watch: returns a context with an observer of a run, given its plan and its folder.
    """
    from cotbench.baselines.training.trackers import require_trackers

    if TINY_DATA in getattr(plan.config, "data", ()) and first_process():
        require_trackers(getattr(plan.config, "report_to", ()))  # The episodes take minutes.
        tiny_demonstrations(watch)


def load_training(path: str | Path) -> Training:
    """Read the folder of a training, finished or not.

    Args:
        path: the folder of the trained model.

    Raises:
        RunFolderError: a card in it is damaged.
        UsageError: it is not the folder of a training.
    """
    folder = Path(path)
    card = _read_json(folder / CARD) if (folder / CARD).is_file() else read_begun(folder)
    return Training(folder, card, tuple(_checkpoints_of(folder)))


def _checkpoints_of(folder: Path) -> list[tuple[Path, float]]:
    """Return the checkpoints in a folder with how much of the training they have, ascending."""
    found = []
    for one in folder.glob(f"{CHECKPOINT}-*/{CARD}"):
        try:
            found.append((float(_read_json(one)["progress"]), one.parent))
        except (KeyError, TypeError, ValueError) as error:
            raise RunFolderError(f"{one} is damaged: it does not say how much of the training it has") from error
    return [(one, share) for share, one in sorted(found)]


def _logged(checkpoint: Path) -> list[dict[str, Any]]:
    """Return the rows of a checkpoint's log."""
    return list(_read_json(checkpoint / _STATE).get("log_history", [])) if (checkpoint / _STATE).is_file() else []


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_bytes())
        if not isinstance(content, dict):
            raise TypeError("not an object")
    except (OSError, ValueError, TypeError) as error:
        raise RunFolderError(f"{path} is damaged ({error}): train it again") from error
    return content
