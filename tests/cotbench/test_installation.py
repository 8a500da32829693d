"""The commands that messages name: they work for the way in which cotbench was installed."""

from __future__ import annotations

import json
import shlex
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cotbench.errors import MissingExtraError
from cotbench.installation import install_command, install_version

_WHEEL = "https://elsewhere.example/cotbench-0.1.0-py3-none-any.whl"
_REQUIRES = [
    "numpy>=2.0",
    'torch>=2.6; extra == "hf"',
    "transformers<6,>=5.0; extra == 'hf'",
    'cotbench[hf]; extra == "train"',
    'pyarrow>=17; extra == "train"',
]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(origin: dict[str, Any] | None, installer: str = "pip\n") -> None:
        files = {"direct_url.json": None if origin is None else json.dumps(origin), "INSTALLER": installer}
        monkeypatch.setattr(metadata, "distribution", lambda name: SimpleNamespace(read_text=files.get, requires=_REQUIRES))

    return install


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'cotbench[hf]'"),
        ({"url": _WHEEL, "archive_info": {}}, f"pip install 'cotbench[hf] @ {_WHEEL}'"),
        (
            {"url": "https://elsewhere.example/cotbench", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "pip install 'cotbench[hf] @ git+https://elsewhere.example/cotbench@abc'",
        ),
        ({"url": "file:///gone/away", "dir_info": {"editable": True}}, "pip install 'torch>=2.6' 'transformers<6,>=5.0'"),
    ],
    ids=["an index", "an address", "a repository", "a folder that is gone"],
)
def test_the_command_for_each_origin(installed: Any, origin: dict[str, Any] | None, command: str) -> None:
    installed(origin)
    assert install_command("hf") == command
    assert str(MissingExtraError("an agent", "hf")) == f"an agent needs the extra 'hf': {command}"


def test_an_extra_takes_in_others(installed: Any) -> None:
    installed({"url": "file:///gone/away", "dir_info": {}})
    assert shlex.split(install_command("train"))[2:] == ["torch>=2.6", "transformers<6,>=5.0", "pyarrow>=17"]
    assert install_command() == "pip install 'numpy>=2.0'"


def test_a_checkout_is_installed_again(installed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "my folder"
    checkout.mkdir()
    installed({"url": checkout.as_uri(), "dir_info": {"editable": True}})
    assert shlex.split(install_command("hf")) == ["pip", "install", "-e", f"{checkout}[hf]"]
    assert install_version("0.0.9") == "check out version 0.0.9 of cotbench and install it"
    monkeypatch.chdir(checkout)
    assert install_command("hf") == "pip install -e '.[hf]'"
    installed({"url": checkout.as_uri(), "dir_info": {}}, "uv")
    assert install_command("hf") == "uv pip install '.[hf]'"


def test_a_release_is_taken_from_the_index(installed: Any) -> None:
    installed(None)
    assert install_version("0.0.9") == "pip install cotbench==0.0.9"
