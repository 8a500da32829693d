"""A stranger's folder, and a server that misbehaves: what a folder names is confirmed before it is used, and a key goes to the
server that it is for and stands nowhere else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from cotbench.agents import make_agent
from cotbench.agents.registry import parse_spec, without_secrets
from cotbench.agents.trust import concerns
from cotbench.cli import run_cli
from cotbench.errors import AgentError, UsageError
from tests import fake_server
from tests.conftest import needs_hf, needs_openai
from tests.fake_server import FakeServer, Manners, running
from tests.house import ROOT
from tests.served import KEY, TEMPLATE, asked, served

SECRET = "AKIA-not-for-strangers/0123456789+=\\x"
FAR = "http://192.0.2.7:9"
"""An address that no machine has."""

GAMES = ("--env", "alfworld-gen", "--limit", "1", "--max-steps", "2", "--workers", "0")


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with running() as fake:
        yield fake


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of an honest user: a run, traces and a probe."""
    root = tmp_path_factory.mktemp("honest")
    run = root / "run"
    assert run_cli(["run", "--agent", "random", *GAMES, "--out", str(run), "--mode", "both"]) == 0
    assert run_cli(["traces", "--teacher", "scripted", "--limit", "1", "--workers", "0", "--out", str(root / "traces")]) == 0
    words = ["probe", "alignment", "--agent", "scripted", "--states", "2", "--reference", str(root / "traces")]
    assert run_cli([*words, "--out", str(root / "probe")]) == 0
    return root


# What has to be confirmed.


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        (f"openai:m@{FAR}", f"the address '{FAR}'"),
        ("openai:m@HTTPS://evil.test/v1", "the address 'HTTPS://evil.test/v1'"),
        ("openai:m@http://127.0.0.1.evil.test", "the address 'http://127.0.0.1.evil.test'"),
        ("openai:m@http://127.0.0.1:80@evil.test", "the address 'http://127.0.0.1:80@evil.test'"),
        ("openai:m@http://[::1", "the address 'http://[::1'"),
        ("openai:m@http%3A%2F%2Fevil.test", "the address 'http://evil.test'"),
        ("mine:x?server=http%253A%252F%252Fevil.test", "the address 'http://evil.test'"),
        ("openai:m@http://\x1b[2Jevil.test", "the address 'http://\\x1b[2Jevil.test'"),
        ("openai:m@http://127.0.0.1?key_env=AWS_SECRET_ACCESS_KEY", "key_env='AWS_SECRET_ACCESS_KEY'"),
        ("openai:m?k%65y_env=HOME", "key_env='HOME'"),
        ("expert-fill:openai:m@http://127.0.0.1?inner=key_env=HOME,timeout=5", "key_env='HOME'"),
        ("expert-fill:openai:m?inner=timeout=5,key_env%3DHOME", "key_env='HOME'"),
        ("vllm:m?args=--trust-remote-code", "args='--trust-remote-code'"),
    ],
)
def test_what_a_folder_may_not_name_unconfirmed(spec: str, found: str) -> None:
    assert concerns(spec) == (found,)
    assert concerns({"probe": "preference", "options": [{"judge": spec}]}) == (found,)


@pytest.mark.parametrize(
    "spec",
    [
        *(
            "random",
            "hf:Qwen/Qwen3-4B?dtype=bfloat16",
            "hf:./folder",
            "replay:runs/x",
            "openai:gpt-5",
            "openai:claude@20240229",
        ),
        *("openai:m@http://127.0.0.1:8000/v1?key_env=", "openai:m@https://[::1]?key_env=OPENAI_API_KEY", "vllm:m?args="),
        *("openai:m@http://localhost", "expert-fill:hf:smollm2?inner=threads=1,dtype=float32"),
    ],
)
def test_what_a_folder_may_name(spec: str) -> None:
    assert concerns({"agent": spec, "seed": 0, "tasks": ["alfworld/gen/heat/3"], "none": None}) == ()


# Folders of a stranger, in every command that goes on with one.


