"""Judges: what they are shown, what is counted, and folders that survive a kill."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cotbench
from cotbench import statistics
from cotbench.agents.base import Agent
from cotbench.cli import run_cli
from cotbench.dialogue import Dialogue
from cotbench.elicitation import Elicitation, Mode
from cotbench.envs import Instructions
from cotbench.judge.folder import folder_of, judge_run, make_judge_plan
from cotbench.judge.journal import JUDGEMENTS, JudgementJournal, read_judgements
from cotbench.judge.judgement import Judgement, Verdict, preference
from cotbench.judge.question import LETTERS, Pair, Question, judge, read_letter
from cotbench.manifest import RunConfig
from cotbench.query import Decision, Query
from cotbench.runner import run
from tests.conftest import needs_hf

GAMES = ("alfworld/gen/cool/1", "alfworld/gen/heat/1", "alfworld/gen/clean/2")
PLAYED = 6
ASKED: list[Query] = []
"""What the judges below were asked, in order."""


class Player:
    """Reasons like the expert; without a trace it looks around at every other state."""

    name = "judge-test-player"
    needs = frozenset({"expert_action"})

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        return [self._act(query) for query in queries]

    def _act(self, query: Query) -> Decision:
        if query.mode == "cot":
            return Decision(query.expert_action or "look", "SECRET TRACE")
        return Decision("look" if query.step % 2 == 0 else query.expert_action or "look")

    def close(self) -> None: ...


class Judge:
    """Names a letter by a rule on the two actions that it is shown, or says what the rule says."""

    name = "judge-test"
    rule: Callable[[Query, str, str], object] = staticmethod(lambda query, a, b: "A")
    down = False
    interrupt_after: int | None = None
    described: dict[str, str] = {}

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        if self.interrupt_after is not None and len(ASKED) >= self.interrupt_after:
            raise KeyboardInterrupt
        ASKED.extend(queries)
        return [self._answer(query) for query in queries]

    def _answer(self, query: Query) -> Decision:
        if type(self).down and query.task == GAMES[1] and query.step == 2:
            return Decision("", error="503 from the server")
        return Decision(str(type(self).rule(query, *shown(query))))

    def describe(self) -> dict[str, str]:
        return self.described

    def close(self) -> None: ...


cotbench.register_agent("judge-test")(Judge)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    ASKED.clear()
    for name in ("rule", "down", "interrupt_after", "described"):
        monkeypatch.setattr(Judge, name, Judge.__dict__[name])


def shown(query: Query) -> tuple[str, str]:
    """The two actions as a judge sees them."""
    (text,) = query.dialogue.observations
    first, second = text.rpartition("A or B?\nA:\n")[2].split("\nB:\n")
    return first.removeprefix("    "), second.removeprefix("    ")


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
LINES = Path("run/judges/judge-test") / JUDGEMENTS


def _pair(step: int = 1, prompt: str = "look", cot: str = "take mug 1", **more: Any) -> Pair:
    dialogue = Dialogue(Instructions("You act in a house.", ("examine mug 2",)), ("Your task is to: look.",))
    for turn in range(step):
        dialogue = dialogue.then(f"go to desk {turn}", "SECRET TRACE", f"On the desk {turn} you see a mug.")
    fields = {"episode": "e", "task": "t", "step": step, "dialogue": dialogue, "prompt_action": prompt, "cot_action": cot}
    return Pair(**{**fields, **more})


def test_what_a_judge_is_shown() -> None:
    question = Question()
    query = question.query(_pair(2), "cot")
    system, user = (message.content for message in question.elicitation.messages(query.dialogue, "prompt"))
    assert "You act in a house." in system and "examine mug 2" in system
    assert "<action>A</action>\n<action>B</action>" in system
    assert user == (
        "It was first told:\n    Your task is to: look.\n"
        "Then it did:\n    go to desk 0\nAnd was told:\n    On the desk 0 you see a mug.\n"
        "Then it did:\n    go to desk 1\nAnd was told:\n    On the desk 1 you see a mug.\n"
        "Which of these two is the better next action, A or B?\nA:\n    take mug 1\nB:\n    look"
    )
    for hidden in ("SECRET", "CoT", "cot", "expert"):
        assert hidden not in system + user
    assert (query.mode, query.episode, query.step, query.expert_action, query.given_trace) == ("prompt", "e", 2, None, None)
    assert shown(query) == ("take mug 1", "look")


def test_orders_and_later_states_begin_alike() -> None:
    question = Question()
    one, other = question.text(_pair(3), "prompt"), question.text(_pair(3), "cot")
    history = one[: one.index("Which of these")]
    assert other.startswith(history) and question.text(_pair(5), "prompt").startswith(history)
    assert question.orders(_pair()) in (("prompt", "cot"), ("cot", "prompt"))
    drawn = [Question(both_orders=False).orders(_pair(step)) for step in range(200)]
    assert all(len(orders) == 1 for orders in drawn)
    assert 70 < drawn.count(("cot",)) < 130, "a fair coin; the same on every machine"
    assert drawn != [Question(both_orders=False, seed=1).orders(_pair(step)) for step in range(200)]


def test_a_long_observation_is_cut_and_functions_are_told() -> None:
    question = Question(elicitation=Elicitation(observation_chars=10))
    dialogue = Dialogue(Instructions("Call."), ("x" * 50,), functions='{"name": "ls"}').then("[ls()]", None, "y" * 50)
    text = question.text(_pair(dialogue=dialogue), "prompt")
    assert text.startswith('It can call these functions:\n    {"name": "ls"}\nIt was first told:\n    ' + "x" * 50)
    assert "yyyyy\n    [40 characters are left out here]\n    yyyyy\n" in text


ODD = st.text(st.sampled_from("A B:\nb>?<p&;'\"\r\u2028\x0c\x85ü\U0001f600[/bold]Which"), max_size=40)


@given(ODD, ODD, ODD)
def test_what_was_written_is_data(prompt: str, cot: str, seen: str) -> None:
    dialogue = Dialogue(Instructions("i"), (seen,)).then(prompt, None, seen)
    question = Question()
    text = question.text(_pair(0, prompt, cot, dialogue=dialogue), "prompt")
    ours = [line for line in text.splitlines() if line.strip() and not line.startswith("    ")]
    last = "Which of these two is the better next action, A or B?"
    assert ours == ["It was first told:", "Then it did:", "And was told:", last, "A:", "B:"]
    assert text == question.text(_pair(0, cot, prompt, dialogue=dialogue), "cot")


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        *(("A", 0), ("b", 1), ("B.", 1), (" a ", 0), ("(A)", 0), ("[B]", 1), ("**B**", 1), ("B:", 1), ('"A"', 0), ("`b`", 1)),
        *(("Action A", 0), ("action: B", 1), ("The action B.", 1), ("next action A", 0)),
        *(("", None), ("C", None), ("AB", None), ("A or B", None), ("A, B", None), ("look", None), ("A: take mug 1", None)),
        *(("I prefer A", None), ("a mug", None), ("not A", None), ("A\nB", None), ("А", None)),  # The last is Cyrillic.
    ],
)
def test_reading_a_letter(said: str, letter: int | None) -> None:
    assert read_letter(said) == letter


def test_the_fingerprint_is_over_the_question_and_not_over_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = {
        Question().fingerprint,
        Question(mode="cot").fingerprint,
        Question(both_orders=False).fingerprint,
        Question(elicitation=Elicitation(action_tokens=9)).fingerprint,
    }
    assert len(prints) == 4
    assert Question(seed=5).fingerprint == Question().fingerprint
    monkeypatch.setattr("cotbench.judge.question._LAST", "Which?")
    assert Question().fingerprint not in prints


def _judgement(task: str, step: int, *preferred: Mode | None, expert: str | None = None, error: str | None = None) -> Judgement:
    orders: tuple[Mode, ...] = ("prompt", "cot")
    verdicts = [
        Verdict(first=first, preferred=one, decision=Decision("")) for first, one in zip(orders, preferred, strict=False)
    ]
    return Judgement(
        task=task, step=step, prompt_action="p", cot_action="c", expert_action=expert, error=error, verdicts=tuple(verdicts)
    )


def test_the_numbers_counted_by_hand() -> None:
    found = preference(
        [
            _judgement("1", 0, "cot", "cot", expert="c"),
            _judgement("1", 1, "cot", "cot", expert="p"),
            _judgement("1", 2, "prompt", "prompt", expert="p"),
            _judgement("2", 0, "prompt", "cot", expert="c"),  # The first one, both times.
            _judgement("2", 1, "cot", "cot", expert="x"),
            _judgement("2", 2, "cot", None, expert="c"),
            _judgement("3", 0, None, None),
            _judgement("4", 0, error="gone"),
        ]
    )
    assert (found.states, found.errors, found.tasks) == (7, 1, 3)
    assert (found.cot, found.prompt, found.split, found.no_verdict) == (3, 1, 1, 2)
    assert found.win_rate == statistics.ratio([2.0, 1.5], [3.0, 2.0])
    assert found.win_rate.mean == pytest.approx(3.5 / 5) and found.win_rate.n == 2
    assert found.net == statistics.ratio([1.0, 1.0, 0.0], [3.0, 3.0, 1.0])
    assert found.verdicts == 11
    # Named first: one of the two in each state of a clear preference, both in the split, none of `cot` shown second.
    assert found.position_bias == statistics.ratio([3.0, 3.0], [6.0, 5.0])
    assert found.expert_states == 4
    assert found.expert_agreement == statistics.ratio([2.0, 0.5], [3.0, 1.0])
    assert preference([]).win_rate.mean is None and preference([]).states == 0


def test_one_order_takes_its_one_answer() -> None:
    found = preference([_judgement("1", 0, "cot"), _judgement("1", 1, "prompt"), _judgement("1", 2, None)])
    assert (found.cot, found.prompt, found.split, found.no_verdict) == (1, 1, 0, 1)
    assert found.win_rate.mean == 0.5 and found.win_rate.low is None, "one task has no interval"
    assert found.position_bias.mean == 0.5


def test_a_judge_that_takes_the_first_is_all_bias(cli: Any, here: Path) -> None:
    code, out, error = cli(*BY_TEST)
    assert code == 0, error
    found = cotbench.load_run(here).judges["judge-test"].preference
    assert found.states == found.split == 3 * PLAYED / 2
    assert (found.win_rate.mean, found.win_rate.low, found.win_rate.high) == (0.5, 0.5, 0.5)
    assert (found.position_bias.mean, found.net.mean, found.expert_agreement.mean) == (1.0, 0.0, 0.5)
    for words in (
        "judge-test judges judge-test-player on alfworld-gen paper/id, seed 0",
        "win rate of the CoT action 0.50 [0.50, 0.50] 9 states",
        "position bias 1.00 [1.00, 1.00] 18 verdicts",
        "changed the action at 9 of 18 states; judged: all of them; scored in 3 tasks",
        "95 % intervals over tasks: cluster bootstrap",
        f"question prefill {Question().fingerprint}, mode prompt, both orders, temperature 0",
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
    assert data == json.loads((here / "judges" / "judge-test" / "judge.json").read_text())
    assert (data["preference"]["position_bias"]["mean"], data["preference"]["win_rate"]["mean"]) == (0.0, 0.5)
    code, _, error = cli("judge", "run", "--agent", "random")
    assert code == 0, error
    coin = cotbench.load_run(here).judges["random"]
    assert coin.preference.no_verdict == 0 and 0 < coin.preference.position_bias.mean < 1  # type: ignore[operator]
    assert {verdict.decision.action for one in coin.records for verdict in one.verdicts} == set(LETTERS)


def test_a_perfect_judge(cli: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Judge, "rule", _cot_action)
    assert cli(*BY_TEST)[0] == 0
    judged = cotbench.load_run(here).judges["judge-test"]
    found = judged.preference
    assert (found.cot, found.states, found.win_rate.mean, found.net.mean) == (9, 9, 1.0, 1.0)
    assert (found.expert_states, found.expert_agreement.mean, found.position_bias.mean) == (9, 1.0, 0.5)
    table = judged.judgements
    assert list(table["result"]) == ["cot"] * 9
    assert list(table["cot_first"]) == list(table["prompt_first"]) == ["cot"] * 9
    assert list(table["step"]) == [0, 2, 4] * 3 and list(table["task"])[::3] == list(GAMES)
    assert (table["cot_action"] == table["expert_action"]).all() and (table["prompt_action"] == "look").all()


def test_no_verdicts(cli: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Judge, "rule", lambda query, a, b: f"I would {a}")
    code, out, _ = cli(*BY_TEST)
    assert code == 0, "what a judge says is no failure of ours"
    found = cotbench.load_run(here).judges["judge-test"].preference
    assert (found.states, found.no_verdict, found.verdicts, found.win_rate.mean, found.net.mean) == (9, 9, 0, None, 0.0)
    assert "win rate of the CoT action - 0 states" in _plain(out)


def test_one_order(cli: Any, here: Path) -> None:
    code, out, error = cli(*BY_TEST, "--one-order")
    assert code == 0, error
    assert len(ASKED) == 9 and "one order" in out and "split" not in out.replace("a split counts half", "")
    found = cotbench.load_run(here).judges["judge-test"].preference
    assert found.position_bias.mean == 1.0 and found.cot + found.prompt == 9


def test_a_judge_may_reason_first(cli: Any, here: Path) -> None:
    code, out, _ = cli(*BY_TEST, "--mode", "cot", "--elicitation", "template", "--trace-tokens", "9", "--temperature", "0.5")
    assert code == 0 and "question template" in out and "mode cot, both orders, temperature 0.5" in out
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
    assert (data["compared"], data["revised"], data["preference"]["states"]) == (3, 0, 0)
    assert data["preference"]["win_rate"] == {"n": 0, "mean": None, "low": None, "high": None}
    assert not Path("run/judges").exists() and cotbench.load_run("run").judges == {}


def test_one_episode_has_no_interval(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(RunConfig(agent="p", tasks=GAMES[:1], max_steps=3), out=Path("run"), agent=Player())
    code, out, _ = cli(*BY_TEST)
    assert code == 0 and "0.50 [n=1]" in out and "1.00 [n=1]" in out


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
    few = {one.key for one in read_judgements(LINES.parent)}
    assert len(few) == 4 and len(ASKED) == 8
    assert cli(*BY_TEST, "--limit", "6", "--resume")[0] == 0
    more = [one.key for one in read_judgements(LINES.parent)]
    assert few < set(more) and len(more) == 6 and len(ASKED) == 12
    assert more == sorted(more, key=lambda key: (GAMES.index(key[0]), key[1])), "in the order of the run"
    assert cli(*BY_TEST, "--limit", "4", "--out", "other", "--seed", "1")[0] == 0
    assert {one.key for one in read_judgements(Path("other"))} != few
    assert cli(*BY_TEST, "--resume")[0] == 0
    assert len(read_judgements(LINES.parent)) == 9


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
        "interrupted; what was judged is kept: cotbench judge run --agent judge-test --resume",
    )
    assert len(read_judgements(LINES.parent)) == 3
    assert not (LINES.parent / "judge.json").exists()
    with LINES.open("a") as file:
        file.write('{"task": "torn')
    monkeypatch.setattr(Judge, "interrupt_after", None)
    assert cli(*BY_TEST, "--resume")[0] == 0
    assert len(ASKED) == 18 and {(query.task, query.step, query.dialogue) for query in ASKED} == asked, "nothing twice"
    for name in (JUDGEMENTS, "judge.json"):
        assert (LINES.parent / name).read_bytes() == Path("whole", name).read_bytes()
    assert cli(*BY_TEST, "--resume")[0] == 0 and len(ASKED) == 18


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


def test_killed_at_random_moments_and_resumed_it_is_the_same(here: Path) -> None:
    Path("slow.py").write_text(SLOW)
    start = [sys.executable, "-c", "from cotbench.cli import main; main()", "judge", "run", "--agent", "slow-judge"]
    command = [*start, "--import", "slow.py"]
    subprocess.run([*command, "--out", "whole"], check=True, capture_output=True)
    Path("asked.txt").unlink()
    rng, lines = random.Random(7), Path("run/judges/slow-judge") / JUDGEMENTS
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
    for name in (JUDGEMENTS, "judge.json"):
        assert (lines.parent / name).read_bytes() == Path("whole", name).read_bytes()
    assert not [path for path in lines.parent.iterdir() if path.name.startswith(f".{JUDGEMENTS}")]
    asked = Path("asked.txt").read_text().splitlines()
    assert len(asked) <= 18 + 2 * 2, "a kill costs at most the states that were being asked about"


def test_errors_are_judged_again_and_leave_no_trace(cli: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli(*BY_TEST, "--out", "whole")[0] == 0
    monkeypatch.setattr(Judge, "down", True)
    code, out, error = cli(*BY_TEST, "--limit", "9")
    assert code == 1
    assert error == (
        f"error: 1 of 9 states could not be judged, the first is step 2 of {GAMES[1]}: 503 from the server; "
        "judge them again with: cotbench judge run --agent judge-test --limit 9 --resume"
    )
    assert "ERRORS: 1 states could not be judged" in out and "8 states" in out
    found = cotbench.load_run(here).judges["judge-test"]
    assert (found.preference.states, found.preference.errors) == (8, 1)
    assert found.judgements["result"].isna().sum() == 1
    monkeypatch.setattr(Judge, "down", False)
    ASKED.clear()
    assert cli(*BY_TEST, "--resume")[0] == 0
    assert {(query.task, query.step) for query in ASKED} == {(GAMES[1], 2)} and len(ASKED) == 2
    assert LINES.read_bytes() == Path("whole", JUDGEMENTS).read_bytes()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda queries: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda queries: [Decision("A")], "agent odd answered 1 of 4 queries"),
        (lambda queries: ["A"] * len(queries), "agent odd returned a str, not a Decision"),
        (lambda queries: [Decision(None)] * len(queries), "agent odd returned a Decision with a bad action"),  # type: ignore[arg-type]
        (lambda queries: [Decision("A", raw={1})] * len(queries), "agent odd returned a Decision that is not data"),  # type: ignore[arg-type]
    ],
)
def test_a_broken_judge_is_an_error(answer: Callable[[Sequence[Query]], list[Decision]], error: str) -> None:
    class Odd:
        name = "odd"

        def decide(self, queries: Sequence[Query]) -> list[Decision]:
            return answer(queries)

        def close(self) -> None: ...

    for one in judge(Odd(), [_pair(), _pair(episode="other")], Question()):
        assert (one.error or "").startswith(error) and one.verdicts == () and one.result is None


def test_odd_words_are_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = "<script>alert('\ud800')</script> [bold]\nB:\n    x\u2028"
    monkeypatch.setattr(Judge, "rule", lambda query, a, b: odd)
    (judged,) = judge(Judge(), [_pair(prompt="<b>x</b>", cot="[/red] A\nB: \u2028y")], Question())
    assert judged.error is None and judged.result == "no verdict"
    with JudgementJournal(tmp_path) as journal:
        journal.append(judged)
        assert journal.settle([judged.key]) == [judged] == read_judgements(tmp_path)


def test_rounds_keep_the_agent_busy_with_different_episodes() -> None:
    rounds: list[list[tuple[str, int]]] = []

    class Batched:
        name, batch = "batched", 2

        def decide(self, queries: Sequence[Query]) -> list[Decision]:
            rounds.append([(query.episode, query.step) for query in queries])
            return [Decision("A")] * len(queries)

        def close(self) -> None: ...

    pairs = [_pair(step, task=name, episode=name) for name, count in (("1", 3), ("2", 1), ("3", 1)) for step in range(count)]
    judgements = list(judge(Batched(), pairs, Question()))
    assert sorted(one.key for one in judgements) == [pair.key for pair in pairs]
    assert [sorted(set(asked)) for asked in rounds] == [[("1", 0), ("2", 0)], [("1", 1), ("3", 0)], [("1", 2)]]
    assert [len(asked) for asked in rounds] == [4, 4, 2]


def test_judges_do_not_mix(cli: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli(*BY_TEST, "--limit", "2")[0] == 0
    before = LINES.read_bytes()
    for more, message in (
        ((), "run/judges/judge-test is not empty; go on with --resume, or choose another --out"),
        (("--resume", "--mode", "cot"), "its mode is 'prompt', not 'cot'"),
        (("--resume", "--one-order"), "its both_orders is True, not False"),
        (("--resume", "--seed", "3"), "its seed is 0, not 3"),
        (("--resume", "--action-tokens", "3"), "its action_tokens is 8, not 3"),
    ):
        code, _, error = cli(*BY_TEST, *more)
        assert code == 2 and message in error, error
    code, _, error = cli("judge", "run", "--agent", "random", "--out", str(LINES.parent), "--resume")
    assert code == 2 and "its judge is 'judge-test', not 'random'" in error
    monkeypatch.setattr(Judge, "described", {"weights_sha256": "other", "device": "gpu"})
    code, _, error = cli(*BY_TEST, "--resume")
    assert code == 2 and "its agent weights_sha256 is None, not 'other'" in error
    monkeypatch.setattr(Judge, "described", {"device": "gpu"})
    with monkeypatch.context() as other:
        other.setattr("cotbench.judge.question._LAST", "Which?")
        code, _, error = cli(*BY_TEST, "--resume")
        assert code == 2 and "its question is" in error
    assert LINES.read_bytes() == before


def test_another_machine_is_no_other_judge(cli: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli(*BY_TEST, "--limit", "2")[0] == 0
    monkeypatch.setattr(Judge, "described", {"device": "gpu"})
    assert cli(*BY_TEST, "--resume")[0] == 0


def test_judgements_of_another_run_are_refused(cli: Any, here: Path) -> None:
    assert cli(*BY_TEST)[0] == 0
    lines = LINES.read_text()
    LINES.write_text(lines.replace('"prompt_action":"look"', '"prompt_action":"dance"'))
    code, _, error = cli(*BY_TEST, "--resume")
    assert code == 2 and f"holds a judgement of step 0 of {GAMES[0]}, where the run has other actions" in error
    LINES.write_text(lines + '{"task": 3}\n')
    code, _, error = cli(*BY_TEST, "--resume")
    assert code == 2 and f"{LINES}:10 is not a judgement (task:" in error
    LINES.write_text(lines)
    shutil.copytree("run", "again")
    manifest = Path("again/manifest.json")
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1'))
    code, _, error = cli("judge", "again", "--agent", "judge-test", "--resume")
    assert code == 2 and "holds another run: its run is" in error
    with JudgementJournal(LINES.parent):
        code, _, error = cli(*BY_TEST, "--resume")
        assert code == 2 and "in use by another judge" in error


def test_what_cannot_be_judged_is_one_line(cli: Any, here: Path) -> None:
    run(RunConfig(agent="p", tasks=GAMES[:1], max_steps=2, mode="cot"), out=Path("alone"), agent=Player())
    Path("several").mkdir()
    Path("several/suite.json").write_text("[]")
    Path("empty").mkdir()
    for arguments, message in (
        (("nowhere", "--agent", "judge-test"), "nowhere is not a run folder: it has no manifest.json"),
        (("empty", "--agent", "judge-test"), "empty is not a run folder"),
        (("alone", "--agent", "judge-test"), "alone was played in mode cot alone"),
        (("several", "--agent", "judge-test"), "several holds several runs: judge each by itself"),
        (("run", "--agent", "judge-tset"), "unknown agent 'judge-tset'; did you mean 'judge-test'?"),
        (("run",), "--agent is missing"),
        (("run", "--agent", "judge-test", "--mode", "both"), "unknown mode 'both'"),
        (("run", "--agent", "judge-test", "--elicitation", "prefil"), "did you mean 'prefill'"),
        (("run", "--agent", "judge-test", "--temperature", "inf"), "--temperature"),
        (("run", "--agent", "judge-test", "--limit", "0"), "--limit"),
        (("run", "--agent", "judge-test", "--resume"), "run/judges/judge-test holds no judgements to go on with"),
        (("run", "--agent", "judge-test", "--out", "/dev/null/x"), "cannot make the folder /dev/null/x"),
        (("run", "--agent", "expert"), "agent 'expert' repeats the expert's action and reads no question"),
        ((), "RUN"),
    ):
        code, out, error = cli("judge", *arguments)
        assert (code, out) == (2, ""), error
        assert error.startswith("error: ") and message in error, error
    assert ASKED == []


def test_judging_from_python(played: Path, tmp_path: Path) -> None:
    plan = make_judge_plan(played, "mine", Question())
    assert (plan.episodes, plan.compared, len(plan.pairs)) == (3, 18, 9)
    assert folder_of(played, "hf:./a/b?dtype=float32") == played / "judges" / "hf-.-a-b-dtype-float32"
    told: list[Judgement] = []
    agent: Agent = Judge()
    summary, judgements = judge_run(plan, tmp_path, agent=agent, limit=None, observer=told.append)
    assert summary.preference == preference(judgements) and len(told) == len(judgements) == 9


@needs_hf
def test_a_real_model_judges(cli: Any, here: Path) -> None:
    from tests import tiny_models

    tiny_models.save_model(here.parent / "model", context=16_384)
    spec = "hf:./model?threads=1&device=cpu"
    code, out, error = cli("judge", "run", "--agent", spec, "--limit", "4")
    assert code == 0, error
    (judged,) = cotbench.load_run(here).judges.values()
    assert judged.manifest.agent["context"] == 16_384 and len(judged.records) == 4
    for one in judged.records:
        first, second = (verdict.decision for verdict in one.verdicts)
        assert first.error is None and first.prompt_tokens == second.prompt_tokens > 500
        assert second.reused_tokens > second.prompt_tokens - 60, "only the two actions are computed again"
    code, out, error = cli("judge", "run", "--agent", spec, "--resume")
    assert code == 0 and "judged: all of them" in out
