"""The faces of the leaderboard's rooms."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

ROOMS = {
    "boards": {"BoardView", "Standing", "board_view", "env_title", "parse_board", "ranks", "sorted_rows"},
    "store": {"Board", "Entry", "Result", "Store", "accept_submission", "default_path"},
    "submission": {
        "Bundle",
        "Details",
        "Receipt",
        "check",
        "pack",
        "pack_run",
        "read_finished",
        "repack",
        "run_folders",
        "submit",
        "unpack",
    },
    "verification": {"Difference", "Replayer", "Verdict", "verify_bundle", "versions"},
    "web": {"Settings", "create_app", "server_of", "write_site"},
}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_exports_its_public_names(room: str) -> None:
    face = importlib.import_module(f"cotbench.leaderboard.{room}")
    assert face.__doc__ and "Begin with" in face.__doc__
    assert set(face.__all__) == ROOMS[room] <= set(dir(face))
    if room in ("store", "web", "boards"):
        pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: pip install -e '.[leaderboard]'")
        pytest.importorskip("fastapi", reason="FastAPI is not installed: pip install -e '.[leaderboard]'")
    for name in face.__all__:
        assert getattr(face, name).__doc__, name


def test_importing_the_rooms_loads_nothing_heavy() -> None:
    code = (
        f"import sys; [__import__('cotbench.leaderboard.' + room) for room in {sorted(ROOMS)!r}]; "
        "heavy = {'numpy', 'pydantic', 'sqlalchemy', 'fastapi', 'gymnasium'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
