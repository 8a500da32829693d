"""Playing: who is asked what, and what becomes of failures. With an environment that is all script."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from cotbench.envs import Instructions
from cotbench.errors import EngineError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision, DecisionTokens, Query, derive_seed
from cotbench.runs.env_workers import EnvReply
from cotbench.runs.episode import Episode, Step, episode_key
from cotbench.runs.rollout import RolloutRules, RolloutSpec, play


@dataclass
class ScriptedEnv:
    """Wins on "win"; fails where told to. Task "n<k>" runs out of steps after k."""

    broken_reset: frozenset[str] = frozenset()
    task: str = ""
    steps: int = 0
    asked: tuple[str, str] = ("", "")

    def ask_reset(self, task: str) -> None:
        self.task, self.steps, self.asked = task, 0, ("reset", task)

    def ask_step(self, action: str) -> None:
        self.asked = ("step", action)

    def read(self) -> EnvReply:
        kind, argument = self.asked
        if kind == "reset":
            if self.task in self.broken_reset:
                raise EngineError("no such luck")
            return self._reply("start", False)
        self.steps += 1
        if argument == "crash":
            raise EngineError("the engine died")
        return self._reply(f"after {argument}", argument == "win")

    def _reply(self, observation: str, won: bool) -> EnvReply:
        info: dict[str, Any] = {
            "task": self.task, "goal": "win", "score": float(won), "raw_score": float(won), "success": won,
            "steps": self.steps, "invalid_action": None,
            "restarts": 0, "expert_action": "win", "admissible_actions": ["win"],
        }  # fmt: skip
        return EnvReply(observation, won, not won and self.steps >= int(self.task[1:]), info)

    def close(self) -> None: ...


@dataclass
class ScriptedAgent:
    """Answers by the table (task, query mode, step); remembers what it was asked."""

    table: dict[tuple[str, str, int], str] = field(default_factory=dict)
    name: str = "scripted"
    needs: frozenset[str] = frozenset()
    seen: list[list[Query]] = field(default_factory=list)

    def decide(self, queries: Sequence[Query]) -> list[Decision]:
        self.seen.append(list(queries))
        decisions = []
        for query in queries:
            action = self.table.get((query.task, query.mode, query.step), "wait")
            if action == "raise":
                raise RuntimeError("out of memory")
            error = "no answer" if action == "fail" else None
            decisions.append(Decision(action.upper(), f"trace {query.step}" if query.mode == "cot" else None, error=error))
        return decisions

    def close(self) -> None: ...


@dataclass
class Collector:
    episodes: list[Episode] = field(default_factory=list)
    steps: int = 0

    def stepped(self, unit: RolloutSpec, step: int) -> None:
        self.steps += 1

    def finished(self, episode: Episode) -> None:
        self.episodes.append(episode)


def _play(
    agent: ScriptedAgent,
    units: Sequence[RolloutSpec],
    envs: int = 1,
    both: bool = True,
    broken: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Episode]:
    collector = Collector()
    rules = RolloutRules("scripted", Instructions("instructions"), Elicitation(), seed, both, str.lower)
    handles = [ScriptedEnv(frozenset(broken)) for _ in range(envs)]
    play(units, agent, handles, rules, collector)
    assert len({episode.key for episode in collector.episodes}) == len(collector.episodes) == len(units)
    return {episode.key: episode for episode in collector.episodes}


UNITS = [RolloutSpec(f"n{k}", "t", mode) for k in (1, 2, 3, 4, 5) for mode in ("prompt", "cot")]  # type: ignore[arg-type]


def test_a_win_ends_an_episode() -> None:
    agent = ScriptedAgent({("n3", "cot", 1): "win"})
    episode = _play(agent, [RolloutSpec("n3", "t", "cot")])["n3#cot"]
    assert (episode.success, episode.score, episode.steps, episode.terminated, episode.truncated) == (True, 1.0, 2, True, False)
    assert [step.action for step in episode.trajectory] == ["wait", "win"]
    assert episode.trajectory[0].decision.action == "WAIT"
    assert [step.expert_action for step in episode.trajectory] == ["win", "win"]


def test_the_prompt_action_is_recorded_and_not_executed() -> None:
    agent = ScriptedAgent({("n2", "prompt", 0): "win"})
    episode = _play(agent, [RolloutSpec("n2", "t", "cot")])["n2#cot"]
    assert not episode.success and episode.steps == 2
    first = episode.trajectory[0]
    assert first.prompt_action == "win" and first.revised
    assert first.action == "wait"
    assert [query.mode for query in agent.seen[0]] == ["cot", "prompt"]


def test_one_mode_alone_asks_once() -> None:
    agent = ScriptedAgent()
    _play(agent, [RolloutSpec("n2", "t", "cot")], both=False)
    assert [len(batch) for batch in agent.seen] == [1, 1]


def test_queries_hold_what_happened_and_only_what_was_asked_for() -> None:
    agent = ScriptedAgent()
    _play(agent, [RolloutSpec("n2", "t", "cot")])
    first, second = agent.seen[0][0], agent.seen[1][0]
    assert first.dialogue.observations == ("start",)
    assert second.dialogue.observations == ("start", "after wait")
    assert (second.dialogue.actions, second.dialogue.traces) == (("wait",), ("trace 0",))
    assert second.expert_action is None, "a model never sees the expert"
    assert first.seed != second.seed != agent.seen[1][1].seed
    knowing = ScriptedAgent(needs=frozenset({"expert_action"}))
    _play(knowing, [RolloutSpec("n1", "t", "cot")])
    assert knowing.seen[0][0].expert_action == "win"


@pytest.mark.parametrize("envs", [2, 3, 7])
def test_episodes_do_not_depend_on_their_neighbours(envs: int) -> None:
    table = {("n4", "cot", 2): "win", ("n2", "prompt", 0): "win", ("n5", "cot", 1): "crash", ("n3", "prompt", 1): "fail"}

    def seeds(agent: ScriptedAgent) -> set[tuple[str, str, int, int]]:
        return {(query.episode, query.mode, query.step, query.seed) for batch in agent.seen for query in batch}

    alone, together = ScriptedAgent(table), ScriptedAgent(table)
    one, many = _play(alone, UNITS, 1), _play(together, UNITS, envs)
    assert {key: episode.model_copy(update={"seconds": 0}) for key, episode in one.items()} == {
        key: episode.model_copy(update={"seconds": 0}) for key, episode in many.items()
    }
    assert seeds(alone) == seeds(together)
    assert max(map(len, together.seen)) > max(map(len, alone.seen)), "they were asked together"


def test_the_runs_seed_changes_the_queries() -> None:
    one, two = ScriptedAgent(), ScriptedAgent()
    _play(one, [RolloutSpec("n1", "t", "cot")], seed=1)
    _play(two, [RolloutSpec("n1", "t", "cot")], seed=2)
    assert one.seen[0][0].seed != two.seen[0][0].seed


def test_failures_are_errors_of_their_own_episode() -> None:
    agent = ScriptedAgent({("n1", "cot", 0): "crash", ("n2", "prompt", 0): "fail"})
    units = [
        RolloutSpec("n1", "t", "cot"),
        RolloutSpec("n2", "t", "cot"),
        RolloutSpec("n3", "t", "prompt"),
        RolloutSpec("n4", "t", "prompt"),
    ]
    episodes = _play(agent, units, envs=2, broken=["n4"])
    assert episodes["n1#cot"].error == "the engine died"
    assert episodes["n2#cot"].error == "no answer", "a missing prompt action spoils the pair"
    assert episodes["n4#prompt"].error == "no such luck"
    assert episodes["n3#prompt"].error is None and episodes["n3#prompt"].steps == 3


def test_an_agent_that_raises_costs_its_batch_and_no_more() -> None:
    agent = ScriptedAgent({("n2", "cot", 0): "raise"})
    units = [RolloutSpec("n2", "t", "cot"), RolloutSpec("n1", "t", "prompt")]
    episodes = _play(agent, units, envs=1)
    assert re.fullmatch(
        r"agent scripted failed: RuntimeError: out of memory \(test_rollout.py:\d+\)", episodes["n2#cot"].error or ""
    )
    assert episodes["n1#prompt"].error is None


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("look", "returned a str, not a Decision"),
        (Decision("look", trace=5), "bad trace"),  # type: ignore[arg-type]
        (Decision("look", action_logprob=float("nan")), "bad action_logprob"),
        (Decision(None), "bad action"),  # type: ignore[arg-type]
        (Decision("look", raw=b"x"), "not data"),  # type: ignore[arg-type]
    ],
)
def test_what_could_not_be_read_again_is_an_error(answer: object, message: str) -> None:
    class Odd(ScriptedAgent):
        def decide(self, queries: Sequence[Query]) -> list[Decision]:
            return [answer for _ in queries]  # type: ignore[misc]

    assert message in (_play(Odd(), [RolloutSpec("n1", "t", "cot")])["n1#cot"].error or "")


def test_a_lone_surrogate_becomes_text() -> None:
    class Odd(ScriptedAgent):
        def decide(self, queries: Sequence[Query]) -> list[Decision]:
            return [Decision("a\udc80b") for _ in queries]

    episode = _play(Odd(), [RolloutSpec("n1", "t", "cot")])["n1#cot"]
    assert episode.error is None
    assert Episode.model_validate_json(episode.model_dump_json()) == episode


def test_a_lone_surrogate_in_a_failure_becomes_text() -> None:
    class Odd(ScriptedAgent):
        def decide(self, queries: Sequence[Query]) -> list[Decision]:
            raise RuntimeError("a\udc80b")

    class OddStream(StreamingAgent):
        def submit(self, key: Any, query: Query) -> None:
            raise RuntimeError("a\udc80b")

    for agent in (Odd(), OddStream()):
        episode = _play(agent, [RolloutSpec("n1", "t", "cot")])["n1#cot"]
        assert re.fullmatch(r"agent scripted failed: RuntimeError: a\?b \(test_rollout\.py:\d+\)", episode.error or "")
        assert "RuntimeError: a?b" in (episode.traceback or "")
        assert Episode.model_validate_json(episode.model_dump_json()) == episode


def test_an_agent_that_miscounts_is_an_error() -> None:
    class Short(ScriptedAgent):
        def decide(self, queries: Sequence[Query]) -> list[Decision]:
            return super().decide(queries)[:-1]

    assert "answered 1 of 2 queries" in (_play(Short(), [RolloutSpec("n1", "t", "cot")])["n1#cot"].error or "")


class StreamingAgent(ScriptedAgent):
    """Answers the queries of the fast tasks at once, and those of task "n5" only when nothing else is left."""

    batch = 3

    def __init__(self) -> None:
        super().__init__()
        self.open: dict[Any, Query] = {}
        self.order: list[str] = []

    def submit(self, key: Any, query: Query) -> None:
        self.open[key] = query

    def collect(self, wait: float) -> list[tuple[Any, Decision]]:
        quick = {key: query for key, query in self.open.items() if query.task != "n5"} or dict(self.open)
        key, query = next(iter(quick.items()))
        del self.open[key]
        self.order.append(query.task)
        return [(key, self.decide([query])[0])]


def test_a_slow_answer_keeps_nobody_waiting() -> None:
    agent = StreamingAgent()
    units = [RolloutSpec(task, "t", "cot") for task in ("n5", "n1", "n2", "n3", "n4")]
    episodes = _play(agent, units, envs=2)
    assert all(episode.error is None for episode in episodes.values())
    assert agent.order.index("n5") > max(index for index, task in enumerate(agent.order) if task != "n5")
    plain = _play(ScriptedAgent(), units)
    assert {key: episode.model_copy(update={"seconds": 0}) for key, episode in plain.items()} == {
        key: episode.model_copy(update={"seconds": 0}) for key, episode in episodes.items()
    }


def test_a_streaming_agent_that_takes_nothing_in_costs_that_query() -> None:
    class Wrong(StreamingAgent):
        def submit(self, key: Any, query: Query) -> None:
            if query.task == "n1":
                raise RuntimeError("no room")
            super().submit(key, query)

    episodes = _play(Wrong(), [RolloutSpec("n1", "t", "cot"), RolloutSpec("n2", "t", "cot")], envs=2)
    assert "RuntimeError: no room (test_rollout.py:" in (episodes["n1#cot"].error or "")
    assert episodes["n2#cot"].error is None


@pytest.mark.parametrize("wrong", ["unknown", "raises"])
def test_a_streaming_agent_that_answers_wrongly_costs_what_it_was_asked(wrong: str) -> None:
    class Wrong(StreamingAgent):
        def collect(self, wait: float) -> list[tuple[Any, Decision]]:
            if wrong == "raises":
                raise RuntimeError("out of memory")
            return [("nobody", Decision("look"))]

    episode = _play(Wrong(), [RolloutSpec("n1", "t", "cot")], both=False)["n1#cot"]
    assert episode.error is not None
    assert ("out of memory" if wrong == "raises" else "which it was not asked") in episode.error


def test_the_rollouts_of_one_task_are_episodes_of_their_own() -> None:
    agent = ScriptedAgent({("n2", "cot", 1): "win"})
    units = [RolloutSpec("n2", "t", mode, rollout) for mode in ("cot", "prompt") for rollout in range(3)]  # type: ignore[arg-type]
    episodes = _play(agent, units, envs=4, both=False)
    assert sorted(episodes) == ["n2#cot", "n2#cot@1", "n2#cot@2", "n2#prompt", "n2#prompt@1", "n2#prompt@2"]
    assert [episodes[key].rollout for key in ("n2#cot", "n2#cot@1", "n2#cot@2")] == [0, 1, 2]
    queries = [query for batch in agent.seen for query in batch]
    assert all(query.episode == episode_key(query.task, query.mode, query.rollout) for query in queries)
    assert {query.env for query in queries} == {"scripted"}
    assert len({query.seed for query in queries}) == len(queries), "every rollout draws otherwise"
    for query in queries:
        parts = (0, "n2", query.mode, query.step, query.mode)
        assert query.seed == derive_seed(*parts, *([query.rollout] if query.rollout else []))
        assert (query.seed == derive_seed(*parts)) == (query.rollout == 0), "the first has the seeds of a run without groups"


def test_rollout_0_and_missing_tokens_are_left_out_of_a_line() -> None:
    episodes = _play(ScriptedAgent(), [RolloutSpec("n1", "t", "cot"), RolloutSpec("n1", "t", "cot", 1)])
    first, second = episodes["n1#cot"], episodes["n1#cot@1"]
    assert '"rollout"' not in first.model_dump_json() and '"tokens":{' not in first.model_dump_json()
    assert '"rollout":1' in second.model_dump_json()
    assert Episode.model_validate_json(second.model_dump_json()) == second
    tokens = DecisionTokens((1, 2), (3,), (-0.5,), (False,))
    step = first.trajectory[0]
    told = step.model_copy(update={"decision": replace(step.decision, tokens=tokens)})
    again = Step.model_validate_json(told.model_dump_json())
    assert again == told and again.decision.tokens == tokens
    assert '"tokens"' not in step.model_dump_json()


@pytest.mark.parametrize("wanted", [False, True])
def test_tokens_are_asked_for_where_a_rollout_wants_them(wanted: bool) -> None:
    class Telling(ScriptedAgent):
        def decide(self, queries: Sequence[Query]) -> list[Decision]:
            tokens = DecisionTokens((1, 2), (3,), (-0.5,), (False,))
            decisions = super().decide(queries)
            return [
                replace(one, tokens=tokens if query.return_tokens else None)
                for one, query in zip(decisions, queries, strict=True)
            ]

    collector = Collector()
    rules = RolloutRules("scripted", Instructions("i"), Elicitation(), 0, False, str.lower, return_tokens=wanted)
    play([RolloutSpec("n1", "t", "cot")], Telling(), [ScriptedEnv()], rules, collector)
    (episode,) = collector.episodes
    assert episode.error is None
    assert (episode.trajectory[0].decision.tokens is not None) == wanted
