"""Several samples of each task: the means, pass@k, and intervals in which a task counts once."""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cotbench.cli import run_cli
from cotbench.cli.playing import warn_of_samples
from cotbench.errors import SubmissionError
from cotbench.leaderboard.submission.run_reader import read_finished
from cotbench.probes.states import recorded_states
from cotbench.prompting.elicitation import MODES, Elicitation
from cotbench.runs.comparison import compare_runs
from cotbench.runs.episode import Episode, row_of
from cotbench.runs.manifest import Manifest, RunConfig
from cotbench.runs.plan import make_plan
from cotbench.runs.results import load_run
from cotbench.runs.run_status import FollowedRun
from cotbench.runs.runner import run
from cotbench.runs.summary import SUMMARY, Summary, summarize
from cotbench.runs.task_rows import by_task
from cotbench.stats import estimates
from tests.lines import read_objects

GAMES = ("alfworld/gen/pick/0", "alfworld/gen/heat/1")
WON: Mapping[str, Sequence[int]] = {"a": (1, 0, 0, 1), "b": (0, 0, 0, 0), "c": (1, 1, 1, 0), "d": (0, 1, 0, 0)}


def _episodes(won: Mapping[str, Sequence[int]], mode: Any = "prompt") -> list[Episode]:
    return [
        Episode(task=task, task_type="t", mode=mode, rollout=k, success=bool(one), score=float(one))
        for task, samples in won.items()
        for k, one in enumerate(samples)
    ]


def _manifest(tasks: Sequence[str], samples: int, mode: Any = "prompt") -> Manifest:
    config = RunConfig(agent="x", mode=mode, samples=samples)
    texts = dict.fromkeys(("instructions_sha256", "task_list_sha256", "python", "created"), "")
    empty: dict[str, Any] = {"data": {}, "agent": {}, "packages": {}, "hardware": {}}
    return Manifest(
        config=config, elicitation_fingerprint=Elicitation().fingerprint, task_list=tuple(tasks), split_tasks=len(tasks),
        partial=False, git_commit=None, **texts, **empty,
    )  # fmt: skip


def _summary(won: Mapping[str, Sequence[int]]) -> Summary:
    return summarize(_episodes(won), _manifest(list(won), len(WON["a"])))


@pytest.mark.parametrize(("samples", "wins"), [(1, 0), (4, 1), (5, 3), (6, 6), (7, 0)])
def test_pass_at_k_is_the_share_of_all_choices_of_k_samples_with_a_success(samples: int, wins: int) -> None:
    outcomes = [place < wins for place in range(samples)]
    (task,) = by_task(map(row_of, _episodes({"a": outcomes})))
    for k in range(1, samples + 1):
        choices = list(itertools.combinations(outcomes, k))
        assert task.pass_at(k) == pytest.approx(sum(map(any, choices)) / len(choices))


def test_success_is_the_mean_of_the_samples_and_a_task_is_one_unit() -> None:
    found = _summary(WON).modes["prompt"]
    means = [sum(samples) / 4 for samples in WON.values()]
    assert found.n == 16
    assert found.success == estimates.mean(means) and found.success.n == 4
    assert list(found.pass_at) == [1, 2, 3, 4]
    assert found.pass_at[1].mean == pytest.approx(found.success.mean)
    assert found.pass_at[4] == estimates.rate(3, 4)
    assert found.pass_at[2].mean == pytest.approx((1 - 1 / 6 + 0 + 1 + 1 / 2) / 4)


def test_samples_that_are_alike_say_no_more_than_one() -> None:
    once = {"a": (1,), "b": (0,), "c": (1,), "d": (0,)}
    alike = summarize(_episodes({task: samples * 4 for task, samples in once.items()}), _manifest(list(once), 4))
    single = summarize(_episodes(once), _manifest(list(once), 1))
    assert alike.modes["prompt"].success == single.modes["prompt"].success == estimates.rate(2, 4)
    assert alike.modes["prompt"].pass_at[3] == estimates.rate(2, 4)
    assert "pass_at" not in single.modes["prompt"].model_dump() and "samples" not in single.model_dump()


def test_the_gap_is_over_tasks_too() -> None:
    lost = dict.fromkeys(WON, (0, 0, 0, 0))
    manifest = _manifest(list(WON), 4, "both")
    gap = summarize([*_episodes(lost), *_episodes(WON, "cot")], manifest).gap
    assert gap is not None and gap.n == 4
    means = [sum(samples) / 4 for samples in WON.values()]
    assert gap.success == estimates.mean(means)
    assert (gap.prompt_only, gap.cot_only) == (0, 3)
    assert gap.p == estimates.permutation([0.0] * 4, means) == pytest.approx(2 / 2**3)


