"""A judge of a run, and the folder of its work. Invariant: one folder holds the answers of one judge to one question about one
run; killed at any moment and resumed, a judge ends with the same judgements as one that was never killed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from cotbench.agents.base import Agent
from cotbench.envs.registry import env_entry
from cotbench.errors import RunFolderError, UsageError
from cotbench.judge.journal import JudgementJournal, read_judgements
from cotbench.judge.judgement import Judgement, Preference, preference
from cotbench.judge.manifest import FORMAT, JudgeManifest, judge_manifest, read_judge_manifest
from cotbench.judge.question import Pair, Question, check_judge, judge, revised_pairs
from cotbench.prompting.elicitation import Mode
from cotbench.prompting.query import derive_seed
from cotbench.runs.folder import check_identity, file_name, make_folder
from cotbench.runs.journal import read_episodes
from cotbench.runs.jsonl_store import write_atomically
from cotbench.runs.manifest import MANIFEST, SUITE, Manifest, read_manifest

if TYPE_CHECKING:
    import pandas as pd

JUDGES = "judges"
"""In a run folder: a folder for each judge."""
JUDGE = "judge.json"


@dataclass(frozen=True, slots=True)
class JudgePlan:
    """What there is to judge in a run, settled before anything is started.

    Attributes:
        run: the run folder; `manifest` is its manifest.
        judge: the judge's spec.
        episodes: CoT episodes played to their end.
        compared: their states at which both actions are known.
        pairs: those of them where the trace changed the action.
    """

    run: Path
    manifest: Manifest
    judge: str
    question: Question
    episodes: int
    compared: int
    pairs: list[Pair]

    def drawn(self, limit: int | None, done: frozenset[tuple[str, int]]) -> list[Pair]:
        """What is still to be judged, in the order of the run, until `limit` states are judged.

        States are drawn by the seed; a smaller number gives some of those of a larger.
        """

        def rank(pair: Pair) -> tuple[bool, int]:
            return pair.key not in done, derive_seed(self.question.seed, pair.task, pair.step, "drawn")

        chosen = {pair.key for pair in sorted(self.pairs, key=rank)[:limit]}
        return [pair for pair in self.pairs if pair.key in chosen and pair.key not in done]


class JudgeSummary(BaseModel):
    """`judge.json`: the numbers, for programs and for the table.

    Attributes:
        judge: the judge's spec; `judge_agent` is what it says of itself. `agent` and what follows is of the run.
        tasks: tasks of the run; `episodes` of their CoT episodes were played to their end.
        compared: states of these with both actions known; `revised` of them have two different ones.
    """

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    judge: str
    judge_agent: dict[str, Any]
    question: str
    mode: Mode
    both_orders: bool
    seed: int
    style: str
    temperature: float
    agent: str
    env: str
    scheme: str
    split: str
    partial: bool
    tasks: int
    episodes: int
    compared: int
    revised: int
    preference: Preference


@dataclass(frozen=True, slots=True)
class Judged:
    """A judge's folder, read.

    Attributes:
        path: the folder.
        manifest: who was asked, and how.
        records: the judgements, whole, in the order of the run.
    """

    path: Path
    manifest: JudgeManifest
    records: list[Judgement]

    @property
    def preference(self) -> Preference:
        """The numbers."""
        return preference(self.records)

    @property
    def judgements(self) -> pd.DataFrame:
        """One row a state: task, step, the actions, error, result, and whose action was named when either was shown first."""
        import pandas as pd

        rows = []
        for one in self.records:
            named = {f"{verdict.first}_first": verdict.preferred for verdict in one.verdicts}
            row = one.model_dump(exclude={"verdicts"}) | {"result": one.result, "cot_first": None, "prompt_first": None}
            rows.append(row | named)
        return pd.DataFrame(rows)


def make_judge_plan(run: Path, judge: str, question: Question) -> JudgePlan:
    """Find what there is to judge; starts no engine and no model.

    Raises:
        RunFolderError: not a run folder, or damaged.
        UsageError: a run without both actions, or several runs.
    """
    if (run / SUITE).is_file() and not (run / MANIFEST).is_file():
        raise UsageError(f"{run} holds several runs: judge each by itself, as in cotbench judge {run}/ENV")
    manifest = read_manifest(run)
    if manifest.config.mode != "both":
        raise UsageError(
            f"{run} was played in mode {manifest.config.mode} alone, so no state has two actions to compare: "
            "play a run with --mode both"
        )
    cot = [episode for episode in read_episodes(run) if episode.mode == "cot" and episode.error is None]
    cot.sort(key=lambda episode: manifest.task_list.index(episode.task))
    compared = sum(step.prompt_action is not None for episode in cot for step in episode.trajectory)
    pairs = revised_pairs(cot, env_entry(manifest.config.env).instructions(), manifest.config.env)
    return JudgePlan(run, manifest, judge, question, len(cot), compared, pairs)


def folder_of(run: Path, judge: str) -> Path:
    """Where a judge's work lies in a run folder."""
    return run / JUDGES / file_name(judge)


