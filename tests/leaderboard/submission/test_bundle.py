"""Submissions as bytes: what is packed comes back, what is damaged or meant to harm is refused in one line."""

from __future__ import annotations

import io
import json
import random
import shutil
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotbench.errors import RunFolderError, SubmissionError
from cotbench.leaderboard.store.store import Store
from cotbench.leaderboard.submission import limits
from cotbench.leaderboard.submission.bundle import Bundle, pack, repack, unpack
from cotbench.leaderboard.submission.checks import check
from cotbench.leaderboard.submission.details import Details
from cotbench.runs.folder import lock_folder, open_folder
from cotbench.runs.limits import Price
from cotbench.runs.plan import make_plan
from cotbench.runs.results import load_run
from cotbench.runs.runner import read_manifest
from cotbench.runs.suite import SUITE_FOLDER, write_suite
from cotbench.runs.summary import summarize
from tests.leaderboard import made
from tests.leaderboard.made import DETAILS, edited, members, packed, played, replaced, setting, zipped
from tests.lines import read_objects, signed, write_objects


def _refusal(data: bytes | io.BytesIO) -> str:
    with pytest.raises(SubmissionError) as raised:
        unpack(data)
    message = str(raised.value)
    assert message.isprintable() and len(message) < 700, message
    return message


# What is packed comes back.


def test_a_run_comes_back_as_it_was_played() -> None:
    bundle, run = unpack(packed()), load_run(played())
    assert bundle.details == DETAILS and bundle.manifest == run.manifest
    assert list(bundle.episodes) == run.records and len(run.records) == 8
    assert unpack(io.BytesIO(packed())) == bundle == unpack(repack(bundle))


def test_a_price_goes_with_the_run_and_is_not_part_of_what_was_played(tmp_path: Path) -> None:
    run, price = load_run(played()), Price(prompt=1.0, completion=2.5)
    folder = made.copied(played(), tmp_path / "run")
    (folder / "summary.json").write_text(summarize(run.records, run.manifest, price).model_dump_json(), "utf-8")
    bundle = unpack(pack(folder, DETAILS))
    assert bundle.price == price and unpack(repack(bundle)) == bundle
    assert bundle.digest == unpack(packed()).digest
    assert unpack(packed()).price is None and b"price" not in members(packed())["submission.json"]
    with Store.open(str(tmp_path / "board.db")) as store:
        entry, _ = store.add(bundle, (), repack(bundle))
        dollars = entry.summary.modes["cot"].dollars
    assert dollars is not None and dollars.n == 4


