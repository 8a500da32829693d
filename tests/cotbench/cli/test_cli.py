"""The command line as a user meets it: one-line errors, exit codes, machine-readable output."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cotbench.cli import run_cli
from cotbench.envs import registry
from cotbench.installation import install_command
from tests.conftest import needs_hf

RUN = ["run", "--agent", "random", "--episodes", "1", "--max-steps", "2"]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs a command line in an empty folder: (exit code, output, last line of the errors)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run_cli(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, (captured.err.strip().splitlines() or [""])[-1]

    return call


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run"], 2, "--agent is missing"),
        (["run", "--agent", "randm"], 2, "unknown agent 'randm'; did you mean 'random'?"),
        ([*RUN, "--env", "alfwrld"], 2, "unknown environment 'alfwrld'; did you mean 'alfworld'"),
        ([*RUN, "--split", "odo"], 2, "unknown split 'odo' of alfworld-gen in scheme 'paper'; did you mean 'ood'"),
        ([*RUN, "--scheme", "papr"], 2, "did you mean 'paper'"),
        ([*RUN, "--mode", "chain"], 2, "unknown mode 'chain'; known: both, cot, prompt"),
        ([*RUN, "--elicitation-style", "prefil"], 2, "unknown elicitation-style 'prefil'; did you mean 'prefill'"),
        (
            ["run", "--agent", "random", "--task", "alfworld/gen/coool/1"],
            2,
            "unknown task 'alfworld/gen/coool/1' of alfworld-gen; did you mean 'alfworld/gen/cool/1",
        ),
        ([*RUN, "--epsiodes", "3"], 2, "no such option --epsiodes: did you mean --episodes"),
        ([*RUN, "--max-steps", "0"], 2, "--max-steps 0: Input should be greater than or equal to 1"),
        ([*RUN, "--max-steps", "many"], 2, "--max-steps many: Input should be a valid integer"),
        ([*RUN, "--top-p", "0"], 2, "--top-p"),
        (["rnu"], 2, "rnu"),
        ([*RUN, "--env", "alfworld"], 1, "the ALFWorld games are not on this machine"),
        ([*RUN, "--env", "alfworld", "--data", "nowhere"], 1, "no ALFWorld games in nowhere"),
        (["run", "--resume", "nowhere"], 2, "nowhere is not a run folder"),
        (["run", "--resume"], 2, "--resume needs a folder: --resume DIR, or --out DIR --resume"),
        (["run", "--out", "here", "--resume", "there"], 2, "name different folders"),
        ([*RUN, "--import", "nowhere.py"], 2, "--import nowhere.py: no such file"),
        ([*RUN, "--import", "no_such_module"], 2, "--import no_such_module: ModuleNotFoundError"),
        (["list", "tasks", "--split", "tarin"], 2, "did you mean 'train'"),
        (["data", "fetch", "smolm2"], 2, "did you mean 'smollm2'"),
        (["data", "fetch", "alfworld", "--from", "nowhere.whl"], 1, "no file nowhere.whl"),
        (["data", "fetch", "--from", "x.whl"], 2, "--from is for one wheel"),
        ([*RUN, "--task", "alfworld/gen/pick/0"], 2, "give one of the two"),
        (["run", "--agent", "random", "--task", "alfworld/gen/pick/0", "--split", "odo"], 2, "did you mean 'ood'"),
        ([*RUN, "--data", "nowhere"], 2, "'alfworld-gen' does not read a data folder"),
        ([*RUN, "--temperature", "inf"], 2, "--temperature"),
        ([*RUN, "--out", "/dev/null/x"], 2, "cannot make the run folder /dev/null/x"),
        ([*RUN, "--cache-gb", "2"], 2, "unknown option 'cache_gb' of agent 'random'"),
        (["run", "--agent", "hf:smollm2", "--cache-gb", "0"], 2, "cache_gb=0.0: give a number of gigabytes above 0"),
        ([*RUN, "--num-envs", "0"], 2, "--num-envs 0: Input should be greater than or equal to 1"),
        (["run", "--agent", "openai:m@http://127.0.0.1:9/v1?retries=0", "--episodes", "1"], 1, "127.0.0.1:9"),
        (["play", "--task", "alfworld/gen/pick/x"], 2, "unknown task"),
        ([*RUN, "--out", "a\udcff"], 2, r"the argument 'a\udcff' is not UTF-8: rename what it names"),
    ],
)
def test_errors_are_one_line(cli: Any, arguments: list[str], code: int, message: str) -> None:
    got, out, error = cli(*arguments)
    assert got == code, error
    assert error.startswith("error: ")
    assert message in error
    assert out == ""


@needs_hf
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hf:./nowhere", "no model folder ./nowhere"),
        ("hf:./empty", "not a model folder: it has no config.json"),
        ("hf:./bare", "cannot load the tokenizer in ./bare"),
        ("hf:qwen", "cannot load the model of 'Qwen/Qwen3-0.6B' (alias 'qwen')"),
        ("hf:./bare?dtype=float31", "unknown dtype 'float31'"),
    ],
)
def test_models_that_cannot_be_had(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text('{"model_type": "llama"}')
    code, _, error = cli("run", "--agent", spec, "--episodes", "1")
    assert code in (1, 2)
    assert message in error
    if spec == "hf:qwen":
        assert "hf:./folder" in error and "hf:smollm2" in error


def test_a_dry_run_starts_nothing(cli: Any, tmp_path: Path) -> None:
    code, out, _ = cli("run", "--agent", "hf:Qwen/Qwen3-4B", "--episodes", "7", "--dry-run")
    assert code == 0
    assert "tasks: 7 of 1000" in out and "7 prompt, 7 cot" in out
    code, out, _ = cli("run", "--agent", "random", "--limit", "2", "--dry-run", "--json", "--temperature", "0.7")
    plan = json.loads(out)
    assert (len(plan["task_list"]), plan["episodes"], plan["config"]["elicitation"]["temperature"]) == (2, 4, 0.7)
    assert list(tmp_path.iterdir()) == []


def test_a_run_ends_with_a_table_and_can_go_on(cli: Any, tmp_path: Path) -> None:
    code, out, error = cli(*RUN, "--out", "here")
    assert code == 0, error
    assert re.search(r"success +0\.00 \[0\.00, 0\.79\]", out)
    for words in ("CoT - prompt", "consistency", "revisions", "95 % intervals over tasks", "run folder: here"):
        assert words in out, words
    code, _, error = cli(*RUN, "--out", "here")
    assert code == 2 and "not empty; resume with: cotbench run --resume here" in error
    code, again, _ = cli("run", "--resume", "here")
    assert (code, again) == (0, out)
    code, again, _ = cli(*RUN, "--out", "here", "--resume")
    assert (code, again) == (0, out)
    code, _, error = cli("run", "--resume", "here", "--seed", "4")
    assert code == 2 and "holds another run: its seed is 0, not 4" in error
    code, _, error = cli("run", "--resume", "here", "--trace-tokens", "99")
    assert code == 2 and "its trace_tokens is 256, not 99" in error
    code, out, _ = cli("run", "--resume", "here", "--json")
    assert json.loads(out) == json.loads((tmp_path / "here" / "summary.json").read_text())


def test_a_users_agent_plays(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "my_agent.py").write_text(
        "import cotbench\n\n"
        '@cotbench.register_agent("looker-cli-test")\n'
        "class Looker:\n"
        '    name = "looker"\n'
        "    def decide(self, queries):\n"
        '        return [cotbench.Decision("look", "I look." if q.mode == "cot" else None) for q in queries]\n'
        "    def close(self): ...\n"
    )
    code, out, error = cli("list", "agents", "--import", "my_agent.py")
    assert code == 0 and "looker-cli-test" in out
    code, out, error = cli("run", "--agent", "looker-cli-test", "--episodes", "1", "--max-steps", "2")
    assert code == 0, error
    assert "looker-cli-test on alfworld-gen" in out
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["looker-cli-test_alfworld-gen_id_both_seed0"]


def test_errors_end_with_exit_code_one(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cotbench.agents.random import RandomAgent
    from cotbench.prompting.query import Decision

    monkeypatch.setattr(RandomAgent, "decide", lambda self, queries: [Decision("", error="server gone") for _ in queries])
    code, out, error = cli(*RUN, "--out", "here")
    assert code == 1
    assert "ERRORS: 2 episodes" in out
    assert "2 of 2 episodes failed" in error and "server gone; retry with: cotbench run --resume here" in error


def test_ctrl_c_keeps_what_was_played(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from cotbench.agents.random import RandomAgent

    def interrupted(self: object, queries: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RandomAgent, "decide", interrupted)
    code, _, error = cli(*RUN, "--out", "here")
    assert (code, error) == (130, "interrupted; played episodes are kept; resume with: cotbench run --resume here")


def test_a_missing_engine_is_said_before_anything_is_played(cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = dataclasses.replace(registry.env_entry("alfworld-gen"), extra="reference", modules=("no_such_engine",))
    monkeypatch.setattr(registry._registry, "_builtin", {entry.name: entry})
    code, _, error = cli(*RUN)
    assert code == 1
    assert error == f"error: environment 'alfworld-gen' needs the extra 'reference': {install_command('reference')}"
    assert list(tmp_path.iterdir()) == []


def test_lists(cli: Any) -> None:
    code, out, _ = cli("list", "envs", "--json")
    assert code == 0 and {row["env"] for row in json.loads(out)} == {"alfworld", "alfworld-gen", "scienceworld", "bfcl"}
    code, out, _ = cli("list", "tasks", "--env", "alfworld", "--scheme", "official", "--split", "valid_unseen")
    assert code == 0 and len(out.split()) == 134
    code, out, _ = cli("list", "recipes", "--json")
    presets = {row["recipe"]: row["--preset"] for row in json.loads(out)}
    assert set(presets) == {"sft", "sft+", "dpo", "dpo+", "grpo", "grpo+", "frodo", "base"}
    assert "paper: 5 epochs, learning rate 1e-5" in presets["sft"] and "paper: 200 batches" in presets["grpo+"]
    code, out, _ = cli("list", "agents")
    assert code == 0 and "hf:qwen = Qwen/Qwen3-0.6B" in out
    code, out, _ = cli("list", "agents", "--json")
    assert {"random", "expert", "human"} <= {row["agent"] for row in json.loads(out)}


def test_doctor_says_how_to_mend(cli: Any, real_games: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from importlib import metadata

    monkeypatch.setenv("COTBENCH_CACHE", str(tmp_path / "cache"))
    real = metadata.version

    def version(name: str) -> str:
        if name in ("textworld", "inspect-ai", "starlette"):
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    code, out, _ = cli("doctor", "--json", "--data", str(real_games))
    assert code == 0
    findings = {row["what"]: row for row in json.loads(out)}
    assert findings["textworld"]["mend"].startswith(install_command("reference"))
    assert findings["starlette"]["mend"] == install_command("view")
    inspect_ai = findings["inspect-ai"]["mend"]
    assert inspect_ai.startswith(install_command("inspect")) and "of its own" in inspect_ai
    assert findings["data smollm2"]["mend"] == "cotbench data fetch smollm2"
    assert findings["ALFWorld valid_seen"]["found"] == "140 of 140 games" and not findings["ALFWorld valid_seen"]["mend"]
    assert (
        findings["ALFWorld train"]["found"] == "0 of 3553 games" and "alfworld-download" in findings["ALFWorld train"]["mend"]
    )
    code, out, _ = cli("doctor")
    # A command stands in a line of its own, and its brackets are no markup.
    assert any(line.strip().startswith(install_command("reference")) for line in out.splitlines())
    assert code == 0 and "how to fix it" in out and "not on this machine" in out


def test_play(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["?", "dance", "", "!", "look"])

    def read(prompt: str) -> str:
        try:
            return next(typed)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", read)
    code, out, _ = cli("play", "--task", "alfworld/gen/pick/0")
    assert code == 0
    for words in (
        "Your task is to",
        "go to ",
        "Nothing happens.  (unknown verb 'dance')",
        "ended after 2 steps, not won",
    ):
        assert words in out, words


def test_data_list(cli: Any) -> None:
    code, out, _ = cli("data", "list", "--json")
    assert code == 0 and {row["name"] for row in json.loads(out)} == {"alfworld", "bfcl", "smollm2"}
    code, out, _ = cli("data", "list")
    assert code == 0 and "alfworld-0.4.2-py3-none-any.whl (MIT)" in out


def test_an_agent_that_cannot_be_built_leaves_no_folder(cli: Any, tmp_path: Path) -> None:
    code, _, message = cli("run", "--agent", "replay:nowhere", "--episodes", "1", "--out", "here")
    assert code == 2 and "nowhere is not a run folder" in message
    assert not (tmp_path / "here").exists()


def test_a_terminal_that_lacks_a_character_shows_its_code() -> None:
    command = [sys.executable, "-P", "-m", "cotbench", "list", "agents"]
    shown = {}
    for encoding in ("ascii:strict", "utf-8:strict"):
        done = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        shown[encoding] = done.stdout
    assert shown["ascii:strict"].isascii() and not shown["utf-8:strict"].isascii()
