"""`README.md` of a trained model: a model card for a hub, out of the training's `recipe.json`. Invariant: the card says what
the training recorded and nothing else; a card that a user has written is left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cotbench.errors import RunFolderError
from cotbench.json_text import parse_json
from cotbench.recipes import agent_of
from cotbench.runs.atomic_file import write_atomically
from cotbench.runs.dataset_card import CARD

RECIPE = "recipe.json"
_OURS = "# Written by cotbench, and anew by cotbench export card; without this line the file stays as it is."
_TEMPLATE = "[More Information Needed]"
"""What stands in the empty card that peft saves beside an adapter."""
_ON_A_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_OWN_TERMS = ("mask_fraction", "mask_select", "mask_schedule", "action_weight", "trace_weight", "traces")
"""Options of which a reader of the study wants to know first."""


def write_model_card(training: Path, out: Path | None = None) -> Path:
    """Write the card of a trained model.

    Args:
        training: the folder of a training or of one of its checkpoints.
        out: the file; `README.md` in that folder when left out.

    Returns:
        The file.

    Raises:
        RunFolderError: the folder holds no trained model, its `recipe.json` is damaged, or the file is a user's.
    """
    record = _record(training)
    path = out or training / CARD
    before = path.read_text("utf-8", "replace") if path.is_file() else _OURS
    if _OURS not in before and _TEMPLATE not in before:
        raise RunFolderError(f"{path} was written by somebody else: name another file with --out")
    folders = [training / part for part in record["parts"]] or [training]
    adapter = all((folder / "adapter_config.json").is_file() for folder in folders)
    lines = [*_front(record, adapter), "", *_text(record, training.name, adapter)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, [f"{line}\n" for line in lines])
    return path


def _record(training: Path) -> dict[str, Any]:
    path = training / RECIPE
    if not path.is_file():
        raise RunFolderError(f"{training} holds no trained model: it has no {RECIPE} (cotbench train writes it at the end)")
    try:
        record = parse_json(path.read_bytes())
        known: dict[str, Any] = {"recipe": str(record["recipe"]), "config": dict(record["config"])}
        known["parts"] = dict(record.get("parts") or {})
        return {**record, **known}
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} is damaged: train again, or take another checkpoint") from error


def _front(record: Mapping[str, Any], adapter: bool) -> Iterator[str]:
    base = _base(record)
    yield "---"
    yield _OURS
    yield f"library_name: {'peft' if adapter else 'transformers'}"
    yield "pipeline_tag: text-generation"
    if _ON_A_HUB.fullmatch(base):
        yield f"base_model: {base}"
    yield "tags:"
    yield from (
        f"- {json.dumps(tag)}"
        for tag in ("cotbench", f"cotbench-{record['recipe']}", *sorted(record.get("elicitations") or {}))
    )
    yield "---"


def _text(record: Mapping[str, Any], name: str, adapter: bool) -> Iterator[str]:
    config, data = record["config"], record.get("data") or {}
    envs = ", ".join(f"{env} ({count} episodes)" for env, count in sorted((data.get("envs") or {}).items()))
    yield f"# {_line(name)}"
    yield ""
    parts, part = record["parts"], record.get("part")
    how = f"trained with the recipe `{_line(record['recipe'])}` of cotbench{f' on {_line(envs)}' if envs else ''}"
    if part is not None:
        yield f"The {_line(part)}, {'an adapter of' if adapter else 'a fine-tuned'} `{_line(_base(record))}`, {how}."
        yield "It is one of several models that act together: the folder above this one has all of them."
    else:
        what, acts = "An adapter of" if adapter else "A fine-tuned", "It acts"
        if parts:
            names = " and ".join(f"`{_line(one)}`" for one in parts)
            what, acts = f"{names}, each {'an adapter of' if adapter else 'a fine-tuned'}", "Together they act"
        yield (
            f"{what} `{_line(_base(record))}`, {how}. {acts} in text environments, with {'its' if not parts else 'their'} "
            "reasoning before an action (CoT mode) or without (prompt mode)."
        )
    yield ""
    yield "## How it was trained"
    yield ""
    yield "| | |"
    yield "|---|---|"
    steps, progress = record.get("step"), record.get("progress")
    rows: dict[str, Any] = {
        "updates": f"{steps} of {record.get('steps')}" if steps is not None else None,
        **{f"updates of the {one}": count for one, count in parts.items()},
        "share of the training": f"{progress:.0%}" if isinstance(progress, float | int) else None,
        "teacher": ", ".join(data.get("teachers") or {}) or None,
        "decisions in the data": data.get("decisions"),
        "sha256 of the data": data.get("sha256"),
        **{_words(option): config[option] for option in _OWN_TERMS if option in config},
        **{_words(name): value for name, value in (record.get("seen") or {}).items()},
        "git commit": record.get("git_commit"),
        "begun": record.get("created"),
    }
    yield from (f"| {label} | {_cell(value)} |" for label, value in rows.items() if value is not None)
    yield ""
    for env, fingerprint in sorted((record.get("elicitations") or {}).items()):
        yield f"The prompts of `{_line(env)}` have the elicitation fingerprint `{_line(fingerprint)}`: ask it in the same form."
    yield ""
    yield "## How to run it"
    yield ""
    yield "```"
    agent = "hf" if part is not None else agent_of(record["recipe"])
    for env in sorted(data.get("envs") or {"alfworld-gen": 0}):
        yield f"cotbench run --agent {agent}:FOLDER --env {_line(env)} --split id"
    yield "```"
    yield ""
    yield "## All options and versions"
    yield ""
    yield "```json"
    versions = {name: record.get(name) for name in ("base", "examples", "packages", "python")}
    # A fence inside would end the block.
    yield json.dumps({"config": config, **versions}, indent=2, ensure_ascii=False).replace("```", "` ` `")
    yield "```"


def _base(record: Mapping[str, Any]) -> str:
    base = record.get("base") or {}
    return str(base.get("model") or record["config"].get("model") or "a model")


def _words(option: str) -> str:
    return option.replace("_", " ")


def _line(text: Any) -> str:
    """Return a text on one line, without what would end the code or the cell that it stands in."""
    return " ".join(str(text).split()).replace("`", "'").replace("|", "/").replace("<", "&lt;")


def _cell(value: Any) -> str:
    return _line(f"{value:g}" if isinstance(value, float) else value)
