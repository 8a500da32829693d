"""The wheel and the sdist: what is in them, one version, and that the sdist is enough to build the wheel and to play."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

import cotbench
from tests.house import FOLDERS, ROOT

pytestmark = pytest.mark.skipif(find_spec("setuptools") is None, reason="setuptools is not installed: pip install -e '.[dev]'")

TOP = ("CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "constraints.txt", "pyproject.toml")
LARGEST = 8_000_000
"""Bytes of the largest file that belongs into a wheel: the weights of a tiny model."""


def _build(tree: Path, out: Path, *kinds: str) -> dict[str, Path]:
    """Return what the build backend makes of a source tree, by kind."""
    out.mkdir(parents=True)
    code = (
        "import sys\nfrom setuptools import build_meta\n_, out, *kinds = sys.argv  # Which a build overwrites.\n"
        "for kind in kinds:\n    print(getattr(build_meta, f'build_{kind}')(out))\n"
    )
    command = [sys.executable, "-P", "-c", code, str(out), *kinds]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {"wheel" if path.suffix == ".whl" else "sdist": path for path in out.iterdir()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout: building leaves nothing behind in it."""
    folder = tmp_path_factory.mktemp("tree") / "cotbench"
    ours = {*TOP, *(path.name for path in FOLDERS.values()), "tests", "examples", "docs"}
    wanted = [path for path in ROOT.iterdir() if path.name in ours]
    folder.mkdir()
    for path in wanted:
        if path.is_dir():
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return _build(tree, tmp_path_factory.mktemp("built") / "dist", "wheel", "sdist")


def _digests(path: Path) -> dict[str, str]:
    """Return a wheel's or an sdist's files with their digests, by their paths in it."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return {name: hashlib.sha256(wheel.read(name)).hexdigest() for name in wheel.namelist() if not name.endswith("/")}
    found = {}
    with tarfile.open(path) as sdist:
        for member in sdist.getmembers():
            if member.isfile() and (file := sdist.extractfile(member)) is not None:
                found[member.name.partition("/")[2]] = hashlib.sha256(file.read()).hexdigest()
    return found


def _sources() -> dict[str, str]:
    """Return the digests of all files of the packages, by their paths in a wheel."""
    found = {}
    for name, folder in FOLDERS.items():
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found[f"{name.replace('.', '/')}/{path.relative_to(folder)}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def test_the_wheel_holds_the_packages_and_nothing_else(built: dict[str, Path]) -> None:
    files = _digests(built["wheel"])
    assert built["wheel"].name == f"cotbench-{cotbench.__version__}-py3-none-any.whl"
    ours = {name: digest for name, digest in files.items() if ".dist-info/" not in name}
    assert ours == _sources(), "a file of a package that is missing here is in no pattern of package-data"
    assert "cotbench/py.typed" in ours and not [name for name in ours if Path(name).name.startswith(("test_", "conftest"))]
    with zipfile.ZipFile(built["wheel"]) as wheel:
        sizes = {one.filename: one.file_size for one in wheel.infolist()}
        metadata = wheel.read(next(name for name in sizes if name.endswith(".dist-info/METADATA"))).decode()
    assert max(sizes.values()) < LARGEST and sum(size > 1_000_000 for size in sizes.values()) <= 2
    assert f"\nVersion: {cotbench.__version__}\n" in metadata and "\nLicense-Expression: Apache-2.0\n" in metadata


def test_the_sdist_holds_what_the_wheel_is_made_of(built: dict[str, Path]) -> None:
    files = _digests(built["sdist"])
    tops = {name: folder.name for name, folder in FOLDERS.items() if name != "cotbench"}
    for name, digest in _sources().items():
        room = ".".join(Path(name).parts[:2])
        source = f"{tops[room]}/{'/'.join(Path(name).parts[2:])}" if room in tops else name
        assert files.pop(source) == digest, source
    assert set(TOP) <= set(files)
    others = {name for name in files if name not in TOP and ".egg-info/" not in name}
    assert others == {"PKG-INFO", "setup.cfg"}, "no tests, no examples, no other data"


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["dynamic"] == ["version"] and "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "cotbench.__version__"}


def test_every_python_that_is_promised_is_named(tree: Path) -> None:
    project = tomllib.loads((tree / "pyproject.toml").read_text("utf-8"))["project"]
    named = {
        line.rpartition(" ")[2] for line in project["classifiers"] if line.startswith("Programming Language :: Python :: 3.")
    }
    assert named == set(PYTHONS) and project["requires-python"] == f">={PYTHONS[0]}"


PYTHONS = ("3.11", "3.12", "3.13")


def _python(version: str) -> str | None:
    """Return a Python of that version on this machine: on the path, or one of pyenv's."""
    named = [shutil.which(f"python{version}"), *map(str, sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))]
    for path in filter(None, named):
        code = "import sys; print(*sys.version_info[:2], sep='.')"
        done = subprocess.run([str(path), "-c", code], capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return path
    return None


@pytest.mark.slow
def test_the_sdist_builds_the_same_wheel(built: dict[str, Path], tmp_path: Path) -> None:
    with tarfile.open(built["sdist"]) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    again = _build(unpacked, tmp_path / "dist", "wheel")
    assert _digests(again["wheel"]) == _digests(built["wheel"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
@pytest.mark.parametrize("version", PYTHONS)
def test_it_installs_and_plays(built: dict[str, Path], version: str, kind: str, tmp_path: Path) -> None:
    """In an environment of its own, with what the base install asks for from the package index."""
    python = _python(version)
    if python is None:
        pytest.skip(f"this machine has no Python {version}")
    subprocess.run([python, "-m", "venv", str(tmp_path / "venv")], check=True)
    place = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    subprocess.run([place / "pip", "install", "--quiet", built[kind]], check=True)
    words = ["run", "--agent", "expert", "--episodes", "2", "--out", "run", "--json"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([place / "cotbench", *words], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        [place / "python", "-c", "import cotbench; print(cotbench.load_run('run')); print(cotbench.__version__)"],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "prompt 1.00 [0.34, 1.00] (n=2), CoT 1.00" in shown and shown.endswith(f"\n{cotbench.__version__}\n")
    missing = subprocess.run(
        [place / "cotbench", "run", "--agent", "hf:tiny"], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
    )
    assert missing.returncode == 1 and f"needs the extra 'hf': pip install '{built[kind]}[hf]'" in missing.stderr
