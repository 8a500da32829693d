"""Recipe `frodo`: what each model is trained on, its losses against a plain computation, both models' checkpoints, resuming."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents import make_agent
from cotbench.agents.hf.frodo_agent import ANSWERER, WRITER, FrodoAgent
from cotbench.baselines.data.counterfactuals import make_counterfactuals
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.examples import elicitations_of
from cotbench.baselines.recipes.frodo import COUNTERFACTUALS, train
from cotbench.baselines.recipes.frodo_config import FrodoConfig
from cotbench.baselines.recipes.frodo_examples import FrodoData, answerer_weights, frodo_data, writer_weights
from cotbench.baselines.training.batching import TrainingStep
from cotbench.baselines.training.masks import Masks
from cotbench.baselines.training.model import TrainableModel, load_trainable
from cotbench.baselines.training.recipe_card import TrainingResult
from cotbench.baselines.training.trainer import TreeTrainer
from cotbench.errors import UsageError
from cotbench.prompting.elicitation import Elicitation
from tests.baselines.broken_kernels import break_kernels
from tests.baselines.conftest import ENV

FAST: dict[str, Any] = {
    **{"learning_rate": 1e-3, "writer_learning_rate": 1e-3, "warmup": 0, "checkpoints": (0.5, 1.0)},
    **{"device": "cpu", "threads": 1, "max_steps": 2, "batch_size": 3, "max_tokens_per_forward": 1024},
}
START = TrainingStep(0, 0.0, ())


@pytest.fixture
def frodo(some_traces: Path, learners: dict[str, Path], tmp_path: Path) -> Callable[..., TrainingResult]:
    """Trains both models, small random ones, on three games."""

    def call(out: str = "out", resume: bool = False, **options: Any) -> TrainingResult:
        values = {**FAST, "model": str(learners["qwen"]), "data": (str(some_traces),), **options}
        return train(FrodoConfig(**values), tmp_path / out, resume=resume)

    return call


@pytest.fixture(scope="module")
def trainable(learners: dict[str, Path]) -> TrainableModel:
    return load_trainable(str(learners["qwen"]), device="cpu")


@pytest.fixture(scope="module")
def data(some_played: list[Demonstration], trainable: TrainableModel, learners: dict[str, Path]) -> FrodoData:
    config = FrodoConfig(model=str(learners["qwen"]), data=("t",))
    return frodo_data(
        config, some_played, elicitations_of(some_played, {}), trainable, make_counterfactuals(some_played, seed=config.seed)
    )


def weights_of(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    assert one.keys() == other.keys() and one
    return all(bool((one[name] == other[name]).all()) for name in one)


def text(trainable: TrainableModel, ids: tuple[int, ...]) -> str:
    return str(trainable.chat.decode(ids))


def test_the_three_answers_at_a_state(data: FrodoData, trainable: TrainableModel, some_played: list[Demonstration]) -> None:
    others = make_counterfactuals(some_played, seed=0).by_id
    demonstrations = {one.task: one for one in some_played}
    for groups in data.triples:
        for group in groups:
            right, counterfactual, crossed = group.answers
            one, other = demonstrations[right.task], others[group.id]
            chat = trainable.chat
            assert right.prompt == counterfactual.prompt == crossed.prompt
            assert right.part("trace") == tuple(chat.encode(one.traces[right.step] or ""))
            assert right.part("action") == crossed.part("action") == tuple(chat.encode(one.actions[right.step]))
            assert counterfactual.part("trace") == crossed.part("trace") == tuple(chat.encode(other.trace))
            assert counterfactual.part("action") == tuple(chat.encode(other.action))
            assert crossed.spans[-1].end == len(crossed.ids) and crossed.part("closing") == right.part("closing")
            assert [span.start for span in crossed.spans[1:]] == [span.end for span in crossed.spans[:-1]]


def test_no_action_in_the_writers_loss_and_no_trace_in_the_answerers(data: FrodoData, learners: dict[str, Path]) -> None:
    masks = Masks.of(FrodoConfig(model="m", data=("t",)), data.right.flat)
    for pairs, triples in zip(data.pairs, data.triples, strict=True):
        for pair, triple in zip(pairs, triples, strict=True):
            for answer, weights in zip(pair.answers, writer_weights(pair, START), strict=True):
                counted = [id_ for id_, weight in zip(answer.answer, weights, strict=True) if weight]
                assert counted == [*answer.part("trace"), *answer.part("think_close")]
            for answer, weights in zip(triple.answers, answerer_weights(masks, triple, START), strict=True):
                counted = [id_ for id_, weight in zip(answer.answer, weights, strict=True) if weight]
                assert counted == [*answer.part("action"), *answer.part("closing")]


def test_a_masked_action_is_in_no_loss(data: FrodoData) -> None:
    config = FrodoConfig(model="m", data=("t",), mask_fraction=0.5)
    masks = Masks.of(config, data.right.flat)
    groups = [group for groups in data.triples for group in groups]
    masked = [group for group in groups if masks.masked(group.id, 0, 0.0)]
    assert 0 < len(masked) < len(groups)
    for group in masked:
        right, counterfactual, crossed = answerer_weights(masks, group, START)
        assert not any(crossed)
        for answer, weights in zip(group.answers[:2], (right, counterfactual), strict=True):
            counted = [id_ for id_, weight in zip(answer.answer, weights, strict=True) if weight]
            assert counted == [*answer.part("closing")]


def plain_logprob(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...], weights: Any) -> Any:
    """The weighted sum of an answer's log-probabilities, by the model's own attention over one sequence."""
    import torch

    ids = torch.tensor([[*prompt, *answer]])
    logprobs = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float(), -1)
    chosen = logprobs[range(len(answer)), list(answer)]
    return (chosen * torch.tensor(weights)).sum()


@pytest.mark.parametrize("unit", ["decision", "episode"])
@pytest.mark.parametrize("part", [WRITER, ANSWERER])
def test_the_first_steps_loss_and_gradient_are_those_of_a_plain_loop(
    part: str,
    unit: str,
    frodo: Callable[..., TrainingResult],
    data: FrodoData,
    learners: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    seen: dict[str, tuple[float, dict[str, Any]]] = {}
    step = TreeTrainer.training_step

    def spy(self: Any, model: Any, *rest: Any, **more: Any) -> Any:
        loss = step(self, model, *rest, **more)
        if Path(self.args.output_dir).name not in seen:
            grads = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
            seen[Path(self.args.output_dir).name] = float(loss), grads
        return loss

    monkeypatch.setattr(TreeTrainer, "training_step", spy)
    every = sum(map(len, data.triples))  # One step with all there is.
    options = {"beta": 0.5, "margin": 3.0, "counterfactual_weight": 0.5, "hinge_weight": 2.0, "writer_likelihood_weight": 0.1}
    frodo(max_steps=1, batch_size=every, unit=unit, checkpoints=(1.0,), **options)
    model = AutoModelForCausalLM.from_pretrained(learners["qwen"], dtype=torch.float32)
    model.train()
    total = torch.zeros(())
    masks = Masks.of(FrodoConfig(model="m", data=("t",)), data.right.flat)
    for groups in data.pairs if part == WRITER else data.triples:
        for group in groups:
            weights = writer_weights(group, START) if part == WRITER else answerer_weights(masks, group, START)
            sums = [
                plain_logprob(model, answer.prompt, answer.answer, own)
                for answer, own in zip(group.answers, weights, strict=True)
            ]
            if part == WRITER:  # The reference is the model itself, so that the margin is 0.
                margin = 0.5 * ((sums[0] - sums[0].detach()) - (sums[1] - sums[1].detach()))
                total = total - torch.nn.functional.logsigmoid(margin) - 0.1 * sums[0]
            else:
                hinges = torch.relu(3.0 - (sums[0] - sums[2]))
                total = total - sums[0] - 0.5 * sums[1] + 2.0 * hinges
    loss = total / every
    loss.backward()
    found, grads = seen[part]
    assert found == pytest.approx(float(loss.detach()), rel=1e-4)
    own = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    assert own.keys() == grads.keys()
    for name, grad in own.items():
        assert torch.allclose(grad, grads[name], atol=1e-4, rtol=1e-3), name


def test_the_writers_reference_is_computed_as_it_is_trained_and_without_a_compiler_that_fails(
    frodo: Callable[..., TrainingResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: training in bfloat16 from weights in float32, on a card that the compiler does not know."""
    import torch

    from cotbench.baselines.recipes import frodo as recipe
    from cotbench.baselines.training import start_pass

    def measured(*given: Any, **named: Any) -> Any:
        mixed.append(torch.is_autocast_enabled("cpu"))
        return branch_logprobs(*given, **named)

    mixed: list[bool] = []
    branch_logprobs = recipe.branch_logprobs
    break_kernels(recipe, monkeypatch)
    monkeypatch.setattr(recipe, "branch_logprobs", measured)
    monkeypatch.setattr(start_pass, "mixes_precision", lambda dtype, device: dtype == "auto")
    frodo("out", max_steps=1, checkpoints=(1.0,), mask_fraction=0.5, mask_select="likely")
    assert mixed == [True, True], "once with kernels, once without"


