"""Croissant metadata of a folder of results: its tables, in JSON-LD that dataset tools read. Invariant: the columns are those
of the dataset card, and each file has the sha256 of the bytes that lie there now.

Source: the Croissant format, version 1.0 (MLCommons), http://mlcommons.org/croissant/1.0.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from cotbench import __version__
from cotbench.errors import RunFolderError
from cotbench.runs.atomic_file import write_atomically
from cotbench.runs.dataset_card import DataConfig, DatasetCard, plain_type

CROISSANT: Final = "croissant.json"
CONFORMS_TO: Final = "http://mlcommons.org/croissant/1.0"
_CONTEXT: Final = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_TYPES: Final = {str: "sc:Text", bool: "sc:Boolean", int: "sc:Integer", float: "sc:Float"}
_FORMATS: Final = {".jsonl": "application/jsonlines", ".csv": "text/csv"}


def write_croissant(folder: Path, card: DatasetCard, *, license: str, date: str, url: str = "") -> Path:
    """Write the metadata of a folder, and return its file.

    Args:
        folder: the folder of results.
        card: its dataset card.
        license: of the data: an address that says what it allows.
        date: of the data, as ISO 8601.
        url: where the data is published; empty: nowhere yet.

    Raises:
        RunFolderError: a file of the card is missing.
    """
    metadata = croissant(folder, card, license=license, date=date, url=url)
    path = folder / CROISSANT
    write_atomically(path, [json.dumps(metadata, indent=2, ensure_ascii=False) + "\n"])
    return path


def croissant(folder: Path, card: DatasetCard, *, license: str, date: str, url: str = "") -> dict[str, Any]:
    """Return the metadata of a folder; arguments and errors as of `write_croissant`."""
    files = dict.fromkeys(path for config in card.configs for path in config.splits.values())
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": _name(card.title),
        "description": card.text,
        "license": license,
        **({"url": url} if url else {}),
        "version": f"{__version__}",
        "datePublished": date,
        "creator": {"@type": "sc:Organization", "name": "cotbench"},
        "citeAs": "Where Do CoT Training Gains Land in LLM based Agents? arXiv:2606.26935",
        "distribution": [_file(folder, path) for path in files],
        "recordSet": [
            _records(folder, config.name if len(config.splits) == 1 else f"{config.name}-{split}", split, path, config)
            for config in card.configs
            for split, path in config.splits.items()
        ],
    }


def _name(title: str) -> str:
    """Return a title as a name: letters, digits, blanks, `-` and `_`."""
    return " ".join(re.sub(r"[^\w -]+", " ", title).split())


def _file(folder: Path, path: str) -> dict[str, Any]:
    try:
        data = (folder / path).read_bytes()
    except OSError as error:
        raise RunFolderError(f"{folder} has no {path}: it is not finished; continue it first with --resume") from error
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path,
        "contentUrl": path,
        "contentSize": f"{len(data)} B",
        "encodingFormat": _FORMATS[Path(path).suffix],
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _records(folder: Path, name: str, split: str, path: str, config: DataConfig) -> dict[str, Any]:
    """Return a table. Columns that hold structures are named in its description alone: the format's readers have no type for
    them.
    """
    present = _columns(folder / path)
    columns = {column: _kind(annotation) for column, annotation in config.columns.items() if column in present}
    structures = [column for column, (kind, _) in columns.items() if kind not in _TYPES]
    also = f" Structures, to be read from the file itself: {', '.join(structures)}." if structures else ""
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"Split {split}.{also}",
        "field": [
            _field(name, path, column, _TYPES[kind], repeated) for column, (kind, repeated) in columns.items() if kind in _TYPES
        ],
    }


def _columns(path: Path) -> frozenset[str]:
    """Return the columns that a table has: a reader fails at one that no line has."""
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            return frozenset(next(csv.reader(file), ()))
        return frozenset(name for line in file for name in json.loads(line))


def _kind(annotation: Any) -> tuple[Any, bool]:
    """Return the type of a column's values, and whether a value is a list of them."""
    inner = plain_type(annotation)
    repeated = get_origin(inner) in (tuple, list)
    kind = plain_type(get_args(inner)[0]) if repeated else inner
    return type(get_args(kind)[0]) if get_origin(kind) is Literal else kind, repeated


def _field(table: str, path: str, column: str, kind: str, repeated: bool) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{table}/{column}",
        "name": column,
        "dataType": kind,
        **({"repeated": True} if repeated else {}),
        # Of lines of JSON too, which readers take as a table.
        "source": {"fileObject": {"@id": path}, "extract": {"column": column}},
    }