def new_judge_folder(folder: Path) -> None:
    """Make the folder of a new judge; refuse one that holds something.

    Raises:
        RunFolderError: it is not empty, or it cannot be made.
    """
    make_folder(folder, "go on with --resume, or choose another --out")


def read_judges(run: Path) -> dict[str, Judged]:
    """The judges of a run folder, by the names of their folders.

    Raises:
        RunFolderError: a file in one of them is damaged.
    """
    folders = sorted(path.parent for path in (run / JUDGES).glob(f"*/{MANIFEST}"))
    return {folder.name: Judged(folder, read_judge_manifest(folder), read_judgements(folder)) for folder in folders}


def judge_run(
    plan: JudgePlan, folder: Path, *, agent: Agent, limit: int | None, observer: Callable[[Judgement], None]
) -> tuple[JudgeSummary, list[Judgement]]:
    """Judge a run into a new folder, or go on in one that was begun: what is missing is judged, and what errored again.

    Args:
        plan: what there is to judge.
        folder: of this judge.
        agent: the judge.
        limit: judge until this many states are; all when None.
        observer: is told each judgement once it is written down.

    Raises:
        CotbenchError: the agent cannot judge.
        RunFolderError: the folder holds another judge's work.
    """
    check_judge(agent, plan.question)
    now = judge_manifest(plan.manifest, plan.judge, plan.question, agent)
    if (folder / MANIFEST).is_file():
        check_identity(folder, read_judge_manifest(folder).identity, now.identity)
    else:
        write_atomically(folder / MANIFEST, [now.model_dump_json(indent=2) + "\n"])
    with JudgementJournal(folder) as journal:
        _check_states(folder, journal.records, plan.pairs)
        done = frozenset(one.key for one in journal.records if one.error is None)
        for judgement in judge(agent, plan.drawn(limit, done), plan.question):
            journal.append(judgement)
            observer(judgement)
        judgements = journal.finalize([pair.key for pair in plan.pairs])
    summary = summarize_judge(plan, judgements, now.agent)
    write_atomically(folder / JUDGE, [summary.model_dump_json(indent=2) + "\n"])
    return summary, judgements


def summarize_judge(plan: JudgePlan, judgements: Sequence[Judgement], described: dict[str, Any]) -> JudgeSummary:
    """The numbers of a judge's work."""
    config, question = plan.manifest.config, plan.question
    return JudgeSummary(
        judge=plan.judge,
        judge_agent=described,
        question=question.fingerprint,
        mode=question.mode,
        both_orders=question.both_orders,
        seed=question.seed,
        style=question.elicitation.style,
        temperature=question.elicitation.temperature,
        agent=config.agent,
        env=config.env,
        scheme=config.scheme,
        split=config.split,
        partial=plan.manifest.partial,
        tasks=len(plan.manifest.task_list),
        episodes=plan.episodes,
        compared=plan.compared,
        revised=len(plan.pairs),
        preference=preference(judgements),
    )


def _check_states(folder: Path, judgements: Sequence[Judgement], pairs: Sequence[Pair]) -> None:
    """Refuse judgements of states that the run does not hold."""
    known = {pair.key: (pair.prompt_action, pair.cot_action) for pair in pairs}
    for one in judgements:
        if known.get(one.key) != (one.prompt_action, one.cot_action):
            raise RunFolderError(
                f"{folder} holds a judgement of step {one.step} of {one.task}, where the run has other actions: "
                "choose another --out"
            )
