"""A model of other frameworks that plays as the expert does: it finds the task by its first observation, and its place in the
walkthrough by the answers that it has given. Served over HTTP, or called with a chat.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cotbench.prompting.elicitation import Message
from cotbench.runs.env_workers import EnvSettings, LocalEnv
from cotbench.runs.plan import RunPlan


class ExpertModel:
    """Answers chats about the tasks of a plan with the expert's actions."""

    def __init__(self, plan: RunPlan) -> None:
        self.chats: list[Sequence[Message]] = []
        self._actions = dict(_walkthrough(plan, task) for task in plan.tasks)

    def answer(self, chat: Sequence[Message]) -> str:
        """The next action of the walkthrough, with reasoning where the system text tells to reason."""
        self.chats.append(chat)
        first = next(message.content for message in chat if message.role == "user")
        turn = sum(message.role == "assistant" for message in chat)
        action = f"<action>{self._actions[first][turn]}</action>"
        return f"<think>It is next.</think>\n{action}" if "First reason" in chat[0].content else action


def _walkthrough(plan: RunPlan, task: str) -> tuple[str, tuple[str, ...]]:
    env = LocalEnv(EnvSettings(plan.config.env, {"request": ["expert_action"]}))
    env.ask_reset(task)
    reply = env.read()
    first, actions = reply.observation, []
    while not reply.terminated:
        actions.append(reply.info["expert_action"])
        env.ask_step(actions[-1])
        reply = env.read()
    env.close()
    return first, tuple(actions)


@contextmanager
def served(model: ExpertModel, **choice: Any) -> Iterator[str]:
    """The address of an OpenAI-compatible server of a model; `choice` overwrites fields of its answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body: Mapping[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = model.answer([Message(one["role"], one["content"]) for one in body["messages"]])
            message = {"role": "assistant", "content": text}
            reply = {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
            }
            content = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
