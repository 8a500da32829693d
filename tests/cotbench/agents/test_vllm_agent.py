"""The vllm: agent, against a command that takes vLLM's arguments and speaks its protocol."""

import os
import signal
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from cotbench.agents import make_agent, vllm
from cotbench.agents.base import StreamingAgent
from cotbench.agents.vllm import VLLMAgent
from cotbench.errors import AgentError, UsageError
from tests.conftest import needs_hf, needs_openai
from tests.served import SHORT, TEMPLATE, asked, until, unused_port

pytest_plugins = ("tests.serve",)
pytestmark = [
    needs_openai,
    pytest.mark.usefixtures("served_alone", "fake_vllm"),
    pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM itself is installed here"),
]

SCRIPT = """#!{python}
import os, runpy, sys
from pathlib import Path
Path({pids!r}).open("a").write(f"{{os.getpid()}}\\n")
sys.path.append({root!r})
runpy.run_path({server!r}, run_name="__main__")
"""


@pytest.fixture
def fake_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command `vllm`; gives the file in which each of its processes notes itself."""
    root, folder, pids = Path(__file__).resolve().parents[3], tmp_path / "bin", tmp_path / "pids"
    folder.mkdir()
    pids.touch()
    command = folder / "vllm"
    command.write_text(
        SCRIPT.format(python=sys.executable, pids=str(pids), root=str(root), server=str(root / "tests" / "fake_server.py"))
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return pids


def _alive(pids: Path) -> list[int]:
    return [pid for pid in map(int, pids.read_text().split()) if Path(f"/proc/{pid}").exists() and not _zombie(pid)]


def _zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_server_is_started_asked_and_ended(fake_vllm: Path) -> None:
    agent = make_agent("vllm:some-model?way=chat&gpu_memory_utilization=0.5&max_model_len=2048&args=--dtype+bfloat16")
    assert isinstance(agent, VLLMAgent) and isinstance(agent, StreamingAgent)
    assert len(_alive(fake_vllm)) == 1
    assert [said.action for said in agent.decide([asked("cot"), asked("prompt")])] == ["look", "look"]
    agent.submit("a", asked("prompt", TEMPLATE))
    assert [(key, said.action) for key, said in agent.collect(20.0)] == [("a", "look")]
    agent.require(SHORT)
    told = agent.describe()
    assert told["vllm"] == "0.0.fake" and told["prefill"] == "chat" and "url" not in told
    wanted = ["--gpu-memory-utilization=0.5", "--max-model-len=2048", "--dtype", "bfloat16"]
    assert told["arguments"] == [*vllm._FIXED_ARGUMENTS, *wanted] and "--enable-prefix-caching" in told["arguments"]
    assert "--host 127.0.0.1 --port" in agent._server.tail()
    agent.close()
    assert _alive(fake_vllm) == []
    agent.close()


def test_the_users_proxy_is_not_asked_for_this_machine(fake_vllm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{unused_port()}")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    agent = make_agent("vllm:some-model?way=chat&retries=0")
    try:
        assert agent.decide([asked("prompt")])[0].action == "look"
    finally:
        agent.close()
    assert _alive(fake_vllm) == []


@needs_hf
def test_prompts_go_as_token_ids(fake_vllm: Path, tmp_path: Path) -> None:
    from tests import tiny_models

    folder = tmp_path / "model"
    tiny_models.tokenizer().save_pretrained(folder)
    agent = make_agent(f"vllm:{folder}?args=--tokenizer+{folder}")
    try:
        told = agent.describe()  # type: ignore[attr-defined]
        assert told["weights_sha256"] is None and len(told["settings_sha256"]) == 64, "a folder without weights"
        assert (told["prefill"], told["prompts"], told["stops"], told["model"]) == ("completions", "ids", "told", str(folder))
        cot, prompt = agent.decide([asked("cot"), asked("prompt")])
        assert (cot.action, cot.trace, prompt.action) == ("look", "I look around.", "look")
        assert prompt.action_logprob is not None
    finally:
        agent.close()
    assert _alive(fake_vllm) == []


def test_a_server_that_dies_tells_its_last_words(fake_vllm: Path) -> None:
    with pytest.raises(AgentError, match=r"ended with code 3 .* CUDA error: no kernel image is available"):
        make_agent("vllm:some-model?args=--die")
    assert _alive(fake_vllm) == []


def test_a_server_that_does_not_answer_is_ended(fake_vllm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "TERMINATE_WAIT", 0.2)
    # It neither answers nor ends when it is asked to.
    Path(fake_vllm.parent / "bin" / "vllm").write_text(
        f"#!/bin/sh\necho $$ >> {fake_vllm}\ntrap '' TERM\necho loading\nwhile true; do sleep 0.05; done\n"
    )
    with pytest.raises(AgentError, match=r"did not load the model within 3(\.0)? s .* loading"):
        make_agent("vllm:some-model?start=3")
    until(lambda: _alive(fake_vllm) == [])


def test_a_server_that_cannot_be_asked_is_ended(fake_vllm: Path) -> None:
    with pytest.raises(AgentError, match="no tokenizer: "):
        make_agent("vllm:some-model")
    assert _alive(fake_vllm) == []


def test_no_server_outlives_its_python(fake_vllm: Path) -> None:
    code = "from cotbench.agents import make_agent; make_agent('vllm:some-model?way=chat'); print('ready', flush=True)"
    assert "ready" in subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True).stdout
    until(lambda: _alive(fake_vllm) == [])
    # Whoever runs the tests in the background of a script has them ignore interrupts; this child must not.
    hears = "import signal, time; signal.signal(signal.SIGINT, signal.default_int_handler)"
    waits = subprocess.Popen([sys.executable, "-P", "-c", f"{hears}; {code}; time.sleep(60)"], stdout=subprocess.PIPE)
    assert waits.stdout is not None and waits.stdout.readline()
    waits.send_signal(signal.SIGINT)
    assert waits.wait(30) != 0
    waits.stdout.close()
    until(lambda: _alive(fake_vllm) == [])


def test_it_needs_no_key_and_is_given_none(monkeypatch: pytest.MonkeyPatch, fake_vllm: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    monkeypatch.setenv("VLLM_API_KEY", "sk-mine")
    agent = make_agent("vllm:some-model?way=chat")
    try:
        (pid,) = _alive(fake_vllm)
        assert b"sk-mine" not in Path(f"/proc/{pid}/environ").read_bytes()
    finally:
        agent.close()
    with pytest.raises(UsageError, match="takes no key"):
        make_agent("vllm:some-model?args=--api-key+sk-mine")


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", unused_port()))
        taken.listen()
        with pytest.raises(AgentError, match=r"port \d+ is taken"):
            make_agent(f"vllm:some-model?port={taken.getsockname()[1]}")
    agent = make_agent(f"vllm:some-model?way=chat&port={(port := unused_port())}")
    assert isinstance(agent, VLLMAgent) and agent._server.port == port
    agent.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the port cannot be held until the server listens")
def test_the_servers_port_is_given_to_no_other_program() -> None:
    with vllm._reserve_port(None) as reservation, socket.socket() as server:
        port = reservation.getsockname()[1]
        with pytest.raises(OSError, match="in use"), socket.socket() as other:
            other.bind((vllm.HOST, port))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((vllm.HOST, port))
        server.listen()
        socket.create_connection((vllm.HOST, port)).close()


def test_without_vllm_the_command_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(AgentError, match="pip install vllm"):
        make_agent("vllm:some-model")
    assert time.monotonic() - began < 5
