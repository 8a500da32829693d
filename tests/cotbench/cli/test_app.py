"""The commands as a whole: summaries, options that mean one thing, old spellings, `--resume`, `--import`."""

from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup

from cotbench.cli import run_cli
from cotbench.cli.app import COMMANDS, load_command, with_resume_value
from cotbench.cli.renamed import RENAMED
from cotbench.cli.resume import RESUME_OUT, RESUMED, resume_command, resume_folder
from cotbench.errors import UsageError
from cotbench.flags import options_of
from cotbench.prompting.elicitation import Elicitation

PLUGINS = ("run", "traces", "pairs", "train", "probe", "judge", "study", "play", "report", "compare")


def options(name: str, *arguments: str) -> dict[str, Any]:
    """The options of a command, by each of their spellings."""
    command = load_command(name, list(arguments))
    return {text: option for option in command.params for text in option.opts if text.startswith("-")}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_is_the_first_paragraph_of_the_help(name: str) -> None:
    assert " ".join((load_command(name, []).help or "").partition("\n\n")[0].split()) == COMMANDS[name].summary


@pytest.mark.parametrize("name", PLUGINS)
def test_what_plays_or_shows_imports_plugins(name: str) -> None:
    assert "--import" in options(name)


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("list", ("agents", "envs", "tasks", "recipes", "probes")),
        ("leaderboard", ("submit", "verify", "list", "serve")),
    ],
)
def test_what_lists_or_submits_imports_plugins(group: str, names: tuple[str, ...]) -> None:
    found = load_command(group, [])
    assert isinstance(found, TyperGroup)
    for name in names:
        assert any("--import" in option.opts for option in found.commands[name].params), name


def test_an_elicitation_is_asked_for_alike_everywhere() -> None:
    wanted = {option.name for option in options_of(Elicitation, without=("show_admissible",))}
    for name in ("run", "traces", "pairs", "train", "probe"):
        assert wanted <= options(name).keys(), name
    assert all("--show-admissible" in options(name) for name in ("run", "train", "probe"))


def test_the_options_of_train_are_those_of_its_recipe(tmp_path: Path) -> None:
    assert {"--mask-fraction", "--betas"} <= options("train").keys()
    assert "--games" in options("train", "--recipe", "base") and "--mask-fraction" not in options("train", "--recipe=base")
    file = tmp_path / "c.toml"
    file.write_text('recipe = "base"\n')
    assert "--games" in options("train", "--config", str(file))
    (tmp_path / "training.json").write_text('{"recipe": "base"}')
    assert "--games" in options("train", "--resume", str(tmp_path))
    assert "--games" in options("train", "--resume", RESUME_OUT, "--out", str(tmp_path))
    with pytest.raises(UsageError, match="unknown recipe 'stf'; did you mean 'sft"):
        load_command("train", ["--recipe", "stf"])


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        ("run", "--batch-size", "--num-envs"),
        ("traces", "-b", "--num-envs"),
        ("run", "--elicitation", "--elicitation-style"),
        ("judge", "--elicitation", "--elicitation-style"),
        ("train", "--average", "--ema-decay"),
        ("train", "--pass-tokens", "--max-tokens-per-forward"),
    ],
)
def test_an_old_spelling_names_the_new(command: str, old: str, new: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert RENAMED[old] == new
    assert run_cli([command, old, "1"]) == 2
    assert capsys.readouterr().err == f"error: no such option {old}: did you mean {new}?\n"


def test_an_option_that_never_was(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["run", "--quux", "1"]) == 2
    assert capsys.readouterr().err == "error: no such option --quux\n"
    assert run_cli(["train", "--batch-size", "none"]) == 2
    assert "--batch-size none: Input should be a valid integer" in capsys.readouterr().err


@pytest.mark.parametrize("name", RESUMED)
def test_resume_has_a_value_or_none(name: str) -> None:
    assert with_resume_value([name, "--resume"]) == [name, "--resume", RESUME_OUT]
    assert with_resume_value([name, "--resume", "--out", "x"]) == [name, "--resume", RESUME_OUT, "--out", "x"]
    assert with_resume_value([name, "--resume", "x"]) == [name, "--resume", "x"]
    assert with_resume_value([name, "--resume=x"]) == [name, "--resume=x"]


def test_resume_names_a_folder() -> None:
    out, other = Path("o"), Path("p")
    assert resume_folder(None, out) is None
    assert resume_folder("p", None) == resume_folder("p", other) == resume_folder(RESUME_OUT, other) == other
    assert resume_folder(RESUME_OUT, None, other) == other and resume_folder(RESUME_OUT, out, other) == out
    with pytest.raises(UsageError, match="needs a folder"):
        resume_folder(RESUME_OUT, None)
    with pytest.raises(UsageError, match="name different folders"):
        resume_folder("p", out)


def test_the_command_that_goes_on_keeps_its_plugins() -> None:
    words = resume_command("run", Path("a b"), ["my.py", "mod"], Path("games"))
    assert words == "cotbench run --resume 'a b' --import my.py --import mod --data games"
