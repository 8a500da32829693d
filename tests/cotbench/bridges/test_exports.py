"""Exports: folders for a hub, lm-evaluation-harness's files, model cards."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cotbench.bridges import hub_folder
from cotbench.bridges.eval_results import write_eval_results
from cotbench.bridges.hub_folder import write_hub_folder
from cotbench.bridges.model_card import write_model_card
from cotbench.cli import run_cli
from cotbench.errors import RunFolderError
from cotbench.prompting.query import Decision, Query
from cotbench.runs.episode import EPISODES, read_episodes
from cotbench.runs.manifest import RunConfig
from cotbench.runs.results import Run, load_run
from cotbench.runs.runner import run
from tests.conftest import needs_datasets


class _Half:
    """Wins one of two tasks and has a bug in the other."""

    name = "half"
    needs = frozenset({"expert_action"})

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        if any(query.task == self.broken and query.step for query in queries):
            raise KeyError("oops")
        return [Decision(str(query.expert_action), None if query.mode == "prompt" else "so", "raw") for query in queries]

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = RunConfig(agent="hf:org/model?dtype=float32", env="alfworld-gen", episodes=2, mode="both")
    agent: Any = _Half()
    from cotbench.runs.plan import make_plan

    agent.broken = make_plan(config).tasks[1]
    folder = tmp_path_factory.mktemp("runs") / "run"
    run(config, out=folder, agent=agent, num_envs=1)
    return load_run(folder)


def test_a_hub_folder_has_the_same_records_without_tracebacks(played: Run, tmp_path: Path) -> None:
    files = write_hub_folder(played.path, tmp_path / "out")
    assert files[0].name == "README.md"
    assert {file.name for file in files} == {"README.md", "manifest.json", "summary.json", EPISODES}
    before, after = list(played.records), list(read_episodes(tmp_path / "out"))  # Whose digests are checked.
    assert [one.error for one in before] == [None, None, after[2].error, after[3].error]
    assert before[2].traceback and "oops" in str(after[2].error)
    assert [one.model_copy(update={"traceback": None}) for one in before] == after
    assert b'"traceback"' not in (tmp_path / "out" / EPISODES).read_bytes()


@needs_datasets
def test_a_hub_folder_is_loaded(played: Run, tmp_path: Path) -> None:
    from datasets import load_dataset

    write_hub_folder(played.path, tmp_path / "out")
    loaded = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["id"]
    assert loaded["task"] == [one.task for one in played.records]
    assert loaded["success"] == [True, True, False, False]


def test_a_suite_is_one_hub_folder(played: Run, tmp_path: Path) -> None:
    suite = tmp_path / "suite"
    shutil.copytree(played.path, suite / "alfworld-gen")
    (suite / "suite.json").write_text(json.dumps([played.manifest.config.model_dump(mode="json")]))
    (suite / "summary.json").write_text("{}")
    files = write_hub_folder(suite, tmp_path / "out")
    assert tmp_path / "out" / "alfworld-gen" / EPISODES in files


def test_what_is_not_finished_is_not_exported(played: Run, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"neither manifest\.json nor suite\.json"):
        write_hub_folder(tmp_path, tmp_path / "out")
    shutil.copytree(played.path, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(RunFolderError, match="not finished"):
        write_hub_folder(tmp_path / "run", tmp_path / "out")
    with pytest.raises(RunFolderError, match="not empty"):
        write_hub_folder(played.path, played.path)


def test_a_push_is_private_and_its_failure_one_line(played: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub", reason="pip install 'cotbench[hf]'")
    asked: list[tuple[str, dict[str, Any]]] = []

    def answer(name: str, fail: bool = False) -> Any:
        def call(*args: Any, **options: Any) -> str:
            asked.append((name, options))
            if fail:
                raise OSError("401: nobody\nis logged in")
            return "https://hub/x"

        return call

    api = SimpleNamespace(create_repo=answer("create"), upload_folder=answer("upload"))
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: api)
    assert hub_folder.push("me/data", tmp_path) == "https://hub/x"
    assert asked[0][1] == {"repo_type": "dataset", "private": True, "exist_ok": True}
    assert asked[1][1]["folder_path"] == tmp_path
    api.upload_folder = answer("upload", fail=True)
    with pytest.raises(RunFolderError, match=r"not pushed \(401: nobody\): log in .* hf upload me/data") as raised:
        hub_folder.push("me/data", tmp_path)
    assert "\n" not in str(raised.value)


RESULTS = {
    *(
        "results",
        "group_subtasks",
        "configs",
        "versions",
        "n-shot",
        "higher_is_better",
        "n-samples",
        "config",
        "git_hash",
        "date",
    ),
    *("pretty_env_info", "transformers_version", "lm_eval_version", "upper_git_hash", "task_hashes", "model_source"),
    *("model_name", "model_name_sanitized", "system_instruction", "system_instruction_sha", "fewshot_as_multiturn"),
    *("chat_template", "chat_template_sha", "total_evaluation_time_seconds"),
}
SAMPLE = {
    *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"),
    *("doc_hash", "prompt_hash", "target_hash"),
}
"""Of lm-evaluation-harness 0.4.13, read there."""


def test_eval_results_have_the_harness_s_fields_and_the_run_s_numbers(played: Run, tmp_path: Path) -> None:
    results, *samples = write_eval_results(played, tmp_path)
    assert results.parent == tmp_path / "org__model"
    assert [file.name.partition("_")[0] for file in (results, *samples)] == ["results", "samples", "samples"]
    content = json.loads(results.read_text())
    assert set(content) >= RESULTS
    for file, (name, numbers) in zip(samples, content["results"].items(), strict=True):
        # As the harness takes names apart.
        assert file.name[file.name.find("_") + 1 : file.name.rfind("_")] == name
        assert file.name.rpartition("_")[2].removesuffix(".jsonl") == results.name.rpartition("_")[2].removesuffix(".json")
        mode = name.rpartition("_")[2]
        summary = played.summary.modes[mode]  # type: ignore[index]
        assert numbers["success,none"] == summary.success.mean == 1.0
        assert (numbers["sample_len"], summary.errors) == (1, 1)
        assert content["n-samples"][name] == {"original": 2, "effective": 1}
        (sample,) = map(json.loads, file.read_text().splitlines())
        assert set(sample) == SAMPLE | {"success", "score", "steps"} == SAMPLE | set(sample["metrics"])
        episode = next(one for one in played.records if one.mode == mode and one.error is None)
        assert sample["filtered_resps"] == [[step.action for step in episode.trajectory]]
        chat = json.loads(sample["arguments"]["gen_args_0"]["arg_0"])
        assert [message["role"] for message in chat] == ["system", "user"]
        assert chat[1]["content"] == episode.first_observation


RECORD = {
    "recipe": "sft",
    "config": {"model": "org/base", "mask_fraction": 0.3, "mask_select": "random", "traces": "own", "seed": 1},
    "data": {"envs": {"alfworld-gen": 120}, "teachers": {"scripted": 120}, "decisions": 1042, "sha256": "ab" * 32},
    "elicitations": {"alfworld-gen": "3246f559aad7b616"},
    "base": {"model": "org/base", "parameters": 7},
    **{"step": 23, "steps": 46, "progress": 0.5, "seen": {"masked_share": 0.299}, "packages": {"torch": "2"}},
}


def _training(folder: Path, record: Any = RECORD) -> Path:
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps(record) if record is not None else "{")
    return folder


def test_a_model_card_says_what_the_training_recorded(tmp_path: Path) -> None:
    text = write_model_card(_training(tmp_path / "checkpoint-23")).read_text()
    assert (tmp_path / "checkpoint-23" / "README.md").read_text() == text
    front = text.split("---")[1]
    assert "base_model: org/base" in front and "library_name: transformers" in front and '- "cotbench-sft"' in front
    for line in ("| updates | 23 of 46 |", "| mask fraction | 0.3 |", "| masked share | 0.299 |", "| teacher | scripted |"):
        assert line in text
    assert "`3246f559aad7b616`" in text


def test_a_model_card_is_data(tmp_path: Path) -> None:
    evil = {**RECORD, "recipe": "x`|<script>\n# no", "data": {"envs": {"a`|<b>\n---": 1}, "teachers": {"|": 1}}}
    text = write_model_card(_training(tmp_path / "t", evil)).read_text()
    body = text.split("```json")[0].split("---\n", 2)[2]
    assert "<script>" not in body and "\n# no" not in text and "| teacher | / |" in body


def test_a_user_s_card_stays(tmp_path: Path) -> None:
    folder = _training(tmp_path / "t")
    write_model_card(folder)
    write_model_card(folder)  # Its own it writes anew, and peft's empty one.
    (folder / "README.md").write_text("[More Information Needed]")
    assert "cotbench" in write_model_card(folder).read_text()
    (folder / "README.md").write_text("mine")
    with pytest.raises(RunFolderError, match="written by somebody else"):
        write_model_card(folder)
    assert write_model_card(folder, tmp_path / "card.md").is_file()


def test_no_card_of_what_is_no_training(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"has no recipe\.json"):
        write_model_card(tmp_path)
    with pytest.raises(RunFolderError, match="is damaged"):
        write_model_card(_training(tmp_path / "t", None))


def test_the_commands(played: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def cotbench(*words: Any) -> str:
        assert run_cli(["export", *map(str, words)]) == 0
        return capsys.readouterr().out

    out = cotbench("hub", played.path, "--out", tmp_path / "hub")
    assert f"hf upload USER/NAME {tmp_path / 'hub'} . --repo-type dataset" in out
    assert len(json.loads(cotbench("eval-results", played.path, "--out", tmp_path / "results", "--json"))) == 3
    assert cotbench("card", _training(tmp_path / "t")).strip().endswith("README.md")
    assert run_cli(["export", "hub", str(played.path), "--out", str(tmp_path / "hub")]) == 2