def test_a_submission_holds_no_traceback(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(played(), folder)
    rows = read_objects(folder / "episodes.jsonl")
    error = "agent toy failed: KeyError: 'x' (agent.py:3)"
    bug = {"error": error, "error_kind": "agent bug", "traceback": f'File "{folder}/agent.py", line 3'}
    none = {"success": False, "score": 0.0, "raw_score": 0.0, "terminated": False, "truncated": False}
    write_objects(folder / "episodes.jsonl", [{**rows[0], **bug, **none}, *rows[1:]])
    run = load_run(folder)
    (folder / "summary.json").write_text(summarize(run.records, run.manifest).model_dump_json())
    data = pack(folder, DETAILS)
    bundle = unpack(data)
    first, *others = bundle.episodes
    assert (first.error, first.error_kind, first.traceback) == (error, None, None)
    assert others == run.records[1:]
    assert str(folder).encode() not in b"".join(members(data).values())
    check(bundle)


@pytest.mark.parametrize("field", ["error_kind", "traceback"])
def test_a_traceback_in_a_submission_is_refused(field: str) -> None:
    value = {"error_kind": "agent bug", "traceback": "File x"}[field]
    with pytest.raises(
        SubmissionError, match=rf"episodes.jsonl, line 3 .*: {field} must not be submitted: it stays on the machine"
    ):
        check(unpack(edited(packed(), episodes=setting(2, field, to=value))))
    at = (2, "trajectory", 0, "decision", field)
    with pytest.raises(SubmissionError, match="decision holds a failure without an error"):
        check(unpack(edited(packed(), episodes=setting(*at, to=value))))


@pytest.mark.parametrize("used", [True, False])
def test_whether_the_agent_uses_the_elicitation_may_be_left_out(used: bool) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest.pop("uses_elicitation", None)
        if not used:
            manifest["uses_elicitation"] = False

    bundle = unpack(edited(packed(), manifest=edit))
    assert bundle.manifest.uses_elicitation is used
    assert ("uses_elicitation" in bundle.manifest.model_dump_json()) is not used


def test_the_same_run_and_details_give_the_same_bytes() -> None:
    assert pack(played(), DETAILS) == packed() == repack(unpack(packed()))
    assert set(members(packed())) == {"submission.json", "manifest.json", "episodes.jsonl"}


def test_the_digest_is_of_what_was_played() -> None:
    digest = unpack(packed()).digest
    assert len(digest) == 64 and unpack(packed(Details(name="Another"))).digest == digest

    def after(**edits: Callable[[Any], object]) -> str:
        return unpack(edited(packed(), **edits)).digest  # type: ignore[arg-type]

    assert after(episodes=setting(2, "seconds", to=9.5)) == digest
    assert after(manifest=setting("hardware", to={})) == after(manifest=setting("created", to="2026")) == digest
    changed = [
        after(episodes=setting(2, "raw_score", to=0.25)),
        after(episodes=setting(2, "trajectory", 0, "decision", "trace_tokens", to=1)),
        after(episodes=list.reverse),
        after(manifest=setting("config", "seed", to=1)),
        after(manifest=setting("agent", to={"model": "x"})),
        after(manifest=setting("data", to={})),
        after(manifest=setting("task_list", to=["a"])),
    ]
    assert len({digest, *changed}) == len(changed) + 1


def test_the_order_and_spelling_of_json_does_not_matter() -> None:
    def turned(rows: list[made.JSON]) -> None:
        rows[:] = [dict(reversed(row.items())) for row in rows]

    assert unpack(edited(packed(), episodes=turned)) == unpack(packed())
    assert unpack(zipped(members(packed()), zipfile.ZIP_STORED)) == unpack(packed())
    assert unpack(zipped(dict(reversed(members(packed()).items())))) == unpack(packed())


# A run folder that cannot be submitted.


def _copy(tmp_path: Path) -> Path:
    return made.copied(played(), tmp_path / "run")


def _lines(folder: Path, change: Callable[[list[str]], object]) -> None:
    path = folder / "episodes.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    change(lines)
    path.write_text("".join(lines))


def _not_packed(folder: Path, kind: type[Exception] = RunFolderError) -> str:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(kind) as raised:
        pack(folder, DETAILS)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    return str(raised.value)


def test_a_copy_without_its_lock_is_packed(tmp_path: Path) -> None:
    folder = _copy(tmp_path)
    (folder / ".lock").unlink()
    assert pack(folder, DETAILS) == packed()
    assert not (folder / ".lock").exists()


def test_another_folder_is_refused(tmp_path: Path) -> None:
    assert "is not a run folder: it has no manifest.json" in _not_packed(tmp_path)
    assert "is not a run folder" in _not_packed(tmp_path / "nowhere")


def test_a_suite_is_refused_with_its_runs(tmp_path: Path) -> None:
    with open_folder(tmp_path, SUITE_FOLDER) as opened:
        write_suite(opened, [make_plan(read_manifest(played()).config)], None)
    assert _not_packed(tmp_path).endswith("is a folder of several runs (suite.json); it holds no run yet")
    for name in ("bfcl", "alfworld-gen"):
        made.copied(played(), tmp_path / name)
    listed = f"submit each of its runs: {tmp_path / 'alfworld-gen'}, {tmp_path / 'bfcl'}"
    assert _not_packed(tmp_path).endswith(listed)


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    folder = _copy(tmp_path)
    first = read_manifest(folder).task_list[0]
    (folder / "summary.json").unlink()
    assert f"unfinished run: it has no summary.json; cotbench run --resume {folder}" in _not_packed(folder)
    _lines(folder, lambda lines: lines.pop(1))
    message = _not_packed(folder)
    assert f"1 of 8 episodes are missing, the first is {first}#cot; resume with: cotbench run --resume {folder}" in message
    shutil.copy(played() / "episodes.jsonl", folder)
    _lines(folder, lambda lines: lines.append(lines.pop()[:-9]))
    assert "1 of 8 episodes are missing" in _not_packed(folder)
    (folder / "episodes.jsonl").unlink()
    assert "has no episodes.jsonl" in _not_packed(folder)


def test_a_run_that_is_being_played_is_refused(tmp_path: Path) -> None:
    folder = _copy(tmp_path)
    with lock_folder(folder, "cotbench run"):
        assert _not_packed(folder) == f"{folder} is in use by another cotbench run: submit it when that has ended"
    assert pack(folder, DETAILS) == packed()


def test_an_episode_that_was_not_planned_is_refused(tmp_path: Path) -> None:
    folder = _copy(tmp_path)
    rows = read_objects(folder / "episodes.jsonl")
    write_objects(folder / "episodes.jsonl", [*rows, {**rows[0], "task": "alfworld/gen/cool/1"}])
    assert "episodes.jsonl holds alfworld/gen/cool/1#prompt, which its manifest does not list" in _not_packed(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (setting("modes", "cot", "success", "mean", to=0.9), "modes.cot.success.mean is 0.9, they give 0.0"),
        (setting("modes", "cot", "n", to=5), "modes.cot.n is 5, they give 4"),
        (setting("gap", "p", to=0.01), "gap.p is 0.01, they give 1.0"),
        (setting("agent", to="expert"), "agent is expert, they give random"),
        (setting("modes", "prompt", "by_type", to={}), "modes.prompt.by_type."),
        (setting("consistency", to=None), "consistency is None, they give {"),
    ],
)
def test_a_summary_that_its_episodes_do_not_give_is_refused(tmp_path: Path, edit: Callable[[Any], None], message: str) -> None:
    folder = _copy(tmp_path)
    summary = json.loads((folder / "summary.json").read_text())
    edit(summary)
    (folder / "summary.json").write_text(json.dumps(summary))
    assert f"summary.json is not what the episodes beside it give: {message}" in _not_packed(folder, SubmissionError)


