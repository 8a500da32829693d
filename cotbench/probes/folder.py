"""Write and read a probe's folder. Invariant: one folder holds the rows of one probe, one agent and one set of states; a
measurement that was killed at any moment and resumed ends with the same rows as one that was not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from cotbench.agents.base import Agent, check_elicitation, describe_agent, uses_elicitation
from cotbench.agents.face import check_agent
from cotbench.envs.registry import env_entry
from cotbench.errors import RunFolderError, UsageError
from cotbench.failure import failure_in, registered_code
from cotbench.notebook import Display, Displayed, data_frame
from cotbench.probes.display import estimate_rows, probe_display
from cotbench.probes.measurement import measure_states, until_measured
from cotbench.probes.numbers import ProbeNumbers, ProbeRow
from cotbench.probes.probe import Probe, ProbeOptions, ProbeSetting, probe_named
from cotbench.probes.states import RecordedRun, StateAnswer, StateKey, StateSet
from cotbench.prompting.elicitation import Elicitation
from cotbench.runs import line_digest
from cotbench.runs.dataset_card import DataConfig, record_columns, split_name, write_card
from cotbench.runs.folder import FolderKind, WritableFolder, open_folder
from cotbench.runs.jsonl_store import JsonlStore
from cotbench.runs.manifest import MACHINE_FIELDS, MANIFEST, agent_identity, is_true, provenance

if TYPE_CHECKING:
    import pandas as pd

ROWS = "rows.jsonl"
SUMMARY = "probe.json"
FORMAT = 1
"""Of the summary."""
PROBE_FOLDER = FolderKind(noun="measurement", writer="cotbench probe", manifest=MANIFEST)
_FROZEN = ConfigDict(frozen=True)


class _ProbeRecord(BaseModel):
    """Fields of a probe's files that are left out where they say nothing: only a recorded run has the first two.

    Attributes:
        uses_elicitation: whether the agent says that it asks and reads as the elicitation says; left out where True.
    """

    model_config = _FROZEN

    recorded: RecordedRun | None = None
    judge: dict[str, Any] | None = None
    uses_elicitation: bool = Field(True, exclude_if=is_true)

    @model_serializer(mode="wrap")
    def _without_absent(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        absent = {name for name in ("recorded", "judge") if getattr(self, name) is None}
        return {name: value for name, value in fields(self).items() if name not in absent}


class ProbeManifest(_ProbeRecord):
    """The record of a probe: agent, states and settings.

    Attributes:
        agent: the spec; `described` is the agent's own description.
        states: the number of states; `states_sha256` is over all of their contents.
        seed: draws the states, pairs them with donors, seeds sampling.
        answers: whether the agent's answers were taken from probe `alignment`, or from a run, instead of being asked for again.
        recorded: the run whose own states and answers are measured, as it was when the work began: it may grow, so that in the
            identity it replaces the states. Not written where there is none.
        judge: the description of the judge of such a run, and the fingerprint of its question. Not written where there is none.
    """

    model_config = _FROZEN

    format: int = line_digest.FORMAT
    probe: str
    options: dict[str, Any]
    agent: str
    described: dict[str, Any]
    env: str
    scheme: str
    split: str
    reference: str
    states: int
    tasks: int
    states_sha256: str
    seed: int
    elicitation: Elicitation
    elicitation_fingerprint: str
    answers: bool
    packages: dict[str, str]
    python: str
    hardware: dict[str, Any]
    git_commit: str | None
    created: str

    def identity(self) -> dict[str, Any]:
        """Return the flat fields that must be the same for a measurement to be resumed."""
        names = ("probe", "agent", "env", "scheme", "split", "reference", "seed", "answers")
        fields = {name: getattr(self, name) for name in names} | {"elicitation": self.elicitation_fingerprint}
        if self.recorded is None:
            fields |= {"states": self.states, "states_sha256": self.states_sha256}
        else:
            fields |= {"run": self.recorded.run, "instructions": self.recorded.instructions}
        if self.judge is not None:
            fields |= {f"judge {name}": value for name, value in self.judge.items() if name not in MACHINE_FIELDS}
        fields |= {f"option {name}": value for name, value in self.options.items()}
        return fields | agent_identity(self.described)


class ProbeSummary(_ProbeRecord):
    """The contents of `probe.json`: the numbers, and the settings they were measured with.

    Attributes:
        recorded, judge: as in the manifest.
    """

    model_config = _FROZEN

    format: int = FORMAT
    probe: str
    options: dict[str, Any]
    agent: str
    env: str
    scheme: str
    split: str
    reference: str
    seed: int
    elicitation: str
    states_sha256: str
    numbers: ProbeNumbers


@dataclass(frozen=True, slots=True, repr=False)
class ProbeResult(Displayed):
    """A measurement: its folder, its rows, its numbers.

    Attributes:
        path: the folder.
        manifest: its manifest.
        rows: the complete rows, in the order of the states.
    """

    path: Path
    manifest: ProbeManifest
    rows: list[Any]

    @property
    def probe(self) -> Probe:
        """The probe that was run."""
        return probe_named(self.manifest.probe)

    @property
    def numbers(self) -> ProbeNumbers:
        """The numbers, computed from the rows."""
        return self.probe.summarize(self.rows, self.probe.options(**self.manifest.options))

    @property
    def states(self) -> pd.DataFrame:
        """The rows as a table of pandas, one row a state."""
        return data_frame([row.model_dump() for row in self.rows])

    @property
    def estimates(self) -> pd.DataFrame:
        """The numbers as a table of pandas: number, mean, low, high, n; those of a curve by their place on its axis."""
        return data_frame(list(estimate_rows(self.numbers)))

    def _display(self) -> Display:
        return probe_display(self.manifest, self.numbers, self.path)


def run_probe(
    probe: Probe,
    folder: Path | WritableFolder,
    *,
    agent: Agent,
    spec: str,
    states: StateSet,
    elicitation: Elicitation,
    options: ProbeOptions,
    seed: int = 0,
    answers: Mapping[StateKey, StateAnswer] | None = None,
    observer: Callable[[ProbeRow], None] = lambda row: None,
    kind: FolderKind = PROBE_FOLDER,
    judge: dict[str, Any] | None = None,
    choose: Callable[[Sequence[Any]], Collection[StateKey]] | None = None,
    stop_at_failures: bool = False,
    data: Path | None = None,
) -> ProbeSummary:
    """Measure an agent into a new folder, or resume one: missing states are measured, and those with an error again.

    Args:
        probe: the probe.
        folder: the folder of this measurement; an open one where the caller writes other files to it too.
        agent: the agent to measure; `spec` is the spec it was made from.
        states, elicitation: the states to measure it on, and how answers are asked for.
        options: the probe's own.
        seed: pairs states with donors, seeds sampling.
        answers: the agent's answers at these states, where they are known.
        observer: called with each row once it is known.
        kind: how messages call the folder.
        judge: see `ProbeManifest`.
        choose: from the rows that exist already, which states are to have a row in the end; all states when left out.
        stop_at_failures: end at the first state that a bug or another exception fails.
        data: the folder with the environment's data; it changes no result.

    Returns:
        The summary, as written to `probe.json`.

    Raises:
        RunFolderError: the folder holds another measurement, or another process writes to it.
        BugError: the code of the agent or of the probe fails.
        CotbenchError: this agent cannot be measured so, or not at any state; then nothing is written into a new folder.
    """
    check_agent(agent)
    check_elicitation(agent, elicitation)
    manifest = _manifest(probe, agent, spec, states, elicitation, options, seed, answers is not None, judge)
    entry = env_entry(states.env).in_dialect(states.dialect)
    setting = ProbeSetting(states, elicitation, entry.canonical(), entry.equivalent(), seed, answers or {}, data)
    store = _rows_file(probe)
    with open_folder(folder, kind) if isinstance(folder, Path) else nullcontext(folder) as opened:
        existing: list[Any] = []
        if opened.begun:
            opened.check_identity(read_probe_manifest(opened.path).identity(), json.loads(json.dumps(manifest.identity())))
            existing = store.read(opened.path).rows if (opened.path / ROWS).is_file() else []
        done = {row.key for row in existing if row.error is None}
        chosen = None if choose is None else set(choose(existing))
        todo = [state for state in states.states if state.key not in done and (chosen is None or state.key in chosen)]
        found = measure_states(probe, agent, todo, setting, options)
        # Before anything is written: an agent that cannot be measured leaves no files.
        early = [] if opened.begun else until_measured(found, agent, observer, stop_at_failures)
        opened.begin(manifest.model_dump_json(indent=2))
        with opened.journal(store) as file:
            for number, row in enumerate(chain(early, found)):
                file.append(row)
                if number >= len(early):
                    observer(row)
                failure = failure_in(row)
                if stop_at_failures and failure is not None and failure.can_be_traced:
                    raise failure.exception
            rows = file.finalize([state.key for state in states.states]).rows
        summary = summarize_probe(
            probe,
            rows,
            spec=spec,
            states=states,
            elicitation=elicitation,
            options=options,
            seed=seed,
            judge=judge,
            uses_elicitation=manifest.uses_elicitation,
        )
        _write_card(opened.path, probe, manifest)
        opened.finalize(SUMMARY, summary.model_dump_json(indent=2))
    return summary


def _write_card(folder: Path, probe: Probe, manifest: ProbeManifest) -> None:
    about = f"{probe.description}: one line of `{ROWS}` for each state, settings in `{MANIFEST}`, numbers in `{SUMMARY}`."
    table = DataConfig("default", {split_name(manifest.split): ROWS}, record_columns(probe.row, manifest.format))
    write_card(folder, f"Probe {probe.name} of {manifest.agent} on {manifest.env} {manifest.split}", about, [table])


def summarize_probe(
    probe: Probe,
    rows: Sequence[Any],
    *,
    spec: str,
    states: StateSet,
    elicitation: Elicitation,
    options: ProbeOptions,
    seed: int,
    judge: dict[str, Any] | None = None,
    uses_elicitation: bool = True,
) -> ProbeSummary:
    """Return the summary of rows; the parameters are those of `run_probe`, and fields of the summary."""
    with registered_code(f"probe {probe.name}", probe.summarize):
        numbers = probe.summarize(rows, options)
    return ProbeSummary(
        probe=probe.name,
        options=options.model_dump(mode="json"),
        agent=spec,
        env=states.env,
        scheme=states.scheme,
        split=states.split,
        reference=states.reference,
        seed=seed,
        elicitation=elicitation.fingerprint,
        states_sha256=states.sha256,
        numbers=numbers,
        recorded=states.recorded,
        judge=judge,
        uses_elicitation=uses_elicitation,
    )


def read_probe(folder: Path) -> ProbeResult:
    """Read a probe's folder, finished or not.

    Raises:
        RunFolderError: not such a folder, or damaged.
    """
    manifest = read_probe_manifest(folder)
    return ProbeResult(folder, manifest, _rows_file(probe_named(manifest.probe)).read(folder).rows)


def read_probe_manifest(folder: Path) -> ProbeManifest:
    """Return the manifest of a probe's folder.

    Raises:
        RunFolderError: not such a folder, or damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise RunFolderError(f"{folder} is not the folder of a probe: it has no {MANIFEST}")
    try:
        return ProbeManifest.model_validate_json(path.read_text("utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} is not the manifest of a probe: measure again with cotbench probe") from error


def known_answers(folder: Path, agent: str, states: StateSet, elicitation: Elicitation) -> Mapping[StateKey, StateAnswer]:
    """Return an agent's answers from the folder of a probe whose rows hold answers (`alignment`).

    Args:
        folder: the folder of that probe.
        agent: the spec of the agent that is measured.
        states, elicitation: the states it is measured on, and how answers are asked for.

    Raises:
        UsageError: the folder belongs to another probe, agent, set of states or elicitation.
    """
    result = read_probe(folder)
    manifest = result.manifest
    for name, recorded, wanted in (
        ("agent", manifest.agent, agent),
        ("elicitation", manifest.elicitation_fingerprint, elicitation.fingerprint),
        ("reference", manifest.reference, states.reference),
        ("split", f"{manifest.env} {manifest.scheme}/{manifest.split}", f"{states.env} {states.scheme}/{states.split}"),
    ):
        if recorded != wanted:
            raise UsageError(f"{folder} has the answers of another {name}: {recorded}, not {wanted}")
    if result.probe.answers is None:
        raise UsageError(f"{folder} is of probe {manifest.probe}, whose rows hold no answers: name a folder of probe alignment")
    known, references = result.probe.answers(result.rows), {row.key: row.reference for row in result.rows if row.error is None}
    for state in states.states:
        if references.get(state.key, state.action) != state.action:
            raise UsageError(f"{folder} has another reference action at step {state.step} of {state.task}: measure it again")
    return known


def _manifest(
    probe: Probe,
    agent: Agent,
    spec: str,
    states: StateSet,
    elicitation: Elicitation,
    options: ProbeOptions,
    seed: int,
    answers: bool,
    judge: dict[str, Any] | None,
) -> ProbeManifest:
    return ProbeManifest(
        probe=probe.name,
        options=options.model_dump(mode="json"),
        agent=spec,
        described=describe_agent(agent),
        env=states.env,
        scheme=states.scheme,
        split=states.split,
        reference=states.reference,
        states=len(states.states),
        tasks=states.tasks,
        states_sha256=states.sha256,
        seed=seed,
        elicitation=elicitation,
        elicitation_fingerprint=elicitation.fingerprint,
        answers=answers,
        recorded=states.recorded,
        judge=judge,
        uses_elicitation=uses_elicitation(agent),
        **provenance(),
    )


def _rows_file(probe: Probe) -> type[JsonlStore[Any, Any]]:
    fields = {"name": ROWS, "manifest": MANIFEST, "model": probe.row, "noun": f"a row of probe {probe.name}"}
    return type("RowsFile", (JsonlStore,), fields)