@pytest.mark.parametrize("closing", [False, True], ids=["tags stay", "nothing stays"])
@pytest.mark.parametrize("kind", ["qwen", "gemma"])
def test_steps_all_of_whose_states_are_masked(
    kind: str, closing: bool, frodo: Callable[..., TrainingResult], learners: dict[str, Path]
) -> None:
    """`remaining` counts no state of such a step; with the closing tags masked too, nothing is left to learn."""
    import torch

    options = {"model": str(learners[kind]), "mask_fraction": 1.0, "mask_closing": closing, "batch_size": 1}
    trained = frodo(loss_normalisation="remaining", max_steps=1, checkpoints=(1.0,), **options)
    before, after = weights_of(learners[kind]), weights_of(trained.folder / ANSWERER)
    assert all(bool(torch.isfinite(one).all()) for one in after.values())
    assert same(before, after) == closing


def test_a_folder_with_both_models_that_plays(frodo: Callable[..., TrainingResult], tmp_path: Path) -> None:
    trained = frodo()
    out = trained.folder
    assert trained.steps == 4 and "trained 4 steps" in trained.summary_line
    for folder, progress in ((out / "checkpoint-2", 0.5), (out / "checkpoint-4", 1.0), (out, 1.0)):
        card = json.loads((folder / "recipe.json").read_text())
        assert card["recipe"] == "frodo" and card["progress"] == progress and card["steps"] == 4
        assert card["parts"] == {WRITER: 2 * progress, ANSWERER: 2 * progress}
        assert card["counterfactuals"]["decisions"] > 0 and card["seen"]["tokens"] > 0
        agent = make_agent(f"frodo:{folder}")
        assert isinstance(agent, FrodoAgent)
    assert not same(weights_of(out / "checkpoint-2" / WRITER), weights_of(out / "checkpoint-2" / ANSWERER))
    assert same(weights_of(out / WRITER), weights_of(out / "checkpoint-4" / WRITER))
    assert not (out / "checkpoint-4" / WRITER / "optimizer.pt").exists()
    rows = [json.loads(line) for line in (out / COUNTERFACTUALS).read_text().splitlines()]
    assert len(rows) == json.loads((out / "recipe.json").read_text())["counterfactuals"]["decisions"]
    assert json.loads((out / "masks.json").read_text())["places"] == [{}]


