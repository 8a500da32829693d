"""`cotbench train`: a file or flags, folders that survive a kill and a full disk, a clean terminal, errors in one line."""

import json
import os
import resource
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.baselines.data.demonstration import Demonstration, write_jsonl
from cotbench.baselines.training import ema, trainer
from cotbench.baselines.training.trainer import last_step
from cotbench.cli import main, run_cli
from cotbench.cli.interruption import Interruption
from cotbench.errors import RunFolderError
from cotbench.study.folder import checkpoint as checkpoint_of_share
from tests.baselines.conftest import ENV

FLAGS = ["--epochs", "2", "-b", "6", "--lr", "1e-3", "--mask-fraction", "0.3", "--checkpoints", "0.25,0.5,0.75"]
FLAGS += ["--device", "cpu", "--threads", "1"]
TRAIN = ["train", "--model", "./m", "--data", "t", *FLAGS, "--out", "o"]


@pytest.fixture
def cli(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    learners: dict[str, Path],
    some_traces: Path,
) -> Any:
    """Runs a command line in a folder with a model `m` and traces `t`: (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)
    Path("m").symlink_to(learners["qwen"])
    Path("t").symlink_to(some_traces)

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()  # What fixtures said.
        code = run_cli(list(arguments))
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def undisturbed(learners: dict[str, Path], some_traces: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes the folder of a training that nothing disturbed, once for the same options."""
    made: dict[tuple[str, ...], Path] = {}

    def folder(*more: str) -> Path:
        if more not in made:
            place = tmp_path_factory.mktemp("whole")
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(place)
                Path("m").symlink_to(learners["qwen"])
                Path("t").symlink_to(some_traces)
                assert run_cli([*TRAIN, *more]) == 0
            made[more] = place / "o"
        return made[more]

    return folder


@pytest.fixture
def whole(undisturbed: Any) -> Path:
    """The folder of the usual one."""
    return Path(undisturbed())


def same(out: Path, whole: Path) -> None:
    """The same final weights, and the same checkpoints on the way."""
    names = sorted(path.name for path in whole.glob("checkpoint-*"))
    assert sorted(path.name for path in out.glob("checkpoint-*")) == names
    for name in (".", *names):
        assert (out / name / "model.safetensors").read_bytes() == (whole / name / "model.safetensors").read_bytes(), name
        cards = [json.loads((folder / name / "recipe.json").read_text()) for folder in (out, whole)]
        assert cards[0]["seen"] == cards[1]["seen"] and cards[0]["config"] == cards[1]["config"]


def test_a_training_and_what_the_terminal_shows(cli: Any, whole: Path) -> None:
    code, out, err = cli(*TRAIN)
    assert (code, err) == (0, "")
    told, play = out.splitlines()
    assert told.startswith("trained 10 steps on 27 examples, ") and told.endswith("% of the action tokens masked")
    assert play == "play it with: cotbench run --agent hf:./o"
    assert {path.name for path in Path("o").glob("checkpoint-*")} == {
        "checkpoint-3",
        "checkpoint-5",
        "checkpoint-8",
        "checkpoint-10",
    }
    same(Path("o"), whole)