def _forge(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / name
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


def _copied(source: Path, target: Path) -> Path:
    import shutil

    shutil.copytree(source, target)
    return target


def _refused(words: list[str], folder: Path, found: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    capsys.readouterr()
    assert run_cli(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: {folder} names {found}, which you did not type: add --trust if you know who made it\n"
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


EVIL = f"openai:m@{FAR}?key_env=AWS_SECRET_ACCESS_KEY"
EVIL_FOUND = f"the address '{FAR}?key_env=AWS_SECRET_ACCESS_KEY' and key_env='AWS_SECRET_ACCESS_KEY'"


@pytest.mark.parametrize(
    ("command", "file", "old"),
    [
        ("run", "manifest.json", '"agent": "random"'),
        ("traces", "manifest.json", '"agent": "scripted"'),
        ("probe", "probe_config.json", '"agent": "scripted"'),
        ("probe", "probe_config.json", '"reference": '),
    ],
)
def test_no_command_obeys_a_strangers_folder(
    played: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, file: str, old: str
) -> None:
    folder = _copied(played / command, tmp_path / "theirs")
    if not (folder / file).is_file():
        (file,) = (path.name for path in folder.glob("*.json") if old in path.read_text("utf-8"))
    if old.endswith(": "):
        field = json.loads((folder / file).read_text("utf-8"))[old.strip(': "')]
        _forge(folder, file, f"{old}{json.dumps(field)}", f"{old}{json.dumps(EVIL)}")
    else:
        _forge(folder, file, old, f'"agent": "{EVIL}"')
    _refused([command, "--resume", str(folder)], folder, EVIL_FOUND, capsys)


def test_a_suite_a_judge_a_training_and_a_study_of_a_stranger(
    played: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = tmp_path / "suite"
    suite.mkdir()
    config = json.loads((played / "run" / "manifest.json").read_text("utf-8"))["config"]
    (suite / "suite.json").write_text(json.dumps([config, {**config, "agent": EVIL}]), "utf-8")
    _refused(["run", "--resume", str(suite)], suite, EVIL_FOUND, capsys)

    judged = _copied(played / "probe", tmp_path / "judged")
    manifest = json.loads((judged / "manifest.json").read_text("utf-8"))
    (judged / "manifest.json").write_text(json.dumps({**manifest, "options": {"judge": EVIL}}), "utf-8")
    _refused(["judge", str(played / "run"), "--resume", str(judged)], judged, EVIL_FOUND, capsys)

    study = tmp_path / "study.toml"
    preset = (ROOT / "cotbench" / "study" / "presets" / "smoke.toml").read_text("utf-8")
    study.write_text(f'reference = "{EVIL}"\n{preset}', "utf-8")
    assert run_cli(["study", str(study), "--out", str(tmp_path / "s")]) == 2
    err = capsys.readouterr().err
    assert err == f"error: {study} names {EVIL_FOUND}, which you did not type: add --trust if you know who made it\n"
    assert not (tmp_path / "s").exists()


@needs_hf
def test_a_training_of_a_stranger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "training"
    folder.mkdir()
    config = {"model": "tiny", "data": [f"{FAR}/data.jsonl"]}
    record = {"recipe": "sft", "config": config, "data": {}, "elicitations": {}}
    (folder / "training.json").write_text(json.dumps(record), "utf-8")
    _refused(["train", "--resume", str(folder)], folder, f"the address '{FAR}/data.jsonl'", capsys)


class _Terminal:
    """Standard input of somebody who types one line."""

    def __init__(self, line: str) -> None:
        self.line = line

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self.line


@needs_openai
@pytest.mark.parametrize(("more", "line"), [(["--trust"], None), ([], "y\n"), ([], "n\n"), ([], "\n"), ([], "")])
def test_a_key_of_this_user_is_sent_when_that_was_confirmed(
    played: Path,
    tmp_path: Path,
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    line: str | None,
) -> None:
    folder = _copied(played / "run", tmp_path / "theirs")
    spec = f"openai:fake@{server.url}?key_env=AWS_SECRET_ACCESS_KEY&retries=0"
    _forge(folder, "manifest.json", '"agent": "random"', f'"agent": "{spec}"')
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    heads = _recorded_heads(monkeypatch)
    if line is not None:
        monkeypatch.setattr(sys, "stdin", _Terminal(line))
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run_cli(["run", "--resume", str(folder), *more]) == 2  # Confirmed, it turns out to be of another agent.
    confirmed = line in (None, "y\n")
    assert [head["Authorization"] for head in heads[:1]] == ([f"Bearer {KEY}"] if confirmed else [])
    assert ("names key_env='AWS_SECRET_ACCESS_KEY'" in capsys.readouterr().err) == (line is not None)


def test_what_was_typed_needs_no_confirmation(
    played: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the command line that is printed to go on with holds `--trust` where it is needed."""
    from cotbench.cli.resume import resume_command

    folder = _copied(played / "run", tmp_path / "mine")
    spec = "openai:m@http://192.0.2.7:9?key_env=&timeout=0.2&retries=0"
    _forge(folder, "manifest.json", '"agent": "random"', f'"agent": "{spec}"')
    assert run_cli(["run", "--resume", str(folder), "--agent", spec, "--dry-run"]) == 0
    assert resume_command("run", folder, config={"agent": spec}).endswith(" --trust")
    assert not resume_command("run", folder, config={"agent": "random"}).endswith(" --trust")


def test_a_stage_that_was_begun_goes_on_only_as_the_study_says(tmp_path: Path) -> None:
    from cotbench.study.folder import _names_the_same

    begun = tmp_path / "manifest.json"
    own = ["--agent", "openai:m@https://lab.test/v1"]
    begun.write_text(json.dumps({"config": {"agent": own[1]}}), "utf-8")
    assert _names_the_same(begun, own)
    begun.write_text(json.dumps({"config": {"agent": "openai:m@https://evil.test/v1"}}), "utf-8")
    assert not _names_the_same(begun, own)


def test_no_file_of_a_folder_is_imported(played: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest names no plugin, and a module that lies beside it is not on the path."""
    folder = _copied(played / "run", tmp_path / "theirs")
    for name in ("sitecustomize.py", "plugin.py", "torch.py", "cotbench.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')", "utf-8")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    (folder / "manifest.json").write_text(json.dumps({**manifest, "import": ["plugin.py"], "plugins": ["plugin.py"]}), "utf-8")
    monkeypatch.chdir(folder)
    assert run_cli(["run", "--resume", str(folder)]) == 0
    assert not (tmp_path / "ran").exists()


# The way of a key.


def _recorded_heads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Headers of every request to a fake server, as they come."""
    heads: list[dict[str, str]] = []
    allowed = fake_server._Handler._allowed

    def recorded(handler: Any) -> bool:
        heads.append({name.title(): value for name, value in handler.headers.items()})
        return allowed(handler)

    monkeypatch.setattr(fake_server._Handler, "_allowed", recorded)
    return heads


@needs_openai
def test_a_key_goes_in_plain_text_to_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for host in ("192.0.2.7:9", "evil.test", "127.0.0.1.evil.test", "2130706433", "0x7f.1", "[2001:db8::1]:80"):
        with pytest.raises(AgentError) as raised:
            make_agent(f"openai:m@http://{host}?retries=0&timeout=0.2")
        assert str(raised.value) == (
            f"the key in OPENAI_API_KEY would go to http://{host}/v1 in plain text: use https://, or a tunnel to this machine, "
            "or send no key with ?key_env="
        )
    with pytest.raises(AgentError, match=r"http://192\.0\.2\.7:9/v1/models"):  # Asked, without a key.
        make_agent("openai:m@http://192.0.2.7:9?key_env=&retries=0&timeout=0.2")


@needs_openai
def test_what_is_for_openai_goes_to_no_other_server(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-mine")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Mine: custom-mine\nCookie : cookie-mine")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "admin-mine")
    heads = _recorded_heads(monkeypatch)
    server.manners.owner = "llamacpp"  # So that other places are asked too.
    assert served(server).decide([asked("prompt", TEMPLATE)])[0].error is None
    sent = [value for head in heads for value in head.values()]
    assert len(heads) > 5 and all(head["Authorization"] == f"Bearer {KEY}" for head in heads)
    assert not [value for value in sent if "mine" in value]


ECHOES = {
    "exact": KEY,
    "header": f"Bearer {KEY}",
    "url": quote(SECRET, safe=""),
    "json": json.dumps(SECRET)[1:-1],
}


@needs_openai
@pytest.mark.parametrize("where", ["content", "reasoning", "tools", "error", "models", "tokens"])
@pytest.mark.parametrize("form", list(ECHOES))
def test_a_key_that_a_server_echoes_is_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], where: str, form: str
) -> None:
    key = KEY if form in ("exact", "header") else SECRET
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.chdir(tmp_path)
    echo = ECHOES[form]
    manners = Manners(model=lambda prompt: f"<think>Hm, {echo}</think>\n<action>look {echo}</action>", stops="kept")
    if where == "reasoning":
        manners.reasoning = True
    if where == "tools":
        manners.calls = ({"name": f"look_{echo}", "arguments": json.dumps({"at": echo, echo: 1})},)
    if where == "models":
        manners.owner = f"me {echo}"
    with running(manners) as server:
        if where == "error":
            answer = server.answer

            def failing(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
                later = len(server.requests) > 12
                return (400, {"error": {"message": f"you sent {echo}"}}) if later else answer(path, body)

            monkeypatch.setattr(server, "answer", failing)
        style = "prefill" if where == "tokens" else "template"
        options = "retries=0&timeout=20" + ("&tools=native" if where == "tools" else "")
        words = ["run", "--agent", f"openai:fake@{server.url}?{options}", *GAMES, "--elicitation-style", style, "--out", "r"]
        assert run_cli(words) in (0, 1)
    said = "".join(capsys.readouterr())
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    forms = {key, quote(key, safe=""), json.dumps(key)[1:-1], json.dumps(json.dumps(key)[1:-1])[1:-1]}
    assert not [path for path, content in written.items() for one in forms if one.encode() in content]
    assert not [one for one in forms if one in said]
    if where in ("content", "reasoning"):
        assert b"[key]" in written[tmp_path / "r" / "episodes.jsonl"], "it was echoed"


@needs_openai
def test_tokens_that_spell_a_key_are_dropped(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is many tokens: their texts and ids would spell it."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    connection = served(server)._connection
    body = {"model": "fake", "prompt": "a<action>", "max_tokens": 60, "logprobs": 1, "return_token_ids": True}
    clean = connection.ask("completions", body)
    assert clean.pieces and clean.ids and clean.logprobs
    server.manners.model = lambda prompt: f"look {KEY}</action>"
    echoed = connection.ask("completions", body)
    assert echoed.text == "look [key]</action>"
    assert not (echoed.pieces or echoed.ids or echoed.logprobs or echoed.token_logprobs)


@needs_openai
def test_a_short_key_is_no_secret(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`none` and `x` stand in other words."""
    monkeypatch.setenv("OPENAI_API_KEY", "look")
    assert served(server).decide([asked("prompt", TEMPLATE)])[0].action == "look"


@pytest.mark.parametrize(
    "spec",
    ["openai:m@http://me:hunter2@127.0.0.1:9", "openai:m@https://hunter2@host/v1", "mine:x?server=http://me:hunter2@host"],
)
def test_a_password_in_a_url_is_shown_and_written_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], spec: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli(["run", "--agent", spec, "--env", "alfworld-gen", "--limit", "1"]) == 2
    out, err = capsys.readouterr()
    assert "hunter2" not in out + err and "holds more than a host and a path" in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError):
        parse_spec(spec)


def test_a_spec_is_shown_without_what_may_be_a_secret() -> None:
    assert without_secrets("openai:m@http:/me:hunter2@host?key_env=sk-1") == "openai:m@...@host"
    assert without_secrets("openai:m@http://127.0.0.1:8000/v1?key_env=sk-1") == "openai:m@http://127.0.0.1:8000/v1"
    assert without_secrets("hf:Qwen/Qwen3-4B?dtype=bfloat16") == "hf:Qwen/Qwen3-4B"
