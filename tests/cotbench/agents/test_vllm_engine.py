"""The vllm: agent with `embedded=true`: on a stand-in for vLLM's engine, and on vLLM itself where this Python has it
(`bash .ci/servers` runs that one in vLLM's environment).
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from cotbench.agents import make_agent, vllm_engine
from cotbench.agents.base import StreamingAgent
from cotbench.agents.decisions import decide_all
from cotbench.agents.vllm import VLLMAgent
from cotbench.agents.vllm_client import EngineClient
from cotbench.agents.vllm_engine import completion_body, sampling_fields
from cotbench.errors import AgentError, UsageError
from cotbench.prompting.query import Decision
from tests.conftest import ROOT, needs_hf, needs_openai
from tests.cotbench.agents.test_vllm_agent import SCRIPT
from tests.served import SHORT, TEMPLATE, asked, until

pytestmark = needs_hf
without_vllm = pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM itself is installed here")
with_vllm = pytest.mark.skipif(
    find_spec("vllm") is None, reason="vLLM is not installed in this Python (bash .ci/servers installs it in one of its own)"
)

STAND_IN = ROOT / "tests" / "vllm_stand_in"
FIELDS = ("action", "trace", "raw", "format_ok", "trace_tokens", "action_tokens", "prompt_tokens", "action_logprob", "error")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder; with weights where the real engine reads them."""
    from tests import tiny_models

    made = tmp_path_factory.mktemp("model")
    if find_spec("vllm") is not None:
        return tiny_models.save_model(made, head_dim=64)  # vLLM's kernels for a CPU take no shorter heads.
    tiny_models.tokenizer().save_pretrained(made)
    return made


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[VLLMAgent]:
    """One agent on the stand-in, for the tests that do it no harm."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(STAND_IN))
        steps = folder / "steps"
        agent = make_agent(f"vllm:{folder}?embedded=true&args=--steps-file+{steps}")
    assert isinstance(agent, VLLMAgent) and isinstance(agent, StreamingAgent)
    try:
        yield agent
    finally:
        agent.close()


def _engine(agent: object) -> EngineClient:
    assert isinstance(agent, VLLMAgent) and isinstance(agent._server, EngineClient)
    return agent._server


def _pid(agent: object) -> int:
    process = _engine(agent)._process
    assert process is not None
    return process.pid


def _gone(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def _facts(decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    return [{name: getattr(each, name) for name in FIELDS} for each in decisions]


@without_vllm
def test_many_episodes_are_computed_together(shared: VLLMAgent, folder: Path) -> None:
    cot, prompt = shared.decide([asked("cot"), asked("prompt")])
    assert (cot.action, cot.trace, prompt.action, cot.format_ok) == ("look", "I look around.", "look", True)
    steps, gate = folder / "steps", folder / "steps.gate"
    steps.write_text("")
    gate.touch()
    queries = [replace(asked("cot", turns=turns), episode=str(turns)) for turns in range(12)]
    for turns, query in enumerate(queries):
        shared.submit(turns, query)
    until(lambda: "12" in steps.read_text().split())
    steps.write_text("")
    gate.unlink()
    answers: dict[Any, Decision] = {}
    while len(answers) < len(queries):
        answers.update(shared.collect(20.0))
    assert [answers[turns].action for turns in range(12)] == ["look"] * 12
    counts = list(map(int, steps.read_text().split()))
    assert max(counts) == 12 and len(counts) < sum(counts) / 2, "not one after the other"
    assert [each.reused_tokens > 0 for each in shared.decide(queries[:2])] == [True, True], "what the engine has cached is told"


@without_vllm
def test_it_says_what_it_is(shared: VLLMAgent, folder: Path) -> None:
    told = shared.describe()
    assert (told["prefill"], told["prompts"], told["stops"], told["seed"], told["logprobs"]) == (
        *("completions", "ids", "told", True, True),
    )
    assert (told["vllm"], told["embedded"], told["context"], told["model"]) == ("0.0.stand-in", True, 4096, str(folder))
    assert told["arguments"][:2] == ["--enable-prefix-caching", "--generation-config=vllm"]
    assert "--trust-remote-code" not in told["arguments"] and "url" not in told
    assert told["weights_sha256"] is None and len(told["settings_sha256"]) == 64, "a folder without weights"
    assert shared.name == f"vllm:{folder}"
    shared.require(SHORT)
    shared.require(TEMPLATE)


@without_vllm
def test_tokens_and_scores(shared: VLLMAgent) -> None:
    (decision,) = shared.decide([asked("cot", return_tokens=True)])
    tokens = decision.tokens
    assert tokens is not None and len(tokens.prompt_ids) == decision.prompt_tokens
    assert {round(score, 3) for score, ours in zip(tokens.logprobs, tokens.harness, strict=True) if not ours} == {-0.5}
    (scored,) = shared.decide([asked("prompt", given_action="go to desk 1")])
    assert scored.error is None and scored.action_logprob is not None and scored.action_logprob < -10
    ranked = SHORT.model_copy(update={"prompt_action": "ranked"})
    (chosen,) = decide_all(shared, [asked("prompt", ranked, admissible_actions=("go to desk 1", "look"))])
    assert chosen.action == "look", "the shorter one: each token costs"


@without_vllm
def test_a_refused_request_is_the_error_of_its_query_alone(shared: VLLMAgent) -> None:
    client = _engine(shared)
    with pytest.raises(AgentError, match="refused a request: ValueError: unknown fields: best_of"):
        client.ask("completions", {"prompt": [1], "max_tokens": 1, "best_of": 2})
    with pytest.raises(AgentError, match=r"top_p must be in \(0, 1\]"):
        client.ask("completions", {"prompt": [1], "max_tokens": 1, "top_p": 0.0})
    with pytest.raises(AgentError, match="maximum context length is 4096") as caught:
        client.ask("completions", {"prompt": [1] * 5000, "max_tokens": 1})
    assert caught.value.overflow  # type: ignore[attr-defined]
    with pytest.raises(AgentError, match="no messages"):
        client.ask("chat/completions", {"messages": []})
    assert shared.decide([asked("prompt")])[0].action == "look"


@without_vllm
@needs_openai
@pytest.mark.usefixtures("stand_in")
def test_it_answers_as_the_server_does(
    folder: Path, shared: VLLMAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "vllm"
    server = str(ROOT / "tests" / "fake_server.py")
    command.write_text(SCRIPT.format(python=sys.executable, pids=str(tmp_path / "pids"), root=str(ROOT), server=server))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    queries = [
        asked(mode, elicitation, turns=turns, return_tokens=True)
        for turns in (0, 3)
        for elicitation in (SHORT, TEMPLATE)
        for mode in ("prompt", "cot")
    ]
    served = make_agent(f"vllm:{folder}?args=--tokenizer+{folder}")
    try:
        theirs = served.decide(queries)
        differing = {"arguments", "vllm", "embedded", "context", "warnings"}
        described = served.describe()  # type: ignore[attr-defined]
    finally:
        served.close()
    ours = shared.decide(queries)
    assert _facts(ours) == _facts(theirs)
    assert [each.tokens for each in ours] == [each.tokens for each in theirs] and ours[0].tokens is not None
    told = shared.describe()
    assert {name: told[name] for name in told.keys() - differing} == {
        name: described[name] for name in described.keys() - differing
    }


@without_vllm
@pytest.mark.usefixtures("stand_in")
def test_an_engine_that_dies_is_an_error_and_no_wrong_answer(folder: Path) -> None:
    agent = make_agent(f"vllm:{folder}?embedded=true&args=--fails-at+20")
    pid = _pid(agent)
    decisions = agent.decide([asked("cot", turns=turns) for turns in range(8)])
    died = "vLLM's engine died: RuntimeError: CUDA error: an illegal memory access was encountered"
    assert died in {each.error for each in decisions}
    assert all(each.error == died or each.action == "look" for each in decisions)
    assert [each.error for each in agent.decide([asked("prompt")])] == [died]
    agent.close()
    assert _gone(pid)
    agent.close()


@without_vllm
@pytest.mark.usefixtures("stand_in")
def test_an_engine_that_is_killed_is_an_error(folder: Path) -> None:
    agent = make_agent(f"vllm:{folder}?embedded=true&args=--killed-at+20")
    errors = [each.error for each in agent.decide([asked("cot", turns=turns) for turns in range(8)])]
    assert "vLLM's engine is gone: its process died (exit code -9)" in errors
    agent.close()


@without_vllm
@pytest.mark.usefixtures("stand_in")
def test_what_cannot_be_loaded_is_said_in_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        AgentError, match=r"it does not take its arguments; the last .* unrecognized arguments: --no-such"
    ) as error:
        make_agent(f"vllm:{folder}?embedded=true&args=--no-such")
    assert "\n" not in str(error.value)
    with pytest.raises(AgentError, match=r"vLLM cannot load the model: .*; the last line of its output: Loading safetensors"):
        make_agent(f"vllm:{tmp_path}?embedded=true")
    with pytest.raises(AgentError, match=r"did not load the model within 0\.5 s \(\?start=SECONDS\)"):
        make_agent(f"vllm:{folder}?embedded=true&start=0.5&args=--slow")


@pytest.mark.parametrize("options", ["port=8000", "way=chat", "tools=native"])
def test_what_only_the_server_has_is_refused(options: str) -> None:
    with pytest.raises(UsageError, match="embedded=true has no server: omit port, way and tools=native"):
        make_agent(f"vllm:some-model?embedded=true&{options}")
    with pytest.raises(UsageError, match="concurrency of 1 or more"):
        make_agent("vllm:some-model?embedded=true&concurrency=0")


@without_vllm
def test_without_vllm_the_command_is_named() -> None:
    with pytest.raises(AgentError, match="pip install vllm"):
        make_agent("vllm:some-model?embedded=true")


@without_vllm
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.usefixtures("stand_in")
def test_no_engine_outlives_its_python(folder: Path) -> None:
    code = (
        f"import sys, time; sys.path += [{str(STAND_IN)!r}, {str(ROOT)!r}]; from cotbench.agents import make_agent; "
        f"made = make_agent('vllm:{folder}?embedded=true'); print(made._server._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE) as waits:
        assert waits.stdout is not None
        pid = int(waits.stdout.readline())
        assert not _gone(pid)
        waits.send_signal(signal.SIGKILL)
    until(lambda: _gone(pid))


def test_requests_and_answers_have_the_servers_form() -> None:
    plain = {"model": "m", "prompt": [1, 2], "max_tokens": 3, "temperature": 0.0, "logprobs": 1, "return_token_ids": True}
    assert sampling_fields({**plain, "stop": ["</action>"], "top_k": -1}) == {
        **{"max_tokens": 3, "temperature": 0.0, "logprobs": 1, "stop": ["</action>"], "top_k": -1},
    }
    assert sampling_fields({**plain, "echo": True})["prompt_logprobs"] == 1
    row = {7: SimpleNamespace(logprob=-math.inf), 8: SimpleNamespace(logprob=-0.1)}
    answer = SimpleNamespace(text="a", token_ids=[7], logprobs=[row], finish_reason="length", stop_reason=None)
    output = SimpleNamespace(prompt_token_ids=[1, 8], prompt_logprobs=[None, row], outputs=[answer], num_cached_tokens=None)
    body = completion_body(output)
    assert body["choices"][0]["logprobs"] == {"token_logprobs": [None, -0.1, -9999.0]}
    assert body["choices"][0]["token_ids"] == [7]
    assert body["usage"] == {"prompt_tokens": 2, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 0}}


def test_an_output_that_cannot_be_read_is_an_error_of_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = SimpleNamespace(text="a", token_ids=[7], logprobs=None, finish_reason="length", stop_reason=None)
    messages: Any = SimpleQueue()
    for number in (1, 2):
        messages.put((number, {"prompt": [5]}))

    class Engine:
        requests: ClassVar[list[str]] = []

        def has_unfinished_requests(self) -> bool:
            return bool(self.requests)

        def add_request(self, number: str, *_: Any) -> None:
            self.requests.append(number)

        def step(self) -> list[Any]:
            messages.put(None)
            more = {"finished": True, "prompt_token_ids": [5], "prompt_logprobs": None, "num_cached_tokens": 0}
            outputs = [
                SimpleNamespace(request_id=number, outputs=[answer] if number == "2" else [], **more)
                for number in self.requests
            ]
            self.requests.clear()
            return outputs

    sent: list[Any] = []
    monkeypatch.setattr(
        vllm_engine, "import_module", lambda name: SimpleNamespace(RequestOutputKind=SimpleNamespace(FINAL_ONLY=0))
    )
    vllm = SimpleNamespace(SamplingParams=dict, TokensPrompt=dict)
    vllm_engine._answer(SimpleNamespace(send=sent.append), messages, vllm, Engine())  # type: ignore[arg-type]
    assert [(number, status) for number, status, _ in sent] == [(1, 500), (2, 200)]
    assert sent[0][2].startswith("vLLM's output cannot be read: ValueError: not enough values to unpack")


# vLLM itself.


@pytest.mark.servers
@with_vllm
@needs_openai
def test_vllms_engine_answers_as_its_server_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    queries = [
        replace(asked(mode, elicitation, turns=turns, return_tokens=True), episode=f"{turns}")
        for turns in (0, 2, 6)
        for elicitation in (SHORT, TEMPLATE)
        for mode in ("prompt", "cot")
    ]
    queries.append(asked("prompt", given_action="go to desk 1"))
    warm = SHORT.model_copy(update={"temperature": 0.8, "top_p": 0.9})
    sampled = [asked("cot", warm, seed=seed, return_tokens=True) for seed in range(4)]
    options = "max_model_len=4096&args=--enforce-eager --dtype=float32"
    answers: dict[str, list[Decision]] = {}
    alone: dict[str, list[Decision]] = {}
    told: dict[str, dict[str, Any]] = {}
    for name, more in (("engine", "embedded=true&"), ("server", "")):
        agent = make_agent(f"vllm:{folder}?{more}{options}")
        try:
            told[name] = agent.describe()  # type: ignore[attr-defined]
            answers[name] = agent.decide(queries)
            alone[name] = [decision for query in sampled for decision in agent.decide([query])]
            if name == "engine":
                longest = agent.decide([asked("prompt", turns=90)])[0]
                assert longest.error is None and longest.dropped_observations > 0
                pid = _pid(agent)
        finally:
            agent.close()
        assert name == "server" or _gone(pid)
    assert [each.error for each in answers["engine"]] == [None] * len(queries)
    for ours, theirs in zip((*answers["engine"], *alone["engine"]), (*answers["server"], *alone["server"]), strict=True):
        first, second = ours.tokens, theirs.tokens
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            assert (first.prompt_ids, first.completion_ids, first.harness) == (
                *(second.prompt_ids, second.completion_ids, second.harness),
            )
            assert first.logprobs == pytest.approx(second.logprobs, abs=1e-3)
        assert (ours.action, ours.trace, ours.raw) == (theirs.action, theirs.trace, theirs.raw)
        assert ours.action_logprob == pytest.approx(theirs.action_logprob, abs=1e-3)
    assert len({each.raw for each in alone["engine"]}) > 1, "the seeds count"
    for name in told["engine"].keys() - {"arguments", "embedded"}:
        assert told["engine"][name] == told["server"][name], name
