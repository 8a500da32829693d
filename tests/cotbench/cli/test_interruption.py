"""Commands that are interrupted, and commands started twice: for every kind of folder. What is printed to go on with works; a
second start is refused before its model is loaded, and changes nothing.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

from cotbench.cli import run_cli
from cotbench.cli.interruption import Interruption
from cotbench.errors import AgentError
from cotbench.runs.manifest import RunConfig
from cotbench.runs.runner import run
from tests.conftest import needs_bfcl, needs_hf
from tests.cotbench.report.pages import needs_report
from tests.judges import GAMES, Player
from tests.tiny_models import save_model

SMALL = ["--episodes", "1", "--max-steps", "2"]


@dataclass(frozen=True)
class Command:
    """A command with a folder of its own.

    Attributes:
        words: of the command line, without `--out`.
        writer: as messages name it.
        loads: where it gets its model, or whatever else takes long, once the folder is locked.
        begun: whether the folder can be resumed by then.
        works: where it is when it can be resumed in any case.
    """

    words: list[str]
    writer: str
    loads: str = "cotbench.cli.agent_cache.open_agent"
    begun: bool = False
    works: str = "cotbench.runs.jsonl_store.JsonlStore.append"


TRAIN = ["train", "--model", "model", "--data", "t", "--epochs", "0.2", "--checkpoints", "1", "--device", "cpu"]
STUDY = "cotbench.api.study.run_study"
COMMANDS = {
    "run": Command(["run", "--agent", "random", *SMALL], "run"),
    "suite": Command(["run", "--agent", "random", "--env", "alfworld-gen,bfcl", *SMALL], "run", begun=True),
    "traces": Command(["traces", "--episodes", "1"], "traces"),
    "probe": Command(["probe", "alignment", "--agent", "scripted", "--reference", "run", "-n", "2"], "probe", begun=True),
    "judge": Command(["judge", "run", "--agent", "judge-test"], "judge"),
    "train": Command(
        TRAIN, "train", "cotbench.baselines.training.model.load_trainable", works="cotbench.baselines.training.loop.train"
    ),
    "study": Command(["study", "smoke"], "study", STUDY, begun=True, works=STUDY),
}
NEEDS = {"suite": [needs_bfcl], "train": [needs_hf], "study": [needs_hf, needs_report]}
KINDS = [pytest.param(name, marks=NEEDS.get(name, [])) for name in COMMANDS]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands read: a run in mode both, traces, a small model."""
    folder = tmp_path_factory.mktemp("given")
    run(RunConfig(agent="judge-test-player", tasks=GAMES, max_steps=6), out=folder / "run", agent=Player())
    assert run_cli(["traces", "--episodes", "1", "--out", str(folder / "t")]) == 0
    return folder


@pytest.fixture
def here(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The working folder: what the commands read, and nothing else."""
    for path in given.iterdir():
        (tmp_path / path.name).symlink_to(path)
    if request.getfixturevalue("kind") == "train" and not (given / "model").exists():
        (tmp_path / "model").symlink_to(save_model(given / "model", "qwen"))
    monkeypatch.chdir(tmp_path)


@contextmanager
def patched(place: str, hook: Callable[[], None]) -> Iterator[None]:
    """Call the hook before a function, at its first call."""
    original, hooks = resolve_name(place), [hook]

    def call(*rest: Any, **more: Any) -> Any:
        if hooks:
            hooks.pop()()
        return original(*rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, call)
        yield


def interrupt() -> None:
    raise KeyboardInterrupt


def content(folder: Path) -> dict[str, Any]:
    return {str(path): path.is_file() and (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("here")
def test_interrupted_while_it_loads(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = COMMANDS[kind]
    words = [*command.words, "--out", "new"]
    with patched(command.loads, interrupt):
        assert run_cli(words) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    if command.begun:
        goes_on(kind, last)
        return
    assert last == "interrupted before anything was written: start it again"
    assert not Path("new").exists()
    assert run_cli(words) == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("here")
def test_interrupted_while_it_works(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = COMMANDS[kind]
    with patched(command.works, interrupt):
        assert run_cli([*command.words, "--out", "new"]) == 130
    goes_on(kind, capsys.readouterr().err.splitlines()[-1])


def goes_on(kind: str, last: str) -> None:
    """The command line that the last line of the errors names works."""
    _, _, again = last.partition(": cotbench ")
    assert last.startswith("interrupted; ") and "--resume" in again, last
    if kind != "study":
        assert run_cli(shlex.split(again)) == 0
        return
    with patched(COMMANDS[kind].works, interrupt):  # A whole study takes minutes: it is enough that it was begun again.
        assert run_cli(shlex.split(again)) == 130


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("here")
def test_started_twice_the_second_is_refused_while_the_first_loads(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, second = COMMANDS[kind], list[Any]()
    words = [*command.words, "--out", "new"]

    def start_again() -> None:
        before = content(Path("new"))
        capsys.readouterr()
        second.extend([run_cli(words), capsys.readouterr().err, content(Path("new")) == before])
        if kind == "study":
            raise KeyboardInterrupt

    with patched(command.loads, start_again):
        assert run_cli(words) == (130 if kind == "study" else 0)
    held = f"is in use by another cotbench {command.writer}: wait for it, or choose another --out"
    said = "is not empty; resume with: cotbench run --resume new" if kind == "suite" else held
    assert second == [2, f"error: new {said}\n", True]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.values[0] != "study"])
@pytest.mark.usefixtures("here")
def test_what_cannot_be_loaded_blocks_no_second_start(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = COMMANDS[kind]
    words = [*command.words, "--out", "new"]

    def fail() -> None:
        raise AgentError("out of memory")

    with patched(command.loads, fail):
        assert run_cli(words) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: out of memory"
    assert not Path("new").exists()
    assert run_cli(words) == 0


@pytest.mark.parametrize(
    ("first", "then", "code", "count"),
    [
        (signal.SIGINT, None, 130, 1),
        (signal.SIGTERM, None, 143, 1),
        (signal.SIGTERM, signal.SIGTERM, 143, 1),
        (signal.SIGINT, signal.SIGTERM, 130, 1),
        (signal.SIGINT, signal.SIGINT, 130, 1),
    ],
)
def test_sigterm_interrupts_as_ctrl_c_does(first: Any, then: Any, code: int, count: int) -> None:
    interruption, interrupts = Interruption(), 0
    with interruption.handled():
        for number in (first, then):
            try:
                if number is not None:
                    signal.raise_signal(number)
            except KeyboardInterrupt:
                interrupts += 1
    assert interrupts == count
    assert interruption.exit_code(130) == code
    assert interruption.exit_code(0) == 0, "it had ended when the signal came"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_later_ctrl_c_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cotbench.cli.interruption.QUICK_SECONDS", 0.0)
    with Interruption().handled():
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)


def test_signals_that_are_ignored_stay_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption().handled():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    """From outside, in the middle of its episodes; with the command that it names it goes on."""
    # What is started in the background of a shell has inherited that Ctrl-C is ignored: here it is not.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from cotbench.cli import main; main()"
    words = ["run", "--agent", "random", "--split", "train", "--episodes", "400", "--max-steps", "30", "--workers", "1"]
    command = [sys.executable, "-P", "-c", code, *words, "--out", str(tmp_path / "r")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    episodes = tmp_path / "r" / "episodes.jsonl"
    while not (episodes.exists() and episodes.stat().st_size):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (128 + number, ""), err
    assert err.splitlines()[-1] == f"interrupted; played episodes are kept; resume with: cotbench run --resume {tmp_path / 'r'}"
    assert "Traceback" not in err
