"""The files that a model is loaded from, by content. Invariant: a digest is of the bytes that are there now, however large they
are; weights that would have to be unpickled are refused.

A digest of a large file is kept in the user's cache, under the file's path, inode, size and times, so that a model of many
gigabytes is hashed once. A change that keeps all of these is not seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cotbench.envs.cache import cache_folder
from cotbench.envs.wheels import sha256_of
from cotbench.errors import AgentError, MissingDataError
from cotbench.json_text import parse_json

CONFIG, ADAPTER = "config.json", "adapter_config.json"

_WEIGHTS = ("model*.safetensors", "adapter_model*.safetensors")
_INDEX = "*.safetensors.index.json"
_SETTINGS = (
    CONFIG,
    ADAPTER,
    "generation_config.json",
    _INDEX,
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template*",
    "additional_chat_templates/*",
)
"""What transformers and peft read beside the weights: configuration, tokenizer, chat templates."""

_PICKLED = {"pytorch_model": "model", "model": "model", "consolidated": "model", "adapter_model": "adapter_model"}
"""First part of the name of a file of pickled weights -> first part of the name of its safetensors form."""

_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
_THREADS = 8
_CACHED_BYTES = 32 * 2**20
"""Smaller files are hashed in no time, and their digests not stored."""

_SETTLED = 2.0
"""Seconds without a change after which a file's times tell that it has not changed since."""

_Mark = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a model, or of an adapter alone, in a folder.

    Attributes:
        folder: where they are.
        weights: their names, sorted.
        settings: names of the other files that are read when the model is loaded, sorted.
        marks: name -> device, inode, size, time of change and of the change of the inode, when the folder was listed.
    """

    folder: Path
    weights: tuple[str, ...]
    settings: tuple[str, ...]
    marks: Mapping[str, _Mark]

    @property
    def weights_sha256(self) -> str | None:
        """The sha256 over the sha256 of each file of weights; None where there is none."""
        return _joined(_digests(self, self.weights)) if self.weights else None

    @property
    def settings_sha256(self) -> str:
        """The sha256 over names and sha256 of the other files."""
        digests = _digests(self, self.settings)
        return _joined(f"{name} {digest}\n" for name, digest in zip(self.settings, digests, strict=True))


def list_files(folder: Path) -> ModelFiles:
    """Return the files of the model in a folder, as they are now; links are followed.

    Raises:
        AgentError: the index of its shards is damaged.
    """
    weights = _matching(folder, _WEIGHTS) | _named_weights(folder)
    settings = _matching(folder, _SETTINGS) - weights
    marks = {name: _mark(folder / name) for name in (*weights, *settings) if (folder / name).is_file()}
    return ModelFiles(folder, tuple(sorted(weights & marks.keys())), tuple(sorted(settings & marks.keys())), marks)


def check_unchanged(before: ModelFiles) -> None:
    """Raise an error where a file has changed since the folder was listed: what was loaded is not what is hashed.

    Raises:
        AgentError: names the file.
    """
    now = list_files(before.folder)
    for name in sorted({*before.marks, *now.marks}):
        if before.marks.get(name) != now.marks.get(name):
            raise AgentError(f"{before.folder / name} changed while the model was loaded: try again when it is written")


def require_safetensors(folder: Path) -> None:
    """Raise an error where weights in a folder can only be had by unpickling them, which can run code.

    Raises:
        AgentError: names the file and how to convert it.
    """
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            stem, safe = path.name.partition(".")[0].partition("-")[0], ""
            if path.suffix in _PICKLE_SUFFIXES:
                safe = _PICKLED.get(stem, "")
            if safe and not any(folder.glob(f"{safe}*.safetensors")):
                load = "PeftModel" if safe == "adapter_model" else "transformers.AutoModelForCausalLM"
                raise AgentError(
                    f"{path} is pickled, and reading a pickle can run code: convert it where you trust it, with "
                    f"{load}.from_pretrained(...).save_pretrained({str(folder)!r}), which writes safetensors"
                )


def snapshot_folder(name: str, revision: str | None = None, file: str = CONFIG) -> Path | None:
    """Return the folder of a model of the hub in the hub's cache; None where it is not there.

    Args:
        name: on the hub.
        revision: branch, tag or commit.
        file: a file that it has.
    """
    import huggingface_hub

    with suppress(ValueError, OSError):
        found = huggingface_hub.try_to_load_from_cache(name, file, revision=revision)
        return Path(found).parent if isinstance(found, str) else None
    return None


def _matching(folder: Path, patterns: Iterable[str]) -> set[str]:
    return {path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern)}


def _named_weights(folder: Path) -> set[str]:
    """Return the files of weights that a configuration or an index names: they may have any name."""
    named: set[str] = set()
    try:
        if (folder / CONFIG).is_file():
            explicit = dict(parse_json((folder / CONFIG).read_bytes())).get("transformers_weights")
            named |= set() if explicit is None else {str(explicit)}
        for index in sorted(folder.glob(_INDEX)):
            named |= set(map(str, dict(parse_json(index.read_bytes())["weight_map"]).values()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AgentError(f"{folder} holds a damaged {CONFIG} or index of shards ({error}): save the model again") from error
    for name in sorted(named):
        if not name.endswith((".safetensors", ".safetensors.index.json")):
            raise AgentError(f"{folder / name} should hold weights, but is not a safetensors file: save the model again")
    return named


def _mark(path: Path) -> _Mark:
    stat = path.stat()
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _joined(digests: Iterable[str]) -> str:
    whole = hashlib.sha256()
    for digest in digests:
        whole.update(digest.encode())
    return whole.hexdigest()


def _digests(files: ModelFiles, names: Iterable[str]) -> Iterator[str]:
    """Yield the sha256 of each file, in order; several are read at once: hashing needs no lock of Python's."""
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        yield from pool.map(lambda name: _digest(files.folder / name), names)


def _digest(path: Path) -> str:
    mark = _mark(path)
    if mark[2] < _CACHED_BYTES:
        return sha256_of(path)
    record = _record_of(path)
    with suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(record.read_text("utf-8")) if record is not None else {}
        if tuple(stored["mark"]) == mark:
            return str(stored["sha256"])
    digest = sha256_of(path)
    settled = time.time() - max(mark[3:]) / 1e9 > _SETTLED
    if record is not None and settled and _mark(path) == mark:
        with suppress(OSError):
            record.parent.mkdir(parents=True, exist_ok=True)
            written = record.with_suffix(f".{os.getpid()}")
            written.write_text(json.dumps({"path": str(path), "mark": mark, "sha256": digest}) + "\n", "utf-8")
            written.replace(record)
    return digest


def _record_of(path: Path) -> Path | None:
    """Return the file in the user's cache that keeps the digest of a file; None where there is no cache."""
    with suppress(MissingDataError):
        return cache_folder() / "digests" / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]}.json"
    return None
