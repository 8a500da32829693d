"""What the commands do, as functions: they return what is read from the folder again, and show it in a few lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import cotbench
from cotbench.agents.random import RandomAgent
from cotbench.cli import run_cli
from cotbench.errors import RunFolderError, UnknownNameError, UsageError
from cotbench.prompting.query import Decision, Query
from cotbench.recipes import _registry
from tests.conftest import needs_bfcl, needs_hf
from tests.cotbench.report.pages import needs_report

SETTINGS = {"env": "alfworld-gen", "episodes": 2, "max_steps": 3}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[cotbench.Run, cotbench.Run]:
    folder = tmp_path_factory.mktemp("runs")
    configs = [cotbench.RunConfig.model_validate({**SETTINGS, "agent": agent}) for agent in ("random", "expert")]
    one, two = (cotbench.run(config, out=folder / config.agent, workers=0) for config in configs)
    return one, two


def _short(result: object) -> str:
    text = repr(result)
    assert 2 <= len(text.splitlines()) <= 12 and max(map(len, text.splitlines())) < 200
    html = result._repr_html_()  # type: ignore[attr-defined]
    assert html.startswith("<div") and html.endswith("</div>")
    return text


def test_a_run_is_what_is_read_again(runs: tuple[cotbench.Run, cotbench.Run]) -> None:
    for run in runs:
        again = cotbench.load_run(run.path)
        assert type(again) is type(run) is cotbench.Run and again == run and _short(again) == _short(run)
        assert run.finished and len(run.episodes) == 4
    text = _short(runs[0])
    gap = runs[0].summary.gap
    assert gap is not None and "Run of random on alfworld-gen paper/id: 2 of 1000 tasks, seed 0" in text
    assert f"prompt {0:.2f} [0.00, " in text and "(n=2)" in text and str(runs[0].path) in text
    assert _short(runs[0].summary) in text.removeprefix("Run of ")


class Counting(RandomAgent):
    """Counts what it is asked."""

    asked = 0

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        self.asked += len(queries)
        return super().decide(queries)


def test_a_run_goes_on_where_that_is_wanted(tmp_path: Path) -> None:
    config, agent = cotbench.RunConfig.model_validate({**SETTINGS, "agent": "random"}), Counting()
    first = cotbench.run(config, out=tmp_path / "r", workers=0, agent=agent, resume=True)
    asked = agent.asked
    assert asked > 0
    with pytest.raises(RunFolderError, match="resume with"):
        cotbench.run(config, out=tmp_path / "r", agent=agent)
    with pytest.raises(RunFolderError, match="its seed is 0, not 1"):
        cotbench.run(config.model_copy(update={"seed": 1}), out=tmp_path / "r", agent=agent, resume=True)
    lines = (tmp_path / "r" / "episodes.jsonl").read_text().splitlines(keepends=True)
    assert cotbench.run(config, out=tmp_path / "r", workers=0, agent=agent, resume=True) == first and agent.asked == asked
    (tmp_path / "r" / "episodes.jsonl").write_text("".join(lines[:-1]))
    (tmp_path / "r" / "summary.json").unlink()
    assert "NOT FINISHED: 3 episodes so far" in _short(cotbench.load_run(tmp_path / "r"))
    again = cotbench.run(config, out=tmp_path / "r", workers=0, agent=agent, resume=True)
    assert asked < agent.asked < 2 * asked and len(again.records) == 4 and again.finished


def test_runs_are_compared_by_folder_or_object(runs: tuple[cotbench.Run, cotbench.Run]) -> None:
    one, two = runs
    compared = cotbench.compare(one, str(two.path))
    assert compared == cotbench.compare(one.path, {"alfworld-gen": two})
    text = _short(compared)
    success = compared.envs["alfworld-gen"].modes["cot"].success.difference
    assert "B - A on alfworld-gen, 2 tasks in common" in text
    assert f"success, CoT: {success.mean:+.2f} [" in text
    assert "<td" in compared._repr_html_() and "Holm" in compared._repr_html_()


@needs_bfcl
def test_a_suite_is_compared_by_its_folder(runs: tuple[cotbench.Run, cotbench.Run], tmp_path: Path) -> None:
    words = ["run", "--agent", "random", "--env", "alfworld-gen,bfcl", "--episodes", "2", "--max-steps", "3", "--workers", "0"]
    assert run_cli([*words, "--out", str(tmp_path / "suite"), "--json"]) == 0
    compared = cotbench.compare(tmp_path / "suite", runs[0])
    assert list(compared.envs) == ["alfworld-gen"] and compared.left_out == ("bfcl",)
    assert "left out, played by one only: bfcl" in _short(compared)


@needs_report
def test_a_report_of_runs(runs: tuple[cotbench.Run, cotbench.Run], tmp_path: Path) -> None:
    written = cotbench.report(runs[0], runs[1].path, out=tmp_path / "page")
    assert written.path == tmp_path / "page" / "index.html" and written.path.is_file()
    text = _short(written)
    assert written.page.answer[0] in text and str(written.path) in text


def test_a_probe_is_what_is_read_again(tmp_path: Path) -> None:
    reference = cotbench.run(cotbench.RunConfig(agent="expert", mode="cot", episodes=2), out=tmp_path / "r", workers=0)
    config = cotbench.ProbeConfig(probe="alignment", agent="random", states=3, reference=str(reference.path))
    out = tmp_path / "p"
    found = cotbench.probe(config, out=out)
    again = cotbench.load_probe(out)
    assert type(again) is cotbench.ProbeResult and again == found and len(found.states) == 3
    name, number = next(iter(found.numbers.estimates.items()))
    assert f"{name}: {number.mean:.3f} [" in _short(found) and f"(n={number.n})" in _short(found)
    row = found.estimates.set_index("number").loc[name]
    assert (row["mean"], row["n"]) == (number.mean, number.n)
    with pytest.raises(RunFolderError, match="is not empty"):
        cotbench.probe(config, out=out)
    assert cotbench.probe(config, out=out, resume=True) == found
    with pytest.raises(UsageError, match=r"elicitation\.temperature -1"):
        cotbench.probe(config.model_copy(update={"elicitation": {"temperature": -1}}), out=tmp_path / "q")
    assert not (tmp_path / "q").exists()


def test_an_environment_by_name() -> None:
    env = cotbench.make_env("alfworld-gen", split="ood")
    assert isinstance(env, cotbench.TextEnv) and "split ood of paper" in _short(env) and "call reset()" in _short(env)
    _, info = env.reset(seed=0)
    env.step("look")
    assert info["task"] in _short(env) and "step 1 of 50" in _short(env)
    env.close()
    with pytest.raises(UnknownNameError, match="did you mean 'alfworld-gen'"):
        cotbench.make_env("alfworld-gem")


class _Config(BaseModel):
    model: str
    seed: int = 0


@dataclass(frozen=True)
class _Trained:
    folder: Path
    summary_line: str = ""


def _train(config: _Config, out: Path, *, resume: bool = False, progress: Callable[[], Any] | None = None) -> _Trained:
    record = {"recipe": "api-test", "config": config.model_dump(), "data": {"episodes": 7}, "elicitations": {}, "steps": 4}
    out.mkdir(exist_ok=resume)
    (out / "training.json").write_text(json.dumps(record))
    for step in (2, 4):
        (out / f"checkpoint-{step}").mkdir(exist_ok=True)
        state = {"log_history": [{"step": one, "loss": 1 / one} for one in range(1, step + 1)]}
        (out / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
    for folder, share in ((out / "checkpoint-4", 1.0), (out / "checkpoint-2", 0.5), (out, 1.0)):
        card = record | {"step": int(4 * share), "progress": share, "seen": {"tokens": 900.0, "masked_share": 0.25}}
        (folder / "recipe.json").write_text(json.dumps(card))
    return _Trained(out)


@needs_hf  # Training wants the libraries, whatever the recipe.
def test_a_training_is_what_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = cotbench.Recipe("api-test", "a test", _Config, _train, cost=lambda config, sizes, episodes: 0.0)
    monkeypatch.setitem(_registry._registered, "api-test", recipe)
    made = cotbench.train(tmp_path / "t", recipe="api-test", model="hf:tiny")
    assert made == cotbench.load_training(tmp_path / "t") and made.finished
    assert [(folder.name, share) for folder, share in made.checkpoints] == [("checkpoint-2", 0.5), ("checkpoint-4", 1.0)]
    assert list(made.log["loss"]) == [1, 1 / 2, 1 / 3, 1 / 4]
    text = _short(made)
    assert "Training by recipe api-test" in text and f"hf:{tmp_path / 't'}" in text and "tokens: 900" in text
    with pytest.raises(UnknownNameError, match="did you mean 'model'"):
        cotbench.train(tmp_path / "t", recipe="api-test", modle="hf:tiny")
    with pytest.raises(RunFolderError, match="holds another training: its model is"):
        cotbench.train(tmp_path / "t", resume=True, model="hf:other")
    for card in tmp_path.rglob("recipe.json"):
        card.unlink()
    unfinished = cotbench.load_training(tmp_path / "t")
    assert not unfinished.finished and "NOT FINISHED" in _short(unfinished)
    assert cotbench.train(tmp_path / "t", resume=True).finished


def test_a_file_of_somebody_elses_needs_trust(tmp_path: Path) -> None:
    text = (files("cotbench.study") / "presets" / "smoke.toml").read_text()
    (tmp_path / "study.toml").write_text(text.replace('models = ["', 'models = ["openai:m@http://elsewhere.example/v1", "', 1))
    with pytest.raises(UsageError, match=r"names the address 'http://elsewhere.example/v1.*: add trust=True"):
        cotbench.study(tmp_path / "study.toml", out=tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("kind", ["run", "probe", "study", "training"])
def test_a_folder_of_something_else(kind: str, tmp_path: Path) -> None:
    with pytest.raises(cotbench.CotbenchError, match=str(tmp_path)):
        getattr(cotbench, f"load_{kind}")(tmp_path)


@needs_hf
def test_pairs_are_what_is_read_again(tmp_path: Path) -> None:
    traces = tmp_path / "traces"
    assert run_cli(["traces", "--episodes", "2", "--out", str(traces)]) == 0
    settings: dict[str, Any] = {"agent": "hf:tiny-cot?threads=1", "data": traces, "samples": 2, "states": 8}
    made = cotbench.pairs(tmp_path / "p", **settings)
    assert made == cotbench.load_pairs(tmp_path / "p") and len(made) == len(made.pairs) == len(made.frame) == made.summary.pairs
    assert len(made) == 0 or {"task", "chosen_trace", "rejected_action", "rejected_steps_to_go"} <= set(made.frame.columns)
    text = _short(made)
    assert "Preference pairs" in text and "of 8 states" in text and f"folder: {tmp_path / 'p'}" in text
    before = (tmp_path / "p" / "states.jsonl").read_bytes()
    with pytest.raises(RunFolderError, match="continue them with resume=True"):
        cotbench.pairs(tmp_path / "p", **settings)
    assert cotbench.pairs(tmp_path / "p", resume=True, **settings) == made
    assert (tmp_path / "p" / "states.jsonl").read_bytes() == before
    with pytest.raises(RunFolderError, match="another set of pairs: its samples is 2, not 3"):
        cotbench.pairs(tmp_path / "p", resume=True, **{**settings, "samples": 3})
    with pytest.raises(UsageError, match="samples 0: "):
        cotbench.pairs(tmp_path / "q", **{**settings, "samples": 0})
    (tmp_path / "p" / "pairs.json").unlink()
    with pytest.raises(RunFolderError, match="no finished set of pairs"):
        cotbench.load_pairs(tmp_path / "p")
