"""The paper's numbers, against the text they were taken from."""

import re
from collections.abc import Iterator

import pytest

from cotbench import paper
from cotbench.agents.hf.loading import ALIASES
from cotbench.envs.registry import env_entry
from tests.conftest import SHARED


def _study() -> str:
    path = SHARED / "paper.md"
    if not path.is_file():
        pytest.skip("the study lies in ../shared, which is not here")
    return " ".join(path.read_text("utf-8").split())


def test_single_numbers() -> None:
    assert paper.paper_success("Qwen3-4B", "GRPO", "alfworld", "ood") == 0.44
    assert paper.paper_success("Qwen3-8B", "GRPO+", "bfcl", "id") == 0.77
    assert paper.paper_success(None, "FRODO", "scienceworld", "ood") == 0.30
    assert paper.paper_gradient_share("Qwen3-14B", "bfcl") == 0.827
    assert paper.paper_masked_success(0.7, "alfworld") == 0.60
    # Masking 0.3 of the examples is SFT+.
    for env in paper.ENVS:
        assert paper.paper_masked_success(0.3, env) == paper.paper_success(None, "SFT+", env, "ood")


def test_nothing_is_reported_where_the_paper_says_nothing() -> None:
    assert paper.paper_success(None, "SFT", "alfworld", "id") is None
    assert paper.paper_success("Qwen3-4B", "SFT", "alfworld", "ood") is None
    assert paper.paper_success("Qwen3-14B", "GRPO", "alfworld", "ood") is None
    assert paper.paper_success("Qwen3-4B", "GRPO", "alfworld-gen", "ood") is None
    assert paper.paper_success("Qwen3-4B", "GRPO", "alfworld", "ood", scheme="official") is None
    assert paper.paper_gradient_share("Llama-3.1-8B-Instruct", "bfcl") is None
    assert paper.paper_masked_success(0.2, "bfcl") is None


def _rows(text: str) -> Iterator[tuple[str, str, list[tuple[float, float]]]]:
    for model, method, cells in re.findall(r"\| (Qwen3-\w+) \| (\S+) \| ((?:[\d.]+ / [\d.]+ \| ?){3})", text):
        yield model, method, [(float(a), float(b)) for a, b in re.findall(r"([\d.]+) / ([\d.]+)", cells)]


def test_the_tables_are_those_of_the_study() -> None:
    text, found = _study(), []
    for model, method, pairs in _rows(text):
        for env, (inside, outside) in zip(paper.ENVS, pairs, strict=True):
            found += [paper.Success(model, method, env, "id", inside), paper.Success(model, method, env, "ood", outside)]
    listed = re.search(r"Out-of-domain, baselines: (.*?) \(ALFWorld", text)
    assert listed is not None
    for method, *values in re.findall(r"([A-Z]+\+?) ([\d.]+) / ([\d.]+) / ([\d.]+)", listed[1]):
        found += [paper.Success(None, method, env, "ood", float(v)) for env, v in zip(paper.ENVS, values, strict=True)]
    assert len(found) == 24 + 15 and set(found) == set(paper.SUCCESS)


def test_shares_and_masks_are_those_of_the_study() -> None:
    text, shares = _study(), []
    for env, name in zip(paper.ENVS, ("ALFWorld", "ScienceWorld", "BFCL"), strict=True):
        values = re.search(rf"{name} ([\d.]+) / ([\d.]+) / ([\d.]+)", text)
        assert values is not None
        shares += [
            paper.GradientShare(m, env, round(float(v) / 100, 4)) for m, v in zip(paper.MODELS, values.groups(), strict=False)
        ]
    assert shares == list(paper.GRADIENT_SHARES)
    masked = re.search(r"Mask fraction, out-of-domain: k=(.*?)\. ", text)
    assert masked is not None
    found = [
        paper.MaskedSuccess(float(fraction), env, float(value))
        for fraction, *values in re.findall(r"([\d.]+) ([\d.]+) / ([\d.]+) / ([\d.]+)", masked[1])
        for env, value in zip(paper.ENVS, values, strict=True)
    ]
    assert found == list(paper.MASKED_SUCCESS)
    assert f"About {paper.ATTENTION_SHARE_ON_PROMPT:.0%}".replace("%", " %") in text


def test_its_environments_are_ours() -> None:
    for env in paper.ENVS:
        assert set(paper.reported("Qwen3-4B", env, "id")) and {"id", "ood"} <= set(env_entry(env).source().schemes()["paper"])


@pytest.mark.parametrize(
    ("spec", "description", "model"),
    [
        ("hf:qwen-4b?dtype=bfloat16", {}, "Qwen3-4B"),
        ("hf:Qwen/Qwen3-8B", {}, "Qwen3-8B"),
        ("openai:qwen3-14b@http://localhost:8000/v1", {}, "Qwen3-14B"),
        ("hf:./arm", {"model": "./arm", "base": {"model": "meta-llama/Llama-3.1-8B-Instruct"}}, "Llama-3.1-8B-Instruct"),
        ("hf:./arm", {"model": "./arm", "base": {"model": "x", "base": {"model": "Qwen/Qwen3-4B"}}}, "Qwen3-4B"),
        ("hf:qwen", {"model": "Qwen/Qwen3-0.6B"}, None),
        ("hf:tiny", {"model": "cotbench-tiny"}, None),
        ("random", {}, None),
    ],
)
def test_which_of_its_models_an_agent_is(spec: str, description: dict[str, object], model: str | None) -> None:
    assert paper.paper_model(spec, description, ALIASES) == model
