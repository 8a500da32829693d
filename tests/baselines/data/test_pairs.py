"""Sampling of pairs: which sample is rejected, why a state has none, and work that was killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents.hf.agent import HFAgent, ModelHandle
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.token_ids import answer_pieces, prompt_ids
from cotbench.baselines.data.demonstration import Demonstration, write_jsonl
from cotbench.baselines.data.pair_sampling import sampled_pieces
from cotbench.baselines.data.pairs import PAIRS_FOLDER, STATES, PairsSummary, make_pairs, make_pairs_plan
from cotbench.baselines.data.pairs_config import PairsConfig
from cotbench.baselines.data.preference_pair import read_pairs
from cotbench.baselines.data.steps_to_go import by_path, steps_to_go, takeover_of
from cotbench.baselines.recipes.sft import SFTConfig, train
from cotbench.envs.registry import Instructions, env_entry
from cotbench.errors import MissingDataError, UsageError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision, DecisionTokens, Query
from cotbench.runs.folder import open_folder
from tests.baselines.conftest import ENV

Choose = Callable[[Query], str | None]


@dataclass
class Author:
    """An agent that writes the actions that it is told to, with token ids as an engine returns them; None: malformed."""

    tokenizer: Any
    choose: Choose
    name: str = "author"
    queried: int = 0
    fails: frozenset[int | tuple[int, int]] = frozenset()

    @contextmanager
    def expose_model(self) -> Iterator[ModelHandle]:
        yield ModelHandle(None, Chat(self.tokenizer), 4096)

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        return [self._decide(query) for query in queries]

    def _decide(self, query: Query) -> Decision:
        self.queried += 1
        assert query.return_tokens and query.elicitation.temperature == 1.0
        if query.step in self.fails or (query.step, query.rollout) in self.fails:
            return Decision("", error="the server is gone")
        chosen = self.choose(query)
        chat, trace, action = Chat(self.tokenizer), "look", chosen or "look"
        pieces = answer_pieces(chat, trace, action)
        ids = tuple(id_ for _, piece in pieces for id_ in piece)
        tokens = DecisionTokens(tuple(prompt_ids(query, chat, 4096)[0]), ids, (0.0,) * len(ids), (False,) * len(ids))
        last = sum(len(piece) for label, piece in pieces if label in ("action", "closing"))
        return Decision(action, trace, format_ok=chosen is not None, action_tokens=last, tokens=tokens)

    def close(self) -> None: ...


@pytest.fixture
def sample_pairs(some_played: list[Demonstration], some_words: Any, tmp_path: Path) -> Callable[..., PairsSummary]:
    """Makes pairs of the shortest game against an author."""
    shortest = min(some_played, key=lambda one: len(one.actions))
    write_jsonl(tmp_path / "t.jsonl", [shortest])

    def call(choose: Choose, fails: Sequence[int | tuple[int, int]] = (), **options: Any) -> PairsSummary:
        config = PairsConfig(agent="author", data=(str(tmp_path / "t.jsonl"),), **options)
        with open_folder(tmp_path / "out", PAIRS_FOLDER) as folder:
            return make_pairs(make_pairs_plan(config), folder, Author(some_words, choose, fails=frozenset(fails)))

    return call


@pytest.fixture
def game(some_played: list[Demonstration]) -> Demonstration:
    return min(some_played, key=lambda one: len(one.actions))


def own(game: Demonstration) -> Choose:
    return lambda query: game.actions[query.step]


@pytest.fixture
def traced(game: Demonstration) -> list[int]:
    """The steps that have a trace, and so a state."""
    return [step for step, trace in enumerate(game.traces) if trace]


@pytest.fixture
def progress(game: Demonstration, traced: list[int]) -> list[int]:
    """Those at which looking around, which changes nothing, leaves more steps to go than the teacher's action."""
    found = steps_to_go([game], {(0, step): [game.actions[step], "look"] for step in traced}).steps
    return [step for step in traced if found[0, step]["look"] > found[0, step][game.actions[step]]]


def test_the_first_worse_sample_is_rejected(
    sample_pairs: Any, game: Demonstration, traced: list[int], progress: list[int], tmp_path: Path
) -> None:
    summary = sample_pairs(
        lambda query: ["look", None, "inventory"][query.rollout - 1] if query.rollout else game.actions[query.step]
    )
    pairs = read_pairs(tmp_path / "out")
    assert [pair.step for pair in pairs] == progress and summary.pairs == len(progress) > 1
    assert summary.states == len(traced)
    for pair in pairs:
        assert (pair.chosen.action, pair.rejected.action) == (game.actions[pair.step], "look")
        assert pair.rejected.trace == "look" and pair.rejected.author == "author" and pair.chosen.author == game.teacher
    other = len(traced) - len(progress)
    expected = {"malformed": len(traced), "same action": len(traced), "worse": 2 * len(progress), "as good": 2 * other}
    assert summary.samples == {name: count for name, count in expected.items() if count}
    assert summary.left_out == ({"not worse": other} if other else {})