def test_a_bootstrap_that_another_machine_rounded_otherwise_is_no_forgery(tmp_path: Path) -> None:
    folder = _copy(tmp_path)
    summary = json.loads((folder / "summary.json").read_text())
    summary["modes"]["cot"]["invalid_actions"]["high"] *= 1 + 1e-12
    (folder / "summary.json").write_text(json.dumps(summary))
    assert pack(folder, DETAILS) == packed()


def test_a_damaged_summary_is_refused(tmp_path: Path) -> None:
    folder = _copy(tmp_path)
    (folder / "summary.json").write_text("{}")
    assert f"summary.json is damaged: remove it, and write it again with: cotbench run --resume {folder}" in _not_packed(folder)


# Zip files that are none, or not as they are packed.


def _end(data: bytes, field: int, value: int) -> bytes:
    """A zip file with another value in its end record."""
    end = list(struct.unpack("<4s4H2LH", data[-22:]))
    end[field] = value
    return data[:-22] + struct.pack("<4s4H2LH", *end)


def _header(data: bytes, name: str, *, directory: dict[int, Any] | None = None, local: dict[int, Any] | None = None) -> bytes:
    """A zip file with other values in the headers of one member; the fields by their numbers."""
    changed = bytearray(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.getinfo(name).header_offset
    place = data.index(b"PK\x01\x02")
    while data[place + 46 : place + 46 + len(name)] != name.encode():
        place = data.index(b"PK\x01\x02", place + 4)
    for form, at, values in (("<4s6H3L5H2L", place, directory or {}), ("<4s5H3L2H", start, local or {})):
        fields = list(struct.unpack_from(form, data, at))
        for index, value in values.items():
            fields[index] = value
        struct.pack_into(form, changed, at, *fields)
    return bytes(changed)


def _zip(write: Callable[[zipfile.ZipFile], object]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members(packed()).items():
            archive.writestr(name, content)
        write(archive)
    return file.getvalue()


def _info(name: str, **fields: Any) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def _with(name: str, method: int = zipfile.ZIP_DEFLATED, **fields: Any) -> bytes:
    """A submission in which one member has other properties."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members(packed()).items():
            archive.writestr(_info(member, **fields) if member == name else member, content, method)
    return file.getvalue()


def _twice() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate name"):
        return _zip(lambda archive: archive.writestr("manifest.json", b"{}"))


def _streamed() -> bytes:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.taken = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.taken += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:
        for name, content in members(packed()).items():
            archive.writestr(name, content)
    return bytes(pipe.taken)


def _overlapping() -> bytes:
    """Two entries of the directory for the same bytes."""
    data = zipped({**members(packed()), "manifest.json": members(packed())["submission.json"]})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        offset = archive.getinfo("submission.json").header_offset
    return _header(data, "manifest.json", directory={16: offset})


MANY = 1000
TEMPER: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "a submission is a zip file, and this is not one"),
    "text": (lambda: b"hello", "a submission is a zip file, and this is not one"),
    "another kind of archive": (lambda: b"\x1f\x8b\x08" + bytes(50), "a submission is a zip file, and this is not one"),
    "two letters": (lambda: b"PK", "the zip file is damaged (File is not a zip file)"),
    "a program before it": (lambda: b"MZ" + packed(), "a submission is a zip file, and this is not one"),
    "cut off": (lambda: packed()[:-1], "the zip file is damaged (File is not a zip file)"),
    "cut in the middle": (lambda: packed()[:500], "the zip file is damaged (File is not a zip file)"),
    "empty": (lambda: zipped({}), "the zip file holds no submission.json"),
    "a member less": (lambda: zipped({"submission.json": b"{}", "manifest.json": b"{}"}), "holds no episodes.jsonl"),
    "a member more": (lambda: _zip(lambda archive: archive.writestr("x.py", b"")), "the zip file holds 'x.py'; it holds"),
    "a path upwards": (lambda: _zip(lambda archive: archive.writestr("../../x", b"x")), "the zip file holds '../../x'"),
    "an absolute path": (lambda: _zip(lambda archive: archive.writestr("/etc/x", b"x")), "the zip file holds '/etc/x'"),
    "a drive": (lambda: _zip(lambda archive: archive.writestr(_info("C:\\x"), b"x")), r"the zip file holds 'C:\\x'"),
    "a folder": (lambda: _zip(lambda archive: archive.mkdir("manifest.json/")), "the zip file holds 'manifest.json/'"),
    "a name with a NUL": (
        lambda: packed().replace(b"manifest.json", b"manifest.jso\0"),
        r"the zip file holds 'manifest.jso\x00'",
    ),
    "a zip inside": (lambda: _zip(lambda archive: archive.writestr("a.zip", packed())), "the zip file holds 'a.zip'"),
    "many members": (
        lambda: _zip(lambda archive: [archive.writestr(f"{index}", b"") for index in range(MANY)]),
        "holds too many files; it holds submission.json, manifest.json and episodes.jsonl and nothing else",
    ),
    "a name of 60,000 bytes": (lambda: _zip(lambda archive: archive.writestr("x" * 60_000, b"")), "holds 'xxxx"),
    "a name with line breaks": (lambda: _zip(lambda archive: archive.writestr("a\n\x1b[2Jb", b"")), r"holds 'a\n\x1b[2Jb'"),
    "a member twice": (_twice, "the zip file holds manifest.json twice"),
    "damaged extra fields": (lambda: _with("manifest.json", extra=b"UT\xff\0"), "the zip file is damaged (Corrupt extra field"),
    "bzip2": (lambda: _with("episodes.jsonl", zipfile.ZIP_BZIP2), "compressed by method 12, neither stored nor deflated"),
    "lzma": (lambda: _with("episodes.jsonl", zipfile.ZIP_LZMA), "compressed by method 14, neither stored nor deflated"),
    "another method": (
        lambda: _header(packed(), "episodes.jsonl", directory={4: 97}, local={3: 97}),
        "episodes.jsonl is compressed by method 97",
    ),
    "encrypted": (
        lambda: _header(packed(), "episodes.jsonl", directory={3: 1}, local={2: 1}),
        "episodes.jsonl is encrypted in the zip file",
    ),
    "unknown flags": (
        lambda: _header(packed(), "manifest.json", directory={3: 0x20}, local={2: 0x20}),
        "manifest.json is damaged (compressed patched data",
    ),
    "one byte, two members": (_overlapping, "manifest.json is damaged (File name in directory"),
    "two names": (
        lambda: packed().replace(b"manifest.json", b"Manifest.json", 1),
        "manifest.json is damaged (File name in directory",
    ),
    "a directory elsewhere": (lambda: _end(packed(), 6, 5), " is damaged ("),
    "zip64": (lambda: _end(packed(), 6, 2**32 - 1), " is damaged ("),
    "a directory that is too long": (lambda: _end(packed(), 5, 2**32 - 1), " is damaged ("),
    "zip64 sizes": (
        lambda: _header(packed(), "manifest.json", directory={9: 2**32 - 1}, local={8: 2**32 - 1}),
        "manifest.json has 4,294,967,295 bytes; at most 8,000,000 are accepted",
    ),
    "a smaller size than there is": (
        lambda: _header(packed(), "manifest.json", directory={9: 10}, local={8: 10}),
        "manifest.json is damaged (Bad CRC-32",
    ),
    "a larger size than there is": (
        lambda: _header(packed(), "manifest.json", directory={9: 10**6}, local={8: 10**6}),
        "manifest.json is damaged: it does not have the 1,000,000 bytes that it announces",
    ),
    "a wrong checksum": (
        lambda: _header(packed(), "manifest.json", directory={7: 1}, local={6: 1}),
        "manifest.json is damaged (Bad CRC-32",
    ),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", TEMPER)
def test_a_zip_that_was_tampered_with_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, message = TEMPER[name]
    data = make()
    monkeypatch.chdir(tmp_path)
    assert message in _refusal(data)
    assert message in _refusal(io.BytesIO(data))
    assert not list(tmp_path.iterdir())


def _plain() -> bytes:
    """The submission as anybody would zip it."""
    return zipped(members(packed()))


UNREAD: dict[str, Callable[[], bytes]] = {
    "a link": lambda: _with("manifest.json", external_attr=0o120777 << 16),
    "a device": lambda: _with("manifest.json", external_attr=0o020666 << 16),
    "extra fields": lambda: _with("manifest.json", extra=b"UT\x05\x00\x03\0\0\0\0"),
    "a comment": lambda: _with("manifest.json", comment=b"a secret"),
    "a comment on all": lambda: _zip(lambda archive: setattr(archive, "comment", b"a secret")),
    "a zip before it": lambda: _plain() + packed(),
    "more after it": lambda: packed() + b"\0a secret",
    "bytes between members": lambda: (
        packed()[: packed().index(b"PK\x01\x02")] + b"a secret" + packed()[packed().index(b"PK\x01\x02") :]
    ),
    "sizes after the data": _streamed,
    "two headers that differ": lambda: _header(packed(), "manifest.json", local={3: 0, 6: 1, 7: 10, 8: 10}),
    "several disks": lambda: _end(packed(), 1, 1),
    "more members than there are": lambda: _end(_end(packed(), 3, 4), 4, 4),
    "65,535 members": lambda: _end(_end(packed(), 3, 65535), 4, 65535),
    "fewer members than there are": lambda: _end(_end(packed(), 3, 2), 4, 2),
    "a size in the archive that is not there": lambda: _header(packed(), "manifest.json", directory={8: 2**32 - 1}),
}
"""What Python's zipfile does not look at, or refuses from some version on."""


@pytest.mark.parametrize("name", UNREAD)
def test_what_is_not_content_is_refused_or_changes_nothing_and_is_not_kept(name: str) -> None:
    data = UNREAD[name]()
    assert data not in (packed(), _plain())
    try:
        bundle = unpack(data)
    except SubmissionError as error:
        assert str(error).isprintable() and " is damaged (" in str(error)
        return
    assert bundle == unpack(packed())
    assert repack(bundle) == packed()


def test_comments_links_and_extra_fields_are_read_over() -> None:
    for name in ("a link", "extra fields", "a comment", "a comment on all", "sizes after the data"):
        assert unpack(UNREAD[name]()).digest == unpack(packed()).digest


def test_what_the_expander_cannot_read_is_refused() -> None:
    size = len(members(packed())["manifest.json"])
    stored = zipped({**members(packed()), "manifest.json": b"\xff" * size}, zipfile.ZIP_STORED)
    fake = _header(stored, "manifest.json", directory={4: 8}, local={3: 8})
    assert "manifest.json is damaged (Error -3" in _refusal(fake)
    # A deflated stream that ends early, with something after it.
    deflated = zlib.compressobj(wbits=-15)
    stream = deflated.compress(b"{}") + deflated.flush()
    content = stream + bytes(size - len(stream))
    hidden = zipped({**members(packed()), "manifest.json": content}, zipfile.ZIP_STORED)
    hidden = _header(hidden, "manifest.json", directory={4: 8, 9: 2}, local={3: 8, 8: 2})
    assert "manifest.json is damaged (Bad CRC-32" in _refusal(hidden)
    # With the checksum of what it expands to, what comes after the stream's end is not read.
    hidden = _header(hidden, "manifest.json", directory={7: zlib.crc32(b"{}")})
    assert "manifest.json: format is missing" in _refusal(hidden)
    # One that does not end.
    begun = zlib.compressobj(wbits=-15)
    stream = begun.compress(b"{}") + begun.flush(zlib.Z_SYNC_FLUSH)
    endless = zipped({**members(packed()), "manifest.json": stream}, zipfile.ZIP_STORED)
    endless = _header(endless, "manifest.json", directory={4: 8, 9: 2}, local={3: 8, 8: 2})
    assert "manifest.json is damaged (Bad CRC-32" in _refusal(endless)
    # One that is cut off in the file.
    cut = _header(endless, "manifest.json", directory={8: 1, 9: 3})
    assert "manifest.json is damaged" in _refusal(cut)


# Size.


def test_a_bomb_is_not_expanded() -> None:
    bomb = replaced(packed(), episodes=bytes(40_000_000))
    assert len(bomb) < 60_000
    hidden = _header(bomb, "episodes.jsonl", directory={9: 100}, local={8: 100})
    announced = _header(bomb, "episodes.jsonl", directory={9: 300_000_000}, local={8: 300_000_000})
    short = _header(hidden, "episodes.jsonl", directory={7: zlib.crc32(bytes(100))})
    tracemalloc.start()
    assert "episodes.jsonl is damaged (Bad CRC-32" in _refusal(hidden)
    assert "episodes.jsonl, line 1: is cut off" in _refusal(short)
    assert "episodes.jsonl has 300,000,000 bytes; at most 256,000,000 are accepted" in _refusal(announced)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000
    assert "episodes.jsonl, line 1: is longer than 32,000,000 bytes" in _refusal(bomb)


def test_a_directory_of_many_entries_is_not_read() -> None:
    entry = packed()[packed().index(b"PK\x01\x02") :][: 46 + len("submission.json")]
    count = 100_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, count * len(entry), 4, 0)
    data = b"PK\x03\x04" + entry * count + end
    tracemalloc.start()
    assert "the zip file holds too many files" in _refusal(data)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_members_that_overlap_expand_to_no_more_than_they_may() -> None:
    """Three entries for one bomb, each with a header of its own before it, one inside the other."""
    stream = zlib.compressobj(9, wbits=-15)
    bomb = stream.compress(bytes(40_000_000)) + stream.flush()
    names = ("submission.json", "manifest.json", "episodes.jsonl")
    data, directory = b"", b""
    for name in names:
        local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 8, 0, 33, 0, len(bomb), 16_000, len(name), 0) + name.encode()
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\x01\x02", 20, 20, 0, 8, 0, 33, 0, len(bomb), 16_000, len(name), 0, 0, 0, 0, 0, len(data)
        )
        directory += name.encode()
        data += local
    data += bomb
    data += directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 3, 3, len(directory), len(data), 0)
    tracemalloc.start()
    assert " is damaged (" in _refusal(data)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_more_than_64_mb_are_not_read() -> None:
    class Endless(io.RawIOBase):
        taken = 0

        def read(self, size: int = -1) -> bytes:
            assert size >= 0
            self.taken += size
            return b"P" * size

    file = Endless()
    assert "the submission has more than 64,000,000 bytes" in _refusal(file)  # type: ignore[arg-type]
    assert file.taken == limits.PACKED + 1


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("EXPANDED", 5_000, "the submission expands to 4"),
        ("EPISODES", 7, "episodes.jsonl, line 8: a submission has at most 7 episodes"),
        ("ALL_STEPS", 20, "line 4: the episodes of a submission have at most 20 steps together"),
        ("LINE", 1_000, "episodes.jsonl, line 1: is longer than 1,000 bytes"),
        ("CONTAINERS", 14, "episodes.jsonl, line 2: holds too many values"),
        ("VALUES", 20, "manifest.json: holds too many values"),
        ("PACKED", 1_000, "the submission has more than 1,000 bytes"),
    ],
)
def test_every_limit_is_kept(monkeypatch: pytest.MonkeyPatch, limit: str, value: int, message: str) -> None:
    data = packed()
    monkeypatch.setattr(limits, limit, value)
    assert message in _refusal(data)