def test_checkpoints_are_found_by_their_share(frodo: Callable[..., TrainingResult]) -> None:
    from cotbench.study.folder import checkpoint

    out = frodo(max_steps=3, checkpoints=(0.2, 0.5, 1.0)).folder
    assert [checkpoint(out, share).name for share in (0.2, 0.5, 1.0)] == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [(WRITER, 2), (ANSWERER, 2)])
def test_killed_and_resumed_ends_with_the_same_weights(
    at: tuple[str, int], frodo: Callable[..., TrainingResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = frodo("whole", max_steps=3).folder
    step = TreeTrainer.training_step

    def stopping(self: Any, *rest: Any, **more: Any) -> Any:
        if (Path(self.args.output_dir).name, self.state.global_step) == at:
            raise Stop
        return step(self, *rest, **more)

    with monkeypatch.context() as patched, pytest.raises(Stop):
        patched.setattr(TreeTrainer, "training_step", stopping)
        frodo("killed", max_steps=3)
    killed = frodo("killed", resume=True, max_steps=3).folder
    for part in (WRITER, ANSWERER):
        assert same(weights_of(whole / part), weights_of(killed / part))
    assert sorted(path.name for path in whole.glob("checkpoint-*")) == sorted(path.name for path in killed.glob("checkpoint-*"))


def test_a_common_checkpoint_without_a_card_is_made_anew(frodo: Callable[..., TrainingResult]) -> None:
    out = frodo().folder
    (out / "checkpoint-4" / "recipe.json").unlink()
    shutil.rmtree(out / "checkpoint-4" / ANSWERER)
    frodo(resume=True)
    assert same(weights_of(out / "checkpoint-4" / ANSWERER), weights_of(out / ANSWERER))


def test_the_writer_prefers_the_right_trace_and_the_answerer_follows_its_trace(
    frodo: Callable[..., TrainingResult], data: FrodoData, learners: dict[str, Path]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    out = frodo(max_steps=12, batch_size=16, beta=0.5, margin=4.0, unit="episode", checkpoints=(1.0,)).folder
    masks = Masks.of(FrodoConfig(model="m", data=("t",)), data.right.flat)

    def means(folder: Path) -> tuple[float, float]:
        """How much likelier the right trace is, and how much the right action is after it."""
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        effects: tuple[list[float], list[float]] = [], []
        with torch.inference_mode():
            for groups, into in ((data.pairs, effects[0]), (data.triples, effects[1])):
                for group in groups[0]:
                    weights = writer_weights(group, START) if into is effects[0] else answerer_weights(masks, group, START)
                    first, last = (
                        float(plain_logprob(model, group.answers[i].prompt, group.answers[i].answer, weights[i]))
                        for i in (0, -1)
                    )
                    into.append(first - last)
        return sum(effects[0]) / len(effects[0]), sum(effects[1]) / len(effects[1])

    before = means(learners["qwen"])
    assert means(out / WRITER)[0] > before[0]
    assert means(out / ANSWERER)[1] > before[1]


def test_a_start_of_another_elicitation(
    frodo: Callable[..., TrainingResult], learners: dict[str, Path], tmp_path: Path
) -> None:
    start = tmp_path / "start"
    shutil.copytree(learners["qwen"], start)
    (start / "recipe.json").write_text(json.dumps({"elicitations": {ENV: "abc"}}))
    with pytest.raises(UsageError, match="another elicitation of alfworld-gen"):
        frodo(model=str(start))
    (start / "recipe.json").write_text("{}")
    with pytest.raises(UsageError, match="damaged"):
        frodo("second", model=str(start))
    (start / "recipe.json").write_text(json.dumps({"elicitations": {ENV: Elicitation.for_env(ENV).fingerprint}}))
    assert frodo("third", model=str(start), max_steps=1).steps == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"traces": "none"}, "omit --traces"),
        ({"trace_weight": 0.5}, "trace_weight=0.5"),
        ({"mask_fraction": 0.3, "action_weight": 0.5}, "action_weight=0.5"),
        ({"counterfactuals": "golas"}, "goal"),
    ],
)
def test_options_without_a_meaning_here(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FrodoConfig(model="m", data=("t",), **options)
