"""`cotbench.probe`: a measurement on the states of a reference's episodes. Invariant: the same as `cotbench probe`; a folder in
which nothing was measured is removed again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cotbench.agents.base import Agent, close_agent
from cotbench.agents.registry import make_agent
from cotbench.errors import UsageError
from cotbench.probes.config import CONFIG, ProbeConfig, read_config, write_config
from cotbench.probes.folder import PROBE_FOLDER, ProbeResult, known_answers, read_probe, run_probe
from cotbench.probes.probe import parse_options, probe_named
from cotbench.probes.states import StateSet, read_states
from cotbench.prompting.elicitation import Elicitation
from cotbench.runs.folder import WritableFolder, file_name, make_folder, open_folder
from cotbench.runs.manifest import MANIFEST, RunConfig
from cotbench.runs.plan import make_plan
from cotbench.runs.resources import Resources
from cotbench.runs.runner import SilentObserver, resume_run, start_run
from cotbench.status_line import StatusLine

_REFERENCE = "reference"
"""The folder of the reference's run, in the folder of the measurement."""


def probe(
    config: ProbeConfig,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    data: Path | None = None,
    agent: Agent | None = None,
    progress: bool = True,
) -> ProbeResult:
    """Measure an agent on a fixed set of states: what it answers there, what it follows, where it looks.

    Args:
        config: probe, agent, reference and states.
        out: the folder; a new one under `probes/` when left out.
        resume: continue the measurement in `out` where one was begun; what is measured already is not measured again.
        data: folder of the environment's data.
        agent: an agent object, instead of the one that `config.agent` names.
        progress: in a notebook, show how far the measurement is.

    Raises:
        UnknownNameError: no such probe, agent, environment or split.
        UsageError: options that do not fit.
        RunFolderError: the folder holds another measurement, or one that is not to be resumed.
        CotbenchError: this agent cannot be measured so.
    """
    measured = probe_named(config.probe)
    options = parse_options(measured, config.options)
    target = Path(out) if out is not None else free_folder(config)
    begun = resume and read_config(target) is not None
    line = StatusLine(visible=progress)
    with opened_folder(target, config, new=not begun) as opened:
        states = reference_states(target, config, data, lambda played, folder: _play(played, folder, data))
        elicitation = _elicitation(states.env, config.elicitation)
        known = None if config.answers is None else known_answers(config.answers, config.agent, states, elicitation)
        player = agent if agent is not None else make_agent(config.agent)
        try:
            run_probe(
                measured,
                opened,
                agent=player,
                spec=config.agent,
                states=states,
                elicitation=elicitation,
                options=options,
                seed=config.seed,
                answers=known,
                observer=_counter(line, f"{config.probe}: states", len(states.states)),
                data=data,
            )
        finally:
            if agent is None:
                close_agent(player)
    return read_probe(target)


def load_probe(path: str | Path) -> ProbeResult:
    """Read the folder of a measurement or of a judge, finished or not.

    Args:
        path: the folder.

    Raises:
        RunFolderError: not such a folder, or damaged.
    """
    return read_probe(Path(path))


def _counter(line: StatusLine, what: str, total: int) -> Callable[[Any], None]:
    done = 0

    def count(row: Any) -> None:
        nonlocal done
        done += 1
        line.show(f"{what} {done}/{total}, {line.seconds:.0f} s", last=done == total)

    return count


def _play(config: RunConfig, folder: Path, data: Path | None) -> None:
    """Play a reference, or what is missing of it."""
    plan, resources, player = make_plan(config, data), Resources(data=data), make_agent(config.agent)
    try:
        if (folder / MANIFEST).is_file():
            resume_run(folder, agent=player, resources=resources, observer=SilentObserver())
        else:
            start_run(plan, folder, agent=player, resources=resources, observer=SilentObserver())
    finally:
        close_agent(player)


def _elicitation(env: str, values: dict[str, Any]) -> Elicitation:
    try:
        return Elicitation.for_env(env, **values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"elicitation.{'.'.join(map(str, first['loc']))} {first['input']}: {first['msg']}") from error


def free_folder(config: ProbeConfig) -> Path:
    """Return a folder under `probes/` that is not taken."""
    usual = {name: RunConfig.model_fields[name].default for name in ("env", "split")}
    words = (config.probe, config.agent, config.env or usual["env"], config.split or usual["split"])
    stem = "_".join(map(file_name, words))
    count, target = 1, Path("probes") / stem
    while target.exists():
        count += 1
        target = Path("probes") / f"{stem}_{count}"
    return target


@contextmanager
def opened_folder(target: Path, config: ProbeConfig, *, new: bool) -> Iterator[WritableFolder]:
    """Lock the folder of a probe and write its config; a failure before the first measured state leaves no folder behind.

    All writes are under the lock: another start on the same folder must neither change nor remove its contents.

    Args:
        target: the folder.
        config: of the measurement.
        new: whether the measurement is a new one.

    Raises:
        RunFolderError: a new measurement in a folder with contents, or another process writes to it.
    """
    with open_folder(target, PROBE_FOLDER, _check_new if new else None) as opened:
        if new or read_config(target) is None:
            write_config(target, config)
        try:
            yield opened
        except Exception:
            _discard(target, new=new)  # Under the lock, as everything here.
            raise


def _check_new(target: Path) -> None:
    """Raise an error for a folder with contents, except those of a measurement that was killed before its first row."""
    if _names(target) == {CONFIG}:
        return
    begun = (target / CONFIG).is_file() and any((target / name).exists() for name in (MANIFEST, _REFERENCE))
    hint = f"resume with: cotbench probe --resume {target}, or choose another --out" if begun else "choose another --out"
    make_folder(target, hint, "folder of the probe")


def _names(folder: Path) -> set[str]:
    """Return the files of a folder except the hidden ones: a lock, or the remains of a killed write."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.is_dir() else set()


def _discard(target: Path, *, new: bool) -> None:
    """Remove a folder in which nothing was measured: config, our lock, and what a reference of this command played."""
    ours = {CONFIG, _REFERENCE} if new else {CONFIG}
    if _names(target) <= ours:
        shutil.rmtree(target)


def reference_states(target: Path, config: ProbeConfig, data: Path | None, play: Callable[[RunConfig, Path], None]) -> StateSet:
    """Return the states of a measurement; where the reference is an agent, it plays the split first.

    Args:
        target: the folder of the measurement.
        config: of the measurement.
        data: folder of the environment's data.
        play: plays the reference into a folder, or what is missing of it.

    Raises:
        UsageError: environment or split beside a run that is the reference.
    """
    run = Path(config.reference)
    where = {name: value for name in ("env", "scheme", "split") if (value := getattr(config, name)) is not None}
    if (run / MANIFEST).is_file():
        for name in where:
            raise UsageError(f"--{name} and --reference {config.reference} both say where the states come from: omit --{name}")
    else:
        run = target / _REFERENCE
        play(RunConfig(agent=config.reference, mode="cot", seed=config.seed, **where), run)
    return read_states(run, config.states, config.seed)
