"""What a model or a server writes to break what handles it: it costs that episode at most, and takes bounded memory."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cotbench.agents.decisions import check_decision
from cotbench.bounds import ERROR_CHARS, TEXT_CHARS, bounded
from cotbench.cli import run_cli
from cotbench.envs.registry import env_entry
from cotbench.errors import AgentError
from cotbench.failure import failure_of
from cotbench.leaderboard.submission.bundle import pack_run
from cotbench.prompting.parsing import parse_answer
from cotbench.prompting.query import Decision, Query
from cotbench.runs import env_workers, rollout
from cotbench.runs.env_workers import EnvReply, EnvSettings, LocalEnv
from cotbench.runs.episode import read_episodes
from cotbench.runs.manifest import RunConfig
from cotbench.runs.results import Run
from cotbench.runs.runner import run
from tests.conftest import needs_bfcl, needs_scienceworld
from tests.cotbench.report.pages import needs_report
from tests.faults.hostile_texts import CONTROL, INVISIBLE, hostile_texts, some_hostile_texts

GAMES = ("alfworld/gen/pick/0",)
COUNTS = [60, pytest.param(10_000, marks=pytest.mark.slow)]
UNSEEN = frozenset([*CONTROL, *INVISIBLE]) - {"\n", "\t"}


def _texts(count: int) -> list[str]:
    texts = some_hostile_texts(count) if count < 1000 else hostile_texts()
    assert len(texts) >= min(count, 250) * 0.9
    return texts


class Hostile:
    """Answers with one text after the other, as its action, its trace and its whole answer."""

    name = "hostile-test"
    needs = frozenset[str]()

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts, self._next = texts, 0
        self.used = 0

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        return [self._answer(query) for query in queries]

    def _answer(self, query: Query) -> Decision:
        text = self._texts[self._next % len(self._texts)]
        self._next += query.mode == "prompt"
        self.used = max(self.used, self._next)
        answer = parse_answer(text) if self._next % 2 else None
        action = answer.action if answer else text
        return Decision(action, text if query.mode == "cot" else None, text, format_ok=answer is not None and answer.format_ok)

    def close(self) -> None: ...


def _peak() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _measured(what: str, work: Callable[[], Any], count: int) -> Any:
    before, begun = _peak(), time.monotonic()
    found = work()
    print(f"{what}: {count} texts, {time.monotonic() - begun:.1f} s, peak memory {_peak():.0f} MB ({_peak() - before:+.0f})")
    return found


# What an environment makes of them


@pytest.mark.parametrize("env", ["alfworld-gen", "scienceworld", pytest.param("bfcl", marks=needs_bfcl)])
def test_every_text_has_a_spelling_and_equals_itself(env: str) -> None:
    texts, entry = hostile_texts(), env_entry(env)
    canonical, equivalent, judged = entry.canonical(), entry.equivalent(), entry.leniently_judged()

    def check() -> None:
        for text in texts:
            spelling = canonical(text)
            assert canonical(text) == spelling and spelling.encode("utf-8") is not None
            assert equivalent(text, text), text
            assert judged("bfcl/irrelevance_1", text) in (
                None,
                "words",
                "calls that cannot be read",
                "the empty list",
                "an empty text",
            )

    _measured(f"{env} spells", check, len(texts))


def _step_through(env_name: str, texts: Sequence[str], task: str, **settings: Any) -> None:
    env = LocalEnv(EnvSettings(env_name, settings))
    try:
        env.ask_reset(task)
        reply = env.read()
        for text in texts:
            if reply.terminated or reply.truncated:
                env.ask_reset(task)
                env.read()
            env.ask_step(text)
            reply = env.read()
            assert len(reply.observation) <= TEXT_CHARS and reply.observation.encode("utf-8") is not None
    finally:
        env.close()


def test_alfworld_takes_every_text() -> None:
    texts = hostile_texts()
    _measured("alfworld-gen acts", lambda: _step_through("alfworld-gen", texts, GAMES[0]), len(texts))


@needs_scienceworld
@pytest.mark.slow
def test_scienceworld_takes_every_text() -> None:
    texts = hostile_texts()
    _measured("scienceworld acts", lambda: _step_through("scienceworld", texts, "scienceworld/boil/22"), len(texts))


# Runs


def _played(texts: Sequence[str], out: Path, **changes: Any) -> tuple[Run, Hostile]:
    agent = Hostile(texts)
    steps = 10
    episodes = -(-len(texts) // (2 * steps)) + 1
    config = RunConfig(**{"agent": "hostile-test", "episodes": episodes, "max_steps": steps, "mode": "both", **changes})
    return run(config, out=out, workers=0, num_envs=1, agent=agent), agent


@needs_report
@pytest.mark.parametrize("count", COUNTS)
def test_a_run_of_hostile_texts_is_played_submitted_verified_and_shown(
    count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = _texts(count)
    outcome, agent = _measured("rollouts", lambda: _played(texts, tmp_path / "run"), len(texts))
    assert agent.used >= len(texts)
    assert [episode.error for episode in outcome.records] == [None] * len(outcome.records)
    assert read_episodes(tmp_path / "run") == outcome.records
    db, site = str(tmp_path / "db.sqlite"), tmp_path / "site"

    def show() -> None:
        assert run_cli(["compare", str(tmp_path / "run"), str(tmp_path / "run")]) == 0
        assert run_cli(["report", str(tmp_path / "run"), "--out", str(tmp_path / "report")]) == 0
        assert run_cli(["leaderboard", "submit", str(tmp_path / "run"), "--name", "Hostile", "--db", db]) == 0
        assert run_cli(["leaderboard", "verify", "--all", "--db", db]) == 0
        assert run_cli(["leaderboard", "export", str(site), "--db", db]) == 0

    _measured("compare, report, submit, verify, export", show, len(texts))
    assert " replayed" in capsys.readouterr().out
    pages = [*tmp_path.glob("report/**/*.html"), *site.glob("**/*.html")]
    assert len(pages) > 3
    for page in pages:
        content = page.read_text("utf-8")
        assert not UNSEEN.intersection(content), page


def test_an_action_that_the_environment_cannot_read_counts_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_class = env_entry("alfworld-gen").loaded_class()
    before = env_class.canonical

    def fragile(action: str) -> str:
        if "0x" in action:
            raise ValueError("Exceeds the limit (4300 digits) for integer string conversion")
        return before(action)

    def broken(first: str, second: str) -> bool:
        raise RecursionError

    monkeypatch.setattr(env_class, "canonical", staticmethod(fragile))
    monkeypatch.setattr(env_class, "equivalent", broken)
    action = f"[ls(a=0x{'f' * 3600})]"
    outcome, _ = _played([action, "look"], tmp_path / "run")
    steps = [step for episode in outcome.records for step in episode.trajectory]
    assert {step.action for step in steps} == {action, "look"}
    assert all(episode.error is None for episode in outcome.records)
    assert run_cli(["leaderboard", "submit", str(tmp_path / "run"), "--db", str(tmp_path / "db.sqlite")]) == 0
    assert run_cli(["leaderboard", "verify", "--all", "--jobs", "1", "--db", str(tmp_path / "db.sqlite")]) == 0


# Bounds

INFO = {"score": 0.0, "raw_score": 0.0, "success": False, "invalid_action": None, "steps": 0, "goal": "win", "restarts": 0}


class Verbose:
    """An environment of others without a sense of proportion."""

    def reset(self, options: Any) -> Any:
        return "a" * 66_000_000, {**INFO, "goal": "b" * 2_000_000}

    def step(self, action: str) -> Any:
        return "c" * 2_000_000, 0.0, False, False, {**INFO, "invalid_action": "d" * 2_000_000}

    def close(self) -> None: ...


def _verbose_replies() -> list[EnvReply]:
    env = LocalEnv(cast(EnvSettings, SimpleNamespace(name="verbose", make=Verbose)))
    env.ask_reset("x")
    replies = [env.read()]
    for _ in range(9):
        env.ask_step("y")
        replies.append(env.read())
    return replies


def test_what_an_environment_returns_is_bounded_alone_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env_workers, "OBSERVATIONS_CHARS", 4_000_000)  # So that a few steps are enough.
    replies = _verbose_replies()
    first = replies[0]
    assert len(first.observation) == TEXT_CHARS and first.observation.endswith("aaa [cut: 66,000,000 characters]")
    assert len(first.info["goal"]) == TEXT_CHARS
    texts = [text for reply in replies for text in (reply.observation, reply.info["invalid_action"] or "")]
    assert sum(map(len, texts)) <= 4_000_000 + 10 * 2_000
    assert all(len(text) >= 1_000 for text in texts[2:]), "of each something is left"
    assert _verbose_replies() == replies, "the replay is cut in the same way"


def test_what_an_agent_answers_is_bounded_alone_and_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "ANSWERS_CHARS", 5_000_000)  # So that a few steps are enough.
    huge = "look " * 300_000

    class Endless(Hostile):
        def _answer(self, query: Query) -> Decision:
            return Decision(huge, huge, huge)

    checked = check_decision(Endless([]), Decision(huge, huge, huge, error=huge, traceback=huge))
    assert max(len(checked.action), len(checked.trace or ""), len(checked.raw)) == TEXT_CHARS
    assert len(checked.error or "") == len(checked.traceback or "") == ERROR_CHARS
    config = RunConfig(agent="endless", tasks=GAMES[:1], max_steps=6, mode="both")
    outcome = run(config, out=tmp_path / "run", workers=0, agent=Endless([]))
    line = max(map(len, (tmp_path / "run" / "episodes.jsonl").read_bytes().splitlines()))
    assert 5_000_000 < line < 10_000_000, "the action stands there once more, in its canonical spelling"
    assert [episode.error for episode in outcome.records] == [None, None]
    pack_run(tmp_path / "run")


def test_errors_are_bounded() -> None:
    for error in (AgentError("x" * 10**7), ValueError("x" * 10**7)):
        fields = failure_of(error).fields
        assert len(fields["error"]) <= ERROR_CHARS and len(fields.get("traceback", "")) <= ERROR_CHARS


def test_a_cut_text_says_how_long_it_was() -> None:
    assert bounded("abc", 3) == "abc"
    cut = bounded("x" * 1_234_567, 50)
    assert len(cut) == 50 and cut.endswith("x [cut: 1,234,567 characters]")
