"""The judges of a run: probe `preference` on the states and answers that the run recorded. Invariant: the run's agent is never
queried; one folder holds the answers of one judge to one question about one run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotbench.agents.base import Agent, describe_agent
from cotbench.errors import AgentError, RunFolderError
from cotbench.judge.preference import PROBE, PreferenceOptions, PreferenceRow, preference_of
from cotbench.judge.question import check_judge
from cotbench.notebook import data_frame
from cotbench.probes.folder import ProbeResult, ProbeSummary, read_probe, run_probe, summarize_probe
from cotbench.probes.states import RecordedRun, StateAnswer, StateKey, StateSet, recorded_states
from cotbench.prompting.query import Decision, Query, derive_seed
from cotbench.runs.folder import FolderKind, WritableFolder, file_name, make_folder
from cotbench.runs.manifest import MANIFEST, Manifest, read_manifest

if TYPE_CHECKING:
    import pandas as pd

JUDGES = "judges"
"""Name of the folder in a run folder that holds a folder for each judge."""
JUDGE_FOLDER = FolderKind(noun="measurement", writer="cotbench judge", manifest=MANIFEST)


@dataclass(frozen=True, slots=True)
class JudgePlan:
    """The states and answers of a run to judge, read before any engine or model is started.

    Attributes:
        run: the run folder; `manifest` is its manifest.
        options: of the probe; `options.judge` is the judge's spec.
        states: the states at which both actions are recorded; `answers` are these actions.
    """

    run: Path
    manifest: Manifest
    options: PreferenceOptions
    states: StateSet
    answers: dict[StateKey, StateAnswer]

    @property
    def recorded(self) -> RecordedRun:
        """The record of the run that is judged."""
        if self.states.recorded is None:
            raise RunFolderError(f"{self.run} was not read as a recorded run: read it with recorded_states")
        return self.states.recorded

    @property
    def spec(self) -> str:
        """The judge's spec."""
        return str(self.options.judge)

    def chosen(self, limit: int | None, done: frozenset[StateKey]) -> set[StateKey]:
        """Return the states that have a row once `limit` are judged: those with one action, and the judged and drawn ones with
        two.

        Args:
            limit: the number of states with two actions to judge; all when None. States are drawn by the seed; a smaller number
                gives a subset of the states of a larger one.
            done: the states that are judged already; they are drawn first.
        """

        def rank(key: StateKey) -> tuple[bool, int]:
            return key not in done, derive_seed(self.options.seed, *key, "drawn")

        revised = sorted((key for key, answer in self.answers.items() if answer.revised), key=rank)
        return {key for key, answer in self.answers.items() if not answer.revised} | {*revised[:limit]}

    def check_rows(self, folder: Path, rows: Sequence[PreferenceRow]) -> None:
        """Raise an error where rows belong to other states or actions than the run's.

        Args:
            folder: the folder of the rows, for the message.
            rows: the rows of a judge.

        Raises:
            RunFolderError: names the first such row.
        """
        for row in rows:
            answer = self.answers.get(row.key)
            recorded = (answer.prompt_action, answer.cot_action) if answer is not None and answer.revised else ("", "")
            if answer is None or (row.error is None and recorded != (row.prompt_action, row.cot_action)):
                raise RunFolderError(
                    f"{folder} holds a judgement of step {row.step} of {row.task}, where the run has other actions: "
                    "choose another --out"
                )


class _RecordedAgent:
    """Replaces the agent of a run, whose answers are recorded."""

    def __init__(self, manifest: Manifest) -> None:
        self.name = manifest.config.agent
        self.uses_elicitation = manifest.uses_elicitation
        self._description = manifest.agent

    def describe(self) -> dict[str, Any]:
        """Return the agent's description in the run's manifest."""
        return self._description

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        """Raise an error: every answer is recorded, so none may be asked for."""
        raise AgentError(f"agent {self.name} is not loaded: only what it did in its run is judged")

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


