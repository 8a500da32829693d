"""`cotbench.pairs`: preference pairs for recipe `dpo`, as a folder. Invariant: the same as `cotbench pairs`; started again with
the same settings it goes on, and no state is sampled twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cotbench.agents.base import Agent, close_agent
from cotbench.agents.registry import make_agent
from cotbench.baselines.data.pairs import (
    PAIRS_FOLDER,
    SAMPLING,
    PairsSummary,
    make_pairs,
    make_pairs_plan,
    read_summary,
)
from cotbench.baselines.data.pairs_config import PairsConfig
from cotbench.baselines.data.preference_pair import PreferencePair, read_pairs
from cotbench.errors import UsageError
from cotbench.notebook import Display, Displayed, data_frame
from cotbench.runs.folder import make_folder, open_folder
from cotbench.status_line import StatusLine

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, repr=False)
class PairSet(Displayed):
    """The preference pairs in a folder.

    Attributes:
        path: the folder; recipe `dpo` takes it as `data`.
        summary: its card: states, pairs, why other states have none, what the samples were.
    """

    path: Path
    summary: PairsSummary

    def __len__(self) -> int:
        return self.summary.pairs

    @property
    def pairs(self) -> tuple[PreferencePair, ...]:
        """The pairs, in the order of the data."""
        return tuple(read_pairs(self.path)) if self.summary.pairs else ()

    @property
    def frame(self) -> pd.DataFrame:
        """The pairs as a table of pandas: task and step, and of both answers trace, action, and steps to go."""
        columns = ("trace", "action", "steps_to_go")
        return data_frame(
            [
                {"env": pair.env, "task": pair.task, "step": pair.step}
                | {f"chosen_{name}": getattr(pair.chosen, name) for name in columns}
                | {f"rejected_{name}": getattr(pair.rejected, name) for name in columns}
                for pair in self.pairs
            ]
        )

    def _display(self) -> Display:
        card = self.summary
        rows = [("states", card.states), ("pairs", card.pairs), ("  with the same trace on both sides", card.identical_traces)]
        rows += [(f"  left out: {reason}", count) for reason, count in card.left_out.items()]
        return Display(
            f"Preference pairs: {', '.join(card.teachers) or 'the teacher'} over {card.agent}",
            figures=(card.text(),),
            columns=("", "number"),
            rows=tuple((name, str(number)) for name, number in rows),
            notes=tuple(self._notes()),
        )

    def _notes(self) -> Sequence[str]:
        notes = [f"folder: {self.path}"]
        if self.summary.left_out.get("error"):
            notes.append(
                f"NOT FINISHED: at {self.summary.left_out['error']} states the agent or the environment failed; call it again "
                "with resume=True"
            )
        if not self.summary.pairs:
            notes.append(f"NO PAIRS: {self.summary.advice}")
        return notes


def pairs(
    out: str | Path,
    *,
    agent: str | Agent,
    data: str | Path | Sequence[str | Path],
    samples: int = 4,
    states: int | None = None,
    sampling_temperature: float = 1.0,
    seed: int = 0,
    elicitation: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> PairSet:
    """Sample a model's answers at the states of traces, and pair those whose action is worse with the teacher's.

    Args:
        out: the folder of the pairs.
        agent: whose own answers are rejected: the spec of a checkpoint of recipe `sft`, such as `hf:./sft`, from which recipe
            `dpo` begins; or an agent object that lends its model.
        data: whose answers are chosen: a traces folder, a .jsonl or a .parquet file, or several.
        samples: answers sampled at each state; the first one whose action is worse than the teacher's is rejected.
        states: number of states, drawn by the seed; all when left out.
        sampling_temperature: in place of the elicitation's.
        seed: of the draw of states and of the sampling.
        elicitation: settings that differ from the defaults, by the names of the fields of `Elicitation`.
        resume: continue the pairs in `out` where some were begun; states that are sampled already are not sampled again.
        progress: in a notebook, show how far the sampling is.

    Raises:
        UnknownNameError: no such agent.
        UsageError: a value that does not fit, data that cannot be trained on, or an agent that lends no model.
        CotbenchError: an environment of the data cannot be played here.
        RunFolderError: the folder holds other pairs, or some that are not to be resumed.
    """
    given = [data] if isinstance(data, str | Path) else list(data)
    try:
        config = PairsConfig(
            agent=agent if isinstance(agent, str) else agent.name,
            data=tuple(map(str, given)),
            samples=samples,
            states=states,
            sampling_temperature=sampling_temperature,
            seed=seed,
            elicitation=dict(elicitation or {}),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{'.'.join(map(str, first['loc']))} {first['input']}: {first['msg']}") from error
    target, plan, line = Path(out), make_pairs_plan(config), StatusLine(visible=progress)
    begun = (target / SAMPLING).is_file()
    found = 0

    def check(folder: Path) -> None:
        make_folder(folder, "continue them with resume=True" if begun else "choose another out", "folder of the pairs")

    def observe(state: Any, done: int, total: int) -> None:
        nonlocal found
        found += state.pair is not None
        line.show(f"states {done}/{total}, {found} pairs, {line.seconds:.0f} s", last=done == total)

    with open_folder(target, PAIRS_FOLDER, None if resume and begun else check) as opened:
        sampled = make_agent(agent) if isinstance(agent, str) else agent
        try:
            make_pairs(plan, opened, sampled, observe)
        finally:
            if isinstance(agent, str):
                close_agent(sampled)
    return load_pairs(target)


def load_pairs(path: str | Path) -> PairSet:
    """Read the folder of finished pairs.

    Args:
        path: the folder.

    Raises:
        RunFolderError: it is not such a folder, not finished, or damaged.
    """
    return PairSet(Path(path), read_summary(Path(path)))
