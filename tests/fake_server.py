"""A small server that speaks OpenAI's protocol, the way vLLM, SGLang, transformers and others do, and misbehaves on request.

Alone it takes vLLM's command line: `python fake_server.py serve MODEL --host 127.0.0.1 --port 8000`.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any, Protocol

_PIECES = re.compile(r"</?\w+>|<\|\w+\|>|\w+|\s|[^\w\s]")
_KNOWN = {"model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed", "tools"}
_KNOWN |= {"logprobs", "echo"}
LOGPROB = -0.5


class Codec(Protocol):
    """Text to token ids and back."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...


class Pieces:
    """Tags, words, and single characters are tokens; ids are given out as they are met."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._lock = threading.Lock()

    def encode(self, text: str) -> list[int]:
        with self._lock:
            return [self._ids.setdefault(piece, len(self._ids)) for piece in _PIECES.findall(text)]

    def decode(self, ids: list[int]) -> str:
        with self._lock:
            texts = list(self._ids)
        return "".join(texts[id_] for id_ in ids)


def speak(prompt: str) -> str:
    """What the model behind the server writes, up to the end of its turn."""
    if prompt.endswith("<action>"):
        return "look</action>"
    if prompt.endswith("<think>"):
        return "I look around.</think>\n<action>look</action>"
    if "First reason" in prompt and not prompt.endswith("</think>\n"):
        return "<think>I look around.</think>\n<action>look</action>"
    return "<action>look</action>"


@dataclass
class Manners:
    """How a server behaves; what is left alone is like vLLM."""

    owner: str = "vllm"
    context: int | None = None
    context_told: str = "max_model_len"  # there, "meta" (llama.cpp), or below "props", "info", "api/ps", "api/v0/models"
    truncates: bool = False  # a prompt that is too long loses its beginning (Ollama); else it is refused
    any_name: bool = False  # the only model answers, whatever name is asked for (llama.cpp)
    chat: bool = True
    continues: str = "yes"  # "yes", "refuses" (an unknown field is 422), "ignores" (unknown fields do nothing)
    repeats: bool = False  # the answer begins with the turn that it continues (llama.cpp)
    rewrites: bool = False  # the chat template puts an empty block of thinking before the last answer
    completions: str = "ids"  # "ids", "text" (ids are 400), "begins" (text, and a token is put before it), "no" (404)
    stops: str = "told"  # "told", "matched" (SGLang), "kept" (transformers), "silent" (llama.cpp), "ignored", "refused" (400)
    logprobs: bool = True
    token_ids: bool = True
    usage: bool = True
    reasoning: bool = False  # a parser takes thinking out of what was said
    budget: str = "max_tokens"  # the name that it takes
    system: bool = True  # whether the template takes that role
    tools: str = "yes"  # "yes", "refuses" (vLLM without a parser), "fails" (500), "ignores" (a template without tools)
    temperatures: tuple[float, ...] | None = None  # the only ones that it takes
    key: str | None = None
    calls: tuple[dict[str, Any], ...] = ()
    model: Callable[[str], str] = speak
    sampled: str | None = None  # what is written at a temperature above 0; left out, it is 1


@dataclass
class FakeServer:
    """A running server.

    Attributes:
        manners: how it behaves; may be changed at any time.
        troubles: what goes wrong with the next requests to write something, one each; None is a request that goes well.
        always: what goes wrong with every one after them.
        requests: path and body of everything that was asked.
        most: the most requests that were worked on at once.
        gate: requests wait while it is not set.
    """

    manners: Manners = field(default_factory=Manners)
    codec: Codec = field(default_factory=Pieces)
    name: str = "fake"
    troubles: deque[str | None] = field(default_factory=deque)
    always: str | None = None
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    most: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    port: int = 0
    _active: int = 0
    _seen: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bodies(self, path: str = "") -> list[dict[str, Any]]:
        """The requests to one endpoint."""
        return [body for asked, body in self.requests if asked.endswith(path)]

    def forget(self) -> None:
        """Begin to count anew."""
        self.requests.clear()
        self._seen.clear()
        self.most = 0

    def start(self, port: int = 0) -> ThreadingHTTPServer:
        """Listen; the caller serves."""
        http = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"fake": self}))
        http.daemon_threads = True
        self.port = http.server_address[1]
        return http

    # What is asked for, and what is answered.

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        chat = path.endswith("chat/completions")
        manners = self.manners
        refused = self._refused(path, body, chat)
        if refused is not None:
            return refused
        prompt = self._prompt(body, chat)
        ids = self.codec.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if manners.context is not None and len(ids) >= manners.context:
            if not manners.truncates:
                told_length = f"This model's maximum context length is {manners.context} tokens, your request has {len(ids)}."
                return 400, _error(told_length)
            ids = ids[-(manners.context // 2) :]
        budget = min(body[manners.budget], (manners.context or sys.maxsize) - len(ids))
        text, finish, told, count = self._write(self.codec.decode(ids), body, budget)
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
        pieces = self._pieces(text, count, told)
        if manners.stops == "silent" and told is not None:
            ends = range(len(pieces))  # The pieces of the stop string are left out.
            pieces = [pieces[end] for end in ends if text.startswith("".join(pieces[: end + 1]))]
        if manners.stops in ("told", "matched"):
            choice["stop_reason" if manners.stops == "told" else "matched_stop"] = told
        if body.get("echo") and manners.logprobs:
            tokens = [*map(str, ids), *pieces]
            scores = [None, *(-0.1 * place for place in range(1, len(ids))), *[LOGPROB] * len(pieces)]
            choice["logprobs"] = {"tokens": tokens, "token_logprobs": scores}
        elif body.get("logprobs") and manners.logprobs:
            choice["logprobs"] = _scores(pieces, chat)
        if manners.token_ids and body.get("return_token_ids"):
            choice["token_ids"] = [self.codec.encode(piece)[0] for piece in pieces]
        if chat:
            last = body["messages"][-1]
            repeated = last["content"] if manners.repeats and last["role"] == "assistant" else ""
            choice["message"] = self._message(repeated + text)
            if choice["message"].get("tool_calls"):
                choice["finish_reason"] = "tool_calls"
        else:
            choice["text"] = text
        answer = {"id": "x", "model": self.name, "choices": [choice]}
        if manners.usage:
            details = {"cached_tokens": self._cached(ids)}
            usage = {"prompt_tokens": len(ids), "completion_tokens": count, "prompt_tokens_details": details}
            answer["usage"] = usage
        return 200, answer

    def _refused(self, path: str, body: dict[str, Any], chat: bool) -> tuple[int, dict[str, Any]] | None:
        manners = self.manners
        if (chat and not manners.chat) or (not chat and manners.completions == "no"):
            return 404, _error(f"no {path} here")
        if body.get("model") != self.name and not manners.any_name:
            return 404, _error(f"The model `{body.get('model')}` does not exist.")
        if manners.budget not in body:
            return 400, _error(f"Unsupported parameter: use '{manners.budget}' instead.")
        if manners.stops == "refused" and "stop" in body:
            return 400, _error("Unsupported parameter: 'stop' is not supported with this model.")
        unknown = set(body) - _KNOWN
        if manners.continues == "refuses" and unknown:
            return 422, {"detail": f"Unexpected fields in the request: {unknown}"}
        if not chat and manners.completions != "ids" and not isinstance(body["prompt"], str):
            return 400, {"detail": "prompt must be a string."}
        if body.get("tools") and manners.tools in ("refuses", "fails"):
            status = 400 if manners.tools == "refuses" else 500
            return status, _error('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
        if manners.temperatures is not None and body.get("temperature", 1) not in manners.temperatures:
            return 400, _error(f"Unsupported value: 'temperature' does not support {body['temperature']} with this model.")
        if chat and not manners.system and any(message["role"] == "system" for message in body["messages"]):
            return 400, _error("System role not supported")
        return None

    def _prompt(self, body: dict[str, Any], chat: bool) -> str | list[int]:
        if not chat:
            begun = isinstance(body["prompt"], str) and self.manners.completions == "begins"
            return ("<|endoftext|>" if begun else "") + body["prompt"] if isinstance(body["prompt"], str) else body["prompt"]
        listed = "".join(f"{json.dumps(tool)}\n" for tool in body.get("tools", ()) if self.manners.tools != "ignores")
        shown = [listed] * bool(listed) + [
            f"<|im_start|>{each['role']}\n{each['content']}<|im_end|>\n" for each in body["messages"]
        ]
        if body["messages"][-1]["role"] == "assistant" and self.manners.rewrites:
            shown[-1] = shown[-1].replace("assistant\n", "assistant\n<think>\n\n</think>\n\n", 1)
        if body.get("continue_final_message") and self.manners.continues == "yes":
            return "".join(shown).removesuffix("<|im_end|>\n")
        return "".join(shown) + "<|im_start|>assistant\n"

    def _write(self, prompt: str, body: dict[str, Any], budget: int) -> tuple[str, str, str | None, int]:
        """The text that is sent, why it ends, the stop string that was met, and how many tokens were generated."""
        sampled = self.manners.sampled if body.get("temperature", 1) > 0 else None
        whole = self.manners.model(prompt) if sampled is None else sampled
        ids = self.codec.encode(whole)
        stops = [] if self.manners.stops == "ignored" else body.get("stop") or []
        text = ""
        for count in range(1, len(ids) + 1):
            if count > budget:
                return text, "length", None, count - 1
            text = self.codec.decode(ids[:count])
            met = min((stop for stop in stops if stop in text), key=text.index, default=None)
            if met is not None:
                return (text if self.manners.stops == "kept" else text[: text.index(met)]), "stop", met, count
        if len(ids) >= budget:
            return text, "length", None, len(ids)
        return whole, "stop", None, len(ids) + 1

    def _pieces(self, text: str, count: int, told: str | None) -> list[str]:
        """The generated tokens, with the stop string's and the end of the turn."""
        ids = self.codec.encode(text + (told if told is not None and self.manners.stops != "kept" else ""))
        pieces = [self.codec.decode(ids[: place + 1])[len(self.codec.decode(ids[:place])) :] for place in range(len(ids))]
        return [*pieces, "<|im_end|>"] if count > len(pieces) else pieces[:count]

    def _message(self, text: str) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if self.manners.calls:
            message["tool_calls"] = [{"id": "1", "type": "function", "function": call} for call in self.manners.calls]
        if self.manners.reasoning and text.startswith("<think>"):
            thought, _, rest = text.removeprefix("<think>").partition("</think>")
            message |= {"reasoning_content": thought, "content": rest or None}
        return message

    def _cached(self, ids: list[int]) -> int:
        with self.lock:
            most = 0
            for before in self._seen:
                same = next(
                    (place for place, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b), min(len(before), len(ids))
                )
                most = max(most, same)
            self._seen.append(ids)
        return most

    @contextmanager
    def working(self) -> Iterator[None]:
        with self.lock:
            self._active += 1
            self.most = max(self.most, self._active)
        try:
            yield
        finally:
            with self.lock:
                self._active -= 1


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": None}}