def make_judge_plan(run: Path, options: PreferenceOptions) -> JudgePlan:
    """Read the states and answers of a run to judge; starts no engine and no model.

    Args:
        run: the folder of a run in mode both, finished or not.
        options: of probe `preference`, the judge's spec among them.

    Raises:
        RunFolderError: not a run folder, or damaged.
        UsageError: a run without both actions, or several runs.
    """
    states, answers = recorded_states(run)
    return JudgePlan(run, read_manifest(run), options, states, answers)


def folder_of(run: Path, judge: str) -> Path:
    """Return the folder of a judge in a run folder.

    Args:
        run: the run folder.
        judge: the judge's spec.
    """
    return run / JUDGES / file_name(judge)


def new_judge_folder(folder: Path) -> None:
    """Make the folder of a new judge.

    Raises:
        RunFolderError: the folder is not empty, or it cannot be made.
    """
    begun = (folder / JUDGE_FOLDER.manifest).is_file()
    make_folder(folder, "continue with --resume, or choose another --out" if begun else "choose another --out")


def read_judges(run: str | Path) -> dict[str, ProbeResult]:
    """Read the judges of a run folder.

    Returns:
        The results of probe `preference`, by the names of the folders under `judges/`.

    Raises:
        RunFolderError: a file in one of them is damaged.
    """
    folders = sorted(path.parent for path in (Path(run) / JUDGES).glob(f"*/{MANIFEST}"))
    return {folder.name: read_probe(folder) for folder in folders}


def judgements_of(result: ProbeResult) -> pd.DataFrame:
    """Return a row for each judged state: task, step, the actions, error, result, and the preferred action in either order."""
    rows = []
    for one in (row.judgement for row in result.rows if row.left_out is None):
        named = {f"{verdict.first}_first": verdict.preferred for verdict in one.verdicts}
        row = one.model_dump(exclude={"verdicts"}) | {"result": one.result, "cot_first": None, "prompt_first": None}
        rows.append(row | named)
    return data_frame(rows)


def judge_run(
    plan: JudgePlan,
    folder: Path | WritableFolder,
    *,
    agent: Agent,
    limit: int | None = None,
    observer: Callable[[PreferenceRow], None] = lambda row: None,
    stop_at_failures: bool = False,
) -> ProbeSummary:
    """Judge a run into a new folder, or resume one: missing states are judged, and those with an error again.

    Args:
        plan: the states and answers to judge.
        folder: of this judge; an open one where the caller has locked it already, before the judge was built.
        agent: the judge.
        limit: judge until this many states are; all when None.
        observer: called with each row of a state where the trace changed the action, once it is known.
        stop_at_failures: end at the first state that a bug or another exception fails.

    Returns:
        The summary, as written to `probe.json`.

    Raises:
        CotbenchError: the agent cannot judge.
        RunFolderError: the folder holds another judge's work, or another process writes to it.
    """
    question = plan.options.question
    check_judge(agent, question)

    def choose(rows: Sequence[PreferenceRow]) -> set[StateKey]:
        plan.check_rows(folder if isinstance(folder, Path) else folder.path, rows)
        return plan.chosen(limit, frozenset(row.key for row in rows if row.error is None))

    def report(row: Any) -> None:
        if row.left_out is None:
            observer(row)

    return run_probe(
        preference_of(agent),
        folder,
        agent=_RecordedAgent(plan.manifest),
        spec=plan.manifest.config.agent,
        states=plan.states,
        elicitation=plan.manifest.config.elicitation,
        options=plan.options,
        seed=plan.options.seed,
        answers=plan.answers,
        observer=report,
        kind=JUDGE_FOLDER,
        judge={"question": question.fingerprint, **describe_agent(agent)},
        choose=choose,
        stop_at_failures=stop_at_failures,
    )


def nothing_judged(plan: JudgePlan) -> ProbeSummary:
    """Return the summary of a run in which no trace changed an action."""
    return summarize_probe(
        PROBE,
        [PreferenceRow(task=state.task, step=state.step, left_out="same action") for state in plan.states.states],
        spec=plan.manifest.config.agent,
        states=plan.states,
        elicitation=plan.manifest.config.elicitation,
        options=plan.options,
        seed=plan.options.seed,
        uses_elicitation=plan.manifest.uses_elicitation,
    )
