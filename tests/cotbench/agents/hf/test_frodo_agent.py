"""Agent `frodo`: the writer's trace and the answerer's action, prompt actions and probes of the answerer alone."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents import make_agent
from cotbench.agents.decisions import decide_all, own_trace
from cotbench.agents.hf.agent import HFAgent
from cotbench.agents.hf.engine import Engine
from cotbench.agents.hf.frodo_agent import ANSWERER, WRITER, FrodoAgent, model_pair
from cotbench.errors import AgentError, RunFolderError, UsageError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Decision, Query
from cotbench.runs.manifest import RunConfig
from cotbench.runs.runner import run
from tests import tiny_models
from tests.hf_agents import state

COLD = Elicitation(trace_tokens=8, action_tokens=6)
WARM = COLD.model_copy(update={"temperature": 1.0})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as recipe `frodo` writes it: two models of different weights and layers."""
    folder = tmp_path_factory.mktemp("frodo")
    tiny_models.save_model(folder / WRITER, "llama")
    tiny_models.save_model(folder / ANSWERER, "qwen")
    return folder


def queries(elicitation: Elicitation, modes: Sequence[Any] = ("prompt", "cot"), **more: Any) -> list[Query]:
    return [
        state(turns, mode, elicitation, episode=str(turns), seed=seed, **more)
        for turns in (0, 2)
        for mode in modes
        for seed in (1, 2)
    ]


def content(decisions: Sequence[Decision]) -> list[tuple[Any, ...]]:
    """What does not depend on how often a prompt was computed."""
    return [(one.action, one.trace, one.raw, one.format_ok, one.trace_truncated, one.action_tokens) for one in decisions]


@pytest.mark.parametrize("elicitation", [COLD, WARM], ids=["greedy", "sampled"])
def test_trace_of_the_writer_action_of_the_answerer(models: Path, elicitation: Elicitation) -> None:
    writer, answerer = HFAgent(str(models / WRITER)), HFAgent(str(models / ANSWERER))
    both = make_agent(f"frodo:{models / WRITER},{models / ANSWERER}")
    requests = queries(elicitation, ("cot",))
    traces = [own_trace(one, elicitation.tags) for one in writer.decide(requests)]
    expected = answerer.decide([replace(query, given_trace=trace) for query, trace in zip(requests, traces, strict=True)])
    found = decide_all(both, requests)
    assert [one.trace for one in found] == [trace.strip() for trace in traces]
    assert [(one.action, one.raw, one.action_logprob) for one in found] == [
        (one.action, one.raw, one.action_logprob) for one in expected
    ]
    own = answerer.decide(requests)
    assert [one.trace for one in own] != [one.trace for one in found], "the answerer would have written other traces"


def test_everything_else_is_the_answerers(models: Path) -> None:
    both, answerer = FrodoAgent(str(models)), HFAgent(str(models / ANSWERER))
    requests = [
        *queries(COLD, ("prompt",)),
        *queries(COLD, ("cot",), given_trace="I look around."),
        *queries(COLD, ("cot",), given_trace=""),
        *queries(COLD, ("prompt",), given_action="look"),
    ]
    assert both.decide(requests) == answerer.decide(requests)
    with both.expose_model() as handle, answerer.expose_model() as expected:
        assert type(handle.model) is type(expected.model)


def test_the_same_model_twice_is_that_model(models: Path) -> None:
    """Wherever its trace is read in the tokens in which it was written: random models write some that no text is encoded to."""
    one, compared = str(models / WRITER), 0
    requests = queries(WARM, return_tokens=True)
    for both, alone in zip(FrodoAgent(f"{one},{one}").decide(requests), HFAgent(one).decide(requests), strict=True):
        assert both.tokens is not None and alone.tokens is not None
        assert both.trace == alone.trace and both.trace_truncated == alone.trace_truncated
        assert both.trace_tokens == alone.trace_tokens and both.prompt_tokens == alone.prompt_tokens
        before = [found.tokens.completion_ids[: -found.action_tokens] for found in (both, alone) if found.tokens is not None]
        if before[0] == before[1]:
            assert content([both]) == content([alone])
            compared += 1
    assert compared >= 4


def test_a_given_action_is_scored_after_the_writers_trace(models: Path) -> None:
    both, answerer = FrodoAgent(str(models)), HFAgent(str(models / ANSWERER))
    (query,) = queries(COLD, ("cot",))[:1]
    (free,) = both.decide([query])
    (scored,) = both.decide([replace(query, given_action="look")])
    given = replace(query, given_trace=own_trace(free, COLD.tags), given_action="look")
    assert scored.action == "look" and scored.trace == free.trace
    assert scored.action_logprob == answerer.decide([given])[0].action_logprob


