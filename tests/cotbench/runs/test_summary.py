"""The numbers of a run, counted by hand."""

import io
from typing import Any

import pytest
from rich.console import Console

from cotbench.prompting.elicitation import Elicitation, Mode
from cotbench.prompting.query import Decision
from cotbench.runs.episode import Episode, Step
from cotbench.runs.manifest import Manifest, RunConfig
from cotbench.runs.summary import Summary, summarize
from cotbench.runs.tables import run_table


def _step(action: str, prompt: str | None = None, expert: str | None = None, **more: Any) -> Step:
    return Step(
        action=action,
        decision=Decision(action, **more.pop("decision", {})),
        prompt_action=prompt,
        prompt_decision=Decision(prompt) if prompt is not None else None,
        expert_action=expert,
        observation="",
        score=0.0,
        **more,
    )


def _episode(task: str, mode: Mode, success: bool, steps: list[Step], error: str | None = None) -> Episode:
    return Episode(
        task=task,
        task_type="t",
        mode=mode,
        error=error,
        success=success,
        score=float(success),
        steps=len(steps),
        trajectory=tuple(steps),
    )


def _manifest(tasks: list[str], mode: str = "both", **more: Any) -> Manifest:
    return Manifest(
        config=RunConfig(agent="x", mode=mode),
        elicitation_fingerprint=Elicitation().fingerprint,
        instructions_sha256="",
        task_list=tuple(tasks),
        task_list_sha256="",
        split_tasks=10,
        partial=more.get("partial", False),
        data={},
        agent={},
        packages={},
        python="",
        hardware={},
        git_commit=None,
        created="",
    )


@pytest.fixture
def summary() -> Summary:
    episodes = [
        _episode("1", "prompt", False, [_step("a", invalid_action="no"), _step("b")]),
        _episode("2", "prompt", True, [_step("a", decision={"action_tokens": 5, "reused_tokens": 60, "prefilled_tokens": 40})]),
        _episode("3", "prompt", False, [_step("a")]),
        _episode("4", "prompt", True, [], error="the server went away"),
        _episode("1", "cot", True, [_step("e", "a", "e"), _step("a", "a", "e"), _step("b", "e", "e"), _step("c", "d", "e")]),
        _episode("2", "cot", True, [_step("a", "a"), _step("a", "b", decision={"trace_tokens": 7, "trace_truncated": True})]),
        _episode("3", "cot", False, [], error="killed"),
        _episode("4", "cot", False, [_step("a", "a")]),
    ]
    return summarize(episodes, _manifest(["1", "2", "3", "4"]))


def test_errors_are_no_scores(summary: Summary) -> None:
    prompt, cot = summary.modes["prompt"], summary.modes["cot"]
    assert (prompt.n, prompt.errors, cot.n, cot.errors) == (3, 1, 3, 1)
    assert prompt.success.mean == pytest.approx(1 / 3)
    assert cot.success.mean == pytest.approx(2 / 3)


def test_counts_per_episode(summary: Summary) -> None:
    prompt, cot = summary.modes["prompt"], summary.modes["cot"]
    assert prompt.steps.mean == pytest.approx(4 / 3)
    assert prompt.invalid_actions.mean == pytest.approx(1 / 3)
    assert prompt.tokens.mean == pytest.approx(5 / 3)
    assert prompt.prefilled_tokens.mean == pytest.approx(40 / 3)
    assert prompt.reused_tokens.mean == pytest.approx(20)
    assert cot.tokens.mean == pytest.approx(7 / 3)
    assert prompt.trace_truncated is None
    assert cot.trace_truncated is not None
    assert cot.trace_truncated.mean == pytest.approx(1 / 7)


def test_the_gap_is_over_tasks_that_both_modes_finished(summary: Summary) -> None:
    assert summary.gap is not None
    assert (summary.gap.n, summary.gap.prompt_only, summary.gap.cot_only) == (2, 0, 1)
    assert summary.gap.success.mean == pytest.approx(0.5)
    assert summary.gap.p == 1.0


