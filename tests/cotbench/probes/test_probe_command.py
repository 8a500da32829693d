"""`cotbench probe`: its folder, going on, what is refused."""

import json
from pathlib import Path

import pytest

from cotbench.cli import run_cli
from cotbench.probes.folder import read_probe
from tests.small_split import small_split

SMALL = ["--states", "6", "--env", "alfworld-gen", "--split", "id"]


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference measured against itself, on its own states."""
    out = tmp_path_factory.mktemp("probe") / "alignment"
    with small_split():
        assert run_cli(["probe", "alignment", "--agent", "scripted", *SMALL, "--out", str(out)]) == 0
    return out


def _run(out: Path) -> str:
    return str(out / "reference")


def test_the_reference_agrees_with_itself(probed: Path) -> None:
    found = read_probe(probed)
    assert found.manifest.reference == "scripted"
    assert found.numbers.states == 6
    assert found.numbers.estimates["cot exact"].mean == 1.0
    assert found.numbers.estimates["gap exact"].mean == 0.0
    summary = json.loads((probed / "probe.json").read_text())
    assert summary["numbers"] == json.loads(found.numbers.model_dump_json())


def test_what_is_missing_is_measured_and_the_rest_is_kept(probed: Path, tmp_path: Path) -> None:
    arguments = [
        "probe",
        "alignment",
        "--agent",
        "scripted",
        "--reference",
        _run(probed),
        "--states",
        "6",
        "--out",
        str(tmp_path),
    ]
    assert run_cli(arguments) == 0
    rows, summary = (tmp_path / "rows.jsonl").read_bytes(), (tmp_path / "probe.json").read_bytes()
    assert rows == (probed / "rows.jsonl").read_bytes()
    lines = rows.splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:20])  # A kill tears the last line.
    (tmp_path / "probe.json").unlink()
    assert run_cli([*arguments, "--resume"]) == 0
    assert (tmp_path / "rows.jsonl").read_bytes() == rows
    assert (tmp_path / "probe.json").read_bytes() == summary


def test_a_folder_alone_is_gone_on_with(probed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p"
    arguments = [
        "probe",
        "alignment",
        "--agent",
        "scripted",
        "--reference",
        _run(probed),
        "--states",
        "6",
        "--trace-tokens",
        "99",
    ]
    assert run_cli([*arguments, "-o", "scores=false", "--out", str(out)]) == 0
    rows = (out / "rows.jsonl").read_bytes()
    (out / "rows.jsonl").write_bytes(rows.splitlines(keepends=True)[0])
    assert run_cli(["probe", "--resume", str(out)]) == 0
    assert (out / "rows.jsonl").read_bytes() == rows
    assert read_probe(out).manifest.elicitation.trace_tokens == 99
    capsys.readouterr()
    for typed, said in (
        (["--agent", "random"], "holds another measurement: its agent is 'scripted', not 'random'"),
        (["conflict"], "its probe is 'alignment', not 'conflict'"),
        (["--out", "there"], "name different folders"),
    ):
        assert run_cli(["probe", *typed, "--resume", str(out)]) == 2
        assert said in capsys.readouterr().err
    assert run_cli([*arguments, "--out", str(out)]) == 2
    assert f"p is not empty; resume with: cotbench probe --resume {out}" in capsys.readouterr().err


def test_killed_while_its_reference_plays_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "p"
    with monkeypatch.context() as patch:

        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("cotbench.cli.playing.play_run", interrupted)
        assert run_cli(["probe", "alignment", "--agent", "scripted", *SMALL, "--out", str(out)]) == 130
    assert f"interrupted; measured states are kept; resume with: cotbench probe --resume {out}" in capsys.readouterr().err
    with small_split():
        assert run_cli(["probe", "--resume", str(out)]) == 0
    assert read_probe(out).numbers.states == 6


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--seed", "1"], "holds another measurement: its seed is 0, not 1"),
        (["--states", "5"], "its states"),
        (["-o", "scores=false"], "its option scores is True, not False"),
        (["--trace-tokens", "32"], "its elicitation is"),
    ],
)
def test_another_measurement_is_not_mixed_in(
    probed: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["probe", "alignment", "--agent", "scripted", "--reference", _run(probed), "--states", "6"]
    assert run_cli([*arguments, *more, "--out", str(probed), "--resume"]) == 2
    assert said in capsys.readouterr().err


def test_answers_are_taken_from_alignment(probed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["probe", "conflict", "--agent", "scripted", "--reference", _run(probed), "--states", "4"]
    assert run_cli([*arguments, "--answers", str(probed), "--out", str(tmp_path / "one")]) == 0
    assert run_cli([*arguments, "--out", str(tmp_path / "two")]) == 0
    one, two = read_probe(tmp_path / "one"), read_probe(tmp_path / "two")
    assert one.manifest.answers
    assert not two.manifest.answers
    assert [row.own_action for row in one.rows] == [row.own_action for row in two.rows]
    capsys.readouterr()
    code = run_cli([*arguments[:3], "random", *arguments[4:], "--answers", str(probed), "--out", str(tmp_path / "three")])
    assert code == 2
    assert "the answers of another agent: scripted, not random" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["alignement", "--agent", "random"], "did you mean 'alignment'"),
        (["alignment"], "--agent is missing"),
        (["--agent", "random"], "NAME is missing"),
        (["alignment", "--agent", "random", "--parquet"], "no such option --parquet"),
        (["conflict", "--agent", "random", "-o", "truncatons=1"], "did you mean 'truncations'"),
        (["conflict", "--agent", "random", "-o", "truncations"], "write it as NAME=VALUE"),
        (["conflict", "--agent", "random", "-o", "truncations=2"], "less than or equal to 1"),
        (["alignment", "--agent", "nobody"], "unknown agent 'nobody'"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["probe", *arguments, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_an_agent_that_shows_no_model_leaves_nothing_behind(
    probed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["probe", "attention", "--agent", "random", "--reference", _run(probed), "--states", "2", "--out", str(out)]
    assert run_cli(arguments) == 2
    assert "which random does not give" in capsys.readouterr().err
    assert not out.exists()


def test_the_probes_and_their_options_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["list", "probes", "--json"]) == 0
    listed = {row["probe"]: row["options"] for row in json.loads(capsys.readouterr().out)}
    assert set(listed) == {"alignment", "conflict", "attention", "gradient", "preference", "sensitivity", "wording"}
    assert "truncations=0.25,0.5,0.75,1.0" in listed["conflict"]
