"""A stand-in for vLLM's engine: names, arguments and outputs of vLLM 0.32 that cotbench uses, and the words of `fake_server`.

It is found where `tests/vllm_stand_in` is on the path. A step writes one token for each request. `--steps-file=FILE` notes how
many requests each step computed, and nothing is computed while there is a file `FILE.gate`; `--fails-at=N` raises in the step
of that number, `--killed-at=N` ends the process there; `--slow` never loads.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypedDict

from tests.fake_server import LOGPROB, speak
from vllm.sampling_params import RequestOutputKind, SamplingParams

__version__ = "0.0.stand-in"
__all__ = ["EngineArgs", "LLMEngine", "SamplingParams", "TokensPrompt"]

CONTEXT = 4096


class TokensPrompt(TypedDict):
    """A prompt as token ids."""

    prompt_token_ids: list[int]


@dataclass
class EngineArgs:
    """The arguments of an engine."""

    model: str
    max_model_len: int = CONTEXT
    trust_remote_code: bool = False
    steps_file: str = ""
    fails_at: int = 0
    killed_at: int = 0
    slow: bool = False

    @staticmethod
    def add_cli_args(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        parser.add_argument("--model", required=True)
        parser.add_argument("--max-model-len", type=int, default=CONTEXT)
        parser.add_argument("--generation-config")
        parser.add_argument("--steps-file", default="")
        for name in ("--fails-at", "--killed-at"):
            parser.add_argument(name, type=int, default=0)
        for name in ("--enable-prefix-caching", "--disable-log-stats", "--trust-remote-code", "--slow"):
            parser.add_argument(name, action="store_true")
        return parser

    @classmethod
    def from_cli_args(cls, args: argparse.Namespace) -> EngineArgs:
        return cls(**{name: value for name, value in vars(args).items() if name in cls.__dataclass_fields__})


@dataclass
class _Request:
    name: str
    prompt: list[int]
    sampling: SamplingParams
    whole: list[int]
    cached: int
    ids: list[int] = field(default_factory=list)


class LLMEngine:
    """An engine that computes in this process."""

    def __init__(self, args: EngineArgs) -> None:
        from tokenizers import Tokenizer

        assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0", "the real one would start a process of its own"
        assert not {"OPENAI_API_KEY", "VLLM_API_KEY"} & os.environ.keys()
        print("Loading safetensors checkpoint shards", flush=True)
        while args.slow:
            time.sleep(0.05)
        self._args = args
        self._tokenizer = Tokenizer.from_file(str(Path(args.model) / "tokenizer.json"))
        self._end = self._tokenizer.token_to_id("<|im_end|>")
        self._running: dict[str, _Request] = {}
        self._seen: list[list[int]] = []
        self._steps = 0
        self.model_config = SimpleNamespace(max_model_len=args.max_model_len)
        self.model_executor = SimpleNamespace(shutdown=lambda: None)

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs) -> LLMEngine:
        return cls(engine_args)

    def has_unfinished_requests(self) -> bool:
        return bool(self._running)

    def add_request(self, request_id: str, prompt: TokensPrompt, params: SamplingParams) -> str:
        ids = list(prompt["prompt_token_ids"])
        if len(ids) >= self._args.max_model_len:
            raise ValueError(f"This model's maximum context length is {self._args.max_model_len} tokens, not {len(ids)}.")
        assert params.output_kind is RequestOutputKind.FINAL_ONLY
        whole = [*self._tokenizer.encode(speak(self._decode(ids)), add_special_tokens=False).ids, self._end]
        cached = max((_shared(ids, before) // 16 * 16 for before in self._seen), default=0)
        self._seen.append(ids)
        self._running[request_id] = _Request(request_id, ids, params, whole, cached)
        return request_id

    def abort_request(self, request_ids: list[str]) -> None:
        for name in request_ids:
            self._running.pop(name, None)

    def step(self) -> list[Any]:
        self._steps += 1
        if self._args.steps_file:
            with Path(self._args.steps_file).open("a") as file:
                file.write(f"{len(self._running)}\n")
            if Path(f"{self._args.steps_file}.gate").exists():
                time.sleep(0.01)
                return []
        if self._steps == self._args.fails_at:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if self._steps == self._args.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        outputs = [self._advance(request) for request in list(self._running.values())]
        return [output for output in outputs if output is not None]

    def _advance(self, request: _Request) -> Any:
        request.ids.append(request.whole[len(request.ids)])
        text, sampling = self._decode([id_ for id_ in request.ids if id_ != self._end]), request.sampling
        met = min((stop for stop in sampling.stop or () if stop in text), key=text.index, default=None)
        ended = met is not None or request.ids[-1] == self._end
        if not ended and len(request.ids) < (sampling.max_tokens or 16):
            return None
        del self._running[request.name]
        answer = SimpleNamespace(
            text=text if met is None else text[: text.index(met)],
            token_ids=request.ids,
            logprobs=None if sampling.logprobs is None else [_row(id_, LOGPROB) for id_ in request.ids],
            finish_reason="stop" if ended else "length",
            stop_reason=met,
        )
        scored = sampling.prompt_logprobs is not None
        return SimpleNamespace(
            request_id=request.name,
            finished=True,
            prompt_token_ids=request.prompt,
            prompt_logprobs=[None, *(_row(id_, -0.1 * place) for place, id_ in enumerate(request.prompt[1:], 1))]
            if scored
            else None,
            outputs=[answer],
            num_cached_tokens=request.cached,
        )

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))


def _shared(left: list[int], right: list[int]) -> int:
    """How many tokens two prompts begin with in common."""
    pairs = enumerate(zip(left, right, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(left), len(right)))


def _row(id_: int, logprob: float) -> dict[int, Any]:
    """The log-probabilities at one place: of the token there, and of a more probable one."""
    return {id_ + 1: SimpleNamespace(logprob=0.0), id_: SimpleNamespace(logprob=logprob)}
