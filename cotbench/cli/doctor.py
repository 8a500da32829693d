"""`cotbench doctor`: installed packages, device and data, and the command that installs each missing one."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from cotbench.cli.terminal import echo_json, print_tables

_APART = " (in an environment of its own, without constraints.txt)"
_NOTES = {
    "reference": " (only to compare with upstream; needs cmake and a C++ compiler)",
    "inspect": _APART,
    "verifiers": _APART,
}
"""What stands behind the command that installs an extra."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One package, device or data set: its state, and the command that fixes it (empty when nothing is wrong)."""

    what: str
    found: str
    mend: str = ""


def doctor(
    data: Annotated[Path | None, typer.Option(help="Folder of the ALFWorld games", show_default="$ALFWORLD_DATA")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Show what is installed, what is missing, and the exact command that fixes it."""
    import json
    import platform

    findings = [Finding("python", platform.python_version()), *_packages(), _vllm(), *_device(), *_cache(), *_games(data)]
    if json_:
        echo_json(json.dumps([asdict(finding) for finding in findings], indent=2))
        return
    from cotbench.paragraph import Line, Paragraph
    from cotbench.text_table import TableColumn, TextTable, table_row

    rows = tuple(table_row(one.what, one.found, style="yellow" if one.mend else "") for one in findings)
    parts: list[Any] = [TextTable((TableColumn("what", "label"), TableColumn("found", "text")), rows)]
    fixes: dict[str, list[str]] = {}
    for finding in findings:
        if finding.mend:
            fixes.setdefault(finding.mend, []).append(finding.what)
    parts += [Paragraph("how to fix it", "bold")] if fixes else []
    for fix, names in fixes.items():
        # A command stands in a line of its own, to be copied whole.
        parts += [Paragraph(f"{', '.join(names)}:"), Line(f"  {fix}")]
    print_tables(*parts)


def _packages() -> list[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    from cotbench.envs.registry import builtin_entries
    from cotbench.installation import install_command

    wanted = {
        "gymnasium": "",
        "torch": "hf",
        "transformers": "hf",
        "gguf": "hf",
        "pyarrow": "train",
        "pandas": "pandas",
        "peft": "adapter",
        "bitsandbytes": "quantize",
        "matplotlib": "report",
        "jinja2": "report",
        "sqlalchemy": "leaderboard",
        "fastapi": "leaderboard",
        "uvicorn": "leaderboard",
        "starlette": "view",
        "psycopg": "postgres",
        "openai": "openai",
        "tenacity": "openai",
        "socksio": "socks",
        "trl": "trl",
        "datasets": "trl",
        "inspect-ai": "inspect",
        "verifiers": "verifiers",
        **{name: entry.extra for entry in builtin_entries() for name in entry.modules},
        "textworld": "reference",
        "alfworld": "reference",
    }
    findings = []
    for name, extra in wanted.items():
        try:
            findings.append(Finding(name, version(name)))
        except PackageNotFoundError:
            findings.append(Finding(name, "missing", install_command(extra) + _NOTES.get(extra, "")))
    return findings


def _vllm() -> Finding:
    """Return whether vLLM is there for `vllm:` agents: in this Python, or as a command beside it."""
    import shutil
    from importlib.metadata import packages_distributions, version
    from importlib.util import find_spec

    if find_spec("vllm") is not None:
        named = packages_distributions().get("vllm", ())
        return Finding("vllm", next(map(version, named), "installed"))
    if (command := shutil.which("vllm")) is not None:
        return Finding("vllm", f"{command} (not in this Python: without embedded=true)")
    return Finding("vllm", "missing", "pip install vllm (for vllm: agents; on a GPU, some gigabytes)")


def _device() -> list[Finding]:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        return []
    import torch

    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return [Finding("device", f"{gpu}; {cpus} CPUs, {torch.get_num_threads()} torch threads")]


def _cache() -> list[Finding]:
    from cotbench.envs.cache import cache_folder
    from cotbench.errors import MissingDataError

    how = "set COTBENCH_CACHE to a folder that can be written to"
    try:
        folder = cache_folder()
    except MissingDataError as error:
        return [Finding("cache", str(error).partition(":")[0], how)]
    there = next(path for path in (folder, *folder.parents) if path.exists())
    usable = there.is_dir() and os.access(there, os.W_OK)
    return [
        Finding("cache", str(folder) if usable else f"{folder} cannot be written to", "" if usable else how),
        *_wheels_in_cache(),
    ]


def _wheels_in_cache() -> list[Finding]:
    from cotbench.envs.wheels import WHEELS, sha256_of, wheel_path

    findings = []
    for name, wheel in WHEELS.items():
        path, how = wheel_path(name), f"cotbench data fetch {name}"
        if path is None:
            findings.append(Finding(f"data {name}", "missing", how))
        elif sha256_of(path) != wheel.sha256:
            findings.append(Finding(f"data {name}", f"{path} has another sha256 than the pinned wheel", f"{how} --again"))
        else:
            findings.append(Finding(f"data {name}", str(path)))
    return findings


def _games(data: Path | None) -> list[Finding]:
    from cotbench.envs.alfworld.tasks import OFFICIAL_SPLITS, OfficialGames, official_ids
    from cotbench.errors import MissingDataError

    source = OfficialGames()
    how = "pip install alfworld && alfworld-download, then set ALFWORLD_DATA"
    findings = []
    for split in OFFICIAL_SPLITS:
        ids = official_ids(split)
        try:
            here = len(ids) - len(source.missing(ids, data))
        except MissingDataError as error:
            return [Finding("ALFWorld games", str(error).partition(":")[0], how)]
        findings.append(Finding(f"ALFWorld {split}", f"{here} of {len(ids)} games", "" if here == len(ids) else how))
    return findings