def test_steps_to_go_are_those_of_the_environment_itself(game: Demonstration) -> None:
    places = {(0, step): [game.actions[step], "look"] for step in range(len(game.actions))}
    found = steps_to_go([game], places).steps
    env = env_entry(ENV).make(split="train")
    env.reset(options={"task": game.task})
    for step, action in enumerate(game.actions):
        assert found[0, step] == {name: env.remaining_steps(name) for name in (action, "look")}
        env.step(action)
    env.close()
    assert found[0, len(game.actions) - 1][game.actions[-1]] == 0, "the last action wins"


@pytest.mark.parametrize(
    ("choose", "fails", "left_out"),
    [("own", False, "not worse"), ("broken", False, "malformed"), ("own", True, "error")],
)
def test_a_state_without_a_pair_is_counted_under_its_reason(
    sample_pairs: Any, game: Demonstration, choose: str, fails: bool, left_out: str
) -> None:
    summary = sample_pairs(own(game) if choose == "own" else lambda query: None, fails=range(100) if fails else ())
    assert summary.pairs == 0 and summary.left_out == {left_out: summary.states}
    assert sum(summary.samples.values()) == 4 * summary.states


def test_what_failed_is_asked_again_and_nothing_else(sample_pairs: Any, traced: list[int], tmp_path: Path) -> None:
    first = traced[0]
    assert sample_pairs(lambda query: "look", fails=[first]).left_out["error"] == 1
    steps: list[int] = []

    def choose(query: Query) -> str:
        steps.append(query.step)
        return "look"

    assert "error" not in sample_pairs(choose).left_out
    assert set(steps) == {first}
    resumed = (tmp_path / "out" / "pairs.jsonl").read_bytes()
    for file in (tmp_path / "out").iterdir():
        file.unlink()
    sample_pairs(lambda query: "look")
    assert (tmp_path / "out" / "pairs.jsonl").read_bytes() == resumed


def test_a_sample_that_failed_may_be_the_worse_one(
    sample_pairs: Any, game: Demonstration, traced: list[int], progress: list[int], tmp_path: Path
) -> None:
    first, second = progress[:2]

    def choose(query: Query) -> str:
        return "look" if query.step in (first, second) and query.rollout == 1 else game.actions[query.step]

    # Before the worse sample: not known which is the first. Behind it: no matter.
    assert sample_pairs(choose, fails=[(first, 0), (second, 2)]).left_out["error"] == 1
    assert [pair.step for pair in read_pairs(tmp_path / "out")] == [second]
    assert sample_pairs(choose, fails=[(first, 3), (traced[-1], 0)]).pairs == 2