def test_a_sample_that_ended_in_an_error_is_in_no_mean() -> None:
    episodes = _episodes(WON)
    episodes[0] = episodes[0].model_copy(update={"success": False, "score": 0.0, "error": "gone"})
    found = summarize(episodes, _manifest(list(WON), 4)).modes["prompt"]
    assert (found.n, found.errors) == (15, 1)
    assert found.success.mean == pytest.approx((1 / 3 + 0 + 3 / 4 + 1 / 4) / 4)
    assert (found.pass_at[3].n, found.pass_at[4].n) == (4, 3)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two tasks in both modes, three samples each."""
    folder = tmp_path_factory.mktemp("samples")
    run(RunConfig(agent="random", tasks=GAMES, max_steps=3, samples=3), out=folder / "three", workers=0)
    run(RunConfig(agent="random", tasks=GAMES, max_steps=3), out=folder / "one", workers=0)
    return folder


def test_the_first_samples_are_the_run_without_samples(sampled: Path) -> None:
    rows = {name: read_objects(sampled / name / "episodes.jsonl") for name in ("one", "three")}
    for some in rows.values():
        for row in some:
            del row["seconds"]
    assert len(rows["three"]) == 12 and len(rows["one"]) == 4
    assert [row for row in rows["three"] if "rollout" not in row] == rows["one"]
    played = {(row["task"], row["mode"], tuple(step["action"] for step in row["trajectory"])) for row in rows["three"]}
    assert len(played) == 12  # `random` draws anew in each.


def test_a_run_with_samples_is_planned_loaded_and_compared(sampled: Path) -> None:
    one, three = load_run(sampled / "one"), load_run(sampled / "three")
    assert "samples" not in one.manifest.config.model_dump() and three.manifest.config.samples == 3
    keys = [unit.key for unit in make_plan(three.manifest.config).rollouts]
    assert keys == [episode.key for episode in three.records] and len(set(keys)) == 12
    assert list(three.episodes["rollout"]) == [0, 0, 1, 1, 2, 2] * 2 and "rollout" not in one.episodes
    compared = compare_runs({"e": one}, {"e": three}).envs["e"]
    assert (compared.first.planned, compared.second.planned, compared.second.samples) == (4, 12, 3)
    for mode in MODES:
        steps = [len(episode.trajectory) for episode in three.records if episode.mode == mode]
        assert compared.modes[mode].n == 2
        assert compared.modes[mode].steps.second.mean == pytest.approx(math.fsum(steps) / len(steps))


def test_states_are_those_of_the_first_samples(sampled: Path) -> None:
    states, answers = recorded_states(sampled / "three")
    assert (states.states, answers) == (recorded_states(sampled / "one")[0].states, recorded_states(sampled / "one")[1])


def test_a_board_takes_no_run_with_samples(sampled: Path) -> None:
    with pytest.raises(SubmissionError, match=r"config\.samples is 3: an entry has one episode of each task and mode"):
        read_finished(sampled / "three")
    read_finished(sampled / "one")


def test_a_finished_run_of_several_samples_is_listed_as_such(sampled: Path) -> None:
    status = FollowedRun(sampled / "three").status()
    assert (status.state, status.done) == ("finished", status.planned)
    (sampled / "three" / SUMMARY).rename(sampled / SUMMARY)
    try:
        unfinished = FollowedRun(sampled / "three").status()
    finally:
        (sampled / SUMMARY).rename(sampled / "three" / SUMMARY)
    assert unfinished.success == status.success, "a task counts once"


def test_the_table_names_the_samples(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["run", "--agent", "random", "--task", GAMES[0], "--task", GAMES[1], "--max-steps", "1", "--samples", "3"]
    assert run_cli([*words, "--workers", "0"]) == 0
    shown = capsys.readouterr()
    assert "2 tasks x 3 samples" in shown.out and "pass@2" in shown.out and "pass@3" in shown.out
    assert "exchange test p =" in shown.out and "McNemar exact" not in shown.out
    assert "warning" not in shown.err
    assert run_cli([*words[:-1], "0"]) == 2
    assert "--samples 0" in capsys.readouterr().err


def test_greedy_samples_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    warn_of_samples([RunConfig(agent="hf:tiny", samples=3)])
    assert "--samples 3 at temperature 0" in capsys.readouterr().err
    for quiet in (RunConfig(agent="hf:tiny"), RunConfig(agent="random", samples=3)):
        warn_of_samples([quiet])
    warn_of_samples([RunConfig(agent="hf:tiny", samples=3, elicitation=Elicitation(temperature=0.7))])
    assert capsys.readouterr().err == ""
