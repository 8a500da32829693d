"""Damage inside a file of records is noticed: a read ends with an error that names the line, or with an episode less; or it is
harmless: every record is the one that was written. Nothing else ever happens.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cotbench
from cotbench.cli import run_cli
from cotbench.errors import RunFolderError, SubmissionError
from cotbench.leaderboard.submission.bundle import unpack
from cotbench.probes.folder import read_probe
from cotbench.runs.episode import read_episodes
from tests.leaderboard import made
from tests.lines import read_objects
from tests.small_split import small_split

pytest.importorskip("sqlalchemy")

Damage = Callable[[bytes, random.Random], bytes]


def _flipped(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def _replaced_letter(content: bytes, rng: random.Random) -> bytes:
    places = [place for place in rng.sample(range(len(content)), 200) if content[place : place + 1].isalnum()]
    return content[: places[0]] + rng.choice([b"a", b"7", b"Z"]) + content[places[0] + 1 :]


def _deleted(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + content[place + rng.randint(1, 40) :]


def _inserted(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    return content[:place] + rng.choice([b" ", b"x", b"\\n", b"\n", b"\0", rng.randbytes(9)]) + content[place:]


def _overwritten(content: bytes, rng: random.Random) -> bytes:
    """A block of the disk that holds something else: zeros, or another part of the same file."""
    size = rng.choice([16, 64, 512])
    place, other = rng.randrange(len(content) - size), rng.randrange(len(content) - size)
    block = rng.choice([bytes(size), content[other : other + size]])
    return content[:place] + block + content[place + size :]


def _truncated(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _by_line(change: Callable[[list[bytes], random.Random], object]) -> Damage:
    def damaged(content: bytes, rng: random.Random) -> bytes:
        lines = content.splitlines(keepends=True)
        change(lines, rng)
        return b"".join(lines)

    return damaged


def _exchange_digests(lines: list[bytes], rng: random.Random) -> None:
    one, two = rng.sample(range(len(lines)), 2)
    lines[one], lines[two] = lines[one][:-67] + lines[two][-67:], lines[two][:-67] + lines[one][-67:]


DAMAGES: dict[str, Damage] = {
    "a bit flipped": _flipped,
    "a letter replaced": _replaced_letter,
    "bytes deleted": _deleted,
    "bytes inserted": _inserted,
    "a block overwritten": _overwritten,
    "truncated": _truncated,
    "lines swapped": _by_line(lambda lines, rng: rng.shuffle(lines)),
    "a line doubled": _by_line(lambda lines, rng: lines.insert(rng.randrange(len(lines)), rng.choice(lines))),
    "a line lost": _by_line(lambda lines, rng: lines.pop(rng.randrange(len(lines)))),
    "digests exchanged": _by_line(_exchange_digests),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run in mode both, and a probe."""
    root = tmp_path_factory.mktemp("whole")
    expert = ["--agent", "expert", "--out"]
    assert run_cli(["run", "-n", "4", "--max-steps", "8", *expert, str(root / "run")]) == 0
    with small_split(16):
        assert run_cli(["probe", "alignment", "--reference", "expert", "--states", "12", *expert, str(root / "probe")]) == 0
    return {"episodes.jsonl": root / "run", "rows.jsonl": root / "probe"}


def _read(folder: Path, name: str) -> dict[Any, Any]:
    records = read_episodes(folder) if name == "episodes.jsonl" else read_probe(folder).rows
    return {record.key: record for record in records}


def _outcome(folder: Path, name: str, whole: dict[Any, Any]) -> str:
    try:
        found = _read(folder, name)
    except RunFolderError as error:
        assert f"{name}:" in str(error) and "remove that line" in str(error)
        return "an error"
    assert all(whole[key] == record for key, record in found.items()), "a record that was never written"
    return "harmless" if len(found) == len(whole) else "a record less"


@pytest.mark.parametrize("name", ["episodes.jsonl", "rows.jsonl"])
@pytest.mark.parametrize("rounds", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_damage_is_noticed_or_harmless(folders: dict[str, Path], tmp_path: Path, name: str, rounds: int) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(folders[name], folder)
    content, whole = (folder / name).read_bytes(), _read(folder, name)
    rng = random.Random(rounds)
    outcomes: dict[str, set[str]] = {kind: set() for kind in DAMAGES}
    for kind, damage in DAMAGES.items():
        for _ in range(rounds):
            while (damaged := damage(content, rng)) == content:
                pass
            (folder / name).write_bytes(damaged)
            outcomes[kind].add(_outcome(folder, name, whole))
    for kind in ("lines swapped", "a line doubled"):
        assert outcomes.pop(kind) == {"harmless"}
    assert outcomes.pop("a line lost") == {"a record less"}
    assert outcomes.pop("digests exchanged") == {"an error"}
    assert all("harmless" not in found for found in outcomes.values()), outcomes


def test_a_run_with_a_damaged_line_is_not_resumed_over_it(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(folders["episodes.jsonl"], folder)
    path = folder / "episodes.jsonl"
    before, lines = read_objects(path), path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1].replace(b"You ", b"You_", 1), *lines[2:]]))
    assert run_cli(["run", "--resume", str(folder)]) == 2
    assert path.read_bytes() != b"".join(lines), "nothing was changed"
    path.write_bytes(b"".join([lines[0], *lines[2:]]))
    assert run_cli(["run", "--resume", str(folder)]) == 0
    assert [{**row, "seconds": 0} for row in read_objects(path)] == [{**row, "seconds": 0} for row in before]
    others = [*range(1), *range(2, len(lines))]
    assert [path.read_bytes().splitlines(keepends=True)[place] for place in others] == [lines[place] for place in others]


def test_a_file_whose_digests_are_all_gone_is_noticed(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(folders["episodes.jsonl"], folder)
    path, manifest = folder / "episodes.jsonl", folder / "manifest.json"
    whole = list(read_episodes(folder))
    path.write_text("".join(one.model_dump_json() + "\n" for one in whole))
    with pytest.raises(RunFolderError, match=r"episodes\.jsonl:1 .* does not end with its sha256"):
        read_episodes(folder)
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 1'))
    assert cotbench.load_run(folder).records == whole, "a run of an older version has none"
    path.write_text("".join(one.model_dump_json() + "\n" for one in whole[:-1]))
    assert run_cli(["run", "--resume", str(folder)]) == 0
    assert b"sha256" not in path.read_bytes(), "it goes on as it began"
    assert len(cotbench.load_run(folder).records) == len(whole)


def test_a_submission_whose_episodes_are_damaged_is_refused() -> None:
    content = made.members(made.packed())["episodes.jsonl"]
    line = content.splitlines()[1]
    for damaged in (line.replace(b"You ", b"You_", 1), line.replace(b'"sha256":"', b'"sha256":"0', 1), line[:-75] + b"}"):
        with pytest.raises(SubmissionError, match=r"episodes\.jsonl, line 2: is not as it was written: "):
            unpack(made.replaced(made.packed(), episodes=content.replace(line, damaged)))
