"""`cotbench judge`: runs that are judged, and folders that survive a kill."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import cotbench
from cotbench.agents.base import Agent
from cotbench.cli import run_cli
from cotbench.judge import judgements_of, read_judges
from cotbench.judge.folder import folder_of, judge_run, make_judge_plan
from cotbench.judge.judgement import Preference, preference
from cotbench.judge.preference import PreferenceOptions, PreferenceRow
from cotbench.judge.question import LETTERS, Question
from cotbench.probes.folder import ROWS, read_probe
from cotbench.prompting.query import Query, derive_seed
from cotbench.runs.folder import lock_folder
from cotbench.runs.manifest import RunConfig
from cotbench.runs.runner import run
from cotbench.stats import estimates
from tests.conftest import needs_hf
from tests.judges import ASKED, GAMES, Judge, Player, shown
from tests.lines import read_objects, signed, write_objects

PLAYED = 6


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    ASKED.clear()
    for name in ("rule", "down", "interrupt_after", "described"):
        monkeypatch.setattr(Judge, name, Judge.__dict__[name])


def _cot_action(query: Query, a: str, b: str) -> str:
    return "B" if a == "look" else "A"  # The player's prompt actions, where they differ, are `look`.


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged") / "run"
    run(RunConfig(agent="judge-test-player", tasks=GAMES, max_steps=PLAYED), out=folder, agent=Player())
    return folder


@pytest.fixture
def here(played: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own copy of the run, as `run` in the working folder."""
    shutil.copytree(played, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return Path("run")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line: (exit code, output, last line of the errors)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run_cli(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, (captured.err.strip().splitlines() or [""])[-1]

    return call


def _plain(text: str) -> str:
    return " ".join(text.split())


BY_TEST = ("judge", "run", "--agent", "judge-test")
LINES = Path("run/judges/judge-test") / ROWS


def _judged(folder: Path = LINES.parent) -> list[PreferenceRow]:
    """The rows of the states that were judged, or could not be."""
    return [row for row in read_probe(folder).rows if row.left_out is None]


def _preference(folder: Path = LINES.parent) -> Preference:
    return preference([row.judgement for row in _judged(folder)])


SLOW = """
import time
import cotbench

@cotbench.register_agent("slow-judge")
class Slow:
    name, batch = "slow", 1
    def decide(self, queries):
        with open("asked.txt", "a") as file:
            file.write("".join(f"{q.task} {q.step} {q.dialogue.observations[0][-20:]!r}\\n" for q in queries))
        time.sleep(0.2)
        return [cotbench.Decision("AB"[q.step // 2 % 2]) for q in queries]
    def close(self): ...
"""


def test_a_judge_that_takes_the_first_is_all_bias(cli: Any, here: Path) -> None:
    code, out, error = cli(*BY_TEST)
    assert code == 0, error
    found = _preference()
    assert found.states == found.split == 3 * PLAYED / 2
    assert (found.win_rate.mean, found.win_rate.low, found.win_rate.high) == (0.5, 0.5, 0.5)
    assert (found.position_bias.mean, found.net.mean, found.expert_agreement.mean) == (1.0, 0.0, 0.5)
    for words in (
        "preference of judge-test-player on alfworld-gen paper/id, seed 0",
        "win rate of the CoT action 0.500 [0.500, 0.500]",
        "position bias 1.000 [1.000, 1.000]",
        "verdicts 18",
        "the judge does not pass: it named the action shown first in 1.00 [1.00, 1.00] of its verdicts, not in 0.3 to 0.7",
        "9 states of 3 tasks, of CoT episodes of judge-test-player",
        "changed the action at 9 of 18 states; judged: all of them",
        "left out: 9 states (same action)",
        "95 % intervals over tasks: cluster bootstrap",
        f"question {Question().fingerprint}",
        "judge judge-test, both_orders True, seed 0, mode prompt, style prefill",
        "judgements: run/judges/judge-test",
    ):
        assert words in _plain(out), words
    assert {query.step % 2 for query in ASKED} == {0}, "only where the trace changed the action"
    texts = "".join(query.dialogue.observations[0] for query in ASKED)
    assert "SECRET" not in texts and "Your task is to" in texts


def test_the_second_is_all_bias_too_and_a_coin_is_none(cli: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Judge, "rule", lambda query, a, b: "action b.")
    code, out, _ = cli(*BY_TEST, "--json")
    data = json.loads(out)
    assert data == json.loads((here / "judges" / "judge-test" / "probe.json").read_text())
    found = data["numbers"]["estimates"]
    assert (found["position bias"]["mean"], found["win rate of the cot action"]["mean"]) == (0.0, 0.5)
    assert data["judge"]["question"] == Question().fingerprint
    code, _, error = cli("judge", "run", "--agent", "random")
    assert code == 0, error
    coin = _preference(here / "judges" / "random")
    assert coin.no_verdict == 0 and 0 < coin.position_bias.mean < 1  # type: ignore[operator]
    rows = _judged(here / "judges" / "random")
    assert {verdict.decision.action for one in rows for verdict in one.verdicts} == set(LETTERS)


def test_a_perfect_judge(cli: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Judge, "rule", _cot_action)
    assert cli(*BY_TEST)[0] == 0
    found = _preference()
    assert (found.cot, found.states, found.win_rate.mean, found.net.mean) == (9, 9, 1.0, 1.0)
    assert (found.expert_states, found.expert_agreement.mean, found.position_bias.mean) == (9, 1.0, 0.5)
    table = judgements_of(read_judges(here)["judge-test"])
    assert list(table["result"]) == ["cot"] * 9
    assert list(table["cot_first"]) == list(table["prompt_first"]) == ["cot"] * 9
    assert list(table["step"]) == [0, 2, 4] * 3 and list(table["task"])[::3] == list(GAMES)
    assert (table["cot_action"] == table["expert_action"]).all() and (table["prompt_action"] == "look").all()


def test_no_verdicts(cli: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Judge, "rule", lambda query, a, b: f"I would {a}")
    code, out, _ = cli(*BY_TEST)
    assert code == 0, "what a judge says is no failure of ours"
    found = _preference()
    assert (found.states, found.no_verdict, found.verdicts, found.win_rate.mean, found.net.mean) == (9, 9, 0, None, 0.0)
    assert "win rate of the CoT action - net preference 0.000" in _plain(out)


def test_one_order(cli: Any, here: Path) -> None:
    code, out, error = cli(*BY_TEST, "--no-both-orders")
    assert code == 0, error
    assert len(ASKED) == 9 and "both_orders False" in out and "split" in _plain(out).partition("counts that are 0: ")[2]
    found = _preference()
    assert found.position_bias.mean == 1.0 and found.cot + found.prompt == 9


def test_a_judge_may_reason_first(cli: Any, here: Path) -> None:
    code, out, _ = cli(
        *BY_TEST, "--mode", "cot", "--elicitation-style", "template", "--trace-tokens", "9", "--temperature", "0.5"
    )
    assert code == 0 and "mode cot, style template, trace_tokens 9, temperature 0.5" in _plain(out)
    asked = ASKED[0]
    assert (asked.mode, asked.elicitation.style, asked.elicitation.trace_tokens, asked.elicitation.action_tokens) == (
        "cot",
        "template",
        9,
        8,
    )
    assert len({query.seed for query in ASKED}) == len(ASKED)


def test_nothing_to_judge(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(RunConfig(agent="expert", tasks=GAMES[:1], max_steps=3), out=Path("run"))
    code, out, error = cli("judge", "run", "--agent", "hf:./no-such-model")
    assert code == 0, error
    assert out == "nothing to judge in run: the trace changed the action at 0 of 3 states in 1 CoT episodes\n"
    code, out, _ = cli(*BY_TEST, "--json")
    data = json.loads(out)
    assert (data["recorded"]["compared"], data["recorded"]["revised"], data["numbers"]["states"]) == (3, 0, 0)
    assert data["numbers"]["left_out"] == {"same action": 3}
    assert data["numbers"]["estimates"]["win rate of the cot action"] == {"n": 0, "mean": None, "low": None, "high": None}
    assert cli(*BY_TEST, "--resume")[0] == 0
    assert not Path("run/judges").exists() and read_judges("run") == {}


def test_one_episode_has_no_interval(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(RunConfig(agent="p", tasks=GAMES[:1], max_steps=3), out=Path("run"), agent=Player())
    code, out, _ = cli(*BY_TEST)
    assert code == 0 and "0.500 [n=1]" in out and "1.000 [n=1]" in out


def test_an_unfinished_run_is_judged_as_far_as_it_is(cli: Any, here: Path) -> None:
    lines = (here / "episodes.jsonl").read_text().splitlines(keepends=True)
    (here / "episodes.jsonl").write_text("".join(lines[:4]) + lines[4][:50])
    code, out, _ = cli(*BY_TEST)
    assert code == 0 and "UNFINISHED: the run has 2 CoT episodes of 3 tasks so far" in out
    assert len(ASKED) == 12
    (here / "episodes.jsonl").write_text("".join(lines))
    code, out, _ = cli(*BY_TEST, "--resume")
    assert code == 0 and "UNFINISHED" not in out and len(ASKED) == 18
    assert len({(query.task, query.step, query.dialogue) for query in ASKED}) == 18, "nothing was asked twice"


def test_a_limit_draws_states(cli: Any, here: Path) -> None:
    code, out, _ = cli(*BY_TEST, "--limit", "4")
    assert code == 0 and "changed the action at 9 of 18 states; judged: 4 of them" in out
    few = {one.key for one in _judged()}
    assert len(few) == 4 and len(ASKED) == 8
    assert cli(*BY_TEST, "--limit", "6", "--resume")[0] == 0
    more = [one.key for one in _judged()]
    assert few < set(more) and len(more) == 6 and len(ASKED) == 12
    assert more == sorted(more, key=lambda key: (GAMES.index(key[0]), key[1])), "in the order of the run"
    assert cli(*BY_TEST, "--limit", "4", "--out", "other", "--seed", "1")[0] == 0
    assert {one.key for one in _judged(Path("other"))} != few
    assert cli("judge", "run", "--agent", "judge-test", "--resume", str(LINES.parent))[0] == 0
    assert cli("judge", "--resume", str(LINES.parent))[0] == 0  # The folder alone says whose run it is, and who judges.
    assert len(_judged()) == 9


def test_interrupted_and_resumed_it_is_the_same(cli: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Judge, "rule", lambda query, a, b: "AB"[len(a) > len(b)])
    assert cli(*BY_TEST, "--out", "whole")[0] == 0
    asked = {(query.task, query.step, query.dialogue) for query in ASKED}
    ASKED.clear()
    monkeypatch.setattr(Judge, "batch", 1, raising=False)
    monkeypatch.setattr(Judge, "interrupt_after", 6)
    code, _, error = cli(*BY_TEST)
    assert (code, error) == (
        130,
        "interrupted; judged states are kept; resume with: cotbench judge run --agent judge-test --resume",
    )
    assert len(_judged()) == 3
    assert not (LINES.parent / "probe.json").exists()
    with LINES.open("a") as file:
        file.write('{"task": "torn')
    monkeypatch.setattr(Judge, "interrupt_after", None)
    assert cli(*BY_TEST, "--resume")[0] == 0
    assert len(ASKED) == 18 and {(query.task, query.step, query.dialogue) for query in ASKED} == asked, "nothing twice"
    for name in (ROWS, "probe.json"):
        assert (LINES.parent / name).read_bytes() == Path("whole", name).read_bytes()
    assert cli(*BY_TEST, "--resume")[0] == 0 and len(ASKED) == 18


@pytest.mark.slow  # Of a run, on the same kind of folder: tests/faults/test_waits.py.
def test_killed_at_random_moments_and_resumed_it_is_the_same(here: Path) -> None:
    Path("slow.py").write_text(SLOW)
    start = [sys.executable, "-P", "-c", "from cotbench.cli import main; main()", "judge", "run", "--agent", "slow-judge"]
    command = [*start, "--import", "slow.py"]
    subprocess.run([*command, "--out", "whole"], check=True, capture_output=True)
    Path("asked.txt").unlink()
    rng, lines = random.Random(7), Path("run/judges/slow-judge") / ROWS
    for more in (2, 3):
        resumed = ["--resume"] if lines.exists() else []
        before = len(lines.read_bytes().splitlines()) if lines.exists() else 0
        process = subprocess.Popen([*command, *resumed], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (lines.exists() and len(lines.read_bytes().splitlines()) >= before + more):
            time.sleep(rng.uniform(0.001, 0.02))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was still running"
    done = subprocess.run([*command, "--resume"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in (ROWS, "probe.json"):
        assert (lines.parent / name).read_bytes() == Path("whole", name).read_bytes()
    assert not [path for path in lines.parent.iterdir() if path.name.startswith(f".{ROWS}")]
    asked = Path("asked.txt").read_text().splitlines()
    assert len(asked) <= 18 + 2 * 2, "a kill costs at most the states that were being asked about"


def test_errors_are_judged_again_and_leave_no_trace(cli: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli(*BY_TEST, "--out", "whole")[0] == 0
    monkeypatch.setattr(Judge, "down", True)
    code, out, error = cli(*BY_TEST, "--limit", "9")
    assert code == 1
    assert error == (
        f"error: 1 of 9 states could not be judged, the first is step 2 of {GAMES[1]}: 503 from the server; "
        "retry with: cotbench judge run --agent judge-test --limit 9 --resume"
    )
    assert "ERRORS: 1 states could not be measured" in out and "8 states of 3 tasks" in out
    assert (_preference().states, _preference().errors) == (8, 1)
    assert judgements_of(read_judges(here)["judge-test"])["result"].isna().sum() == 1
    monkeypatch.setattr(Judge, "down", False)
    ASKED.clear()
    assert cli(*BY_TEST, "--resume")[0] == 0
    assert {(query.task, query.step) for query in ASKED} == {(GAMES[1], 2)} and len(ASKED) == 2
    assert LINES.read_bytes() == Path("whole", ROWS).read_bytes()


def test_judges_do_not_mix(cli: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli(*BY_TEST, "--limit", "2")[0] == 0
    before = LINES.read_bytes()
    for more, message in (
        ((), "run/judges/judge-test is not empty; continue with --resume, or choose another --out"),
        (("--resume", "--mode", "cot"), "its mode is 'prompt', not 'cot'"),
        (("--resume", "--no-both-orders"), "its both_orders is True, not False"),
        (("--resume", "--seed", "3"), "its seed is 0, not 3"),
        (("--resume", "--action-tokens", "3"), "its action_tokens is 8, not 3"),
    ):
        code, _, error = cli(*BY_TEST, *more)
        assert code == 2 and message in error, error
    code, _, error = cli("judge", "run", "--agent", "random", "--out", str(LINES.parent), "--resume")
    assert code == 2 and "its judge is 'judge-test', not 'random'" in error
    monkeypatch.setattr(Judge, "described", {"weights_sha256": "other", "device": "gpu"})
    code, _, error = cli(*BY_TEST, "--resume")
    assert code == 2 and "its judge weights_sha256 is None, not 'other'" in error
    monkeypatch.setattr(Judge, "described", {"device": "gpu"})
    with monkeypatch.context() as other:
        other.setattr("cotbench.judge.question._CHOICE", "Which?")
        code, _, error = cli(*BY_TEST, "--resume")
        assert code == 2 and "its judge question is" in error
    assert LINES.read_bytes() == before


def test_another_machine_is_no_other_judge(cli: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli(*BY_TEST, "--limit", "2")[0] == 0
    monkeypatch.setattr(Judge, "described", {"device": "gpu"})
    assert cli(*BY_TEST, "--resume")[0] == 0


def test_judgements_of_another_run_are_refused(cli: Any, here: Path) -> None:
    assert cli(*BY_TEST)[0] == 0
    lines = LINES.read_text()
    changed = lines.replace('"prompt_action":"look"', '"prompt_action":"dance"')
    LINES.write_bytes(b"".join(map(signed, changed.encode().splitlines(keepends=True))))
    code, _, error = cli(*BY_TEST, "--resume")
    assert code == 2 and f"holds a judgement of step 0 of {GAMES[0]}, where the run has other actions" in error
    LINES.write_bytes(lines.encode() + signed(b'{"task": 3}\n'))
    code, _, error = cli(*BY_TEST, "--resume")
    assert code == 2 and f"{LINES}:19 is not a row of probe preference (task:" in error
    LINES.write_text(lines)
    shutil.copytree("run", "again")
    manifest = Path("again/manifest.json")
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1'))
    code, _, error = cli("judge", "again", "--agent", "judge-test", "--resume")
    assert code == 2 and "holds another measurement: its run is" in error
    with lock_folder(LINES.parent, "cotbench judge"):
        code, _, error = cli(*BY_TEST, "--resume")
        assert code == 2 and "in use by another cotbench judge: wait for it" in error


def test_what_cannot_be_judged_is_one_line(cli: Any, here: Path) -> None:
    run(RunConfig(agent="p", tasks=GAMES[:1], max_steps=2, mode="cot"), out=Path("alone"), agent=Player())
    Path("several").mkdir()
    Path("several/suite.json").write_text("[]")
    Path("empty").mkdir()
    for arguments, message in (
        (("nowhere", "--agent", "judge-test"), "nowhere is not a run folder: it has no manifest.json"),
        (("empty", "--agent", "judge-test"), "empty is not a run folder"),
        (("alone", "--agent", "judge-test"), "alone was played in mode cot only"),
        (("several", "--agent", "judge-test"), "several holds several runs: judge each by itself"),
        (("run", "--agent", "judge-tset"), "unknown agent 'judge-tset'; did you mean 'judge-test'?"),
        (("run",), "--agent is missing"),
        (("run", "--agent", "judge-test", "--mode", "both"), "unknown mode 'both'"),
        (("run", "--agent", "judge-test", "--elicitation-style", "prefil"), "did you mean 'prefill'"),
        (("run", "--agent", "judge-test", "--temperature", "inf"), "--temperature"),
        (("run", "--agent", "judge-test", "--limit", "0"), "--limit"),
        (("run", "--agent", "judge-test", "--resume"), "run/judges/judge-test holds no judgements to resume"),
        (("run", "--agent", "judge-test", "--out", "/dev/null/x"), "cannot make the folder /dev/null/x"),
        (("run", "--agent", "expert"), "agent 'expert' repeats the expert's action and does not read questions"),
        ((), "RUN"),
    ):
        code, out, error = cli("judge", *arguments)
        assert (code, out) == (2, ""), error
        assert error.startswith("error: ") and message in error, error
    assert ASKED == []


def test_the_numbers_and_the_draw_are_counted_a_second_way(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the lines of the run and the letters that were said, without the judge's own code."""

    class Wavers(Player):
        def _act(self, query: Query) -> cotbench.Decision:
            rng = random.Random(f"{query.task} {query.mode} {query.step}")
            return cotbench.Decision(rng.choice([query.expert_action or "look", "look", "inventory", ""]))

    monkeypatch.chdir(tmp_path)
    games = tuple(f"alfworld/gen/{kind}/{number}" for kind in ("look", "cool") for number in (1, 2, 3))
    run(RunConfig(agent="w", tasks=games, max_steps=8, expert_actions=True), out=Path("run"), agent=Wavers())
    rows = read_objects(Path("run/episodes.jsonl"))
    blind = rows[1]
    for step in blind["trajectory"]:
        step["expert_action"] = None  # No expert is known there; an action may be empty, and that is not the expert's.
    write_objects(Path("run/episodes.jsonl"), rows)
    episodes = [one for one in rows if one["mode"] == "cot"]
    assert not all(episode["success"] for episode in episodes), "lost episodes are judged too"
    states = {(one["task"], number): step for one in episodes for number, step in enumerate(one["trajectory"])}
    revised = {key: step for key, step in states.items() if step["prompt_action"] != step["action"]}
    assert 10 < len(revised) < len(states) and any("" in (step["prompt_action"], step["action"]) for step in revised.values())

    monkeypatch.setattr(Judge, "rule", lambda query, a, b: random.Random(f"{a} {b} {query.step}").choice("AABC"))
    code, out, error = cli("judge", "run", "--agent", "judge-test", "--seed", "5", "--limit", "9", "--json")
    assert code == 0, error
    drawn = sorted(revised, key=lambda key: derive_seed(5, *key, "drawn"))[:9]
    assert {(query.task, query.step) for query in ASKED} == set(drawn)
    assert [query.seed for query in ASKED] == [
        derive_seed(5, query.task, query.step, "judge", first)
        for query, first in zip(ASKED, (v.first for row in _in_order(ASKED) for v in row.verdicts), strict=True)
    ]
    assert json.loads(out)["numbers"]["left_out"] == {"same action": len(states) - len(revised)}
    assert cli("judge", "run", "--agent", "judge-test", "--resume")[0] == 0
    numbers = read_probe(LINES.parent).numbers
    assert len(ASKED) == 2 * len(revised)

    said: dict[Any, list[str]] = {key: [] for key in revised}
    firsts: dict[str, list[float]] = {}
    for query in ASKED:
        a, b = shown(query)
        letter, step = Judge.rule(query, a, b), revised[query.task, query.step]
        cot_first = (a if a != "(no action)" else "") == step["action"]
        assert cot_first or (b if b != "(no action)" else "") == step["action"]
        said[query.task, query.step].append("none" if letter == "C" else "cot" if (letter == "A") == cot_first else "prompt")
        firsts.setdefault(query.task, []).extend([float(letter == "A")] if letter != "C" else [])
    credit: dict[str, list[float]] = {}
    net: dict[str, list[float]] = {}
    agreed: dict[str, list[float]] = {}
    for (task, number), named in sorted(said.items(), key=lambda item: (games.index(item[0][0]), item[0][1])):
        step, known = revised[task, number], "none" not in named
        share = named.count("cot") / 2
        net.setdefault(task, []).append({0: -1.0, 0.5: 0.0, 1: 1.0}[share] if known else 0.0)
        if known:
            credit.setdefault(task, []).append(share)
        if known and step["expert_action"] in (step["prompt_action"], step["action"]):
            agreed.setdefault(task, []).append(share if step["expert_action"] == step["action"] else 1 - share)
    for name, values in (
        ("win rate of the cot action", credit),
        ("net preference", net),
        ("agreement with the reference", agreed),
        ("position bias", {task: firsts[task] for task in games if firsts.get(task)}),
    ):
        expected = estimates.ratio([sum(of) for of in values.values()], [float(len(of)) for of in values.values()])
        assert numbers.estimates[name] == expected, name
    assert numbers.states == len(revised) and numbers.tasks == len(net)
    assert numbers.counts == {
        "cot": sum(named == ["cot", "cot"] for named in said.values()),
        "prompt": sum(named == ["prompt", "prompt"] for named in said.values()),
        "split": sum(sorted(named) == ["cot", "prompt"] for named in said.values()),
        "no verdict": sum("none" in named for named in said.values()),
        "verdicts": sum(word != "none" for named in said.values() for word in named),
        "with the reference": sum(map(len, agreed.values())),
    }


def _in_order(asked: list[Query]) -> list[PreferenceRow]:
    """The rows of the judged states, in the order in which the judge was asked about them."""
    rows = {row.key: row for row in _judged()}
    return [rows[key] for key in dict.fromkeys((query.task, query.step) for query in asked)]


def test_judging_from_python(played: Path, tmp_path: Path) -> None:
    plan = make_judge_plan(played, PreferenceOptions(judge="mine"))
    assert (plan.recorded.episodes, plan.recorded.compared, plan.recorded.revised) == (3, 18, 9)
    assert folder_of(played, "hf:./a/b?dtype=float32") == played / "judges" / "hf-.-a-b-dtype-float32"
    told: list[PreferenceRow] = []
    agent: Agent = Judge()
    summary = judge_run(plan, tmp_path, agent=agent, observer=told.append)
    assert summary.numbers.estimates["net preference"] == _preference(tmp_path).net
    assert len(told) == len(_judged(tmp_path)) == 9
    assert summary.numbers == read_probe(tmp_path).numbers


@needs_hf
def test_a_real_model_judges(cli: Any, here: Path) -> None:
    from tests import tiny_models

    tiny_models.save_model(here.parent / "model", context=16_384)
    spec = "hf:./model?threads=1&device=cpu"
    code, out, error = cli("judge", "run", "--agent", spec, "--limit", "4")
    assert code == 0, error
    (judged,) = read_judges(here).values()
    rows = [row for row in judged.rows if row.left_out is None]
    assert judged.manifest.judge is not None and judged.manifest.judge["context"] == 16_384 and len(rows) == 4
    for one in rows:
        first, second = (verdict.decision for verdict in one.verdicts)
        assert first.error is None and first.prompt_tokens == second.prompt_tokens > 500
        assert second.reused_tokens > second.prompt_tokens - 60, "only the two actions are computed again"
    code, out, error = cli("judge", "run", "--agent", spec, "--resume")
    assert code == 0 and "judged: all of them" in out