def test_a_run_that_is_too_large_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, value, message in (
        ("PACKED", 1_000, "bytes; at most 1,000 are accepted"),
        ("EXPANDED", 5_000, "the submission expands to"),
        ("LINE", 2_000, "is longer than 2,000 bytes"),
    ):
        with monkeypatch.context() as smaller:
            smaller.setattr(limits, limit, value)
            with pytest.raises(SubmissionError, match=message):
                pack(played(), DETAILS)


def test_values_are_counted_before_they_are_made() -> None:
    row, _, _ = members(packed())["episodes.jsonl"].splitlines()[0].partition(b',"sha256"')
    tracemalloc.start()
    for filler in (b"[],", b"{},", b"1,", b'{"a":1},', b"[[[[[[", b'"a",'):
        line = signed(row + b',"trajectory":[' + filler * (4_000_000 // len(filler)) + b"1]}") + b"\n"
        data = zipped({**members(packed()), "episodes.jsonl": line})
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        assert "episodes.jsonl, line 1: holds too many values" in _refusal(data)
        assert tracemalloc.get_traced_memory()[1] - before < 24_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("hostile", [b'"\\', b'\\"', b'"', b"\\", b'"a",', b"[", b"{", b'{"":', b"\n", b"9", b"-", b"\xff"])
def test_time_is_linear(hostile: bytes) -> None:
    data = replaced(packed(), episodes=hostile * (4_000_000 // len(hostile)))
    begun = time.process_time()
    _refusal(data)
    assert time.process_time() - begun < 5


# JSON that says too much, too little, or nothing.


def _line(text: bytes) -> bytes:
    """The submission with another second line."""
    lines = members(packed())["episodes.jsonl"].splitlines(keepends=True)
    return replaced(packed(), episodes=b"".join([lines[0], text, *lines[2:]]))


def _second(old: bytes, new: bytes) -> bytes:
    line = members(packed())["episodes.jsonl"].splitlines(keepends=True)[1]
    assert old in line
    return _line(signed(line.replace(old, new, 1)))


def _manifest(old: bytes, new: bytes) -> bytes:
    text = members(packed())["manifest.json"]
    assert old in text
    return replaced(packed(), manifest=text.replace(old, new, 1))


def _details(**details: object) -> bytes:
    return edited(packed(), submission=setting("details", to={"name": "a", **details}))


DOCUMENTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "no json": (lambda: replaced(packed(), manifest=b"hello"), "manifest.json: is not JSON (Expecting value at character 1)"),
    "empty": (lambda: replaced(packed(), manifest=b""), "manifest.json: is not JSON"),
    "a list": (lambda: replaced(packed(), manifest=b"[]"), "manifest.json: is not a JSON object"),
    "utf-16": (lambda: replaced(packed(), manifest="{}".encode("utf-16")), "manifest.json: byte 1 is not UTF-8"),
    "a byte order mark": (
        lambda: replaced(packed(), manifest=b"\xef\xbb\xbf" + members(packed())["manifest.json"]),
        "manifest.json: is not JSON (Unexpected UTF-8 BOM",
    ),
    "two objects": (lambda: replaced(packed(), manifest=b"{} {}"), "manifest.json: is not JSON (Extra data"),
    "a newer submission": (
        lambda: edited(packed(), submission=lambda document: document.update(format=2, more={})),
        "submission.json: has format 2, this cotbench reads 1: use a newer cotbench here",
    ),
    "a newer manifest": (
        lambda: edited(packed(), manifest=lambda document: document.update(format=3, more={})),
        "manifest.json: has format 3, this cotbench reads 2: use a newer cotbench here",
    ),
    "no format": (
        lambda: edited(packed(), manifest=lambda document: document.pop("format")),
        "manifest.json: format is missing",
    ),
    "another format": (lambda: edited(packed(), manifest=setting("format", to="1")), "manifest.json: format is '1', not 2"),
    "format true": (
        lambda: edited(packed(), submission=setting("format", to=True)),
        "submission.json: format is 'True', not 1",
    ),
    "format 1.5": (lambda: edited(packed(), submission=setting("format", to=1.5)), "submission.json: format is '1.5', not 1"),
    "details that are none": (
        lambda: edited(packed(), submission=setting("details", to=[])),
        "submission.json: details is '[]', not an object",
    ),
    "a price that is none": (
        lambda: edited(packed(), submission=setting("price", to=3)),
        "submission.json: price is '3', not an object",
    ),
    "a price below nothing": (
        lambda: edited(packed(), submission=setting("price", to={"prompt": -1, "completion": 1})),
        "submission.json: price: prompt: Input should be greater than or equal to 0",
    ),
    "a price beyond all": (
        lambda: edited(packed(), submission=setting("price", to={"prompt": 1, "completion": 1e300})),
        "submission.json: price: completion: Input should be less than or equal to 1000000",
    ),
    "a price of something else": (
        lambda: edited(packed(), submission=setting("price", to={"prompt": 1, "completion": 1, "image": 1})),
        "submission.json: price: image: is a field that this cotbench does not know",
    ),
    "no name": (lambda: edited(packed(), submission=setting("details", to={})), "submission.json: name is missing"),
    "one detail more": (lambda: _details(email="x"), "submission.json: 'email' is a field that this cotbench does not know"),
    "self": (lambda: _details(self="x"), "submission.json: 'self' is a field that this cotbench does not know"),
    "markup": (lambda: _details(team="<script>"), "the entry's team '<script>' holds the character '<'"),
    "a number for a name": (lambda: _details(name=5), "the entry's name '5' is not a text"),
    "a script for a link": (lambda: _details(link="javascript:alert(1)"), "the entry's link 'javascript:alert(1)' is not"),
    "one thing more to say": (
        lambda: edited(packed(), submission=setting("rank", to=1)),
        "submission.json: 'rank' is a field that this cotbench does not know",
    ),
    "a submission of 16 kB": (
        lambda: replaced(packed(), submission=b" " * 16_001),
        "submission.json has 16,001 bytes; at most 16,000 are accepted",
    ),
    "a manifest of 8 MB": (
        lambda: replaced(packed(), manifest=b" " * 8_000_001),
        "manifest.json has 8,000,001 bytes; at most 8,000,000 are accepted",
    ),
    "a field more in the manifest": (
        lambda: edited(packed(), manifest=setting("verified", to=True)),
        "manifest.json: 'verified' is a field that this cotbench does not know",
    ),
    "a field less": (
        lambda: edited(packed(), manifest=lambda document: document.pop("agent")),
        "manifest.json: agent is missing",
    ),
    "a field more in the config": (
        lambda: edited(packed(), manifest=setting("config", "x", to=1)),
        "manifest.json: config.x: is a field that this cotbench does not know",
    ),
    "no elicitation": (
        lambda: edited(packed(), manifest=lambda document: document["config"].pop("elicitation")),
        "manifest.json: config.elicitation is missing",
    ),
    "a config that is none": (
        lambda: edited(packed(), manifest=setting("config", to=3)),
        "manifest.json: config: Input should be an object",
    ),
    "a mode that is none": (
        lambda: edited(packed(), manifest=setting("config", "mode", to="all")),
        "manifest.json: config.mode: Input should be 'prompt', 'cot' or 'both'",
    ),
    "a seed below zero": (
        lambda: edited(packed(), manifest=setting("config", "seed", to=-1)),
        "manifest.json: config.seed: Input should be greater than or equal to 0",
    ),
    "a field twice": (
        lambda: _manifest(b'"python":', b'"python": "2", "python":'),
        "manifest.json: the field 'python' occurs twice",
    ),
    "a field twice, once escaped": (
        lambda: _second(b'"score":', b'"\\u0073core":1.0,"score":'),
        "episodes.jsonl, line 2: the field 'score' occurs twice",
    ),
    "not a number": (
        lambda: _second(b'"score":0.0', b'"score":NaN'),
        "episodes.jsonl, line 2: holds NaN, which is not a number",
    ),
    "infinity": (lambda: _second(b'"score":0.0', b'"score":-Infinity'), "line 2: holds -Infinity, which is not a number"),
    "infinity in the manifest": (
        lambda: edited(packed(), manifest=setting("hardware", to={"cpus": float("inf")})),
        "manifest.json: holds Infinity, which is not a number",
    ),
    "1e999": (lambda: _second(b'"score":0.0', b'"score":1e999'), "line 2: holds a number that is too large: '1e999'"),
    "a long number": (
        lambda: _second(b'"score":0.0', b'"score":0.' + b"1" * 9999),
        "line 2: holds a number of too many digits: '0.1111",
    ),
    "a large integer": (
        lambda: edited(packed(), manifest=setting("config", "seed", to=2**63)),
        "manifest.json: holds a number that is too large: '9223372036854775808'",
    ),
    "a gigantic integer": (
        lambda: _second(b'"steps":6', b'"steps":' + b"9" * 100_000),
        "line 2: holds a number that is too large: '9999",
    ),
    "a text for a number": (
        lambda: _second(b'"steps":6', b'"steps":"6"'),
        "episodes.jsonl, line 2: steps: Input should be a valid integer",
    ),
    "a number for a truth": (
        lambda: _second(b'"success":false', b'"success":0'),
        "episodes.jsonl, line 2: success: Input should be a valid boolean",
    ),
    "half a number of steps": (lambda: _second(b'"steps":6', b'"steps":6.5'), "line 2: steps: Input should be a valid integer"),
    "deep nesting": (
        lambda: _second(b'"goal":', b'"x":' + b"[" * 5_000 + b"]" * 5_000 + b',"goal":'),
        "episodes.jsonl, line 2: its values are nested too deeply",
    ),
    "some nesting": (
        lambda: edited(packed(), manifest=lambda document: document.update(agent=json.loads('{"a":' * 400 + "1" + "}" * 400))),
        "manifest.json: Invalid JSON: recursion limit exceeded",
    ),
    "a lone surrogate": (
        lambda: _second(b'"goal":"', b'"goal":"\\ud800'),
        "episodes.jsonl, line 2: Invalid JSON: unexpected end of hex escape",
    ),
    "a raw surrogate": (lambda: _second(b'"goal":"', b'"goal":"\xed\xa0\x80'), "is not UTF-8"),
    "bytes": (lambda: _second(b'"goal":"', b'"goal":"\xff'), "is not UTF-8"),
    "a line break in a text": (lambda: _second(b'"goal":"', b'"goal":"\r'), "is not JSON (Invalid control character at"),
    "a field more in an episode": (
        lambda: _second(b'"task":', b'"rank":1,"task":'),
        "episodes.jsonl, line 2: rank: is a field that this cotbench does not know",
    ),
    "a field with markup": (
        lambda: _second(b'"task":', b'"<b>\\n\\u001b[2J":1,"task":'),
        "episodes.jsonl, line 2: <b> ?[2J: is a field that this cotbench does not know",
    ),
    "a field more in a step": (
        lambda: edited(packed(), episodes=setting(1, "trajectory", 2, "x", to=1)),
        "episodes.jsonl, line 2: trajectory.2.x: is a field that this cotbench does not know",
    ),
    "a field more in a decision": (
        lambda: edited(packed(), episodes=setting(1, "trajectory", 2, "decision", "x", to=1)),
        "episodes.jsonl, line 2: trajectory.2.decision.x: is a field that this cotbench does not know",
    ),
    "a step that is none": (
        lambda: edited(packed(), episodes=setting(1, "trajectory", 2, to=None)),
        "episodes.jsonl, line 2: trajectory.2: ",
    ),
    "no task": (lambda: edited(packed(), episodes=lambda rows: rows[1].pop("task")), "line 2: task: Field required"),
    "an empty line": (
        lambda: _line(b"\n"),
        "episodes.jsonl, line 2: is not as it was written: it does not end with its sha256",
    ),
    "a torn line": (
        lambda: replaced(packed(), episodes=members(packed())["episodes.jsonl"][:-1]),
        "episodes.jsonl, line 8: is cut off",
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_json_that_is_not_as_it_is_packed_is_refused(name: str) -> None:
    make, message = DOCUMENTS[name]
    assert message in _refusal(make())


def test_no_episodes_is_read_and_not_accepted() -> None:
    with pytest.raises(SubmissionError, match="8 of 8 episodes are missing"):
        check(unpack(replaced(packed(), episodes=b"")))


# Whatever the bytes: a bundle, or one error.


SEEDS = st.integers(0, 2**32)
NAMES = st.sampled_from(["submission", "manifest", "episodes"])


def _accepted(data: bytes) -> bool:
    try:
        bundle = unpack(data)
        assert isinstance(bundle, Bundle)
        check(bundle)
    except SubmissionError as error:
        assert str(error).isprintable() and len(str(error)) < 700, str(error)
        return False
    assert unpack(repack(bundle)) == bundle
    return True


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda some: b"PK\x03\x04" + some)))
def test_any_bytes_are_refused(data: bytes) -> None:
    assert not _accepted(data)


def _mutated(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.randrange(len(changed))
        match rng.randrange(5):
            case 0:
                changed[place] ^= 1 << rng.randrange(8)
            case 1:
                changed[place : place + rng.randrange(1, 30)] = b""
            case 2:
                changed[place:place] = rng.randbytes(rng.randrange(1, 10))
            case 3:
                changed[place : place + 4] = rng.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"PK\x01\x02", b"PK\x05\x06"))
            case 4:
                other = rng.randrange(len(changed))
                changed[place:place] = changed[other : other + rng.randrange(1, 50)]
    return bytes(changed)


@settings(max_examples=250, deadline=None)
@given(SEEDS)
def test_a_mutated_zip_is_a_bundle_or_an_error(seed: int) -> None:
    _accepted(_mutated(packed(), random.Random(seed)))


@settings(max_examples=150, deadline=None)
@given(SEEDS, NAMES)
def test_mutated_files_are_a_bundle_or_an_error(seed: int, name: str) -> None:
    content = members(packed())[{"episodes": "episodes.jsonl"}.get(name, f"{name}.json")]
    mutated = _mutated(content, random.Random(seed))
    if name == "episodes":  # With right digests, so that what they guard is read too.
        mutated = b"".join(map(signed, mutated.splitlines(keepends=True)))
    _accepted(replaced(packed(), **{name: mutated}))


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["alfworld-gen", "bfcl", "scienceworld", "alfworld", "train", "official", "cot", 10**30, -1, "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


def _somewhere(document: Any, rng: random.Random, value: object) -> None:
    """Put a value in some place of a JSON document, or take something away."""
    while True:
        name = rng.choice(list(document) if isinstance(document, dict) else range(len(document)))
        inner = document[name]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.15:
            break
        document = inner
    if rng.random() < 0.2:
        del document[name]
    else:
        document[name] = value


@settings(max_examples=200, deadline=None)
@given(SEEDS, NAMES, JSON_VALUES)
def test_other_values_are_a_bundle_or_an_error(seed: int, name: str, value: object) -> None:
    def edit(document: Any) -> None:
        _somewhere(document, random.Random(seed), value)

    _accepted(edited(packed(), **{name: edit}))
