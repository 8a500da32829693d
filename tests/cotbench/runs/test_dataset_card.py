"""The card of a folder of results: `datasets` reads every folder with it, and no more is said than is so."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cotbench
from cotbench.cli import run_cli
from cotbench.envs.registry import Instructions
from cotbench.runs.dataset_card import CARD, DataConfig, columns_of, write_card
from cotbench.runs.episode import EPISODES, Episode, Step
from tests.conftest import needs_bfcl, needs_datasets
from tests.small_split import small_split

RUN = ["run", "--agent", "expert", "-n", "2", "--max-steps", "3"]


READER = """
import datasets, json, sys
for line in sys.stdin:
    read = datasets.load_dataset(*json.loads(line), cache_dir="cache")
    print("read:", json.dumps({split: [dict(row) for row in rows] for split, rows in read.items()}), flush=True)
"""

Load = Callable[..., dict[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Load]:
    """What `datasets.load_dataset(FOLDER)` returns, in a process that knows nothing of us: split -> rows."""
    home = tmp_path_factory.mktemp("home")
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "PATH": "/usr/bin:/bin", "HOME": str(home)}
    with (home / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", READER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=home,
            env=offline,
            text=True,
        )
    assert process.stdin is not None and process.stdout is not None
    given, told = process.stdin, process.stdout

    def loaded(folder: Path, *name: str) -> dict[str, list[dict[str, Any]]]:
        print(json.dumps([str(folder), *name]), file=given, flush=True)
        answer = next((line for line in told if line.startswith("read: ")), None)
        assert answer is not None, (home / "errors").read_text()
        return dict(json.loads(answer.removeprefix("read: ")))

    yield loaded
    process.communicate(timeout=60)


def _absent(value: Any) -> Any:
    """JSON data without what is None, as a table with fixed columns writes what is left out."""
    if isinstance(value, dict):
        return {name: _absent(one) for name, one in value.items() if one is not None}
    return [_absent(one) for one in value] if isinstance(value, list) else value


@needs_datasets
def test_a_run_folder_is_a_dataset(load: Load, tmp_path: Path) -> None:
    assert run_cli([*RUN, "--split", "ood_room", "--out", str(tmp_path / "r")]) == 0
    read = load(tmp_path / "r")
    lines = [json.loads(line) for line in (tmp_path / "r" / EPISODES).read_text().splitlines()]
    assert list(read) == ["ood_room"] and _absent(read["ood_room"]) == _absent(lines)
    assert "do not train on them" in (tmp_path / "r" / CARD).read_text()


@needs_datasets
def test_types_do_not_depend_on_the_first_lines(load: Load, tmp_path: Path) -> None:
    """A reader that guesses looks at the first ten megabytes, and fails at what is null there alone."""
    assert run_cli([*RUN, "-n", "1", "--mode", "cot", "--out", str(tmp_path / "r")]) == 0
    path = tmp_path / "r" / EPISODES
    (first,) = cotbench.load_run(tmp_path / "r").records
    long = [first.model_copy(update={"task": f"t{n}", "goal": "x" * 200_000}) for n in range(60)]
    step = first.trajectory[0].model_copy(update={"invalid_action": "no", "prompt_action": "look"})
    last = first.model_copy(update={"error": "503", "rollout": 2, "trajectory": (step,)})
    path.write_text("".join(one.model_dump_json() + "\n" for one in (*long, last)))
    assert path.stat().st_size > 11_000_000
    (*_, row) = load(tmp_path / "r")["id"]
    assert (row["error"], row["rollout"], row["trajectory"][0]["invalid_action"]) == ("503", 2, "no")


@needs_bfcl
@needs_datasets
def test_a_suite_and_a_probe_are_datasets_too(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    assert run_cli([*RUN, "--env", "alfworld-gen,bfcl", "--out", str(folder)]) == 0
    read = load(folder)
    assert {split: len(rows) for split, rows in read.items()} == {"alfworld_gen": 4, "bfcl": 4}
    probe = ["probe", "alignment", "--agent", "expert", "--reference", "expert", "--states", "3", "--out", str(tmp_path / "p")]
    with small_split():
        assert run_cli(probe) == 0
    rows = [json.loads(line) for line in (tmp_path / "p" / "rows.jsonl").read_text().splitlines()]
    assert _absent(load(tmp_path / "p")) == {"id": _absent(rows)}


@needs_datasets
def test_a_traces_folder_holds_two_tables(load: Load, tmp_path: Path) -> None:
    assert run_cli(["traces", "--teacher", "expert", "-n", "2", "--out", str(tmp_path / "t")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "t" / "traces.jsonl").read_text().splitlines()]
    assert _absent(load(tmp_path / "t")) == {"train": _absent(lines)}
    assert len(load(tmp_path / "t", "episodes")["train"]) == 2


def test_a_card_of_somebody_else_stays(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    assert run_cli([*RUN, "--out", str(folder)]) == 0
    card, before = folder / CARD, (folder / CARD).read_text()
    card.write_text(before + "More.\n")
    assert run_cli(["run", "--resume", str(folder)]) == 0
    assert card.read_text() == before, "ours is written anew"
    mine = (
        "".join(line for line in before.splitlines(keepends=True) if not line.startswith("# Written by cotbench")) + "Mine.\n"
    )
    card.write_text(mine)
    assert run_cli(["run", "--resume", str(folder)]) == 0
    assert card.read_text() == mine


def test_types_are_those_of_the_models(tmp_path: Path) -> None:
    assert list(columns_of(Episode)) == list(Episode.model_fields)
    assert list(columns_of(Instructions)) == ["text", "examples"]
    write_card(
        tmp_path, "A\ntitle", "Text.", [DataConfig("default", {"x": "f.jsonl"}, {"steps": tuple[Step, ...], "free": dict})]
    )
    lines = (tmp_path / CARD).read_text().splitlines()
    assert "dataset_info:" not in lines, "what has no fixed type is left to the reader"
    assert lines[-3:] == ["# A title", "", "Text."]
    with pytest.raises(FileNotFoundError):
        write_card(tmp_path / "nowhere", "t", "x", [])
