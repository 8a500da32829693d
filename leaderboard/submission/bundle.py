"""A submission as bytes. Invariant: what `pack` gives, `unpack` takes; and whatever bytes `unpack` is given, it gives a
bundle or one `SubmissionError`, in time linear in their number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from cotbench.errors import SubmissionError
from cotbench.leaderboard.submission import limits
from cotbench.leaderboard.submission.archive import Member, read_archive, write_archive
from cotbench.leaderboard.submission.details import Details
from cotbench.leaderboard.submission.json_reader import quote_value, read_model, read_object, require_fields, require_format
from cotbench.leaderboard.submission.run_reader import read_finished
from cotbench.runs import manifest as manifests
from cotbench.runs.episode import EPISODES, Episode
from cotbench.runs.limits import Price
from cotbench.runs.line_digest import LineDigestError, with_digest, without_digest
from cotbench.runs.manifest import MANIFEST, Manifest
from cotbench.runs.results import load_run

SUBMISSION: Final = "submission.json"
FORMAT: Final = 1
_LARGEST: Final = {SUBMISSION: limits.SUBMISSION, MANIFEST: limits.MANIFEST, EPISODES: limits.EXPANDED}


@dataclass(frozen=True, slots=True)
class Bundle:
    """A submission, read; nothing in it has been checked but its form.

    Attributes:
        details: what the submitter says of it.
        manifest: how the run was made, as the submitter says.
        episodes: what was played, as the submitter says.
        digest: sha256 of what was played, in hexadecimal digits: all of the episodes but `seconds`, and what they were played
            by and on. Neither the details nor the price are in it.
        price: of the agent's model, as the submitter says; None where none was given.
    """

    details: Details
    manifest: Manifest
    episodes: tuple[Episode, ...]
    digest: str
    price: Price | None = None

    @classmethod
    def of(cls, details: Details, manifest: Manifest, episodes: Sequence[Episode], price: Price | None = None) -> Self:
        """Make a bundle and compute its digest."""
        return cls(details, manifest, tuple(episodes), _digest(manifest, episodes), price)


def pack(folder: Path, details: Details) -> bytes:
    """Return a finished run folder as a submission; the same run and details give the same bytes.

    Of an error it holds what happened, not whose failure it was and no traceback, which names files of this machine.

    Raises:
        RunFolderError: not a run folder, a suite's, in use, damaged or unfinished.
        SubmissionError: its summary is not what its episodes give, or it is too large.
    """
    manifest, episodes, price = read_finished(folder)
    public = [episode.model_copy(update={"error_kind": None, "traceback": None}) for episode in episodes]
    data = repack(Bundle.of(details, manifest, public, price))
    unpack(data)
    return data


def pack_run(folder: Path, *, name: str = "", team: str = "", link: str = "") -> bytes:
    """Return a finished run folder as a submission, under the agent's name where none is given.

    Raises:
        RunFolderError: no run, or an unfinished one.
        SubmissionError: a detail is refused.
    """
    return pack(folder, Details.checked(name or _entry_name(load_run(folder).manifest.config.agent), team, link))


def _entry_name(spec: str) -> str:
    """Return an agent's spec as a name: a folder by its last part, nothing that a name may not hold."""
    kind, _, rest = spec.partition(":")
    if not rest:
        return spec
    target, mark, options = rest.partition("?")
    local = target.startswith((".", "/", "~"))
    return f"{kind}:{target.rstrip('/').rpartition('/')[2] if local else target}{mark}{options}"


def repack(bundle: Bundle) -> bytes:
    """Return the bytes of a bundle.

    Raises:
        SubmissionError: they are more than a submission may have.
    """
    submission: dict[str, Any] = {"format": FORMAT, "details": bundle.details.model_dump(mode="json")}
    if bundle.price is not None:
        submission["price"] = bundle.price.model_dump(mode="json")
    head = json.dumps(submission, indent=2).encode() + b"\n"
    manifest = bundle.manifest.model_dump_json(indent=2).encode() + b"\n"
    lines = _lines(bundle, limits.EXPANDED - len(head) - len(manifest))
    data = write_archive({SUBMISSION: [head], MANIFEST: [manifest], EPISODES: lines})
    if len(data) > limits.PACKED:
        raise SubmissionError(f"the submission has {len(data):,} bytes; at most {limits.PACKED:,} are accepted")
    return data


