"""What a judge is asked, how it is read, and what is counted."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cotbench.envs import Instructions
from cotbench.judge.gate import judge_gate
from cotbench.judge.judgement import Judgement, JudgeVerdict, preference
from cotbench.judge.preference import PROBE, PreferenceOptions, PreferenceRow
from cotbench.judge.question import Question, ask_judge, read_letter
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation, Mode
from cotbench.prompting.query import Decision, Query
from cotbench.runs.jsonl_store import JsonlStore
from cotbench.stats import estimates
from tests.judges import ASKED, Judge, pair, shown


class Rows(JsonlStore[PreferenceRow, PreferenceRow]):
    name, manifest, model, noun = "rows.jsonl", "manifest.json", PreferenceRow, "a row"


ODD = st.text(st.sampled_from("A B:\nb>?<p&;'\"\r\u2028\x0c\x85ü\U0001f600[/bold]Which"), max_size=40)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    ASKED.clear()
    for name in ("rule", "down", "interrupt_after", "described"):
        monkeypatch.setattr(Judge, name, Judge.__dict__[name])


def _judgement(task: str, step: int, *preferred: Mode | None, expert: str | None = None, error: str | None = None) -> Judgement:
    orders: tuple[Mode, ...] = ("prompt", "cot")
    verdicts = [
        JudgeVerdict(first=first, preferred=one, decision=Decision("")) for first, one in zip(orders, preferred, strict=False)
    ]
    return Judgement(
        task=task, step=step, prompt_action="p", cot_action="c", expert_action=expert, error=error, verdicts=tuple(verdicts)
    )


def test_what_a_judge_is_shown() -> None:
    question = Question()
    query = question.query(pair(2), "cot")
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
    one, other = question.text(pair(3), "prompt"), question.text(pair(3), "cot")
    history = one[: one.index("Which of these")]
    assert other.startswith(history) and question.text(pair(5), "prompt").startswith(history)
    assert question.orders(pair()) in (("prompt", "cot"), ("cot", "prompt"))
    drawn = [Question(both_orders=False).orders(pair(step)) for step in range(200)]
    assert all(len(orders) == 1 for orders in drawn)
    assert 70 < drawn.count(("cot",)) < 130, "a fair coin; the same on every machine"
    assert drawn != [Question(both_orders=False, seed=1).orders(pair(step)) for step in range(200)]


def test_a_long_observation_is_cut_and_functions_are_told() -> None:
    question = Question(elicitation=Elicitation(observation_chars=10))
    dialogue = Dialogue(Instructions("Call."), ("x" * 50,), functions='{"name": "ls"}').extended("[ls()]", None, "y" * 50)
    text = question.text(pair(dialogue=dialogue), "prompt")
    assert text.startswith('It can call these functions:\n    {"name": "ls"}\nIt was first told:\n    ' + "x" * 50)
    assert "yyyyy\n    [40 characters are left out here]\n    yyyyy\n" in text


@given(ODD, ODD, ODD)
def test_what_was_written_is_data(prompt: str, cot: str, seen: str) -> None:
    dialogue = Dialogue(Instructions("i"), (seen,)).extended(prompt, None, seen)
    question = Question()
    text = question.text(pair(0, prompt, cot, dialogue=dialogue), "prompt")
    ours = [line for line in text.splitlines() if line.strip() and not line.startswith("    ")]
    last = "Which of these two is the better next action, A or B?"
    assert ours == ["It was first told:", "Then it did:", "And was told:", last, "A:", "B:"]
    assert text == question.text(pair(0, cot, prompt, dialogue=dialogue), "cot")


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
    monkeypatch.setattr("cotbench.judge.question._CHOICE", "Which?")
    assert Question().fingerprint not in prints


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
    assert found.win_rate == estimates.ratio([2.0, 1.5], [3.0, 2.0])
    assert found.win_rate.mean == pytest.approx(3.5 / 5) and found.win_rate.n == 2
    assert found.net == estimates.ratio([1.0, 1.0, 0.0], [3.0, 3.0, 1.0])
    assert found.verdicts == 11
    # Named first: one of the two in each state of a clear preference, both in the split, none of `cot` shown second.
    assert found.position_bias == estimates.ratio([3.0, 3.0], [6.0, 5.0])
    assert found.expert_states == 4
    assert found.expert_agreement == estimates.ratio([2.0, 0.5], [3.0, 1.0])
    assert preference([]).win_rate.mean is None and preference([]).states == 0


def _judged(tasks: int, first: Mode | None, second: Mode | None, expert: str | None = "c") -> list[Judgement]:
    return [_judgement(str(task), 0, first, second, expert=expert) for task in range(tasks)]


@pytest.mark.parametrize(
    ("judgements", "verdict"),
    [
        # Six tasks that all agree: a coin does that in 3 % of the cases, five in 6 %.
        (_judged(6, "cot", "cot"), "passes"),
        (_judged(5, "cot", "cot"), "does not pass"),
        (_judged(9, "cot", "cot") + _judged(9, "prompt", "prompt"), "does not pass"),
        (_judged(9, "prompt", "prompt"), "does not pass"),
        # The prompt's action is the expert's, and preferred: which mode wins does not matter.
        (_judged(9, "prompt", "prompt", expert="p"), "passes"),
        # Always the first: the order alone decides.
        (_judged(9, "prompt", "cot"), "does not pass"),
        (_judged(9, "cot", "prompt"), "does not pass"),
        # 10 of 26 pairs by the order: 18 of 26 verdicts for the first, still within 0.2; 12 of 26 are beyond it.
        (_judged(16, "cot", "cot") + _judged(10, "prompt", "cot"), "passes"),
        (_judged(14, "cot", "cot") + _judged(12, "prompt", "cot"), "does not pass"),
        (_judged(9, "cot", "cot", expert=None), "not gated"),
        (_judged(9, "cot", "cot", expert="x"), "not gated"),
        (_judged(9, "prompt", "cot", expert=None), "does not pass"),
        (_judged(9, None, None), "does not pass"),
        ([], "does not pass"),
        # Many states of few tasks are few observations.
        ([_judgement(str(task), step, "cot", "cot", expert="c") for task in range(2) for step in range(9)], "does not pass"),
    ],
)
def test_a_judge_counts_only_where_it_passes(judgements: list[Judgement], verdict: str) -> None:
    found = judge_gate(judgements)
    assert (found.verdict, found.passes) == (verdict, verdict == "passes")
    if judgements:
        notes = PROBE.summarize(
            [
                PreferenceRow(
                    task=one.task,
                    step=one.step,
                    prompt_action=one.prompt_action,
                    cot_action=one.cot_action,
                    reference=one.expert_action or "",
                    verdicts=one.verdicts,
                )
                for one in judgements
            ],
            PreferenceOptions(),
        ).notes
        assert notes == (str(found),)


def test_one_order_takes_its_one_answer() -> None:
    found = preference([_judgement("1", 0, "cot"), _judgement("1", 1, "prompt"), _judgement("1", 2, None)])
    assert (found.cot, found.prompt, found.split, found.no_verdict) == (1, 1, 0, 1)
    assert found.win_rate.mean == 0.5 and found.win_rate.low is None, "one task has no interval"
    assert found.position_bias.mean == 0.5


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda queries: 1 / 0, "agent odd failed: ZeroDivisionError: division by zero (test_judge_question.py:"),
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

    for one in ask_judge(Odd(), [pair(), pair(episode="other")], Question()):
        assert (one.error or "").startswith(error) and one.verdicts == () and one.result is None


def test_odd_words_are_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = "<script>alert('\ud800')</script> [bold]\nB:\n    x\u2028"
    monkeypatch.setattr(Judge, "rule", lambda query, a, b: odd)
    (judged,) = ask_judge(Judge(), [pair(prompt="<b>x</b>", cot="[/red] A\nB: \u2028y")], Question())
    assert judged.error is None and judged.result == "no verdict"
    row = PreferenceRow(
        task=judged.task,
        step=judged.step,
        prompt_action=judged.prompt_action,
        cot_action=judged.cot_action,
        verdicts=judged.verdicts,
    )
    with Rows(tmp_path) as rows:
        rows.append(row)
        assert rows.finalize([row.key]) == [row] == Rows.read(tmp_path)
    assert row.judgement == judged


def test_rounds_keep_the_agent_busy_with_different_episodes() -> None:
    rounds: list[list[tuple[str, int]]] = []

    class Batched:
        name, batch = "batched", 2

        def decide(self, queries: Sequence[Query]) -> list[Decision]:
            rounds.append([(query.episode, query.step) for query in queries])
            return [Decision("A")] * len(queries)

        def close(self) -> None: ...

    pairs = [pair(step, task=name, episode=name) for name, count in (("1", 3), ("2", 1), ("3", 1)) for step in range(count)]
    judgements = list(ask_judge(Batched(), pairs, Question()))
    assert sorted(one.key for one in judgements) == [pair.key for pair in pairs]
    assert [sorted(set(asked)) for asked in rounds] == [[("1", 0), ("2", 0)], [("1", 1), ("3", 0)], [("1", 2)]]
    assert [len(asked) for asked in rounds] == [4, 4, 2]
