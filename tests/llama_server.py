"""llama.cpp's own server, started through the package xllamacpp: `python llama_server.py MODEL.gguf PORT CONTEXT`.

It runs in the environment where that package is installed, so it imports nothing of this project.
"""

from __future__ import annotations

import sys
import threading

import xllamacpp


def main(model: str, port: str, context: str) -> None:
    """Serve a model on this machine until the process is ended."""
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx = model, int(context)
    params.hostnames, params.port = ["127.0.0.1"], int(port)
    params.n_gpu_layers = 0
    # More threads wait for each other on a busy machine, and are slower there.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
