"""Croissant metadata says what lies in a folder: its files by their bytes, its columns by the models that write them."""

from __future__ import annotations

import csv
import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cotbench.cli import run_cli
from cotbench.envs.registry import env_entry, env_names

TRACES = ["traces", "--teacher", "expert", "-n", "2"]


def _metadata(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "croissant.json").read_text("utf-8")))


def _check_form(folder: Path) -> None:
    """What the format demands: names, files that are there, and columns of tables that come from them."""
    found = _metadata(folder)
    assert found["conformsTo"] == "http://mlcommons.org/croissant/1.0" and found["@type"] == "sc:Dataset"
    for name in ("name", "description", "license", "datePublished", "version"):
        assert isinstance(found[name], str) and found[name], name
    files = {one["@id"]: one for one in found["distribution"]}
    for path, one in files.items():
        assert one["sha256"] == hashlib.sha256((folder / path).read_bytes()).hexdigest()
    ids = [table["@id"] for table in found["recordSet"]]
    for table in found["recordSet"]:
        ids += [field["@id"] for field in table["field"]]
        for field in table["field"]:
            assert field["source"]["fileObject"]["@id"] in files and field["dataType"].startswith("sc:")
    assert len(ids) == len(set(ids))


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "traces"
    assert run_cli([*TRACES, "--out", str(folder)]) == 0
    assert run_cli(["data", "croissant", str(folder), "--url", "https://example.org/traces"]) == 0
    return folder


def test_a_traces_folder(traces: Path) -> None:
    _check_form(traces)
    found = _metadata(traces)
    assert found["url"] == "https://example.org/traces" and found["license"] == "https://spdx.org/licenses/MIT.html"
    tables = {table["name"]: {field["name"]: field for field in table["field"]} for table in found["recordSet"]}
    assert list(tables) == ["default", "episodes"]
    for number, (name, file, structure) in enumerate(
        (("default", "traces.jsonl", "messages"), ("episodes", "episodes.jsonl", "trajectory"))
    ):
        line = json.loads((traces / file).read_text("utf-8").splitlines()[0])
        described = {*tables[name], structure}
        # An instruction is a structure where there is one.
        assert set(line) - {"instructions"} == described, "the columns that are there, each described"
        assert f"read from the file itself: {structure}" in found["recordSet"][number]["description"]
    assert tables["default"]["actions"] | {"source": None} == {
        "@type": "cr:Field",
        "@id": "default/actions",
        "name": "actions",
        "dataType": "sc:Text",
        "repeated": True,
        "source": None,
    }
    assert tables["default"]["success"]["dataType"] == "sc:Boolean" and tables["episodes"]["score"]["dataType"] == "sc:Float"


@pytest.mark.skipif(find_spec("mlcroissant") is None, reason="mlcroissant is not installed")
def test_the_library_accepts_it_and_reads_the_records(traces: Path) -> None:
    import mlcroissant

    read = mlcroissant.Dataset(jsonld=str(traces / "croissant.json"))
    assert not read.metadata.issues.errors
    assert [table.name for table in read.metadata.record_sets] == ["default", "episodes"]
    for table, file in (("default", "traces.jsonl"), ("episodes", "episodes.jsonl")):
        lines = [json.loads(line) for line in (traces / file).read_text("utf-8").splitlines()]
        records = list(read.records(table))
        assert [one[f"{table}/task"].decode() for one in records] == [line["task"] for line in lines]
    assert [step.decode() for step in list(read.records("default"))[0]["default/actions"]] == json.loads(
        (traces / "traces.jsonl").read_text("utf-8").splitlines()[0]
    )["actions"]


def test_an_unfinished_folder_is_refused(traces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "manifest.json").write_bytes((traces / "manifest.json").read_bytes())
    assert run_cli(["data", "croissant", str(tmp_path)]) == 2
    assert "episodes.jsonl" in capsys.readouterr().err and not (tmp_path / "croissant.json").exists()


def test_the_splits_are_one_table(tmp_path: Path) -> None:
    assert run_cli(["data", "splits", str(tmp_path)]) == 0
    _check_form(tmp_path)
    with (tmp_path / "splits.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for env in ("alfworld", "bfcl"):
        source = env_entry(env).source()
        for scheme, splits in source.schemes().items():
            for split in splits:
                here = [row["task"] for row in rows if (row["env"], row["scheme"], row["split"]) == (env, scheme, split)]
                assert here == list(source.tasks(scheme, split))
    assert {row["env"] for row in rows} == set(env_names())
    assert {row["out_of_domain"] for row in rows if row["split"].startswith("ood")} == {"True"}
