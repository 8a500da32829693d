"""The openai: agent: what is asked, what is read, many at once, killed and resumed; against a fake server and a real one."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cotbench.agents.base import StreamingAgent
from cotbench.agents.openai import connection
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN, THINK_CLOSE, THINK_OPEN
from cotbench.runs.manifest import RunConfig
from cotbench.runs.runner import run
from tests.conftest import needs_hf, needs_openai
from tests.fake_server import LOGPROB, FakeServer, Manners, running, speak
from tests.served import CHAT, KEY, SHORT, TEMPLATE, asked, served, until

pytest_plugins = ("tests.serve",)
pytestmark = [needs_openai, pytest.mark.usefixtures("served_alone")]


# What is asked and what is read.


def test_both_modes_continue_the_same_messages(server: FakeServer) -> None:
    agent = served(server)
    agent.require(SHORT)
    server.forget()
    cot, prompt = agent.decide([asked("cot", turns=1), asked("prompt", turns=1)])
    assert (cot.action, cot.trace, cot.format_ok, cot.error) == ("look", "I look around.", True, None)
    assert cot.raw == f"{THINK_OPEN}I look around.{THINK_CLOSE}\n{ACTION_OPEN}look{ACTION_CLOSE}"
    assert (prompt.action, prompt.trace, prompt.format_ok) == ("look", None, True)
    assert prompt.raw == f"{ACTION_OPEN}look{ACTION_CLOSE}"
    bodies = server.bodies(CHAT)
    assert len(bodies) == 3, "a CoT decision is two requests"
    assert all(body["continue_final_message"] and not body["add_generation_prompt"] for body in bodies)
    assert len({json.dumps(body["messages"][:-1]) for body in bodies}) == 1
    opened = sorted(body["messages"][-1]["content"] for body in bodies)
    assert opened == sorted([THINK_OPEN, f"{THINK_OPEN}I look around.{THINK_CLOSE}\n{ACTION_OPEN}", ACTION_OPEN])
    assert [message["role"] for message in bodies[0]["messages"]] == ["system", "user", "assistant", "user", "assistant"]


def test_other_tags_are_opened_and_read(server: FakeServer) -> None:
    own = SHORT.model_copy(update={"think_tag": "reasoning", "action_tag": "do"})
    agent = served(server)
    agent.require(own)
    server.manners.model = lambda prompt: "I look.</reasoning>" if prompt.endswith("<reasoning>") else "look</do>"
    cot, prompt = agent.decide([asked("cot", own), asked("prompt", own)])
    assert (cot.raw, cot.trace, cot.format_ok) == ("<reasoning>I look.</reasoning>\n<do>look</do>", "I look.", True)
    assert (prompt.raw, prompt.action, prompt.format_ok) == ("<do>look</do>", "look", True)


def test_a_lone_surrogate_of_a_server_becomes_text() -> None:
    odd = Manners(logprobs=False, token_ids=False, model=lambda prompt: speak(prompt).replace("I look", "I\ud800look"))
    with running(odd) as server:
        (decision,) = served(server).decide([asked("cot")])
    assert (decision.trace, decision.action, decision.error) == ("I?look around.", "look", None)


def test_tokens_and_log_probabilities(server: FakeServer) -> None:
    agent = served(server, "concurrency=1")
    cot, prompt = agent.decide([asked("cot"), asked("prompt")])
    assert (cot.trace_tokens, cot.action_tokens) == (7, 2), "I, look, around, blanks, a dot, the closing tag; look, the tag"
    assert cot.action_logprob == prompt.action_logprob == 2 * LOGPROB
    first, second, third = (len(server.codec.encode(_rendered(body))) for body in server.bodies(CHAT))
    assert (cot.prompt_tokens, cot.reused_tokens) == (first, 0)
    assert cot.prefilled_tokens == first + (second - first), "the second request repeats the first, which is cached"
    assert prompt.prompt_tokens == third
    assert prompt.reused_tokens == third - 1 and prompt.prefilled_tokens == 1, "all but the other tag"


def _rendered(body: dict[str, Any]) -> str:
    shown = "".join(f"<|im_start|>{each['role']}\n{each['content']}<|im_end|>\n" for each in body["messages"])
    return shown.removesuffix("<|im_end|>\n")


@pytest.mark.parametrize("stops", ["told", "matched", "kept", "silent", "ignored"])
@pytest.mark.parametrize("logprobs", [True, False])
def test_stop_strings_are_met_the_same_way_at_every_server(stops: str, logprobs: bool) -> None:
    with running(Manners(stops=stops, logprobs=logprobs, token_ids=False)) as server:
        agent = served(server)
        believed = {"told": "told", "matched": "told", "kept": "kept", "silent": "cut", "ignored": "ignored"}[stops]
        assert (agent.describe()["stops"], agent.describe()["logprobs"]) == (believed, logprobs)
        cot, prompt = agent.decide([asked("cot"), asked("prompt")])
        assert (cot.trace, cot.action, cot.format_ok, cot.trace_truncated) == ("I look around.", "look", True, False)
        assert (prompt.action, prompt.format_ok) == ("look", True)
        assert all(("stop" in body) == (believed != "ignored") for body in server.bodies(CHAT))
        assert prompt.action_tokens == (2 if logprobs or stops != "ignored" else 3), (
            "what ends the turn counts where nothing is cut"
        )
        assert prompt.generated_tokens == (2 if stops != "ignored" else 3)
        assert prompt.action_logprob == (2 * LOGPROB if logprobs and stops != "silent" else None), (
            "the stop string's are missing"
        )
        server.manners.model = lambda prompt: "I look around." if prompt.endswith(THINK_OPEN) else "look"
        cot = agent.decide([asked("cot")])[0]
        assert (cot.trace, cot.action, cot.format_ok) == ("I look around.", "look", False), "a turn that ends is no closed tag"
        assert cot.trace_truncated
        server.manners.model = lambda prompt: f"hm {ACTION_OPEN}go" if prompt.endswith(THINK_OPEN) else f"go{ACTION_CLOSE}"
        cot = agent.decide([asked("cot")])[0]
        assert (cot.trace, cot.action, cot.trace_truncated) == ("hm", "go", True), "it went on to the action"


def test_an_action_ends_with_its_line(server: FakeServer) -> None:
    agent = served(server)
    server.manners.model = lambda prompt: "\n take mug\nYou take the mug. And so on"
    said = agent.decide([asked("prompt")])[0]
    assert (said.action, said.raw) == ("take mug", f"{ACTION_OPEN}\n take mug")
    assert (said.action_tokens, said.action_logprob) == (6, 6 * LOGPROB), "up to the second line break"
    assert "\n" not in server.bodies()[0]["stop"], "a server would stop at the first one"
    several = SHORT.model_copy(update={"one_line": False})
    assert agent.decide([asked("prompt", several)])[0].raw.endswith("And so on")


def test_a_budget_that_runs_out(server: FakeServer) -> None:
    agent = served(server)
    server.manners.model = lambda prompt: "a b c d e f g" if prompt.endswith(THINK_OPEN) else "take the mug from the desk"
    tight = SHORT.model_copy(update={"trace_tokens": 3, "action_tokens": 5})
    said = agent.decide([asked("cot", tight)])[0]
    assert said.raw == f"{THINK_OPEN}a b{THINK_CLOSE}\n{ACTION_OPEN}take the mug"
    assert (said.trace_tokens, said.action_tokens, said.trace_truncated, said.format_ok) == (3, 5, True, False)


def test_sampling(server: FakeServer) -> None:
    agent = served(server)
    agent.decide([asked("prompt", seed=2**62)])
    warm = SHORT.model_copy(update={"temperature": 0.7, "top_p": 0.9})
    agent.decide([asked("prompt", warm, seed=2**62), asked("prompt", warm, seed=2**62), asked("prompt", warm, seed=1)])
    greedy, *sampled = server.bodies()
    assert greedy["temperature"] == 0 and "seed" not in greedy and "top_p" not in greedy
    assert all((body["temperature"], body["top_p"]) == (0.7, 0.9) and 0 <= body["seed"] < 2**31 for body in sampled)
    assert len({body["seed"] for body in sampled}) == 2
    assert all(body["repetition_penalty"] == 1.0 and body["top_k"] == -1 for body in sampled), "vLLM's own defaults may differ"


def test_a_given_trace_is_answered_from(server: FakeServer) -> None:
    agent = served(server)
    said = agent.decide([asked("cot", given_trace="I open the fridge")])[0]
    assert (said.trace, said.trace_tokens, said.action) == ("I open the fridge", 0, "look")
    assert server.bodies()[0]["messages"][-1]["content"] == f"{THINK_OPEN}I open the fridge{THINK_CLOSE}\n{ACTION_OPEN}"
    said = agent.decide([asked("cot", TEMPLATE, given_trace="I open the fridge")])[0]
    assert server.bodies()[1]["messages"][-1]["content"] == f"{THINK_OPEN}I open the fridge{THINK_CLOSE}\n"
    assert said.trace == "I open the fridge"


def test_the_template_style_needs_no_prefill() -> None:
    with running(Manners(continues="refuses", owner="them")) as server:
        agent = served(server)
        agent.require(TEMPLATE)
        cot, prompt = agent.decide([asked("cot", TEMPLATE), asked("prompt", TEMPLATE)])
        assert (cot.trace, cot.action, cot.format_ok) == ("I look around.", "look", True)
        assert (prompt.trace, prompt.action, prompt.format_ok) == (None, "look", True)
        assert prompt.action_logprob == 2 * LOGPROB, "what follows the opening tag"
        assert all(body["messages"][-1]["role"] == "user" and "continue_final_message" not in body for body in server.bodies())


def test_what_a_reasoning_parser_took_out_is_the_trace() -> None:
    with running(Manners(reasoning=True)) as server:
        agent = served(server)
        cot, prompt = agent.decide([asked("cot", TEMPLATE), asked("prompt", TEMPLATE)])
        assert (cot.trace, cot.action, cot.format_ok) == ("I look around.", "look", True)
        assert (prompt.trace, prompt.action) == (None, "look")
        server.manners.model = lambda prompt: "<think>" + "on and " * 30
        cot = agent.decide([asked("cot", TEMPLATE.model_copy(update={"trace_tokens": 4, "action_tokens": 1}))])[0]
        assert cot.trace is not None and cot.trace.startswith("on and") and cot.trace_truncated, cot


# Many at once.


def test_requests_run_side_by_side_up_to_the_limit(server: FakeServer) -> None:
    agent = served(server, "concurrency=3")
    assert isinstance(agent, StreamingAgent) and agent.batch == 3
    server.gate.clear()
    server.manners.model = lambda prompt: f"go to desk {prompt.count('mug')}{ACTION_CLOSE}"
    for turns in range(7):
        agent.submit(turns, asked("prompt", turns=turns))
    began = time.monotonic()
    assert agent.collect(0.0) == [] and agent.collect(0.05) == []
    assert time.monotonic() - began < 2
    until(lambda: len(server.requests) == 3)
    server.gate.set()
    answers: dict[Any, str] = {}
    while len(answers) < 7:
        answers |= {key: decision.action for key, decision in agent.collect(1.0)}
    assert answers == {turns: f"go to desk {turns}" for turns in range(7)}
    assert server.most == 3
    assert agent.collect(5.0) == [], "nothing submitted, nothing waited for"


def test_closing_waits_for_nobody(server: FakeServer) -> None:
    agent = served(server, "concurrency=2")
    server.gate.clear()
    for key in range(5):
        agent.submit(key, asked("prompt"))
    until(lambda: len(server.requests) == 2)
    began, threads = time.monotonic(), agent._threads
    agent.close()
    assert time.monotonic() - began < 1
    server.gate.set()
    until(lambda: not any(thread.is_alive() for thread in threads))
    assert len(server.requests) == 2, "what was not begun is dropped"


def test_closing_ends_the_waiting_for_another_attempt(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = served(server)
    monkeypatch.setattr(connection, "BACKOFF", 100.0)
    server.always = "500"
    agent.submit(1, asked("prompt"))
    until(lambda: len(server.requests) == 1)
    threads = agent._threads
    agent.close()
    until(lambda: not any(thread.is_alive() for thread in threads))
    assert len(server.requests) == 1


# A real server.


@needs_hf
@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("fastapi") is None or find_spec("uvicorn") is None,
    reason="transformers' server is not installed: pip install 'transformers[serving]'",
)
def test_a_real_server_answers_what_the_hf_agent_answers(tmp_path: Path, serve: Callable[[Path], str]) -> None:
    from cotbench.agents.hf.bundled import smollm2_folder

    model = smollm2_folder()
    short = Elicitation(trace_tokens=6, action_tokens=6)
    config = RunConfig(agent=f"openai:{model}@{serve(model)}", mode="both", episodes=1, max_steps=2, elicitation=short)
    remote = run(config, out=tmp_path / "served", workers=3)
    local = run(config.model_copy(update={"agent": "hf:smollm2?device=cpu&threads=1"}), out=tmp_path / "local", workers=3)
    told = json.loads((tmp_path / "served" / "manifest.json").read_text())["agent"]
    assert (told["prefill"], told["prompts"]) == ("completions", "text")
    assert told["reason"] == "chat: the server refuses continue_final_message (422)"
    theirs, ours = (
        {
            (episode.key, place): (step.action, step.decision.raw, step.prompt_decision.raw if step.prompt_decision else None)
            for episode in outcome.records
            for place, step in enumerate(episode.trajectory)
        }
        for outcome in (remote, local)
    )
    assert len(ours) == 2 * 2 and not any(episode.error for episode in remote.records)
    assert theirs == ours


# Killed and resumed.


_COTBENCH = "from cotbench.cli import main; main()"


@pytest.mark.slow
@pytest.mark.ci
def test_a_killed_run_repeats_no_finished_episode(tmp_path: Path, server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    out, held = tmp_path / "run", 30
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    command = [sys.executable, "-P", "-c", _COTBENCH, "run", "--workers", "2"]
    new = ["--agent", f"openai:fake@{server.url}?concurrency=4", "--episodes", "12", "--mode", "cot", "--max-steps", "2"]

    def answer(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if len(server.requests) > held:
            server.gate.clear()  # Whoever comes now waits until the run is killed.
        return FakeServer.answer(server, path, body)

    monkeypatch.setattr(server, "answer", answer)
    begun = subprocess.Popen([*command, *new, "--out", str(out)], start_new_session=True)
    try:
        until(lambda: not server.gate.is_set() or begun.poll() is not None)
        until(lambda: len(_finished(out)) >= 3 or begun.poll() is not None)
    finally:
        os.killpg(begun.pid, signal.SIGKILL)
        assert begun.wait() == -signal.SIGKILL, "it was still running"
    done = _finished(out)
    assert 3 <= len(done) < 12
    held = 10**9
    server.gate.set()
    server.forget()
    again = subprocess.run([*command, "--resume", str(out)], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    after = _finished(out)
    assert len(after) == 12 and all(episode in after for episode in done)
    played = [body["messages"][1]["content"] for body in server.bodies(CHAT) if len(body["messages"]) > 2]
    first = {episode["task"]: episode["first_observation"] for episode in after}
    assert len(set(first.values())) == 12
    assert {episode["task"] for episode in done}.isdisjoint(task for task, text in first.items() if text in played)
    assert len(set(played) & set(first.values())) == 12 - len(done)
    assert KEY not in (out / "manifest.json").read_text() + again.stdout + again.stderr


def _finished(out: Path) -> list[dict[str, Any]]:
    path = out / "episodes.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines(True) if line.endswith("\n")] if path.is_file() else []
