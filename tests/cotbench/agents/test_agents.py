"""Specs, the registry, and the agents that need no model."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import cotbench
from cotbench.agents import registry
from cotbench.agents.registry import agent_names, make_agent, parse_spec, resolve
from cotbench.envs import Instructions
from cotbench.errors import AgentError, UnknownNameError, UsageError
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision, Query, derive_seed

QUERY = Query("t#cot", "", "t", 0, "cot", Dialogue(Instructions("act"), ("Your task",)), Elicitation())


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry._registry, "_registered", {})


def test_a_spec_is_taken_apart() -> None:
    spec = parse_spec("hf:Qwen/Qwen3-4B?dtype=bfloat16&threads=2")
    assert (spec.name, spec.target, spec.options) == ("hf", "Qwen/Qwen3-4B", {"dtype": "bfloat16", "threads": "2"})
    assert parse_spec("hf:./folder/x").target == "./folder/x"
    assert parse_spec("openai:gpt@http://127.0.0.1:8000/v1").target == "gpt@http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("randm", UnknownNameError, "did you mean 'random'"),
        ("hf", UsageError, "needs its model: --agent hf:MODEL"),
        ("hf:x?dtpe=float32", UnknownNameError, "did you mean 'dtype'"),
        ("hf:x?threads=many", UsageError, "threads=many"),
        ("hf:x?dtype", UsageError, "options are written"),
        ("random:x", UsageError, "takes nothing after the colon"),
        ("", UsageError, "an agent spec is"),
        (":x", UsageError, "an agent spec is"),
    ],
)
def test_wrong_specs(spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve(spec)


def test_an_agent_is_registered_and_found() -> None:
    @cotbench.register_agent("stubborn")
    class Stubborn:
        name = "stubborn"

        def __init__(self, action: str = "look", *, times: int = 1) -> None:
            self.action = " ".join([action] * times)

        def decide(self, queries: Sequence[Query]) -> list[Decision]:
            return [Decision(self.action) for _ in queries]

        def close(self) -> None: ...

    assert "stubborn" in agent_names()
    assert isinstance(make_agent("stubborn"), cotbench.Agent)
    assert make_agent("stubborn:inventory?times=2").decide([QUERY])[0].action == "inventory inventory"
    with pytest.raises(UsageError, match="exists already"):
        cotbench.register_agent("stubborn")(lambda: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(UsageError, match="exists already"):
        cotbench.register_agent("random")(Stubborn)


def test_an_installed_package_offers_an_agent(tmp_path: Path) -> None:
    (tmp_path / "their_agents.py").write_text(
        "class Shy:\n    name = 'shy'\n    def decide(self, queries): return []\n    def close(self): pass\n"
    )
    info = tmp_path / "their_agents-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-agents\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cotbench.agents]\nshy = their_agents:Shy\nbroken = their_agents:Nobody\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from cotbench.agents import agent_names, make_agent\n"
        "assert 'shy' in agent_names(), agent_names()\n"
        "print(make_agent('shy').name)\n"
        "try: make_agent('broken')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[0] == "shy"
    assert lines[1].startswith("UsageError agent 'broken' of their_agents:Nobody cannot be loaded")


def _query(**changes: object) -> Query:
    from dataclasses import replace

    return replace(QUERY, **changes)  # type: ignore[arg-type]


def test_random_draws_by_the_seed_alone() -> None:
    agent = make_agent("random")
    choices = ("go to desk 1", "help", "look")
    queries = [_query(seed=seed, admissible_actions=choices) for seed in range(40)]
    drawn = [decision.action for decision in agent.decide(queries)]
    assert set(drawn) == set(choices)
    assert [agent.decide([query])[0].action for query in queries] == drawn, "the batch does not matter"
    assert agent.decide([_query()])[0].error is not None


def test_the_expert_is_never_guessed() -> None:
    agent = make_agent("expert")
    decision = agent.decide([_query(expert_action="go to desk 1")])[0]
    assert decision.action == "go to desk 1"
    assert decision.trace and "go to desk 1" in decision.trace
    assert agent.decide([_query(expert_action="look", mode="prompt")])[0].trace is None
    assert "has no action" in (agent.decide([_query()])[0].error or "")


def test_human_reads_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    typed = iter(["because", "?", " look "])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    decision = make_agent("human").decide([_query(admissible_actions=("help", "look"))])[0]
    assert (decision.trace, decision.action) == ("because", "look")
    assert decision.raw == "<think>because</think>\n<action>look</action>"
    shown = capsys.readouterr().out
    assert "Your task" in shown and "help\nlook" in shown

    def ended(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", ended)
    with pytest.raises(AgentError, match="input ended"):
        make_agent("human").decide([_query()])


def test_seeds_depend_on_every_part() -> None:
    assert derive_seed(1, "t", "cot", 0) == 3487650486308006175, "in every process and release"
    parts = [
        (1, "t", "cot", 0),
        (2, "t", "cot", 0),
        (1, "u", "cot", 0),
        (1, "t", "prompt", 0),
        (1, "t", "cot", 1),
        (1, "tc", "ot", 0),
    ]
    assert len({derive_seed(*part) for part in parts}) == len(parts)
    assert 0 <= derive_seed("x") < 2**63