@pytest.mark.parametrize("takeover", ["expert", "path"])
def test_where_the_environment_failed_the_steps_are_counted_again(
    takeover: str, sample_pairs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Once at every step but the first, by an exception of the environment's own code."""
    env_class = env_entry(ENV).loaded_class()
    if takeover == "path":
        monkeypatch.setattr("cotbench.baselines.data.steps_to_go.takeover_of", lambda env: "path")
    name = "remaining_steps" if takeover == "expert" else "reset"
    whole = getattr(env_class, name)
    calls: list[str] = []

    def failing(self: Any, *given: Any, **named: Any) -> Any:
        calls.append(name)
        if len(calls) > 3:
            raise ValueError("not like this")
        return whole(self, *given, **named)

    with monkeypatch.context() as broken:
        broken.setattr(env_class, name, failing)
        summary = sample_pairs(lambda query: "look")
    assert 0 < summary.left_out["error"] < summary.states
    failed = [json.loads(line) for line in (tmp_path / "out" / STATES).read_text().splitlines()]
    assert any("not like this" in (row["error"] or "") for row in failed)
    assert "error" not in sample_pairs(lambda query: "look").left_out
    resumed = (tmp_path / "out" / "pairs.jsonl").read_bytes()
    for file in (tmp_path / "out").iterdir():
        file.unlink()
    sample_pairs(lambda query: "look")
    assert (tmp_path / "out" / "pairs.jsonl").read_bytes() == resumed


def test_an_environment_that_cannot_be_played_is_said_before_anything_is_sampled(
    sample_pairs: Any, game: Demonstration, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(self: Any, **_: Any) -> Any:
        raise MissingDataError("no games here: cotbench data fetch")

    monkeypatch.setattr(env_entry(ENV).loaded_class(), "reset", missing)
    with pytest.raises(MissingDataError, match="no games here"):
        sample_pairs(lambda query: pytest.fail("a model was asked"))


def test_the_advice_depends_on_why_there_are_no_pairs(sample_pairs: Any, game: Demonstration) -> None:
    assert "sample more answers" in sample_pairs(own(game)).advice
    summary = sample_pairs(own(game))
    for reason, word in (("unknown", "nothing is known"), ("malformed", "malformed"), ("error", "--resume")):
        assert word in summary.model_copy(update={"left_out": {reason: 2, "not worse": 1}}).advice


def test_killed_and_resumed_the_pairs_are_the_same(sample_pairs: Any, tmp_path: Path) -> None:
    sample_pairs(lambda query: "look")
    out = tmp_path / "out"
    whole = (out / "pairs.jsonl").read_bytes(), (out / "pairs.json").read_bytes()
    lines = (out / STATES).read_bytes().splitlines(keepends=True)
    (out / STATES).write_bytes(b"".join(lines[:2]) + lines[2][:20])
    for name in ("pairs.jsonl", "pairs.json"):
        (out / name).unlink()
    sample_pairs(lambda query: "look")
    assert ((out / "pairs.jsonl").read_bytes(), (out / "pairs.json").read_bytes()) == whole


def test_fewer_states_are_a_subset(sample_pairs: Any, tmp_path: Path) -> None:
    def drawn(states: int | None) -> set[int]:
        for file in (tmp_path / "out").glob("*"):
            file.unlink()
        sample_pairs(lambda query: "look", states=states)
        return {json.loads(line)["step"] for line in (tmp_path / "out" / STATES).read_text().splitlines()}

    assert drawn(2) < drawn(3) < drawn(None)


def test_a_sampled_answer_is_taken_apart_as_it_was_put_together(
    game: Demonstration, learners: dict[str, Path], tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "t.jsonl", [game])
    options = {"learning_rate": 5e-3, "unit": "episode", "epochs": 60, "warmup": 0, "checkpoints": (1.0,), "threads": 1}
    train(SFTConfig(model=str(learners["qwen"]), data=(str(tmp_path / "t.jsonl"),), device="cpu", **options), tmp_path / "sft")
    agent = HFAgent(str(tmp_path / "sft"), threads=1)
    elicitation = Elicitation.for_env(ENV).model_copy(update={"temperature": 1.0})
    queries = [
        Query(game.task, ENV, game.task, step, "cot", game.dialogue(step), elicitation, seed=k, rollout=k, return_tokens=True)
        for step, trace in enumerate(game.traces)
        if trace
        for k in range(2)
    ]
    whole = 0
    with agent.expose_model() as handle:
        chat = handle.chat
    for decision in agent.decide(queries):
        pieces = sampled_pieces(chat, decision)
        assert (pieces is not None) == decision.format_ok
        if pieces is None or decision.tokens is None:
            continue
        whole += 1
        ids = {piece.label: list(piece.ids) for piece in pieces}
        assert tuple(id_ for piece in pieces for id_ in piece.ids) == decision.tokens.completion_ids
        assert chat.decode(ids["action"]).strip() == decision.action
        assert chat.decode(ids["trace"]).strip() == decision.trace
    agent.close()
    assert whole > len(queries) / 2


def test_steps_by_the_path_alone(game: Demonstration) -> None:
    length = len(game.actions)
    wanted = {(0, step): [game.actions[step], "look"] for step in range(length)}
    if length > 2:
        wanted[0, 0].append(game.actions[1])
    found = dict(by_path([game], wanted))
    env = env_entry(ENV).make(split="train")
    for (_, step), known in found.items():
        assert isinstance(known, dict) and known[game.actions[step]] == length - step - 1
        # Looking around loses a step, except where the step in its place was not needed.
        env.reset(options={"task": game.task})
        infos = [env.step(action)[-1] for place, action in enumerate(game.actions) if place != step]
        assert known["look"] == (length - step - 1 if infos[-1]["success"] else length - step)
    env.close()
    assert takeover_of("scienceworld") == takeover_of("bfcl") == "path" and takeover_of(ENV) == "expert"


def test_of_an_action_after_which_the_path_does_not_win_nothing_is_known(game: Demonstration) -> None:
    """Going elsewhere before the last step: the path, gone on with, misses the place, but going back would win."""
    elsewhere = next(action for action in game.actions if action.startswith("go to") and action != game.actions[-2])
    last = len(game.actions) - 1
    assert dict(by_path([game], {(0, last): [elsewhere]})) == {(0, last): {}}
    assert steps_to_go([game], {(0, last): [elsewhere]}).steps[0, last][elsewhere] > 0, "the expert wins yet"


def test_data_of_no_environment_are_refused(some_played: list[Demonstration], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "t.jsonl", [some_played[0].model_copy(update={"env": "", "instructions": Instructions("Act.")})])
    with pytest.raises(UsageError, match="data without an environment cannot be played on"):
        make_pairs_plan(PairsConfig(agent="hf:x", data=(str(tmp_path / "t.jsonl"),)))


def test_the_folder_says_what_it_was_made_with(sample_pairs: Any, tmp_path: Path) -> None:
    summary = sample_pairs(lambda query: "look")
    begun = json.loads((tmp_path / "out" / "sampling.json").read_text())
    assert begun["config"]["samples"] == 4 and begun["identity"]["seed"] == 0
    assert summary == PairsSummary.model_validate_json((tmp_path / "out" / "pairs.json").read_text())
    assert "Preference pairs against author" in (tmp_path / "out" / "README.md").read_text()
    assert summary.text().startswith(f"{summary.pairs} pairs of {summary.states} states")
