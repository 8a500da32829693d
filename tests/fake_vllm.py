"""vLLM's command line and the endpoints that a training uses, over a real small model of transformers: answers are sampled
from the weights that the server was told to load.

`python fake_vllm.py serve MODEL --host 127.0.0.1 --port 8000 --served-model-name=policy`; `--stale`: it loads nothing new;
`--refuse`: it refuses to. What it was told is appended to the file that FAKE_VLLM_LOG names.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fake_server import FakeServer


@dataclass
class ModelServer(FakeServer):
    """A server with a model.

    Attributes:
        base: folder of the model.
        adapters: whether adapters are loaded on it.
        stale, refuse: whether new weights are passed over, or refused.
    """

    base: str = ""
    adapters: bool = False
    stale: bool = False
    refuse: bool = False
    tokenizer: Any = None
    loaded: dict[str, Any] = field(default_factory=dict)
    one: threading.Lock = field(default_factory=threading.Lock)

    def load(self, name: str, folder: str, adapter: str | None = None) -> None:
        """Load weights under a name."""
        from cotbench.agents.hf import loading

        self.loaded[name] = loading.load(folder, device="cpu", dtype="float32", attn=None, adapter=adapter)
        self.tokenizer = self.tokenizer or self.loaded[name].tokenizer  # Weights that are reloaded come without one.

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answer a request."""
        with self.one:
            if path.endswith("completions"):
                return self._complete(body)
            with Path(os.environ["FAKE_VLLM_LOG"]).open("a") as file:
                file.write(json.dumps([path, body]) + "\n")
            return self._control(path, body)

    def _control(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.refuse and path != "/v1/unload_lora_adapter":
            return 400, {"error": {"message": "these weights do not fit"}}
        if path == "/collective_rpc" and body["method"] == "reload_weights" and not self.adapters:
            if not self.stale:
                self.load(self.name, body["kwargs"]["weights_path"])
            return 200, {"results": [None]}
        if path == "/v1/load_lora_adapter" and self.adapters:
            if body["lora_name"] in self.loaded and not self.stale:
                return 400, {"error": {"message": "has already been loaded"}}
            if not self.stale or body["lora_name"] not in self.loaded:
                self.load(body["lora_name"], self.base, body["lora_path"])
            return 200, {}
        if path == "/v1/unload_lora_adapter" and self.adapters:
            known = body["lora_name"] in self.loaded
            if known and not self.stale:
                del self.loaded[body["lora_name"]]
            return (200, {}) if known else (404, {"error": {"message": "cannot be found"}})
        return (200, {}) if path == "/reset_prefix_cache" else (404, {"detail": "Not Found"})

    def _complete(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        import torch

        if body["model"] not in self.loaded or "messages" in body:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        loaded = self.loaded[body["model"]]
        prompt = body["prompt"] if isinstance(body["prompt"], list) else self.tokenizer.encode(body["prompt"])
        draw = torch.Generator().manual_seed(body.get("seed", 0))
        stops, ids, scores, text, told = body.get("stop") or [], list(prompt), [], "", None
        finish = "length"
        with torch.inference_mode():
            while len(scores) < body["max_tokens"]:
                chances = loaded.model(torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
                greedy = not body.get("temperature", 1)
                next_id = int(chances.argmax() if greedy else torch.multinomial(chances.exp(), 1, generator=draw))
                ids.append(next_id)
                scores.append(float(chances[next_id]))
                if next_id == self.tokenizer.eos_token_id:
                    finish = "stop"
                    break
                new = ids[len(prompt) :]
                text = self.tokenizer.decode(new, skip_special_tokens=False, clean_up_tokenization_spaces=False)
                told = next((stop for stop in stops if stop in text), None)
                if told is not None:
                    text, finish = text[: text.index(told)], "stop"
                    break
        new = ids[len(prompt) :]
        choice = {"index": 0, "text": text, "finish_reason": finish, "stop_reason": told}
        choice["logprobs"] = {"tokens": [f"token_id:{one}" for one in new], "token_logprobs": scores}
        choice["token_ids"] = new
        usage = {"prompt_tokens": len(prompt), "completion_tokens": len(new)}
        return 200, {"id": "x", "model": self.name, "choices": [choice], "usage": usage}


def main(arguments: list[str]) -> None:
    """Take vLLM's command line."""
    _, model, *flags = arguments
    values = dict(flag.split("=", 1) for flag in flags if "=" in flag)
    server = ModelServer(
        name=values["--served-model-name"],
        base=model,
        adapters="--enable-lora" in flags,
        stale="--stale" in flags,
        refuse="--refuse" in flags,
    )
    server.load(server.name, model)
    with Path(os.environ["FAKE_VLLM_LOG"]).open("a") as file:
        variables = ["CUDA_VISIBLE_DEVICES", "VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "RANK"]
        variables.append("TORCHELASTIC_USE_AGENT_STORE")
        file.write(json.dumps(["serve", {"flags": flags, **{name: os.environ.get(name) for name in variables}}]) + "\n")
    server.start(int(flags[flags.index("--port") + 1])).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