def _lines(bundle: Bundle, left: int) -> Iterator[bytes]:
    """Yield the episodes as they are written, a line each; `left` is how many bytes they may have."""
    for number, episode in enumerate(bundle.episodes, 1):
        text = episode.model_dump_json().encode()
        line = (with_digest(text) if bundle.manifest.has_digests else text) + b"\n"
        left -= len(line)
        if len(line) > limits.LINE:
            raise SubmissionError(f"{EPISODES}, line {number}: is longer than {limits.LINE:,} bytes")
        if left < 0:
            raise SubmissionError(f"{EPISODES}, line {number}: the submission expands to more than {limits.EXPANDED:,} bytes")
        yield line


def unpack(data: bytes | BinaryIO) -> Bundle:
    """Read a submission; follows no name and writes nothing.

    Args:
        data: its bytes, or a file that is read from its current position.

    Raises:
        SubmissionError: it is not one: says what is wrong, in which file, line and field.
    """
    members = read_archive(_content(data), _LARGEST, limits.EXPANDED)
    details, price = _submission(members[SUBMISSION].content())
    manifest = _manifest(members[MANIFEST].content())
    return Bundle.of(details, manifest, list(_episodes(members[EPISODES], manifest.has_digests)), price)


def _content(data: bytes | BinaryIO) -> bytes:
    content = data if isinstance(data, bytes) else b"".join(_read(data))
    if len(content) > limits.PACKED:
        raise SubmissionError(f"the submission has more than {limits.PACKED:,} bytes; no more are accepted")
    return content


def _read(file: BinaryIO) -> Iterator[bytes]:
    left = limits.PACKED + 1
    while left > 0 and (piece := file.read(min(left, limits.MB))):
        left -= len(piece)
        yield piece


def _submission(text: bytes) -> tuple[Details, Price | None]:
    document = read_object(text, SUBMISSION)
    require_format(document, FORMAT, SUBMISSION)
    require_fields(document, ("format", "details", "price"), SUBMISSION, optional=("price",))
    details = document["details"]
    if not isinstance(details, dict):
        raise SubmissionError(f"{SUBMISSION}: details is {quote_value(details)}, not an object")
    require_fields({"team": "", "link": "", **details}, tuple(Details.model_fields), SUBMISSION)
    price = document.get("price")
    if price is not None and not isinstance(price, dict):
        raise SubmissionError(f"{SUBMISSION}: price is {quote_value(price)}, not an object")
    given = None if price is None else read_model(Price, json.dumps(price).encode(), f"{SUBMISSION}: price")
    return Details.checked(**details), given


def _manifest(text: bytes) -> Manifest:
    document = read_object(text, MANIFEST)
    require_format(document, manifests.FORMAT, MANIFEST, oldest=manifests.FORMATS[0])
    # Fields that a manifest did not always have: their defaults mean what it was then.
    optional = ("dialect", "expert", "uses_elicitation")
    require_fields(document, tuple(Manifest.model_fields), MANIFEST, optional=optional)
    if isinstance(document["config"], dict) and "elicitation" not in document["config"]:
        raise SubmissionError(f"{MANIFEST}: config.elicitation is missing")
    return read_model(Manifest, text, MANIFEST)


def _episodes(member: Member, digests: bool) -> Iterator[Episode]:
    steps = 0
    for number, line in member.lines(limits.LINE):
        where = f"{EPISODES}, line {number}"
        if number > limits.EPISODES:
            raise SubmissionError(f"{where}: a submission has at most {limits.EPISODES:,} episodes")
        content = _without_digest(line, where) if digests else line
        read_object(content, where)
        episode = read_model(Episode, content, where)
        steps += len(episode.trajectory)
        if steps > limits.ALL_STEPS:
            raise SubmissionError(f"{where}: the episodes of a submission have at most {limits.ALL_STEPS:,} steps together")
        yield episode


def _without_digest(line: bytes, where: str) -> bytes:
    try:
        return without_digest(line)
    except LineDigestError as error:
        raise SubmissionError(f"{where}: is not as it was written: {error}") from error


def _digest(manifest: Manifest, episodes: Sequence[Episode]) -> str:
    identity = manifest.model_dump(mode="json", include={"config", "agent", "task_list", "data"})
    digest = hashlib.sha256(_canonical(identity))
    for episode in episodes:
        digest.update(_canonical(episode.model_dump(mode="json", exclude={"seconds"})))
    return digest.hexdigest()


def _canonical(value: dict[str, Any]) -> bytes:
    """Return the one spelling of a JSON value, as a line."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"