def _scores(pieces: list[str], chat: bool) -> dict[str, Any]:
    if chat:
        return {"content": [{"token": "?", "bytes": list(piece.encode()), "logprob": LOGPROB} for piece in pieces]}
    return {"tokens": pieces, "token_logprobs": [LOGPROB] * len(pieces)}


class _Handler(BaseHTTPRequestHandler):
    fake: FakeServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, b"{}")
        elif self.path == "/version":
            self._send(200, b'{"version": "0.0.fake"}')
        elif self.path == "/v1/models" and self._allowed():
            model: dict[str, Any] = {
                "id": self.fake.name,
                "object": "model",
                "owned_by": self.fake.manners.owner,
                "created": time.time(),
            }
            if self.fake.manners.context is not None:
                model |= self._told_context("models")
            self._send(200, json.dumps({"object": "list", "data": [model]}).encode())
        elif self.path != "/v1/models" and self._allowed():
            told = self._told_context(self.path.removeprefix("/"))
            self._send(200 if told else 404, json.dumps(told).encode())

    def _told_context(self, place: str) -> dict[str, Any]:
        """What real servers say of their context at a place."""
        name, length, where = self.fake.name, self.fake.manners.context, self.fake.manners.context_told
        forms: dict[str, tuple[str, dict[str, Any]]] = {
            "max_model_len": ("models", {"max_model_len": length}),
            "meta": ("models", {"meta": {"n_vocab": 49152, "n_ctx": length, "n_ctx_train": 131072}}),
            "props": (
                "props",
                {"default_generation_settings": {"params": {"n_predict": -1}, "n_ctx": length}, "total_slots": 4},
            ),
            "info": ("info", {"model_id": name, "max_input_tokens": 32767, "max_total_tokens": length}),
            "api/ps": (
                "api/ps",
                {"models": [{"name": "another", "context_length": 7}, {"name": name, "context_length": length, "size": 1}]},
            ),
            "api/v0/models": (
                "api/v0/models",
                {"data": [{"id": "b"}, {"id": name, "max_context_length": 131072, "loaded_context_length": length}]},
            ),
        }
        told_at, form = forms.get(where, ("", {}))
        return form if told_at == place and length is not None else {}

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.fake.working():
            self.fake.requests.append((self.path, body))
            self.fake.gate.wait(60)
            if not self._allowed():
                return
            trouble = self.fake.troubles.popleft() if self.fake.troubles else self.fake.always
            if trouble is not None and self._goes_wrong(trouble):
                return
            status, answer = self.fake.answer(self.path, body)
            self._send(status, json.dumps(answer).encode())

    def _allowed(self) -> bool:
        key = self.fake.manners.key
        if key is None or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        self._send(401, json.dumps(_error(f"Incorrect API key provided: {self.headers.get('Authorization')}")).encode())
        return False

    def _goes_wrong(self, trouble: str) -> bool:
        kind, _, detail = trouble.partition(" ")
        if kind.isdigit():  # A status, perhaps with a Retry-After.
            self._send(int(kind), json.dumps(_error(f"no, {self.headers.get('Authorization')}")).encode(), detail)
        elif kind == "moved":  # To another address.
            self.send_response(307)
            self.send_header("Location", detail)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif kind == "hang":
            self.fake.closing.wait(30)
            self.close_connection = True
        elif kind == "malformed":
            self._send(200, f'{{"choices": [{{"text": {self.headers.get("Authorization")}'.encode())
        elif kind == "empty":
            self._send(200, b'{"choices": []}')
        elif kind == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices": [')
            self.close_connection = True
        elif kind == "drop":
            self.close_connection = True
        return True

    def _send(self, status: int, body: bytes, retry_after: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@contextmanager
def running(manners: Manners | None = None, **more: Any) -> Iterator[FakeServer]:
    """A server on a free port of this machine, in a thread."""
    fake = FakeServer(manners or Manners(), **more)
    http = fake.start()
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.closing.set()
        fake.gate.set()
        http.shutdown()
        http.server_close()
        thread.join()


def like(manners: Manners, **changes: Any) -> Manners:
    """Other manners."""
    return replace(manners, **changes)


def main(arguments: list[str]) -> None:
    """Take vLLM's command line."""
    command, model, *flags = arguments
    values = dict(pairwise(flags))
    print("starting", command, *flags, flush=True)
    if "--die" in flags:
        print("CUDA error: no kernel image is available", flush=True)
        sys.exit(3)
    codec: Codec = Pieces()
    if "--tokenizer" in values:
        from transformers import AutoTokenizer

        from cotbench.agents.tokenization.chat_template import Chat

        codec = Chat(AutoTokenizer.from_pretrained(values["--tokenizer"]))  # type: ignore[assignment]
    fake = FakeServer(codec=codec, name=model)
    fake.start(int(values["--port"])).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
