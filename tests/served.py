"""Served models: what the tests of the openai: and vllm: agents share."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from cotbench.agents import make_agent
from cotbench.agents.openai.agent import OpenAIAgent
from cotbench.envs import Instructions
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation, Mode
from cotbench.prompting.query import Query
from tests.fake_server import FakeServer

KEY = "sk-very-secret-0123456789"
SHORT = Elicitation(trace_tokens=40, action_tokens=20)
TEMPLATE = SHORT.model_copy(update={"style": "template"})
CHAT, COMPLETIONS = "chat/completions", "v1/completions"


def served(server: FakeServer, options: str = "", model: str = "fake") -> OpenAIAgent:
    """The agent of a fake server, which then begins to count."""
    made = make_agent(f"openai:{model}@{server.url}?" + "&".join(filter(None, ("timeout=20", options))))
    assert isinstance(made, OpenAIAgent)
    server.forget()
    return made


def asked(mode: Mode, elicitation: Elicitation = SHORT, turns: int = 0, **more: Any) -> Query:
    """A query after some turns."""
    dialogue = Dialogue(Instructions("You act."), ("You are in a room. Your task is to: look.",))
    for turn in range(turns):
        dialogue = dialogue.extended(f"go to desk {turn}", None, f"On the desk {turn} you see a mug {turn}.")
    return Query("e", "", "t", turns, mode, dialogue, elicitation, **more)


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for what other threads and processes do."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def unused_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
