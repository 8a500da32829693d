"""Options of a run in a file: `--config`."""

import json
from pathlib import Path
from typing import Any

import pytest

from cotbench.cli import run_cli

FILE = """
agent = "random"
limit = 3
max-steps = 5
split = "ood"
data = "games"
report_to = "none"

[elicitation]
temperature = 0.5
elicitation-style = "template"
system_prompt = "texts/system.txt"
"""


@pytest.fixture
def planned(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Plans a run with a config file: the plan as JSON, or the message of the error."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "configs"
    (folder / "texts").mkdir(parents=True)
    (folder / "texts" / "system.txt").write_text("Be quick.\n", "utf-8")

    def plan(content: str, *typed: str) -> Any:
        (folder / "run.toml").write_text(content, "utf-8")
        code = run_cli(["run", "--config", "configs/run.toml", "--dry-run", "--json", *typed])
        captured = capsys.readouterr()
        return json.loads(captured.out) if code == 0 else captured.err.strip()

    return plan


def test_a_file_sets_options_and_what_is_typed_wins(planned: Any) -> None:
    content = FILE.replace('data = "games"\n', "")
    config = planned(content)["config"]
    assert (config["agent"], config["episodes"], config["max_steps"], config["split"]) == ("random", 3, 5, "ood")
    assert (config["elicitation"]["temperature"], config["elicitation"]["style"]) == (0.5, "template")
    assert config["elicitation"]["system_prompt"] == "Be quick."
    typed = planned(content, "--limit", "2", "--temperature", "0")["config"]
    assert typed["episodes"] == 2 and typed["max_steps"] == 5
    assert typed["elicitation"]["temperature"] == 0 and typed["elicitation"]["style"] == "template"
    flat = planned('agent = "random"\ntemperature = 0.5\ntask = "alfworld/gen/pick/0"')["config"]
    assert flat["elicitation"]["temperature"] == 0.5 and flat["tasks"] == ["alfworld/gen/pick/0"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (FILE, "environment 'alfworld-gen' does not read a data folder"),
        ('agnt = "random"', "unknown option 'agnt' of configs/run.toml; did you mean 'agent'"),
        ("limt = 3", "unknown option 'limt' of configs/run.toml; did you mean 'limit'"),
        (
            "[elicitation]\ntemprature = 1",
            "unknown option 'temprature' of [elicitation] in configs/run.toml; did you mean 'temperature'",
        ),
        ("[elicitation]\nsplit = 'id'", "unknown option 'split' of [elicitation]"),
        ("max_steps = 0", "configs/run.toml: --max-steps 0: Input should be greater than or equal to 1"),
        ("limit = 1\nepisodes = 2", "configs/run.toml sets --episodes twice"),
        ('mode = "chain"', "configs/run.toml: unknown mode 'chain'"),
        ("system_prompt = 'nowhere.txt'", "--system-prompt configs/nowhere.txt: No such file"),
        ("= 1", "--config configs/run.toml is not TOML"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(planned: Any, content: str, message: str) -> None:
    assert message in planned(content)
