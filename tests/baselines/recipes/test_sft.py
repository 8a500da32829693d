"""Recipe `sft`: against a plain loop of torch, the units against each other, masks as the loss saw them, folders that play."""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents import make_agent
from cotbench.agents.hf.agent import HFAgent
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.baselines.data.demonstration import Demonstration, write_jsonl
from cotbench.baselines.data.examples import Example, make_examples
from cotbench.baselines.recipes.sft import SFTConfig, train
from cotbench.baselines.training.batching import make_steps
from cotbench.baselines.training.logprobs import action_logprobs
from cotbench.baselines.training.masks import weights
from cotbench.baselines.training.model import load_trainable
from cotbench.baselines.training.prompt_actions import prompt_matches
from cotbench.baselines.training.recipe_card import TrainingResult
from cotbench.baselines.training.trainer import TreeTrainer, steps_at
from cotbench.errors import AgentError, UsageError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Query
from cotbench.runs import (
    runner,
)
from cotbench.runs.manifest import RunConfig
from cotbench.runs.plan import make_plan
from cotbench.runs.resources import Resources
from tests.baselines.conftest import ENV

FAST: dict[str, Any] = {"learning_rate": 1e-3, "warmup": 0, "checkpoints": (1.0,), "device": "cpu", "threads": 1}


@pytest.fixture
def sft(some_traces: Path, learners: dict[str, Path], tmp_path: Path) -> Callable[..., TrainingResult]:
    """Trains a small random model on three games."""

    def call(out: str = "out", kind: str = "qwen", **options: Any) -> TrainingResult:
        told = {**FAST, "model": str(learners[kind]), "data": (str(some_traces),), **options}
        return train(SFTConfig(**told), tmp_path / out)

    return call


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, dict[str, Any]]]:
    """The loss of each step that is trained, and the gradients before they are clipped."""
    seen: list[tuple[float, dict[str, Any]]] = []
    step = TreeTrainer.training_step

    def spy(self: Any, model: Any, *rest: Any, **more: Any) -> Any:
        loss = step(self, model, *rest, **more)
        grads = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
        seen.append((float(loss), grads))
        return loss

    monkeypatch.setattr(TreeTrainer, "training_step", spy)
    return seen


