"""`README.md` of a folder of results: a dataset card that names the data file and the types of its columns, so that
`datasets.load_dataset(FOLDER)` reads it. Invariant: the types are those of the model that writes the lines, never guessed from
the first of them; a card that a user has rewritten is left alone.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from cotbench.runs import line_digest
from cotbench.runs.atomic_file import write_atomically
from cotbench.runs.episode import EPISODES, Episode
from cotbench.runs.manifest import MANIFEST, Manifest
from cotbench.runs.summary import SUMMARY

CARD = "README.md"
_OURS = "# Written by cotbench, and anew when the folder is written to; without this line the file stays as it is."
_EPISODES = (
    f"Episodes played with cotbench, one a line of `{EPISODES}`: the task and its goal, the mode (`prompt`: the agent acts "
    "without reasoning; `cot`: it reasons first), the environment's verdict (`success`, `score`), and in `trajectory` every "
    "step: what the agent answered (`decision`: trace, action, tokens), the action as it was executed, in mode `both` the "
    "action that the prompt alone gives at the same state (`prompt_action`, not executed), the expert's action where it is "
    "known, and the observation that followed. An episode with an `error` failed for a reason outside the agent and has no "
    "score. `rollout` is null for the first play of a task; `sha256` is that of the line without this field."
)
_TYPES = {str: "string", bool: "bool", int: "int64", float: "float64"}


@dataclass(frozen=True, slots=True)
class DataConfig:
    """A table of a folder, which `load_dataset(FOLDER, NAME)` reads.

    Attributes:
        name: "default" is read where no name is given.
        splits: split -> path of its file in the folder.
        columns: names and types of a line's fields.
    """

    name: str
    splits: Mapping[str, str]
    columns: Mapping[str, Any]


class DatasetCard(NamedTuple):
    """What is said of a folder's data.

    Attributes:
        title: the heading, on one line.
        text: what the data is and how it was made, in Markdown.
        configs: the tables; the first is the usual one.
    """

    title: str
    text: str
    configs: Sequence[DataConfig]


def columns_of(model: type[Any]) -> dict[str, Any]:
    """Return names and types of the fields of a pydantic model, a dataclass or a named tuple."""
    if isinstance(model, type) and issubclass(model, BaseModel):
        return {name: info.annotation for name, info in model.model_fields.items()}
    return {name: hint for name, hint in get_type_hints(model).items() if get_origin(hint) is not ClassVar}


def record_columns(model: type[Any], format: int) -> dict[str, Any]:
    """Return names and types of the fields of a line in a folder's file of records.

    Args:
        model: of a record.
        format: of the folder, which says whether lines carry digests.
    """
    return columns_of(model) | ({line_digest.FIELD: str} if format >= line_digest.FORMAT else {})


def split_name(name: str) -> str:
    """Return a name as one that `datasets` takes for a split."""
    return re.sub(r"\W+", "_", name)


def write_card(folder: Path, title: str, text: str, configs: Sequence[DataConfig]) -> None:
    """Write the card of a folder, unless there is one that is not ours.

    Args:
        folder: the folder.
        title: the card's heading, on one line.
        text: what the data is and how it was made, in Markdown.
        configs: the tables; the first is the usual one.
    """
    path = folder / CARD
    if path.exists() and _OURS not in path.read_text("utf-8", "replace"):
        return
    front = ["---", _OURS, *(line for part in (_configs(configs), _types(configs)) for line in part), "---"]
    write_atomically(path, [f"{line}\n" for line in (*front, "", f"# {' '.join(title.split())}", "", text.strip())])


def run_card(manifest: Manifest) -> DatasetCard:
    """Return the card of a run folder.

    Args:
        manifest: of the run.
    """
    config = manifest.config
    return DatasetCard(
        f"{config.agent} on {config.env} {config.scheme}/{config.split}",
        f"{_EPISODES}\n\nAgent `{config.agent}`, mode {config.mode}, seed {config.seed}, {len(manifest.task_list)} tasks; all "
        f"settings and versions are in `{MANIFEST}`, the numbers in `{SUMMARY}`.{_scored(manifest)}",
        [DataConfig("default", {split_name(config.split): EPISODES}, record_columns(Episode, manifest.format))],
    )


def suite_card(runs: Sequence[Manifest]) -> DatasetCard:
    """Return the card of a suite: one split for each environment.

    Args:
        runs: the manifests of its runs.
    """
    first = runs[0].config
    envs = [one.config.env for one in runs]
    return DatasetCard(
        f"{first.agent} on {', '.join(envs)} {first.scheme}/{first.split}",
        f"{_EPISODES}\n\nEach environment has a folder of its own with its settings (`{MANIFEST}`), and is a split here."
        f"{_scored(runs[0])}",
        [
            DataConfig(
                "default",
                {split_name(env): f"{env}/{EPISODES}" for env in envs},
                record_columns(Episode, max(one.format for one in runs)),
            )
        ],
    )


def write_run_card(folder: Path, manifest: Manifest) -> None:
    """Write the card of a run folder.

    Args:
        folder: the run folder.
        manifest: of the run.
    """
    write_card(folder, *run_card(manifest))


def write_suite_card(folder: Path, runs: Sequence[Manifest]) -> None:
    """Write the card of a suite: one split for each environment.

    Args:
        folder: the suite's folder.
        runs: the manifests of its runs.
    """
    write_card(folder, *suite_card(runs))


def _scored(manifest: Manifest) -> str:
    return "" if manifest.config.split == "train" else " The tasks are for evaluation: do not train on them."


def _configs(configs: Sequence[DataConfig]) -> Iterator[str]:
    yield "configs:"
    for config in configs:
        yield f"- config_name: {config.name}"
        yield "  data_files:"
        for split, path in config.splits.items():
            yield f"  - split: {split}"
            yield f"    path: {path}"


def _types(configs: Sequence[DataConfig]) -> Iterator[str]:
    """Yield the types of the columns, of each table whose lines have fixed ones."""
    found: list[str] = []
    for config in configs:
        with suppress(TypeError):
            features = [f"  {line}" for line in _fields(config.columns)]
            found += [f"- config_name: {config.name}", "  features:", *features]
    yield from ["dataset_info:", *found] if found else ()


def _fields(columns: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of YAML for fields, as `datasets.Features` writes them."""
    for name, annotation in columns.items():
        yield f"- name: {name}"
        yield from (f"  {line}" for line in _feature(annotation))


def _feature(annotation: Any) -> Iterator[str]:
    annotation = plain_type(annotation)
    if annotation in _TYPES:
        yield f"dtype: {_TYPES[annotation]}"
    elif get_origin(annotation) is Literal:
        yield f"dtype: {_TYPES[type(get_args(annotation)[0])]}"
    elif get_origin(annotation) in (tuple, list):
        inner, *_ = map(plain_type, get_args(annotation))
        if inner in _TYPES:
            yield f"list: {_TYPES[inner]}"
        else:
            yield "list:"
            yield from _fields(columns_of(inner))
    elif isinstance(annotation, type) and (is_dataclass(annotation) or issubclass(annotation, BaseModel | tuple)):
        yield "struct:"
        yield from _fields(columns_of(annotation))
    else:
        raise TypeError(f"no column of a dataset has the type {annotation}")


def plain_type(annotation: Any) -> Any:
    """Return a type without its metadata, and without None."""
    if get_origin(annotation) is Annotated:
        return plain_type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        (inner,) = (one for one in get_args(annotation) if one is not types.NoneType)
        return plain_type(inner)
    return annotation
