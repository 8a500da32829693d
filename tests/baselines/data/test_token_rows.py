"""Token ids and labels for trainers of others: what they compute on them is what our training computes."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_datasets, needs_hf, needs_pyarrow

pytestmark = needs_hf

from cotbench.agents.hf.loading import load
from cotbench.agents.hf.tokenizer import load_tokenizer
from cotbench.baselines.data.demonstration import Demonstration, read_demonstrations, write_jsonl
from cotbench.baselines.data.examples import make_examples
from cotbench.baselines.data.token_rows import open_encoder, token_row
from cotbench.baselines.training.loss import losses, mean_loss
from cotbench.baselines.training.model import load_trainable
from cotbench.baselines.training.packing import pack
from cotbench.baselines.training.sequence_tree import build_trees
from cotbench.cli import run_cli
from cotbench.errors import AgentError
from cotbench.prompting.elicitation import Elicitation
from tests import tiny_models
from tests.baselines.conftest import ENV

TRACES = ["traces", "--teacher", "scripted", "-n", "2"]
CLOSE = 2e-6
"""Nats; two ways to compute one mean in float32."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose template cuts the reasoning out of past turns, as Qwen3's does."""
    return tiny_models.save_model(tmp_path_factory.mktemp("model") / "m", "qwen", tiny_models.STRIPS_THINKING)


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A traces folder with token ids."""
    out = tmp_path_factory.mktemp("traces") / "t"
    assert run_cli([*TRACES, "--out", str(out), "--tokens", str(model)]) == 0
    return out


def test_rows_are_the_examples_of_training(folder: Path, model: Path) -> None:
    trainable = load_trainable(str(model), device="cpu")
    read = read_demonstrations(folder)
    asked = {ENV: Elicitation.for_env(ENV)}
    made = make_examples(read, trainable.chat, asked, context=trainable.context)
    rows = _rows(folder / "tokens.jsonl")
    assert rows == [token_row(one) for one in made.flat]
    for row, example in zip(rows, made.flat, strict=True):
        assert (row["task"], row["step"]) == (example.task, example.step)
        assert tuple(row["input_ids"]) == example.ids
        answer = [id_ for id_ in row["labels"] if id_ != -100]
        assert tuple(answer) == example.answer and row["labels"][: len(example.prompt)] == [-100] * len(example.prompt)
        text = trainable.chat.decode(answer)
        one = next(one for one in read if one.task == example.task)
        assert f"<think>{one.traces[example.step]}</think>\n<action>{one.actions[example.step]}</action>" in text


@needs_datasets
def test_the_loss_of_trl_is_ours(folder: Path, model: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="pip install -e '.[dev]'")
    import datasets
    import torch
    import transformers

    trainable = load_trainable(str(model), device="cpu")
    assert trainable.packed
    asked = {ENV: Elicitation.for_env(ENV)}
    examples = make_examples(read_demonstrations(folder), trainable.chat, asked, context=trainable.context).flat
    chosen = random.Random(1).sample(range(len(examples)), 6)
    trees = [tree for index in chosen for tree in build_trees([examples[index]], [[1.0] * len(examples[index].answer)])]
    with torch.inference_mode():
        ours = float(mean_loss(*losses(trainable.model, pack(trees))))
    assert ours > 1, "a random model"
    rows = datasets.Dataset.from_list(_rows(folder / "tokens.jsonl")).select(chosen)
    plain = transformers.AutoModelForCausalLM.from_pretrained(model)
    args = trl.SFTConfig(
        output_dir=str(tmp_path / "o"),
        max_length=None,
        per_device_train_batch_size=len(chosen),
        max_steps=1,
        learning_rate=0.0,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    trainer = trl.SFTTrainer(model=plain, args=args, train_dataset=rows, processing_class=tokenizer)
    (batch,) = trainer.get_train_dataloader()
    with torch.inference_mode():
        theirs = float(trainer.compute_loss(plain.eval(), dict(batch)))
        single = plain(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}).loss
    assert abs(theirs - ours) < CLOSE
    assert abs(float(single) - ours) < CLOSE, "and that of a plain forward pass"


def test_messages_through_such_a_template_are_other_tokens(folder: Path, model: Path) -> None:
    """Why the ids are wanted: a trainer that renders `messages` does not see past or last reasoning as we ask for it."""
    tokenizer, _ = load_tokenizer(str(model))
    (first, *_) = _rows(folder / "traces.jsonl")
    rendered = tokenizer.apply_chat_template(first["messages"], tokenize=False)
    assert first["traces"][-1] not in rendered
    ids = next(row for row in reversed(_rows(folder / "tokens.jsonl")) if row["task"] == first["task"])["input_ids"]
    assert first["traces"][-1] in tokenizer.decode(ids)


def test_the_folder_says_so_and_no_old_ids_stay(
    folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = json.loads((folder / "traces.json").read_text())
    rows = _rows(folder / "tokens.jsonl")
    assert summary["tokens"] == {
        "model": str(model),
        "examples": len(rows),
        "too_long": 0,
        "tokens": sum(len(row["input_ids"]) for row in rows),
        "labels": sum(id_ != -100 for row in rows for id_ in row["labels"]),
    }
    assert "- config_name: tokens" in (folder / "README.md").read_text()
    before = (folder / "traces.json").read_bytes()
    assert run_cli(["traces", "--resume", str(folder)]) == 0
    assert (folder / "traces.json").read_bytes() == before and _rows(folder / "tokens.jsonl") == rows
    assert f"\ntokens: {folder}/tokens.jsonl, {len(rows)} examples of " in capsys.readouterr().out
    out = tmp_path / "t"
    assert run_cli([*TRACES, "--out", str(out)]) == 0
    assert "tokens" not in json.loads((out / "traces.json").read_text())
    assert (out / "traces.jsonl").read_bytes() == (folder / "traces.jsonl").read_bytes()
    (out / "tokens.jsonl").write_text("of other traces\n")
    assert run_cli(["traces", "--resume", str(out)]) == 0
    assert not (out / "tokens.jsonl").exists()
    assert run_cli(["traces", "--resume", str(out), "--tokens", str(model)]) == 0
    assert _rows(out / "tokens.jsonl") == rows, "they can be made later"


@needs_pyarrow
def test_conversion_makes_the_same_rows(folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pyarrow import parquet

    rows = _rows(folder / "tokens.jsonl")
    for name in ("x.jsonl", "x.parquet"):
        assert run_cli(["traces", "--from", str(folder), "--tokens", str(model), "--out", str(tmp_path / name)]) == 0
    assert (tmp_path / "x.jsonl").read_bytes() == (folder / "tokens.jsonl").read_bytes()
    assert parquet.read_table(tmp_path / "x.parquet").to_pylist() == rows
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"wrote {len(rows)} examples of {model}, ")
    flags = ["--history", "traces", "--out", str(tmp_path / "h.jsonl")]
    assert run_cli(["traces", "--from", str(folder), "--tokens", str(model), *flags]) == 0
    longer = _rows(tmp_path / "h.jsonl")
    assert [row["labels"][-5:] for row in longer] == [row["labels"][-5:] for row in rows]
    assert sum(len(row["input_ids"]) for row in longer) > sum(len(row["input_ids"]) for row in rows), "past traces are shown"


def test_an_imported_conversation_is_encoded_too(model: Path, tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "You see a desk."},
        {"role": "assistant", "content": "<action>go to desk 1</action>", "reasoning_content": "I go."},
    ]
    (tmp_path / "f.jsonl").write_text(json.dumps({"messages": turns}))
    assert (
        run_cli(["traces", "--from", str(tmp_path / "f.jsonl"), "--tokens", str(model), "--out", str(tmp_path / "x.jsonl")])
        == 0
    )
    (row,) = _rows(tmp_path / "x.jsonl")
    tokenizer, _ = load_tokenizer(str(model))
    assert "<think>I go.</think>\n<action>go to desk 1</action>" in tokenizer.decode([id_ for id_ in row["labels"] if id_ >= 0])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["--from", "f.jsonl", "--tokens", "./m", "--out", "x.csv"],
            2,
            "x.csv is neither a .jsonl nor a .parquet file: name it so",
        ),
        (["--from", "f.jsonl", "--tokens", "./gone", "--out", "x.jsonl"], 1, "no model folder ./gone: give a folder"),
        (
            ["--from", "f.jsonl", "--tokens", "./m", "--seed", "3", "--out", "x.jsonl"],
            2,
            "--from plays nothing: omit --seed",
        ),
        (
            ["--from", "scored.jsonl", "--tokens", "./m", "--out", "x.jsonl"],
            2,
            "is scored (alfworld-gen paper/id): it must not be trained on",
        ),
        (
            ["--from", "silent.jsonl", "--tokens", "./m", "--out", "x.jsonl"],
            2,
            "no example is left of 1 demonstrations: 0 decis",
        ),
        (["--teacher", "expert", "-n", "1", "--tokens", "./gone", "--out", "t"], 1, "no model folder ./gone: give a folder"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    arguments: list[str],
    code: int,
    message: str,
    model: Path,
    some_played: list[Demonstration],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m").symlink_to(model)
    one = some_played[0]
    write_jsonl(Path("f.jsonl"), [one])
    write_jsonl(Path("scored.jsonl"), [one.model_copy(update={"task": "alfworld/gen/pick/0"})])
    write_jsonl(Path("silent.jsonl"), [one.model_copy(update={"traces": (None,) * len(one.actions)})])
    before = {path.name for path in Path().iterdir()}
    assert run_cli(["traces", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and message in err and len(err.splitlines()) == 1
    assert {path.name for path in Path().iterdir()} == before


def test_the_tokenizer_is_the_one_that_is_loaded_with_the_weights(learners: dict[str, Path], tmp_path: Path) -> None:
    for target in (str(learners["qwen"]), "tiny"):
        loaded = load(target, device="cpu")
        tokenizer, context = load_tokenizer(target)
        assert tokenizer.get_vocab() == loaded.tokenizer.get_vocab()
        assert tokenizer.chat_template == loaded.tokenizer.chat_template
        assert context == loaded.model.config.max_position_embeddings
    with pytest.raises(AgentError, match=r"is not a model folder: it has no config\.json"):
        open_encoder(str(tmp_path))
