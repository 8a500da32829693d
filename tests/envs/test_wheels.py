"""Pinned wheels: checked before they are used, from the index or from a file."""

import shutil
import zipfile
from pathlib import Path

import pytest

from cotbench.envs import wheels
from cotbench.errors import MissingDataError, UnknownNameError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COTBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_local_wheel_is_verified_and_kept(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COTBENCH_CACHE")
    copy = tmp_path / "downloaded.whl"
    shutil.copyfile(wheels.fetch("alfworld"), copy)
    monkeypatch.setenv("COTBENCH_CACHE", str(cache))
    assert wheels.wheel_path("alfworld") is None
    path = wheels.fetch("alfworld", copy)
    assert path == wheels.wheel_path("alfworld")
    assert wheels.sha256_of(path) == wheels.WHEELS["alfworld"].sha256
    assert "(define (domain alfred)" in wheels.read("alfworld", "alfworld/data/alfred.pddl")
    with pytest.raises(MissingDataError, match="damaged"):
        wheels.read("alfworld", "no/such/member")


def test_a_wrong_wheel_is_refused_and_not_kept(cache: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "alfworld.whl"
    with zipfile.ZipFile(wrong, "w") as archive:
        archive.writestr("alfworld/data/alfred.pddl", "evil")
    with pytest.raises(MissingDataError, match=r"sha256 .* it is not alfworld 0\.4\.2"):
        wheels.fetch("alfworld", wrong)
    assert wheels.wheel_path("alfworld") is None
    assert list((cache / "wheels").iterdir()) == []


def test_without_an_index_the_message_says_what_to_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(MissingDataError, match=r"could not fetch alfworld 0\.4\.2.*cotbench data fetch alfworld --from"):
        wheels.fetch("alfworld")


def test_a_failed_second_fetch_keeps_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    here = wheels.fetch("alfworld")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(MissingDataError, match="could not fetch"):
        wheels.fetch("alfworld", again=True)
    assert wheels.wheel_path("alfworld") == here


def test_unknown_data(cache: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'smollm2'"):
        wheels.fetch("smollm")
    with pytest.raises(MissingDataError, match="no file"):
        wheels.fetch("alfworld", Path("nowhere.whl"))