@pytest.mark.parametrize(("options", "each"), [({}, 4 * 10**8), ({"cache_gb": 0.5}, 25 * 10**7)])
def test_on_a_gpu_both_share_what_is_free_once_both_are_loaded(
    options: dict[str, Any], each: int, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    load = HFAgent.__init__

    def noted(self: HFAgent, model: str, **given: Any) -> None:
        load(self, model, **given)
        loaded.append(Path(model).name)

    def free(agent: HFAgent) -> float:
        assert loaded == [WRITER, ANSWERER]
        return 1.0

    monkeypatch.setattr(HFAgent, "__init__", noted)
    monkeypatch.setattr("cotbench.agents.hf.frodo_agent._free_gpu_gb", free)
    both = FrodoAgent(str(models), **options)
    for agent in (both._writer, both._answerer):
        assert isinstance(agent._engine, Engine) and agent._engine._memory.cache_bytes == each
    requests = queries(COLD, ("cot",))
    assert content(both.decide(requests)) == content(FrodoAgent(str(models), cache_gb=1).decide(requests))


def test_the_writer_generates_no_action(models: Path) -> None:
    both = FrodoAgent(str(models))
    (decision,) = both.decide(queries(COLD, ("cot",))[:1])
    (alone,) = both._writer.decide([replace(queries(COLD, ("cot",))[0], given_action="")])
    assert alone.action_tokens == 0 and alone.trace_tokens == decision.trace_tokens > 0


def test_tokens_are_the_answerers_and_the_trace_is_not_its_own(models: Path) -> None:
    both = FrodoAgent(str(models))
    (decision,) = both.decide(queries(WARM, ("cot",), return_tokens=True)[:1])
    assert decision.tokens is not None
    generated = [place for place, harness in enumerate(decision.tokens.harness) if not harness]
    assert len(generated) == decision.action_tokens > 0
    assert generated[0] >= len(decision.tokens.harness) - decision.action_tokens


def test_template_style(models: Path) -> None:
    requests = queries(COLD.model_copy(update={"style": "template"}))
    for decision in FrodoAgent(str(models)).decide(requests):
        assert decision.error is None


def test_an_error_of_the_writer_is_the_querys(models: Path) -> None:
    both = FrodoAgent(str(models), context=240)
    long = state(0, "cot", Elicitation(trace_tokens=300, action_tokens=6), episode="long")
    found = both.decide([long, *queries(COLD, ("prompt",))[:1]])
    assert found[0].error is not None and found[0].action == ""
    assert found[1].error is None


def test_description_names_both_models(models: Path) -> None:
    described = FrodoAgent(str(models)).describe()
    assert described["weights_sha256"] != described["writer"]["weights_sha256"]
    assert described["weights_sha256"] == HFAgent(str(models / ANSWERER)).describe()["weights_sha256"]


@pytest.mark.parametrize("missing", [WRITER, ANSWERER])
def test_a_folder_with_one_half(missing: str, models: Path, tmp_path: Path) -> None:
    """As while the answerer is trained; an empty folder is no model either."""
    (tmp_path / missing).mkdir()
    kept = next(part for part in (WRITER, ANSWERER) if part != missing)
    (tmp_path / kept).symlink_to(models / kept)
    with pytest.raises(UsageError, match=f"so the {missing} is missing: finish the training") as raised:
        make_agent(f"frodo:{tmp_path}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("place", [0, 1])
def test_a_half_that_is_not_there(place: int, models: Path) -> None:
    both = [str(models / WRITER), str(models / ANSWERER)]
    both[place] = "./nowhere"
    with pytest.raises(AgentError, match="nowhere") as raised:
        make_agent(f"frodo:{','.join(both)}")
    assert "\n" not in str(raised.value)


def test_a_run_is_resumed_with_the_same_two_models(models: Path, tmp_path: Path) -> None:
    """On another machine too, and never with another writer or another answerer."""
    spec = f"frodo:{models / WRITER},{models / ANSWERER}"
    config = RunConfig(agent=spec, episodes=1, max_steps=1, mode="cot", elicitation=COLD)
    run(config, out=tmp_path / "r")
    path = tmp_path / "r" / "manifest.json"
    written = json.loads(path.read_text())
    (tmp_path / "r" / "summary.json").unlink()

    def resumed(**writer: str) -> None:
        described = written["agent"] | {WRITER: written["agent"][WRITER] | writer}
        path.write_text(json.dumps(written | {"agent": described}))
        run(config, out=tmp_path / "r", resume=True)

    resumed(device="another", torch_threads="7")
    with pytest.raises(RunFolderError, match="its agent writer weights_sha256 is '0'"):
        resumed(weights_sha256="0")


@pytest.mark.parametrize("models", ["one", "one,", ",two", "one,two,three", "no/such/folder"])
def test_a_spec_without_two_models(models: str) -> None:
    with pytest.raises(UsageError, match="frodo:WRITER,ANSWERER"):
        model_pair(models)
