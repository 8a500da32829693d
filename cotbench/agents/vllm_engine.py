"""The process in which vLLM's engine answers requests, without a server. Invariant: a request has the fields of a completion at
vLLM's server and is sampled with the same parameters; an answer has the form of that server's answers. A field that is not
known here is an error, never left out.

vLLM's scheduler and its worker stand in this process, so they end with it; with several GPUs vLLM starts a worker for each,
which ends when this process does.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from typing import Any

KEYS = ("VLLM_API_KEY", "OPENAI_API_KEY")
"""Variables with the user's keys, which no process of vLLM on this machine needs."""

_SAMPLING = (
    *("max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty"),
    *("seed", "stop", "logprobs", "skip_special_tokens"),
)
_OTHERS = ("model", "prompt", "echo", "return_token_ids")
_LEAST_LOGPROB = -9999.0
"""As vLLM's server writes minus infinity."""

_Message = tuple[int, Mapping[str, Any] | None] | None
"""A request with its number; without a body: it is not wanted any more; None: there are no further ones."""


def serve_engine(pipes: Sequence[Connection[Any, Any]], model: str, arguments: Sequence[str]) -> None:
    """Load a model into vLLM's engine, and answer the requests of a pipe until it is closed.

    Sends `("ready", facts)` or `("failed", reason)`, then for each request its number, a status as in HTTP, and the answer or
    the reason why there is none; at last `(None, 500, reason)` where the engine fails as a whole.

    Args:
        pipes: the pipe.
        model: folder, or name on the hub.
        arguments: as for `vllm serve`, of the engine.
    """
    (pipe,) = pipes
    os.dup2(2, 1)  # Standard output is that of the command which started this process.
    for key in KEYS:
        os.environ.pop(key, None)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # No further process, which could outlive this one.
    try:
        vllm: Any = import_module("vllm")
        engine = _load(vllm, model, arguments)
        facts = {"vllm": str(vllm.__version__), "max_model_len": int(engine.model_config.max_model_len)}
    except SystemExit:
        pipe.send(("failed", "it does not take its arguments"))
        return
    except Exception as error:
        pipe.send(("failed", _line(error)))
        return
    pipe.send(("ready", facts))
    messages: SimpleQueue[_Message] = SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, messages), daemon=True).start()
    try:
        with suppress(BrokenPipeError):  # Nobody is there any more.
            _answer(pipe, messages, vllm, engine)
    finally:
        with suppress(Exception):
            engine.model_executor.shutdown()  # Workers of further GPUs.
        os._exit(0)  # What else vLLM and torch do at the end takes them half a minute.


def sampling_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of vLLM's `SamplingParams` for a request.

    Args:
        body: the fields of a completion: `prompt` is a list of token ids.

    Raises:
        ValueError: it has a field that is not known here.
    """
    if unknown := sorted(body.keys() - {*_SAMPLING, *_OTHERS}):
        raise ValueError(f"unknown fields: {', '.join(unknown)}")
    fields = {name: body[name] for name in _SAMPLING if name in body}
    if body.get("echo"):
        fields["prompt_logprobs"] = body.get("logprobs")
    return fields


def completion_body(output: Any) -> dict[str, Any]:
    """Return an output of vLLM's engine as its server would answer it.

    Args:
        output: a `RequestOutput` that is finished.
    """
    (answer,) = output.outputs
    prompt, ids = output.prompt_token_ids or (), tuple(answer.token_ids)
    scores = [*_scores(prompt, output.prompt_logprobs), *_scores(ids, answer.logprobs)]
    choice = {
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "stop_reason": answer.stop_reason,
        "token_ids": list(ids),
        "logprobs": {"token_logprobs": scores},
    }
    usage = {
        "prompt_tokens": len(prompt),
        "completion_tokens": len(ids),
        "prompt_tokens_details": {"cached_tokens": output.num_cached_tokens or 0},
    }
    return {"choices": [choice], "usage": usage}


def _scores(ids: Sequence[int], listed: Any) -> list[float | None]:
    """Return the log-probability of each token out of those listed at its place; none where none are listed."""
    if listed is None:
        return []
    return [None if row is None else max(float(row[id_].logprob), _LEAST_LOGPROB) for id_, row in zip(ids, listed, strict=True)]


def _load(vllm: Any, model: str, arguments: Sequence[str]) -> Any:
    """Return the engine; SystemExit where vLLM's parser does not take the arguments."""
    parser = import_module("vllm.utils.argparse_utils").FlexibleArgumentParser()
    vllm.EngineArgs.add_cli_args(parser)
    wanted = vllm.EngineArgs.from_cli_args(parser.parse_args([f"--model={model}", *arguments]))
    return vllm.LLMEngine.from_engine_args(wanted)


def _receive(pipe: Connection[Any, Any], messages: SimpleQueue[_Message]) -> None:
    """Pass on what comes through the pipe, so that whoever sends never waits for a step of the engine."""
    with suppress(EOFError, OSError):
        while pipe.poll(None):
            messages.put(pipe.recv())
    messages.put(None)


def _answer(pipe: Connection[Any, Any], messages: SimpleQueue[_Message], vllm: Any, engine: Any) -> None:
    """Give the engine the requests as they come, so that it computes them together; send each answer when it is there."""
    final_only = import_module("vllm.sampling_params").RequestOutputKind.FINAL_ONLY
    while True:
        for message in _waiting(messages, block=not engine.has_unfinished_requests()):
            if message is None:
                return
            number, body = message
            if body is None:
                engine.abort_request([str(number)])
                continue
            try:
                sampling = vllm.SamplingParams(**sampling_fields(body), output_kind=final_only)
                engine.add_request(str(number), vllm.TokensPrompt(prompt_token_ids=body["prompt"]), sampling)
            except ValueError as error:  # The request's own: a prompt that is too long, a parameter out of its range.
                pipe.send((number, 400, _line(error)))
        if not engine.has_unfinished_requests():
            continue
        try:
            outputs = engine.step()
        except Exception as error:
            pipe.send((None, 500, _line(error)))
            return
        for output in outputs:
            if output.finished:
                pipe.send((int(output.request_id), *_reply(output)))


def _reply(output: Any) -> tuple[int, dict[str, Any] | str]:
    """Return status and content of the answer to a request; an output that cannot be read is this request's error alone."""
    try:
        return 200, completion_body(output)
    except Exception as error:
        return 500, f"vLLM's output cannot be read: {_line(error)}"


def _waiting(messages: SimpleQueue[_Message], *, block: bool) -> Iterator[_Message]:
    """Yield the messages that are there; `block`: wait for a first one."""
    if block:
        yield messages.get()
    with suppress(Empty):
        while True:
            yield messages.get_nowait()


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
