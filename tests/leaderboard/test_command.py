"""`cotbench leaderboard` as a user types it: from a run to a replayed entry, and what is said where something is wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed: pip install -e '.[leaderboard]'")
pytest.importorskip("fastapi", reason="FastAPI is not installed: pip install -e '.[leaderboard]'")

from cotbench.cli import run_cli
from cotbench.leaderboard.store.store import Store
from tests.conftest import needs_bfcl, needs_scienceworld
from tests.leaderboard.made import copied, edited, packed, played, setting

Said = tuple[int, str, str]


@pytest.fixture
def board(tmp_path: Path) -> Path:
    return tmp_path / "board.sqlite"


@pytest.fixture
def cli(board: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Run a command; its exit code, output and error."""
    monkeypatch.setenv("COTBENCH_LEADERBOARD", str(board))
    monkeypatch.delenv("COTBENCH_LEADERBOARD_TOKEN", raising=False)

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        code = run_cli(["leaderboard", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call


def _flat(said: Said) -> str:
    """The output without its line breaks."""
    return " ".join(said[1].split())


def _id(said: Said) -> str:
    assert said[0] == 0, said[2]
    return said[1].split()[0]


def test_from_a_run_to_a_replayed_entry(cli: Callable[..., Said]) -> None:
    id = _id(cli("submit", played(), "--name", "A walk", "--team", "Us", "--link", "https://example.org"))
    assert cli("submit", played(), "--name", "A walk", "--team", "Us", "--link", "https://example.org")[1].startswith(
        f"{id} pending, already there"
    )
    assert f"{id} has no rank: 4 of 120 tasks; step budget 6 instead of 50" in _flat(cli("list"))
    code, out, _ = cli("verify", "--all", "--jobs", 1)
    assert (code, out) == (0, f"{id} replayed\n")
    listed = cli("list", "--state", "replayed", "--mode", "cot")[1]
    assert id in listed
    assert "A walk (Us)" in listed
    assert "alfworld-gen, paper/id, CoT mode" in listed
    assert "prompt mode" not in listed
    shown = cli("show", id)[1]
    assert "https://example.org" in shown
    assert "replayed" in shown
    assert json.loads(cli("show", id, "--json")[1])["state"] == "replayed"
    (found,) = json.loads(cli("list", "--mode", "cot", "--json")[1])
    assert [row["entries"] for row in found["rows"]] == [[id]]
    assert found["rows"][0]["rank"] is None
    assert cli("remove", id)[1] == f"removed {id} (A walk)\n"
    assert "no entries in" in cli("list")[1]


def test_submit_and_verify_in_one_step(cli: Callable[..., Said], tmp_path: Path) -> None:
    code, out, error = cli("submit", played(), "--verify")
    first, second, *_ = out.splitlines()
    assert code == 0 and first.endswith(" replayed") and second.startswith(f"{first.split()[0]} replayed: "), error
    assert "verify them with" not in out
    (row,) = json.loads(cli("submit", played(), "--verify", "--json")[1])
    assert (row["state"], row["new"]) == ("replayed", False)
    path = tmp_path / "forged.zip"
    path.write_bytes(edited(packed(seed=3), episodes=setting(1, "trajectory", 0, "score", to=1.0)))
    code, out, _ = cli("submit", path, "--verify")
    assert code == 1 and "rejected: alfworld/gen/" in out.splitlines()[0]
    code, _, error = cli("submit", path, "--verify", "--server", "http://127.0.0.1:9")
    assert code == 2 and "nothing was sent" in error


@pytest.mark.parametrize(
    "env",
    [
        "alfworld-gen",
        pytest.param("bfcl", marks=needs_bfcl),
        pytest.param("scienceworld", marks=[needs_scienceworld, pytest.mark.slow]),
    ],
)
def test_random_and_expert_are_replayed_everywhere(cli: Callable[..., Said], env: str) -> None:
    # ScienceWorld's plans take the simulator seconds: there the expert is replayed in verification/test_replay.py.
    agents, episodes, mode = (("random",), 1, "cot") if env == "scienceworld" else (("random", "expert"), 2, "both")
    runs = [played(agent=agent, env=env, episodes=episodes, max_steps=5, mode=mode) for agent in agents]
    code, out, error = cli("submit", *runs)
    assert code == 0, error
    ids = [line.split()[0] for line in out.splitlines() if " pending: " in line]
    assert len(ids) == len(agents)
    code, out, error = cli("verify", "--all", "--jobs", 1)
    assert (code, sorted(out.split())) == (0, sorted([*ids, *["replayed"] * len(agents)])), error


FORGERIES: dict[str, tuple[Callable[[list[dict[str, Any]]], object], str]] = {
    "a score at a step": (setting(1, "trajectory", 0, "score", to=1.0), "step 0: score is '1.0', the replay says '0.0'"),
    "an action": (lambda rows: _other_action(rows[1]), "step 0: observation is"),
    "an observation": (setting(1, "trajectory", 2, "observation", to="You win."), "step 2: observation is 'You win.'"),
}


def _other_action(row: dict[str, Any]) -> None:
    step = row["trajectory"][0]
    step["action"] = step["decision"]["action"] = "inventory" if step["action"] != "inventory" else "look"


@pytest.mark.parametrize("name", FORGERIES)
def test_what_a_replay_does_not_give_is_rejected_with_the_place(cli: Callable[..., Said], tmp_path: Path, name: str) -> None:
    forge, place = FORGERIES[name]
    path = tmp_path / "forged.zip"
    path.write_bytes(edited(packed(), episodes=forge))
    id = _id(cli("submit", path))
    code, out, _ = cli("verify", id, "--jobs", 1)
    assert code == 1
    assert out.startswith(f"{id} rejected: alfworld/gen/")
    assert f"#cot, {place}" in out
    assert "rejected" in cli("list")[1]
    assert place in _flat(cli("show", id))
    # A file is told the same, without a leaderboard.
    assert f"#cot, {place}" in cli("verify", path, "--jobs", 1)[1]


REFUSED: dict[str, tuple[Callable[[list[dict[str, Any]]], object], str]] = {
    "a removed failure": (lambda rows: rows.pop(3), "1 of 8 episodes are missing, the first is alfworld/gen/"),
    "a swapped task": (setting(2, "task", to="alfworld/gen/pick/8000"), "episodes.jsonl, line 3"),
    "a score at the end": (setting(1, "score", to=1.0), "episodes.jsonl, line 2 (alfworld/gen/"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_contradicts_itself_is_refused_and_not_kept(cli: Callable[..., Said], tmp_path: Path, name: str) -> None:
    forge, place = REFUSED[name]
    path = tmp_path / "forged.zip"
    path.write_bytes(edited(packed(), episodes=forge))
    code, _, error = cli("submit", path)
    assert code == 2
    assert place in error
    assert "no entries in" in cli("list")[1]


def test_a_task_swapped_everywhere_is_found_by_the_replay(cli: Callable[..., Said], tmp_path: Path) -> None:
    """Two tasks named one by one; the episodes of one are told to be those of the other."""
    games = ("alfworld/gen/clean/0", "alfworld/gen/clean/1")
    other = {games[0]: games[1], games[1]: games[0]}

    def swap(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["task"] = other[row["task"]]
        rows.sort(key=lambda row: games.index(row["task"]))

    path = tmp_path / "forged.zip"
    path.write_bytes(edited(packed(tasks=games, episodes=None, agent="expert"), episodes=swap))
    id = _id(cli("submit", path))
    code, out, _ = cli("verify", id, "--jobs", 1)
    assert code == 1
    assert out.startswith(f"{id} rejected: {games[0]}#prompt: first_observation is")


def test_a_summary_that_was_edited_is_refused(cli: Callable[..., Said], tmp_path: Path) -> None:
    folder = copied(played(), tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    summary["modes"]["cot"]["success"]["mean"] = 1.0
    (folder / "summary.json").write_text(json.dumps(summary))
    code, _, error = cli("submit", folder)
    assert code == 2
    assert "modes.cot.success.mean" in error


def test_the_words_for_what_is_wrong(cli: Callable[..., Said], tmp_path: Path) -> None:
    for arguments, code, said in (
        (("submit", tmp_path / "none"), 2, "there is no run folder"),
        (("submit", tmp_path), 2, "it has no manifest.json"),
        (("submit", played(), "--name", "<script>"), 2, "the entry's name '<script>' holds the character '<'"),
        (("submit", played(), "--link", "javascript:alert(1)"), 2, "is not a web address"),
        (("submit", played(), "--server", "ftp://x"), 2, "not the address"),
        (("submit", played(), "--server", "http://127.0.0.1:9"), 1, "is the server running?"),
        (("verify",), 2, "name entries"),
        (("verify", "--all", "0123456789ab"), 2, "name entries"),
        (("verify", "0123456789ab"), 2, "unknown entry '0123456789ab'"),
        (("list", "--state", "replaied"), 2, "did you mean 'replayed'"),
        (("serve", "--host", "0.0.0.0"), 2, "cotbench leaderboard token new NAME"),
        (("export", played()), 2, "is not empty"),
        (("token", "revoke", "Ada"), 2, "unknown token 'Ada'"),
    ):
        found = cli(*arguments)
        assert found[0] == code, (arguments, found)
        assert said in found[2], (arguments, found)
        assert found[2].count("\n") == 1


def test_a_token_does_not_travel_unencrypted(cli: Callable[..., Said], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COTBENCH_LEADERBOARD_TOKEN", "cotbench-secret")
    code, _, error = cli("submit", played(), "--server", "http://board.example.org")
    assert code == 2
    assert "unencrypted: use https://" in error
    assert "secret" not in error


def test_tokens_are_made_listed_and_taken_back(cli: Callable[..., Said]) -> None:
    token = cli("token", "new", "Ada")[1].strip()
    assert token.startswith("cotbench-")
    listed = cli("token", "list")[1]
    assert listed.startswith("Ada ")
    assert token not in listed
    assert cli("token", "new", "Ada")[0] == 2
    assert cli("token", "revoke", "Ada")[0] == 0
    assert "no tokens" in cli("token", "list")[1]


@contextmanager
def _served(board: Path, *more: str, env: dict[str, str] | None = None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`cotbench leaderboard serve` on a free port: its address, its process."""
    command = [sys.executable, "-P", "-m", "cotbench", "leaderboard", "serve", "--port", "0", "--db", str(board), *more]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, **(env or {})}
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        yield next(word for word in line.split() if word.startswith("http")), server
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _health(address: str) -> Any:
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"{address}/healthz", timeout=5) as answer:
                return json.loads(answer.read())
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{address} does not answer")


def test_submitting_to_a_server_and_ctrl_c(cli: Callable[..., Said], board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = cli("token", "new", "Ada")[1].strip()
    with _served(board) as (address, server):
        _health(address)
        code, _, error = cli("submit", played(), "--server", address)
        assert code == 2
        assert "(401)" in error
        monkeypatch.setenv("COTBENCH_LEADERBOARD_TOKEN", token)
        code, out, error = cli("submit", played(), "--server", address)
        assert code == 0, error
        id = out.split()[0]
        assert f"{address}/entries/{id}" in out
        assert "already there" in cli("submit", played(), "--server", address)[1]
        with urllib.request.urlopen(f"{address}/entries/{id}", timeout=20) as answer:
            assert "random" in answer.read().decode()
        os.kill(server.pid, signal.SIGINT)
        assert server.wait(timeout=20) in (0, 130)
    with Store.open(board) as store:
        assert [entry.id for entry in store.entries()] == [id]


def test_a_port_that_is_taken_is_told(cli: Callable[..., Said], board: Path) -> None:
    with _served(board) as (address, _):
        code, _, error = cli("serve", "--port", address.rpartition(":")[2])
        assert code == 2
        assert "cannot listen on 127.0.0.1:" in error
