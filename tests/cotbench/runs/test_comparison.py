"""Two runs, compared: numbers computed a second way, what is refused, what is said."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from cotbench.cli.compare import compare as compare_command
from cotbench.errors import CotbenchError, UsageError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision
from cotbench.runs.comparison import Comparison, EnvComparison, compare_runs, elicitation_differences
from cotbench.runs.episode import Episode, Step
from cotbench.runs.manifest import SUITE, RunConfig
from cotbench.runs.results import Run, load_run
from cotbench.runs.runner import run
from cotbench.stats import estimates

ENV = "alfworld-gen"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two agents, and some that differ from the first in one thing."""
    root = tmp_path_factory.mktemp("runs")
    few: dict[str, Any] = {"agent": "random", "episodes": 3, "max_steps": 8}
    run(RunConfig(**few), out=root / "random")
    run(RunConfig(**{**few, "agent": "expert", "episodes": 5}), out=root / "expert")
    run(RunConfig(**few, elicitation=Elicitation(trace_tokens=64, temperature=0.5)), out=root / "hot")
    run(RunConfig(**{**few, "max_steps": 5}), out=root / "short")
    run(RunConfig(**few, mode="prompt"), out=root / "prompt")
    run(RunConfig(**few, mode="cot"), out=root / "cot")
    run(RunConfig(**{**few, "episodes": None}, tasks=("alfworld/gen/cool/17",)), out=root / "elsewhere")
    run(RunConfig(**{**few, "episodes": 1}), out=root / "one")
    return root


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], folders: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What the command prints."""
    monkeypatch.chdir(folders)
    app = typer.Typer()
    app.command()(compare_command)

    def call(*arguments: str) -> str:
        assert app(list(arguments), standalone_mode=False) == 0
        return capsys.readouterr().out

    return call


def _compared(first: Run, second: Run, **options: bool) -> EnvComparison:
    return compare_runs({ENV: first}, {ENV: second}, **options).envs[ENV]


def _step(action: str, prompt_action: str, tokens: int) -> Step:
    said = Decision(action, action_tokens=tokens)
    return Step(action=action, decision=said, prompt_action=prompt_action, prompt_decision=said, observation="", score=0.0)


def _played(like: Run, seed: int, tasks: int, better: float) -> Run:
    """A run with many episodes, drawn."""
    draw, records = random.Random(seed), []
    for number in range(tasks):
        hard = random.Random(number).random()
        for mode, lift in (("prompt", 0.0), ("cot", better)):
            won = draw.random() < 0.7 - 0.5 * hard + lift
            steps = [_step("a", "a" if draw.random() < 0.6 + lift else "b", draw.randint(1, 9)) for _ in range(1 + number % 4)]
            records.append(
                Episode(
                    task=f"t{number}",
                    task_type="even" if number % 2 == 0 else "odd",
                    mode=mode,
                    success=won,
                    score=1.0 if won else round(draw.random() / 2, 2),
                    steps=len(steps),
                    trajectory=tuple(steps),
                )
            )
    names = tuple(f"t{number}" for number in range(tasks))
    return replace(like, manifest=like.manifest.model_copy(update={"task_list": names}), records=records)


@pytest.fixture
def pair(folders: Path) -> tuple[Run, Run]:
    like = load_run(folders / "random")
    return _played(like, 1, 40, 0.05), _played(like, 2, 40, 0.25)


def test_success_and_its_test_by_another_way(pair: tuple[Run, Run]) -> None:
    found = _compared(*pair)
    frames = [one.episodes.pivot(index="task", columns="mode", values="success") for one in pair]
    for mode in ("prompt", "cot"):
        first, second = (frame[mode].astype(bool) for frame in frames)
        one = found.modes[mode]
        b, c = int((first & ~second).sum()), int((second & ~first).sum())
        assert (len(one.first_only), len(one.second_only)) == (b, c) and b and c
        assert set(one.first_only) == set(first.index[first & ~second])
        assert one.success.p == pytest.approx(mcnemar([[0, b], [c, 0]], exact=True).pvalue)
        assert one.success.first.mean == pytest.approx(first.mean()) and one.n == 40
        assert one.success.difference == estimates.paired_rate_difference(first.tolist(), second.tolist())
        for name in ("even", "odd"):
            of_type = [task for task in first.index if (int(task[1:]) % 2 == 0) == (name == "even")]
            assert one.by_type[name].difference.mean == pytest.approx(second[of_type].mean() - first[of_type].mean())
            assert one.by_type[name].difference.n == 20 and one.by_type[name].p is None


def test_the_gap_of_gaps_by_another_way(pair: tuple[Run, Run]) -> None:
    gap = _compared(*pair).gap
    frames = [one.episodes.pivot(index="task", columns="mode", values="success").astype(float) for one in pair]
    gaps = [frame["cot"] - frame["prompt"] for frame in frames]
    assert gap.first.mean == pytest.approx(gaps[0].mean()) and gap.second.mean == pytest.approx(gaps[1].mean())
    assert gap.difference == estimates.mean((gaps[1] - gaps[0]).reindex([f"t{n}" for n in range(40)]).tolist())
    # Within a task the two sides are exchanged: the signs of the differences.
    differences, draw = (gaps[1] - gaps[0]).tolist(), random.Random(3)
    hits = sum(
        abs(sum(value * draw.choice((-1, 1)) for value in differences)) >= abs(sum(differences)) - 1e-9 for _ in range(3000)
    )
    assert gap.p == pytest.approx(hits / 3000, abs=0.03)


def test_the_rest_by_another_way(pair: tuple[Run, Run]) -> None:
    found = _compared(*pair)
    episodes, steps = [one.episodes for one in pair], [one.steps for one in pair]
    for mode in ("prompt", "cot"):
        means = [frame[frame["mode"] == mode][["score", "steps"]].mean() for frame in episodes]
        tokens = [frame[frame["mode"] == mode].groupby("task")["action_tokens"].sum().mean() for frame in steps]
        one = found.modes[mode]
        assert one.score.difference.mean == pytest.approx(means[1]["score"] - means[0]["score"]) and one.score.p is not None
        assert one.steps.difference.mean == pytest.approx(means[1]["steps"] - means[0]["steps"])
        assert one.tokens.difference.mean == pytest.approx(tokens[1] - tokens[0])
        assert (one.tokens.first.mean, one.tokens.second.mean) == (pytest.approx(tokens[0]), pytest.approx(tokens[1]))
    cot = [frame[frame["mode"] == "cot"] for frame in steps]
    same = [(frame["prompt_action"] == frame["action"]).mean() for frame in cot]
    assert found.consistency.first.mean == pytest.approx(same[0]) and found.consistency.second.mean == pytest.approx(same[1])
    assert found.consistency.difference.mean == pytest.approx(same[1] - same[0]) and found.consistency.difference.n == 40


def test_every_p_value_is_in_the_family(pair: tuple[Run, Run]) -> None:
    whole = compare_runs({ENV: pair[0]}, {ENV: pair[1]})
    found = whole.envs[ENV]
    p_values = {
        f"{ENV} success prompt": found.modes["prompt"].success.p,
        f"{ENV} score prompt": found.modes["prompt"].score.p,
        f"{ENV} success cot": found.modes["cot"].success.p,
        f"{ENV} score cot": found.modes["cot"].score.p,
        f"{ENV} gap": found.gap.p,
        f"{ENV} consistency": found.consistency.p,
    }
    assert {name: one.p for name, one in whole.family.items()} == p_values
    adjusted = multipletests(list(p_values.values()), method="holm")[1]
    assert [whole.family[name].adjusted for name in p_values] == pytest.approx(list(adjusted))


def test_exchanged_runs_give_the_mirrored_numbers(pair: tuple[Run, Run]) -> None:
    forth, back = _compared(*pair), _compared(pair[1], pair[0])
    for one, other in ((forth.gap, back.gap), (forth.consistency, back.consistency)):
        assert one.difference.mean == pytest.approx(-other.difference.mean) and one.p == pytest.approx(other.p, abs=0.02)
        assert one.difference.low == pytest.approx(-other.difference.high, abs=0.005)
    assert forth.modes["cot"].first_only == back.modes["cot"].second_only


def test_a_failed_episode_takes_its_pair_away_and_is_counted(pair: tuple[Run, Run]) -> None:
    first, second = pair
    broken = [
        Episode(task=one.task, task_type=one.task_type, mode=one.mode, error="server down") if one.key == "t3#cot" else one
        for one in second.records
    ]
    found = _compared(first, replace(second, records=broken))
    assert (found.modes["cot"].n, found.modes["cot"].errors) == (39, 1)
    assert (found.modes["prompt"].n, found.modes["prompt"].errors) == (40, 0)
    assert found.gap.difference.n == 39 and found.consistency.difference.n == 39
    assert (found.first.errors, found.second.errors) == (0, 1)


def test_only_common_tasks_are_paired(folders: Path) -> None:
    found = _compared(load_run(folders / "random"), load_run(folders / "expert"))
    assert (found.tasks, found.first.left_out, found.second.left_out) == (3, 0, 2)
    assert found.modes["cot"].success.difference.mean == 1.0
    assert set(found.modes["cot"].second_only) == set(load_run(folders / "random").manifest.task_list)
    assert found.modes["cot"].score.p is None  # All scores are 0 or 1: a second test of success.


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("hot", "played with different settings: trace_tokens is 256 in the first and 64 in the second"),
        ("short", "played with different settings: max_steps is 8 in the first and 5 in the second"),
        ("elsewhere", "no task in common"),
    ],
)
def test_what_cannot_be_compared_is_refused(folders: Path, second: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        _compared(load_run(folders / "random"), load_run(folders / second))
    assert "\n" not in str(refused.value)


def test_other_environments_and_modes_are_refused(folders: Path) -> None:
    first = load_run(folders / "random")
    with pytest.raises(UsageError, match="one run is on alfworld-gen, the other on bfcl"):
        compare_runs({ENV: first}, {"bfcl": first})
    with pytest.raises(UsageError, match="no mode in common"):
        _compared(load_run(folders / "prompt"), load_run(folders / "cot"))
    found = _compared(first, load_run(folders / "cot"))
    assert list(found.modes) == ["cot"] and found.gap is None and found.consistency is None


def test_everything_that_was_asked_otherwise_is_told(folders: Path) -> None:
    first, second = load_run(folders / "random"), load_run(folders / "hot")
    assert [line.split()[0] for line in elicitation_differences(first, second)] == ["trace_tokens", "temperature"]
    assert elicitation_differences(first, first) == []

    def changed(**fields: Any) -> Run:
        return replace(first, manifest=first.manifest.model_copy(update=fields))

    assert "fixed texts" in elicitation_differences(first, changed(elicitation_fingerprint="0" * 16))[0]
    assert "instructions" in elicitation_differences(first, changed(instructions_sha256="0" * 64))[0]
    assert "generator" in elicitation_differences(first, changed(data={**first.manifest.data, "generator": "0"}))[0]
    # The sum over the games of other tasks is another one.
    games, others = (
        changed(data={"games_sha256": "1"}),
        changed(data={"games_sha256": "2"}, task_list=("alfworld/gen/cool/17",)),
    )
    assert elicitation_differences(games, others) == []
    assert elicitation_differences(games, changed(data={"games_sha256": "2"})) != []


def test_the_table(cli: Callable[..., str]) -> None:
    text = cli("random", "expert")
    assert "alfworld-gen: 3 tasks in common" in text
    assert "A: random on paper/id, seed 0 (random)" in text and "B: expert" in text
    row = next(line for line in text.splitlines() if line.startswith("success, CoT"))
    assert row.split()[2] == "0.00" and "1.00 [0.44, 1.00]" in row and "+1.00 [" in row and "0.250" in row
    assert "CoT: of 3 tasks won only by A 0, only by B 3" in text
    assert "left out: 2 of the 5 tasks of B" in text
    assert "over tasks, not over seeds" in text and "…" not in text
    assert "alfworld/gen" not in text
    listed = cli("random", "expert", "--tasks")
    assert listed.count("only B: alfworld/gen/") == 6
    assert max(map(len, listed.splitlines())) <= 120


def test_a_warning_stands_where_it_was_compared_anyway(cli: Callable[..., str]) -> None:
    with pytest.raises(CotbenchError, match="--anyway"):
        cli("random", "hot")
    text = cli("random", "hot", "--anyway")
    assert "WARNING, different settings: trace_tokens is 256" in text and "WARNING, different settings: temperature" in text


def test_one_task_has_no_test(cli: Callable[..., str]) -> None:
    text = cli("random", "one", "--verbose")
    assert "only one task: no test" in text and "[n=1]" in text and "Holm:" not in text
    assert json.loads(cli("random", "one", "--json"))["family"] == {}


def test_json_holds_every_number(cli: Callable[..., str], folders: Path) -> None:
    printed = Comparison.model_validate_json(cli("random", "expert", "--json"))
    first, second = load_run(folders / "random"), load_run(folders / "expert")
    again = compare_runs({ENV: first}, {ENV: second})
    assert printed.family == again.family and printed.envs[ENV].modes == again.envs[ENV].modes


def test_suites_are_compared_env_by_env(folders: Path, tmp_path: Path, cli: Callable[..., str]) -> None:
    for name in ("random", "expert"):
        suite = tmp_path / name
        shutil.copytree(folders / name, suite / ENV)
        configs = [load_run(folders / name).manifest.config.model_dump(mode="json")]
        configs += [{**configs[0], "env": "scienceworld"}]
        (suite / SUITE).write_text(json.dumps(configs))
    assert "alfworld-gen: 3 tasks in common" in cli(str(tmp_path / "random"), str(tmp_path / "expert"))
    # A suite and a run: the environment of the run.
    assert "alfworld-gen: 3 tasks in common" in cli(str(tmp_path / "random"), "expert")
    shutil.rmtree(tmp_path / "random" / ENV)
    with pytest.raises(UsageError, match="has no run yet: resume it with"):
        cli(str(tmp_path / "random"), "expert")
    with pytest.raises(UsageError, match="nowhere is not a run folder"):
        cli("nowhere", "expert")


def test_environments_of_one_suite_alone_are_named(pair: tuple[Run, Run]) -> None:
    whole = compare_runs({ENV: pair[0], "bfcl": pair[0]}, {"scienceworld": pair[1], ENV: pair[1]})
    assert list(whole.envs) == [ENV] and whole.left_out == ("bfcl", "scienceworld")


def test_what_the_paper_reports_is_marked(cli: Callable[..., str], pair: tuple[Run, Run]) -> None:
    assert "paper: reports no success rate of random and expert on alfworld-gen paper/id" in cli("random", "expert", "--paper")

    def trained(one: Run, model: str) -> Run:
        config = one.manifest.config.model_copy(update={"env": "alfworld", "split": "ood"})
        return replace(one, manifest=one.manifest.model_copy(update={"config": config, "agent": {"model": model}}))

    first, second = trained(pair[0], "Qwen/Qwen3-4B"), trained(pair[1], "Qwen/Qwen3-8B")
    found = compare_runs({"alfworld": first}, {"alfworld": second}, with_paper=True).envs["alfworld"]
    assert [(row.model, row.method, row.value) for row in found.reported] == [
        ("Qwen3-4B", "GRPO", 0.44),
        ("Qwen3-4B", "GRPO+", 0.52),
        ("Qwen3-8B", "GRPO", 0.86),
        ("Qwen3-8B", "GRPO+", 0.89),
    ]
    assert compare_runs({"alfworld": first}, {"alfworld": second}).envs["alfworld"].reported == ()


def test_the_paper_has_its_column(pair: tuple[Run, Run], capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from cotbench.runs.comparison_table import comparison_table

    config = pair[0].manifest.config.model_copy(update={"env": "alfworld", "split": "ood"})
    first, second = (
        replace(one, manifest=one.manifest.model_copy(update={"config": config, "agent": {"model": "Qwen3-4B"}}))
        for one in pair
    )
    whole = compare_runs({"alfworld": first}, {"alfworld": second}, with_paper=True)
    Console(width=120).print(comparison_table(whole, paper=True))
    text = capsys.readouterr().out
    assert "…" not in text
    row = next(line for line in text.splitlines() if line.startswith("success, CoT"))
    assert row.rstrip().endswith("GRPO 0.44") and "GRPO+ 0.52" in text
    assert "reported, not ours" in " ".join(text.split())