def weights_of(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


def close(one: dict[str, Any], other: dict[str, Any], tolerance: float = 1e-5) -> bool:
    import torch

    assert one.keys() == other.keys() and one
    return all(
        torch.allclose(one[name], other[name], rtol=1e-4, atol=tolerance * max(1e-6, float(other[name].abs().max())))
        for name in one
    )


def examples_of(played: list[Demonstration], words: Any) -> list[Example]:
    asked = {ENV: Elicitation.for_env(ENV)}
    return make_examples(played, Chat(words), asked, context=4096).flat


def masked_ids(folder: Path, k: float) -> set[str]:
    (places,) = json.loads((folder / "masks.json").read_text())["places"]
    return {id_ for id_, place in places.items() if place <= k}


@pytest.fixture(scope="module")
def learned(
    some_played: list[Demonstration], learners: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Demonstration, TrainingResult]:
    """One game until it is known by heart."""
    folder = tmp_path_factory.mktemp("learned")
    shortest = min(some_played, key=lambda one: len(one.actions))
    write_jsonl(folder / "t.jsonl", [shortest])
    options = {**FAST, "learning_rate": 5e-3, "unit": "episode", "epochs": 80, "checkpoints": (0.02, 0.5)}
    config = SFTConfig(model=str(learners["qwen"]), data=(str(folder / "t.jsonl"),), **options)
    return shortest, train(config, folder / "out")


def test_the_loss_falls_and_checkpoints_stand_at_the_asked_shares(learned: tuple[Demonstration, TrainingResult]) -> None:
    _, trained = learned
    assert trained.steps == 80
    assert {path.name for path in trained.folder.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-40", "checkpoint-80"}
    history = json.loads((trained.folder / "checkpoint-80" / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert losses[-1] < 0.1 * losses[0]
    assert history[-1]["tokens"] == trained.seen["tokens"] and history[-1]["data_epoch"] == 79
    cards = [json.loads((trained.folder / f"checkpoint-{step}" / "recipe.json").read_text()) for step in (2, 40, 80)]
    assert [(card["step"], card["progress"]) for card in cards] == [(2, 0.025), (40, 0.5), (80, 1.0)]
    assert (trained.folder / "model.safetensors").read_bytes() == (
        trained.folder / "checkpoint-80" / "model.safetensors"
    ).read_bytes()


def test_what_was_learned_is_what_is_asked(learned: tuple[Demonstration, TrainingResult]) -> None:
    shortest, trained = learned
    agent = make_agent(f"hf:{trained.folder}?threads=1&device=cpu")
    asked = Elicitation.for_env(ENV)
    queries = [
        Query("e", "", shortest.task, step, "cot", shortest.dialogue(step), asked) for step in range(len(shortest.actions))
    ]
    decisions = agent.decide(queries)
    assert tuple(decision.action for decision in decisions) == shortest.actions
    assert tuple(decision.trace for decision in decisions) == shortest.traces
    assert all(decision.format_ok and not decision.trace_truncated for decision in decisions)


def test_a_trained_folder_and_its_checkpoints_play(learned: tuple[Demonstration, TrainingResult], tmp_path: Path) -> None:
    _, trained = learned
    for folder in (trained.folder, trained.folder / "checkpoint-2"):
        config = RunConfig(
            agent=f"hf:{folder}?threads=1&device=cpu",
            env=ENV,
            mode="both",
            episodes=1,
            max_steps=2,
            elicitation=Elicitation(trace_tokens=8, action_tokens=8),
        )
        plan = make_plan(config)
        out = tmp_path / folder.name
        agent = make_agent(config.agent)
        outcome = runner.start_run(plan, out, agent=agent, resources=Resources(), observer=runner.SilentObserver())
        assert outcome.records and all(episode.error is None for episode in outcome.records)


def test_the_card(sft: Any, some_played: list[Demonstration], some_words: Any, learners: dict[str, Path]) -> None:
    trained = sft(epochs=1, batch_size=8, mask_fraction=0.3, unit="episode")
    card = json.loads((trained.folder / "recipe.json").read_text())
    made = examples_of(some_played, some_words)
    assert card["recipe"] == "sft"
    assert SFTConfig(**card["config"]).mask_fraction == 0.3
    whole = hashlib.sha256(b"".join(one.model_dump_json().encode() for one in some_played)).hexdigest()
    assert (card["data"]["sha256"], card["data"]["episodes"]) == (whole, 3)
    assert card["data"]["decisions"] == sum(len(one.actions) for one in some_played)
    file = hashlib.sha256((learners["qwen"] / "model.safetensors").read_bytes()).hexdigest()
    assert card["base"]["weights_sha256"] == hashlib.sha256(file.encode()).hexdigest()
    assert card["elicitations"] == {ENV: Elicitation.for_env(ENV).fingerprint}
    assert card["examples"]["examples"] == trained.examples == len(made)
    assert card["examples"]["too_long"] == card["examples"]["shortened"] == 0
    assert card["examples"]["without_trace"] == card["data"]["decisions"] - len(made)
    assert card["step"] == card["steps"] == trained.steps
    assert card["seen"] == trained.seen
    assert card["seen"]["actions"] == sum(len(one.part("action")) for one in made)
    assert card["packages"]["transformers"] and card["python"]


@pytest.mark.parametrize("select", ["random", "per-task"])
def test_masks_depend_on_the_seed_and_not_on_the_order_of_the_data(
    sft: Any, some_played: list[Demonstration], select: str, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "there.jsonl", some_played)
    write_jsonl(tmp_path / "back.jsonl", some_played[::-1])
    options = {"epochs": 0.1, "unit": "episode", "mask_fraction": 0.5, "mask_select": select}

    def stored(name: str, seed: int = 0) -> Any:
        data = (str(tmp_path / f"{name}.jsonl"),)
        return json.loads((sft(f"{name}{seed}", data=data, seed=seed, **options).folder / "masks.json").read_text())

    there = stored("there")
    assert stored("back") == there
    assert there["config"]["mask_select"] == select
    if select == "random":
        assert stored("there", seed=1)["places"] != there["places"]


# Of actions of one length, so that a share of the examples is a share of the tokens.
@pytest.mark.parametrize("select", ["random", "confident"])
def test_the_masked_share_of_action_tokens_is_the_fraction(
    sft: Any, some_played: list[Demonstration], select: str, tmp_path: Path
) -> None:
    even = [one.model_copy(update={"actions": ("look",) * len(one.actions)}) for one in some_played]
    write_jsonl(tmp_path / "even.jsonl", even)
    before: set[str] = set()
    for k in (0.3, 0.7):
        options = {"epochs": 1, "batch_size": 99, "mask_fraction": k, "mask_select": select, "unit": "episode"}
        trained = sft(str(k), data=(str(tmp_path / "even.jsonl"),), **options)
        measured = json.loads((trained.folder / "recipe.json").read_text())["seen"]["masked_share"]
        assert abs(measured - k) <= 1 / trained.examples
        masked = masked_ids(trained.folder, k)
        assert measured == pytest.approx(len(masked) / trained.examples, abs=1e-6)
        assert before < masked, "a larger fraction masks what a smaller one does, and more"
        before = masked


@pytest.mark.parametrize("unit", ["decision", "episode"])
def test_the_masked_share_is_that_of_the_stored_masks(
    sft: Any, some_played: list[Demonstration], some_words: Any, unit: str
) -> None:
    trained = sft(epochs=1, batch_size=8, mask_fraction=0.5, unit=unit)
    masked = masked_ids(trained.folder, 0.5)
    lengths = {one.id: len(one.part("action")) for one in examples_of(some_played, some_words)}
    assert trained.seen["masked_share"] == pytest.approx(sum(lengths[id_] for id_ in masked) / sum(lengths.values()), abs=1e-6)
    soft = sft("soft", epochs=1, batch_size=8, mask_fraction=0.5, unit=unit, action_weight=0.25)
    assert soft.seen["masked_share"] == pytest.approx(0.75 * trained.seen["masked_share"], abs=1e-6)


@pytest.mark.parametrize("schedule", ["warmup", "anneal"])
def test_a_schedule_masks_half_of_the_fraction(sft: Any, schedule: str) -> None:
    trained = sft(epochs=3, batch_size=2, unit="episode", mask_fraction=0.8, mask_schedule=schedule)
    assert trained.seen["masked_share"] == pytest.approx(0.4, abs=0.1)


def test_decisions_and_episodes_have_one_loss_and_one_gradient(sft: Any, watched: Any) -> None:
    options = {"epochs": 1, "batch_size": 1000, "mask_fraction": 0.4}
    for unit, tokens in (("decision", 8192), ("episode", 64), ("episode", 8192)):
        sft(f"{unit}{tokens}", unit=unit, max_tokens_per_forward=tokens, **options)
    (loss, grads), *others = watched
    assert len(others) == 2
    for other, own in others:
        assert other == pytest.approx(loss, rel=1e-5)
        assert close(own, grads)


@pytest.mark.parametrize("unit", ["decision", "episode"])
def test_many_small_passes_and_one_large_give_the_same_weights(sft: Any, unit: str) -> None:
    small, large = (
        sft(str(tokens), unit=unit, epochs=1, batch_size=8, mask_fraction=0.3, max_tokens_per_forward=tokens)
        for tokens in (64, 8192)
    )
    assert close(weights_of(small.folder), weights_of(large.folder), 1e-3)
    assert small.seen == large.seen


def test_activations_that_are_computed_twice_give_the_same_weights(sft: Any) -> None:
    usual, twice = (
        sft(str(again), unit="episode", epochs=2, batch_size=8, gradient_checkpointing=again) for again in (False, True)
    )
    assert close(weights_of(usual.folder), weights_of(twice.folder), 1e-3)


def plain_loop(model_folder: Path, examples: list[Example], masked: set[str], steps: Any, config: SFTConfig) -> Any:
    """Supervised fine-tuning as a textbook writes it: one example after the other, transformers' own attention, AdamW."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).train()
    matrices = [one for one in model.parameters() if one.ndim > 1]
    others = [one for one in model.parameters() if one.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=1e-8)
    episodes: dict[str, list[Example]] = {}
    for example in examples:
        episodes.setdefault(example.task, []).append(example)
    in_order = list(episodes.values())
    means = {name: one.detach().clone() for name, one in model.named_parameters()}
    losses: list[float] = []
    for step in steps:
        total, count = torch.zeros(()), 0
        for episode, decisions in (pair for part in step.parts for pair in part):
            for example in (in_order[episode][decision] for decision in decisions):
                logits = model(input_ids=torch.tensor([list(example.ids)]), use_cache=False).logits[0]
                first = len(example.prompt)
                target = torch.tensor(example.answer)
                nll = torch.nn.functional.cross_entropy(logits[first - 1 : -1], target, reduction="none")
                counts = torch.tensor(weights(example, example.id in masked, config))
                total = total + (nll * counts).sum()
                count += len(counts) if config.loss_normalisation == "all" else int((counts > 0).sum())
        loss = total / count
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        losses.append(float(loss.detach()))
        if config.ema_decay:
            kept = min(config.ema_decay, len(losses) / (len(losses) + 10))
            means = {name: kept * means[name] + (1 - kept) * one.detach() for name, one in model.named_parameters()}
    return losses, means if config.ema_decay else dict(model.state_dict())


@pytest.mark.parametrize(
    ("kind", "unit", "more"),
    [
        ("qwen", "decision", {"mask_fraction": 0.3}),
        ("llama", "episode", {"mask_fraction": 0.5, "action_weight": 2.5, "trace_weight": 0.3, "weight_decay": 0.1}),
        ("qwen", "episode", {"ema_decay": 0.2, "mask_fraction": 0.5, "loss_normalisation": "remaining"}),
        ("gemma", "decision", {"mask_fraction": 0.3, "mask_closing": True, "trace_weight": 0.5}),
        ("gemma", "episode", {}),
    ],
)
def test_it_is_the_textbooks_loop(
    sft: Any,
    watched: Any,
    some_played: list[Demonstration],
    some_words: Any,
    learners: dict[str, Path],
    caplog: pytest.LogCaptureFixture,
    kind: str,
    unit: Any,
    more: dict[str, Any],
) -> None:
    options = {**FAST, "batch_size": 9, "epochs": 1, "unit": unit, **more}
    with caplog.at_level(logging.WARNING):
        trained = sft(kind=kind, **options)
    alone = [record.message for record in caplog.records if record.message.startswith("each decision is computed on its own")]
    assert len(alone) == (kind == "gemma"), "layers that our attention does not know are computed plainly, and that is said"
    made = examples_of(some_played, some_words)
    sizes = [[1] * sum(one.task == task for one in made) for task in dict.fromkeys(one.task for one in made)]
    steps = make_steps(sizes, unit=unit, batch=9, epochs=1, seed=0, tokens=10_000)
    masked = masked_ids(trained.folder, options["mask_fraction"]) if "mask_fraction" in options else set()
    config = SFTConfig(model="", data=("",), **options)
    losses, after = plain_loop(learners[kind], made, masked, steps, config)
    assert trained.steps == len(losses) > 1
    assert [loss for loss, _ in watched] == pytest.approx(losses, rel=1e-4)
    ours = weights_of(trained.folder)
    assert close(ours, {name: after[name] for name in ours}, 1e-3)


@pytest.mark.parametrize("kind", ["qwen", "gemma"])
def test_scores_are_what_the_agent_would_report(
    kind: str, learners: dict[str, Path], some_played: list[Demonstration], some_words: Any
) -> None:
    folder = learners[kind]
    learner = load_trainable(str(folder), device="cpu")
    assert learner.packed == (kind == "qwen")
    shortest = min(some_played, key=lambda one: len(one.actions))
    made = examples_of([shortest], some_words)
    found = action_logprobs(learner.model, learner.chat, [made], compute=learner.losses, device=learner.model.device)
    agent = make_agent(f"hf:{folder}?threads=1&device=cpu")
    assert isinstance(agent, HFAgent)
    asked = Elicitation.for_env(ENV)
    for example in made:
        action, trace = shortest.actions[example.step], shortest.traces[example.step]
        state = shortest.dialogue(example.step)
        (prompt,) = agent.decide([Query("e", "", "t", example.step, "prompt", state, asked, given_action=action)])
        given = Query("e", "", "t", example.step, "cot", state, asked, given_trace=trace, given_action=action)
        (cot,) = agent.decide([given])
        assert found[example.id].prompt == pytest.approx(prompt.action_logprob, abs=2e-3)
        assert found[example.id].cot == pytest.approx(cot.action_logprob, abs=2e-3)
        assert prompt.action_logprob != cot.action_logprob


@pytest.mark.parametrize("kind", ["qwen", "gemma"])
def test_a_match_is_that_of_the_agents_prompt_action(
    kind: str, learners: dict[str, Path], some_played: list[Demonstration]
) -> None:
    agent = make_agent(f"hf:{learners[kind]}?threads=1&device=cpu")
    asked = Elicitation.for_env(ENV, action_tokens=6)
    played = min(some_played, key=lambda one: len(one.actions))
    given = []
    for step in range(3):
        (decision,) = agent.decide([Query("e", ENV, "t", step, "prompt", played.dialogue(step), asked)])
        last = f" {decision.action.upper()} " if step != 1 else played.actions[step]  # Another spelling is the same action.
        cut = {name: getattr(played, name)[: step + 1] for name in ("observations", "traces")}
        given.append(played.model_copy(update={**cut, "task": f"t{step}", "actions": (*played.actions[:step], last)}))
    learner = load_trainable(str(learners[kind]), device="cpu")
    attention = learner.model.config._attn_implementation
    made = make_examples(given, learner.chat, {ENV: asked}, context=4096)
    found = prompt_matches(learner, given, made, {ENV: asked})
    assert set(found) == {example.id for example in made.flat}
    assert [found[f"t{step}#{step}"].matches for step in range(3)] == [True, False, True]
    assert learner.model.config._attn_implementation == attention, "the training goes on with its own attention"


def test_an_adapter_is_trained_loaded_and_trained_upon(
    sft: Any, watched: Any, learners: dict[str, Path], some_played: list[Demonstration], tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    trained = sft(epochs=3, batch_size=8, unit="episode", lora_rank=4, learning_rate=1e-2)
    losses = [loss for loss, _ in watched]
    assert losses[-1] < losses[0] and all("lora_" in name for name in watched[-1][1])
    assert not (trained.folder / "model.safetensors").exists()
    agent = make_agent(f"hf:{trained.folder}?threads=1&device=cpu")
    assert isinstance(agent, HFAgent)
    told = agent.describe()
    assert told["model"] == str(trained.folder)
    assert told["base"]["weights_sha256"] == load_trainable(str(learners["qwen"]), device="cpu").description["weights_sha256"]
    base = AutoModelForCausalLM.from_pretrained(learners["qwen"], dtype=torch.float32)
    textbook = PeftModel.from_pretrained(base, trained.folder).merge_and_unload().state_dict()
    assert close(dict(agent._model.state_dict()), dict(textbook))
    state, asked = some_played[0].dialogue(1), Elicitation(trace_tokens=8, action_tokens=8)
    (decision,) = agent.decide([Query("e", "", "t", 1, "cot", state, asked)])
    assert decision.error is None
    upon = sft("upon", model=str(trained.folder), epochs=1, batch_size=8, unit="episode", lora_rank=2)
    assert make_agent(f"hf:{upon.folder}?device=cpu").describe()["base"]["model"] == str(trained.folder.resolve())  # type: ignore[attr-defined]
    told = json.loads((trained.folder / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == str(learners["qwen"].resolve())
    told["base_model_name_or_path"] = str(tmp_path / "gone")
    (trained.folder / "adapter_config.json").write_text(json.dumps(told))
    with pytest.raises(AgentError, match=r"whose base model .*gone is gone: put it back") as error:
        make_agent(f"hf:{trained.folder}")
    assert "\n" not in str(error.value)
    (trained.folder / "adapter_config.json").write_text("{")
    with pytest.raises(AgentError, match=r"adapter_config.json is damaged"):
        make_agent(f"hf:{trained.folder}")
    (trained.folder / "adapter_config.json").write_text("{}")
    with pytest.raises(AgentError, match=r"without a base model"):
        make_agent(f"hf:{trained.folder}")


def test_shares_of_a_training_in_steps() -> None:
    assert steps_at((0.2, 0.4, 0.6, 0.8, 1.0), 10) == [2, 4, 6, 8, 10]
    assert steps_at((0.001, 0.25), 3) == [1, 3]
    assert steps_at((0.1 + 0.2,), 10) == [3, 10], "a rounding error is no step more"
    assert steps_at((), 1) == [1]


def test_an_elicitation_that_cannot_be_is_said_in_one_line(sft: Any) -> None:
    with pytest.raises(UsageError, match=r"^elicitation.history old: Input should be"):
        sft(elicitation={"history": "old"})