def test_a_file_does_what_flags_do_and_what_is_typed_wins(cli: Any, whole: Path) -> None:
    Path("c.toml").write_text(
        'recipe = "sft"\nmodel = "./m"\ndata = ["t"]\nepochs = 2\nbatch_size = 6\nlearning_rate = 1e-3\nmask_fraction = 0.9\n'
        'checkpoints = [0.25, 0.5, 0.75]\ndevice = "cpu"\nthreads = 1\nelicitation = { trace_tokens = 256 }\n'
    )
    code, _, _ = cli("train", "--config", "c.toml", "--mask-fraction", "0.3", "--out", "o")
    assert code == 0
    ours, theirs = (json.loads((folder / "recipe.json").read_text()) for folder in (Path("o"), whole))
    assert ours["config"] == {**theirs["config"], "elicitation": {"trace_tokens": 256}}
    assert ours["elicitations"] == theirs["elicitations"]
    assert Path("o/model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_sft_plus_is_sft_with_the_papers_fraction(cli: Any, whole: Path) -> None:
    flags = [flag for flag in FLAGS if flag not in ("--mask-fraction", "0.3")]
    code, out, err = cli("train", "--recipe", "sft+", "--model", "./m", "--data", "t", *flags, "--out", "o", "--json")
    assert (code, err) == (0, "")
    assert out == Path("o/recipe.json").read_text()
    assert json.loads(out)["config"]["mask_fraction"] == 0.3
    assert Path("o/model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_killed_and_resumed_it_is_the_same(cli: Any, whole: Path) -> None:
    child = os.fork()  # Everything is imported already.
    if not child:
        os._exit(run_cli(TRAIN))
    while not Path("o/checkpoint-3/recipe.json").exists():
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it is still running"
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0) == (child, signal.SIGKILL), "it was still running"
    assert not Path("o/recipe.json").exists()
    code, _, err = cli("train", "--out", "o", "--resume")
    assert (code, err) == (0, "")
    same(Path("o"), whole)


STEP = trainer.TreeTrainer.training_step


def signalled(step: int, *numbers: signal.Signals) -> Callable[..., Any]:
    """A step of the training that sends this process signals in the middle of the step of that number."""

    def training_step(self: Any, *rest: Any, **more: Any) -> Any:
        if self.state.global_step == step - 1:
            for number in numbers:
                signal.raise_signal(number)
        return STEP(self, *rest, **more)

    return training_step


@pytest.fixture
def interrupted(cli: Any) -> Any:
    """Runs a command line with signals in the middle of a step: (exit code, output, errors, the steps that were begun)."""

    def call(step: int, *numbers: signal.Signals, arguments: list[str]) -> tuple[int, str, str, list[int]]:
        begun: list[int] = []
        during = signalled(step, *numbers)

        def training_step(self: Any, *rest: Any, **more: Any) -> Any:
            begun.append(self.state.global_step + 1)
            return during(self, *rest, **more)

        with pytest.MonkeyPatch.context() as patch, Interruption().handled():
            patch.setattr(trainer.TreeTrainer, "training_step", training_step)
            return (*cli(*arguments), begun)

    return call


def states(out: Path) -> list[str]:
    """What lies in the folder of a training that was begun; the states with an optimizer are marked."""
    return sorted(path.name + "*" * (path / "optimizer.pt").exists() for path in out.glob("*-*"))


SAVES = "interrupted: the step is finished and the state saved first; Ctrl-C ends at once"
GO_ON = "cotbench train --resume o"


@pytest.mark.parametrize(
    ("number", "more"),
    [(signal.SIGINT, []), pytest.param(signal.SIGTERM, ["--ema-decay", "0.8"], marks=[pytest.mark.slow, pytest.mark.ci])],
)
def test_interrupted_it_saves_first_and_goes_on_from_that_step(
    interrupted: Any, undisturbed: Any, number: signal.Signals, more: list[str]
) -> None:
    code, out, err, _ = interrupted(7, number, arguments=[*TRAIN, *more])
    assert (code, out) == (130, "")
    assert err.split("\n") == ["", SAVES, f"interrupted; its state after step 7 was saved; resume with: {GO_ON}", ""]
    assert states(Path("o")) == ["checkpoint-3", "checkpoint-5*", "interrupted-7*"]
    assert not Path("o/recipe.json").exists()
    code, _, err, steps = interrupted(8, number, arguments=["train", "--resume", "o"])
    assert code == 130 and f"its state after step 8 was saved; resume with: {GO_ON}" in err
    assert steps == [8], "from the interrupt, not from the checkpoint before"
    assert states(Path("o")) == ["checkpoint-3", "checkpoint-5", "checkpoint-8*"], "that one is of the series"
    code, _, err, steps = interrupted(9, number, arguments=["train", "--resume", "o"])
    assert states(Path("o")) == ["checkpoint-3", "checkpoint-5", "checkpoint-8*", "interrupted-9*"]
    code, _, err, steps = interrupted(0, arguments=["train", "--resume", "o"])
    assert (code, err, steps) == (0, "", [10])
    same(Path("o"), Path(undisturbed(*more)))
    assert states(Path("o"))[0] == "checkpoint-10*" and len(states(Path("o"))) == 4


def test_an_interrupted_state_is_no_checkpoint_of_a_series(interrupted: Any) -> None:
    interrupted(7, signal.SIGINT, arguments=TRAIN)
    assert checkpoint_of_share(Path("o"), 0.5) == Path("o/checkpoint-5")
    with pytest.raises(RunFolderError, match=r"has no checkpoint after 0\.75 of the training"):
        checkpoint_of_share(Path("o"), 0.75)


def test_a_second_interrupt_ends_at_once_and_sigterm_is_one_request(interrupted: Any, whole: Path) -> None:
    code, _, err, steps = interrupted(7, signal.SIGINT, signal.SIGINT, arguments=TRAIN)
    assert (code, steps[-1]) == (130, 7)
    assert err.split("\n") == ["", SAVES, f"interrupted; its state after step 5 was saved; resume with: {GO_ON}", ""]
    assert states(Path("o")) == ["checkpoint-3", "checkpoint-5*"]
    code, _, err, steps = interrupted(7, signal.SIGTERM, signal.SIGTERM, arguments=["train", "--resume", "o"])
    assert code == 130 and "its state after step 7 was saved" in err and steps == [6, 7]
    code, _, err, steps = interrupted(9, signal.SIGINT, signal.SIGTERM, arguments=["train", "--resume", "o"])
    assert code == 130 and "its state after step 9 was saved" in err and steps == [8, 9]
    assert interrupted(0, arguments=["train", "--resume", "o"])[0] == 0
    same(Path("o"), whole)


@pytest.mark.parametrize("where", [(trainer.TreeTrainer, "save_model"), (trainer, "write_card")])
def test_killed_while_it_saves_an_interrupted_state(cli: Any, interrupted: Any, whole: Path, where: tuple[Any, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*where, nth(3, getattr(*where)))
        with pytest.raises(Killed):
            interrupted(7, signal.SIGINT, arguments=TRAIN)
    assert last_step(Path("o")) == 5
    code, _, err = cli("train", "--resume", "o")
    assert (code, err) == (0, "")
    same(Path("o"), whole)


def test_interrupted_from_outside(cli: Any, whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The command as a process: it exits with 143 after SIGTERM."""
    child = os.fork()  # Everything is imported already.
    if not child:
        sys.argv[1:] = TRAIN
        try:
            main()
        except SystemExit as error:
            os._exit(int(str(error.code)))
        os._exit(1)
    while not Path("o/checkpoint-3/recipe.json").exists():
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "it is still running"
        time.sleep(0.002)
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 143
    step = last_step(Path("o"))
    assert capfd.readouterr().err.split("\n") == [
        "",
        SAVES,
        f"interrupted; its state after step {step} was saved; resume with: {GO_ON}",
        "",
    ]
    assert cli("train", "--resume", "o")[0] == 0
    same(Path("o"), whole)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def nth(number: int, original: Callable[..., Any], *, after: bool = False) -> Callable[..., Any]:
    """A function that is killed at its nth call, or right after it."""
    calls = 0

    def call(*rest: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and not after:
            raise Killed
        done = original(*rest, **more)
        if calls == number:
            raise Killed
        return done

    return call


AVERAGED = ["--ema-decay", "0.8"]


@pytest.mark.parametrize(
    ("where", "after", "goes_on_from", "more"),
    [
        ((trainer.TreeTrainer, "save_model"), False, "checkpoint-3", []),
        ((trainer.TreeTrainer, "_save_optimizer_and_scheduler"), False, "checkpoint-3", AVERAGED),
        ((ema.WeightEMA, "save"), False, "checkpoint-3", AVERAGED),
        ((trainer, "write_card"), False, "checkpoint-3", []),
        ((trainer, "write_card"), True, "checkpoint-5", AVERAGED),
    ],
)
def test_killed_at_any_moment_of_saving_it_is_the_same(
    cli: Any, undisturbed: Any, where: tuple[Any, str], after: bool, goes_on_from: str, more: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*where, nth(2, getattr(*where), after=after))
        with pytest.raises(Killed):
            cli(*TRAIN, *more)
    assert Path("o/checkpoint-3/optimizer.pt").exists(), "it goes only when the next one is whole"
    assert trainer.newest_checkpoint(Path("o")) == Path("o", goes_on_from)
    assert cli("train", "--resume", "o")[0] == 0
    same(Path("o"), undisturbed(*more))
    for name in ("optimizer.pt", *(["raw.safetensors"] if more else [])):
        kept = [path.parent.name for path in Path("o").glob(f"checkpoint-*/{name}")]
        assert kept == ["checkpoint-10"], "the newest alone can be gone on from"


def test_a_finished_training_is_gone_on_with_and_stays_the_same(cli: Any, whole: Path) -> None:
    shutil.copytree(whole, "o")
    (Path("o") / "model.safetensors").unlink()  # As if the kill had come at the very end.
    assert cli("train", "--resume", "o")[0] == 0
    same(Path("o"), whole)


def test_what_cannot_be_gone_on_from_is_not_removed(cli: Any, whole: Path) -> None:
    shutil.copytree(whole, "o")
    shutil.rmtree("o/checkpoint-10")
    code, _, err = cli("train", "--resume", "o")
    assert code == 1
    assert err.startswith("error: o/checkpoint-8 has no optimizer.pt, which only the newest checkpoint has: restore")
    assert Path("o/checkpoint-3/model.safetensors").exists() and len(err.splitlines()) == 1


# The weights of the model are 0.4 MB, the state of the optimizer twice as much.
@pytest.mark.parametrize(("size", "cards"), [(100_000, 1), (600_000, 1), (100_000, 4)])
def test_a_full_disk_costs_no_checkpoint(cli: Any, whole: Path, size: int, cards: int) -> None:
    written, before = 0, resource.getrlimit(resource.RLIMIT_FSIZE)
    write = trainer.write_card

    def then_full(folder: Path, card: dict[str, Any]) -> None:
        nonlocal written
        write(folder, card)
        written += 1
        if written == cards:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "write_card", then_full)
        try:
            code, out, err = cli(*TRAIN)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (code, out) == (1, ""), err
    assert err.startswith("error: cannot write to o (") and len(err.splitlines()) == 1
    assert err.endswith("earlier checkpoints are intact; free some space and resume with: cotbench train --resume o\n")
    survived = "checkpoint-3" if cards == 1 else "checkpoint-10"
    assert (Path("o") / survived / "model.safetensors").read_bytes() == (whole / survived / "model.safetensors").read_bytes()
    assert not Path("o/recipe.json").exists()
    assert cli("train", "--resume", "o")[0] == 0
    same(Path("o"), whole)


def test_the_terminal_stays_clean_with_an_adapter_too(cli: Any) -> None:
    pytest.importorskip("peft")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        code, out, err = cli(*TRAIN, "--lora-rank", "2", "--mask-select", "confident")
        assert (code, len(out.splitlines()), err) == (0, 2, "")
        played = cli("run", "--agent", "hf:./o?device=cpu", "--episodes", "1", "--max-steps", "1", "--out", "r")
        assert played[0] == 0
    assert [str(one.message) for one in said] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "stf"], "unknown recipe 'stf'; did you mean 'sft'"),
        (["--preset", "papr"], "unknown preset 'papr'; did you mean 'paper'?"),
        (["--mask-select", "confidnt"], "unknown mask-select 'confidnt'; did you mean 'confident'?"),
        (["--mask-schedule", "anneel"], "unknown mask-schedule 'anneel'; did you mean 'anneal'?"),
        (["--elicitation-style", "prefil"], "unknown elicitation-style 'prefil'; did you mean 'prefill'?"),
        (["--history", "action"], "unknown history 'action'; did you mean 'actions'?"),
        (["--unit", "episde"], "unknown unit 'episde'; did you mean 'episode'?"),
        (["--mask-fraction", "1.5"], "mask_fraction=1.5: give a number from 0 to 1"),
        (["--mask-fraction", "-0.1"], "mask_fraction=-0.1: give a number from 0 to 1"),
        (["--mask-fraction", "nan"], "--mask-fraction nan: Input should be a finite number"),
        (["--action-weight", "-1"], "action_weight=-1.0: give a number of at least 0"),
        (["--mask-select", "confident", "--mask-schedule", "per-epoch"], "mask_schedule=per-epoch draws at random"),
        (["--epochs", "0"], "--epochs 0: Input should be greater than 0"),
        (["--epochs", "inf"], "--epochs inf: Input should be a finite number"),
        (["--lr", "-1"], "--learning-rate -1: Input should be greater than 0"),
        (["--checkpoints", "0,2"], "--checkpoints 0,2: Input should be greater than 0"),
        (["--max-length", "64"], "no example is left of 3 demonstrations: 27 decisions are longer than 64 tokens"),
        (["--report-to", "wandv"], "unknown tracker 'wandv'; did you mean 'wandb'?"),
        (["--report-to", "nosuch"], "unknown tracker 'nosuch'; known: azure_ml, "),
        (["--report-to", "clearml"], "--report-to clearml needs what is not installed: pip install clearml"),
        (["--report-to", "azure_ml"], "--report-to azure_ml needs what is not installed: pip install azureml-sdk"),
        (["--report-to", "neptune"], "--report-to neptune needs what is not installed: pip install neptune"),
        (["--report-to", "kubeflow"], "--report-to kubeflow cannot be used: RuntimeError: "),
        (["--report-to", "all", "--report-to", "clearml"], "--report-to all excludes other trackers: omit them"),
        (["--logging-steps", "0"], "--logging-steps 0: Input should be greater than or equal to 1"),
        (["--data", "nowhere"], "no file or folder nowhere: make demonstrations with cotbench traces"),
        (["--data", "empty.jsonl"], "empty.jsonl is empty: make demonstrations with cotbench traces"),
        (["--data", "lost.jsonl"], "lost.jsonl holds unsuccessful episodes only, 3 of them: there is nothing to learn from"),
        (["--data", "foreign.jsonl"], "foreign.jsonl:1 is not a conversation: it has text and no `messages`"),
        (["--data", "torn.jsonl"], "torn.jsonl:1 is not JSON"),
        (["--data", "scored.jsonl"], "alfworld/gen/pick/0 is scored (alfworld-gen paper/id): it must not be trained on"),
        (["--out", "full"], "full is not empty; choose another --out, not full"),
        (["--out", "file"], "file is a file: choose another --out"),
        (["--out", "begun"], "begun is not empty; resume with: cotbench train --resume begun"),
        (["--config", "none.toml"], "--config none.toml: No such file or directory"),
        (["--config", "torn.jsonl"], "--config torn.jsonl is not TOML"),
        (["--config", "typo.toml"], "unknown option 'mask_fracton' of this recipe; did you mean 'mask_fraction'"),
        (["--config", "k.toml"], "mask_fraction=1.5: give a number from 0 to 1"),
        (["--config", "told.toml"], "elicitation.history old: Input should be 'actions' or 'traces'"),
        (["--resume"], "o holds no training: it has no training.json"),
    ],
)
def test_bad_input_is_a_usage_error_in_one_line(
    cli: Any, some_played: list[Demonstration], arguments: list[str], message: str
) -> None:
    Path("full").mkdir()
    Path("full/x").touch()
    Path("file").touch()
    Path("begun").mkdir()
    Path("begun/training.json").write_text("{}")
    Path("empty.jsonl").touch()
    Path("torn.jsonl").write_text('{"messages": [')
    Path("foreign.jsonl").write_text('{"text": "once upon a time"}\n')
    write_jsonl(Path("lost.jsonl"), [one.model_copy(update={"success": False}) for one in some_played])
    write_jsonl(Path("scored.jsonl"), [some_played[0].model_copy(update={"task": "alfworld/gen/pick/0"})])
    Path("typo.toml").write_text("mask_fracton = 0.3\n")
    Path("k.toml").write_text("mask_fraction = 1.5\n")
    Path("told.toml").write_text('elicitation = { history = "old" }\n')
    command = ["train", "--model", "./m", *(["--data", "t"] if "--data" not in arguments else []), "--device", "cpu"]
    code, out, err = cli(*command, *([] if "--out" in arguments else ["--out", "o"]), *arguments)
    assert (code, out) == (2, ""), err
    assert err.startswith("error: ") and message in err and len(err.splitlines()) == 1
    assert not Path("o").exists(), "what fails before the first step leaves nothing behind"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "t", "--out", "o"], 2, "--model is missing: name the model to train"),
        (["--model", "./m", "--out", "o"], 2, "--data is missing: make traces with cotbench traces"),
        (["--model", "./m", "--data", "t"], 2, "--out is missing: the folder of the trained model"),
        (["--resume"], 2, "--resume needs a folder: --resume DIR, or --out DIR --resume"),
        (["--resume", "x", "--out", "o"], 2, "--resume x and --out o name different folders: omit --out"),
        (["--recipe", "base", "--model", "./m", "--out", "o"], 2, "no such option --model"),
        (["--config", "r.toml", "--data", "t", "--model", "./m", "--out", "o"], 2, "unknown recipe 'stf'; did you mean 'sft'"),
        (["--model", "./gone", "--data", "t", "--out", "o"], 1, "no model folder ./gone: give a folder that save_pretrained"),
        (["--model", "./t", "--data", "t", "--out", "o"], 1, "./t is not a model folder: it has no config.json"),
    ],
)
def test_what_is_missing_is_said(cli: Any, arguments: list[str], code: int, message: str) -> None:
    Path("r.toml").write_text('recipe = "stf"\n')
    got, out, err = cli("train", *arguments)
    assert (got, out) == (code, ""), err
    assert err.startswith("error: ") and message in err and len(err.splitlines()) == 1
    assert not Path("o").exists()


def test_another_training_is_not_gone_on_with(cli: Any, whole: Path, some_played: list[Demonstration]) -> None:
    shutil.copytree(whole, "o")
    for arguments, message in (
        (["--mask-fraction", "0.5"], "o holds another training: its mask_fraction is 0.3, not 0.5; omit the option"),
        (["--model", "./other"], "its model is './m', not './other'"),
        (["--recipe", "base"], "o holds recipe sft, not base"),
    ):
        code, out, err = cli("train", "--resume", "o", *arguments)
        assert (code, out) == (2, "") and message in err and len(err.splitlines()) == 1
    unchanged = ("--recipe", "sft+", "--mask-fraction", "0.3", "--logging-steps", "3")
    assert cli("train", "--resume", "o", *unchanged)[0] == 0, "how often the loss is logged is no other training"
    Path("t").unlink()
    write_jsonl(Path("t.jsonl"), some_played[:2])
    Path("t").mkdir()
    Path("t.jsonl").replace("t/traces.jsonl")
    code, _, err = cli("train", "--resume", "o")
    assert code == 2 and err.startswith("error: o holds another training: its data_sha256 is ") and len(err.splitlines()) == 1
    Path("o/training.json").write_text("{")
    code, _, err = cli("train", "--resume", "o")
    assert code == 2 and err.startswith("error: o/training.json is damaged")


def test_data_is_taken_together_and_what_is_too_long_is_counted(cli: Any, some_played: list[Demonstration]) -> None:
    long = max(some_played, key=lambda one: len(one.actions))
    write_jsonl(Path("more.jsonl"), [long.model_copy(update={"env": ENV})])
    flags = ["--epochs", "0.1", "--device", "cpu", "--out", "o", "--max-length", "550"]
    code, out, _ = cli("train", "--model", "./m", "--data", "t", "--data", "more.jsonl", *flags)
    card = json.loads(Path("o/recipe.json").read_text())
    assert code == 0 and card["data"]["episodes"] == 4
    counts = card["examples"]
    assert counts["examples"] + counts["too_long"] + counts["without_trace"] == card["data"]["decisions"]
    assert counts["too_long"] > 0 and f"({counts['too_long']} more are too long)" in out