def test_consistency_and_revisions(summary: Summary) -> None:
    assert summary.consistency is not None and summary.revisions is not None
    assert summary.consistency.states == 7
    assert summary.consistency.consistency.mean == pytest.approx(3 / 7)
    assert summary.consistency.revision_rate.mean == pytest.approx(4 / 7)
    revisions = summary.revisions
    assert (revisions.states, revisions.revised, revisions.helped, revisions.hurt, revisions.neither) == (4, 3, 1, 1, 1)
    assert revisions.net.mean == 0


def _printed(summary: Summary) -> str:
    console = Console(width=400, file=io.StringIO(), record=True)
    console.print(run_table(summary))
    return console.export_text()


def test_the_table_says_at_how_many_states_the_expert_was_known(summary: Summary) -> None:
    found = _printed(summary)
    assert "revisions: 3 at the 4 of 7 states where the action of the expert is known; 1 helped, 1 hurt, 1 neither" in found
    found = _printed(summary.model_copy(update={"expert": "seen"}))
    assert "revisions: 3 at the 4 of 7 states where the action of expert 'seen' is known" in found
    found = _printed(summary.model_copy(update={"revisions": None}))
    assert "revisions: whether they helped is unknown: the expert's action is known at none of 7 states" in found


def test_right_answers_that_are_no_actions_are_counted_and_said() -> None:
    answers = {"[]": True, "None of these fits.": True, "[dance(": True, "": True, "[f()]": False, "[dance((": True}
    tasks = [f"bfcl/irrelevance_{number}" for number in range(len(answers))]
    episodes = [_episode(task, "cot", won, [_step(text)]) for task, (text, won) in zip(tasks, answers.items(), strict=True)]
    episodes.append(_episode("bfcl/simple_python_0", "cot", True, [_step("[f(a=1)]")]))
    manifest = _manifest([*tasks, "bfcl/simple_python_0"], mode="cot")
    found = summarize(episodes, manifest.model_copy(update={"config": RunConfig(agent="x", env="bfcl", mode="cot")}))
    assert found.modes["cot"].leniently_judged == {
        "an empty text": 1,
        "calls that cannot be read": 2,
        "the empty list": 1,
        "words": 1,
    }
    line = next(line for line in _printed(found).splitlines() if line.startswith("CoT: "))
    assert "upstream accepts whatever cannot be parsed as an action" in line
    assert line.endswith("5 right answers there: an empty text 1, calls that cannot be read 2, the empty list 1, words 1")
    assert "upstream accepts" not in _printed(summarize([_episode("1", "cot", True, [_step("a")])], _manifest(["1"], "cot")))


def test_one_mode_has_no_gap() -> None:
    summary = summarize([_episode("1", "cot", True, [_step("a")])], _manifest(["1"], mode="cot"))
    assert (summary.gap, summary.consistency, summary.revisions) == (None, None, None)
    assert summary.modes["cot"].success.n == 1
    assert set(summary.modes) == {"cot"}


def test_the_table_says_it_all(summary: Summary) -> None:
    from rich.console import Console

    screen = Console(width=120, record=True, file=io.StringIO())
    screen.print(run_table(summary.model_copy(update={"partial": True})))
    text = screen.export_text()
    for words in (
        "0.33 [0.06, 0.79]",
        "2 pairs",
        "+0.50",
        "PARTIAL",
        "ERRORS: 2 episodes",
        "McNemar exact p = 1",
        "over tasks",
    ):
        assert words in text, words


def test_the_summary_is_what_programs_read(summary: Summary) -> None:
    data = summary.model_dump(mode="json")
    assert {"n", "success", "score", "steps", "invalid_actions", "tokens", "errors"} <= set(data["modes"]["prompt"])
    assert {"mean", "low", "high"} <= set(data["modes"]["prompt"]["success"])
    assert {"gap", "consistency", "revisions"} <= set(data)
    assert Summary.model_validate_json(summary.model_dump_json()) == summary
