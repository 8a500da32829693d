"""`tiny`: its words, its corpus, and that its base can be built again."""

import json
from pathlib import Path
from typing import Any

import pytest

from cotbench.agents.hf.bundled import TINY_COT, tiny_folder
from cotbench.agents.hf.model_files import list_files
from cotbench.agents.registry import make_agent
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.token_ids import answer_pieces, prompt_ids
from cotbench.baselines.data.demonstration import Demonstration, answer_text
from cotbench.baselines.recipes.base import text_tree
from cotbench.baselines.teachers.facts import unseen
from cotbench.baselines.tiny import corpus
from cotbench.baselines.tiny.tokenizer import make_tokenizer
from cotbench.cli import run_cli
from cotbench.envs.registry import Instructions, env_entry
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import MODES, Elicitation
from cotbench.prompting.query import Query
from cotbench.runs.manifest import RunConfig
from cotbench.runs.runner import run
from tests.conftest import needs_datasets, needs_hf

pytestmark = needs_hf


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(tiny_folder())


def test_no_game_of_the_corpus_is_in_a_split() -> None:
    source = env_entry(corpus.ENV).source()
    held = {task for scheme, splits in source.schemes().items() for split in splits for task in source.tasks(scheme, split)}
    tasks = corpus.tasks(9000)
    assert len(set(tasks)) == 9000
    assert not held & set(tasks)
    assert {task.split("/")[2] for task in tasks} == {"pick", "look", "clean", "heat", "cool", "two"}
    assert not any(int(task.rsplit("/", 1)[1]) >= 2_000_000 for task in tasks), "held-out pairs are read by nobody"


def test_traces_of_the_corpus_are_true_and_no_conclusions() -> None:
    read = list(corpus.transcripts(24))
    assert read == list(corpus.transcripts(24))
    assert sum(one.success for one in read) < len(read) / 2
    spoken = [(one, step, trace) for one in read for step, trace in enumerate(one.traces) if trace is not None]
    assert 0.4 < len(spoken) / sum(len(one.actions) for one in read) < 0.6
    for one, step, trace in spoken:
        assert not unseen(one.dialogue(step), one.actions[step], trace, one.env)
    targets = [(one.actions[step].removeprefix("go to "), trace) for one, step, trace in spoken if "go to" in one.actions[step]]
    assert sum(place in trace for place, trace in targets) < len(targets) / 20
    assert any("Nothing happens." in one.observations for one in read)


def test_the_base_reads_what_evaluation_shows_in_both_modes(tokenizer: Any) -> None:
    chat = Chat(tokenizer)
    one = next(one for one in corpus.transcripts(6) if one.traces[-1] is not None)
    tree = text_tree(one, chat)
    text = chat.decode(tree.trunk)
    assert "<think>" not in text.split("<|user|>", 1)[1]
    assert all(f"<action>{action}</action>" in text for action in one.actions)
    spoken = [step for step, trace in enumerate(one.traces) if trace is not None]
    assert len(tree.branches) == len(spoken) > 2
    for step, branch in zip(spoken, tree.branches, strict=True):
        query = Query(one.task, one.env, one.task, step, "cot", one.dialogue(step), Elicitation.for_env(one.env))
        assert tree.trunk[: branch.at] == tuple(prompt_ids(query, chat, 4096)[0])
        assert chat.decode(branch.ids) == f"{answer_text(one.actions[step], one.traces[step])}<|end|>"
        assert set(branch.weights[1:]) == {1.0}


@pytest.mark.parametrize(
    "text",
    [
        "You arrive at desk 1. On the desk 1, you see a cd 1, a mug 2, and a pencil 3.",
        "I need a {thing}; no such word: zyzzyva.\n\n<action>go to desk 1</action>",
        "<think>x</think>\n<action>",
        "  two  blanks, and\ttabs",
    ],
)
def test_text_comes_back_as_it_was(tokenizer: Any, text: str) -> None:
    chat = Chat(tokenizer)
    assert chat.decode(chat.encode(text)) == text.replace("\t", tokenizer.unk_token)


def test_words_are_tokens(tokenizer: Any) -> None:
    chat = Chat(tokenizer)
    env = env_entry(corpus.ENV)
    told = Elicitation.for_env(corpus.ENV).system_text(Dialogue(env.instructions(), ("",)), "cot")
    assert len(chat.encode(told)) == 1
    for action in ("go to toiletpaperhanger 1", "cool soapbottle 3 with fridge 1", "take remotecontrol 2 from sidetable 1"):
        assert len(chat.encode(action)) == len(action.split())


def test_the_template_marks_the_assistants_tokens_and_changes_no_prompt(tokenizer: Any) -> None:
    template = tokenizer.chat_template
    assert template == make_tokenizer(["a"], []).chat_template, "the package holds what the recipe makes"
    unmarked = template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    assert unmarked.count("{%") == template.count("{%") - 2
    answers = [f"<think>I go to desk {n}.</think>\n<action>go to desk {n}</action>" for n in (1, 2)]
    chat = [{"role": "system", "content": "You act."}]
    for answer in answers:
        chat += [{"role": "user", "content": "You see a desk 1."}, {"role": "assistant", "content": answer}]
    for length in range(1, len(chat) + 1):
        for opened in (True, False):
            shown = [
                tokenizer.apply_chat_template(chat[:length], chat_template=one, tokenize=False, add_generation_prompt=opened)
                for one in (template, unmarked)
            ]
            assert shown[0] == shown[1]
    found = tokenizer.apply_chat_template(chat, return_dict=True, return_assistant_tokens_mask=True)
    marked = [id_ for id_, mine in zip(found["input_ids"], found["assistant_masks"], strict=True) if mine]
    coded = Chat(tokenizer)
    steps = [(f"I go to desk {n}.", f"go to desk {n}") for n in (1, 2)]
    pieces = [answer_pieces(coded, trace, action, ended=True) for trace, action in steps]
    assert marked == [id_ for answer in pieces for _, piece in answer for id_ in piece]


@needs_datasets
def test_trl_trains_on_the_assistants_tokens_alone(tokenizer: Any, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="pip install -e '.[dev]'")
    import datasets
    import transformers

    one = Demonstration(
        observations=("You see a desk 1.", "On the desk 1, you see a mug 2."),
        actions=("go to desk 1", "take mug 2 from desk 1"),
        traces=("I go to desk 1.", None),
        instructions=Instructions("You act."),
    )
    rows = datasets.Dataset.from_list([{"messages": [message._asdict() for message in one.messages()]}])
    trainer = trl.SFTTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(tiny_folder()),
        args=trl.SFTConfig(output_dir=str(tmp_path), assistant_only_loss=True, report_to="none", use_cpu=True, bf16=False),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    (row,) = trainer.train_dataset
    answers = "".join(f"{answer_text(action, trace)}<|end|>" for action, trace in zip(one.actions, one.traces, strict=True))
    assert tokenizer.decode([id_ for id_ in row["labels"] if id_ != -100]) == answers


def test_the_base_in_the_package(tmp_path: Path) -> None:
    card = _card(tiny_folder())
    assert card["recipe"] == "base"
    agent = make_agent("hf:tiny?threads=1&device=cpu")
    described = agent.describe()  # type: ignore[attr-defined]
    assert described["model"] == "cotbench-tiny"
    assert 1_500_000 < described["parameters"] < 2_500_000
    outcome = run(RunConfig(agent="hf:tiny", episodes=3, max_steps=6), out=tmp_path / "run", agent=agent)
    for mode in MODES:
        steps = [step for episode in outcome.records if episode.mode == mode for step in episode.trajectory]
        # It acts at once and after a short trace, before it has been taught.
        assert sum(step.decision.format_ok for step in steps) >= 0.9 * len(steps)
        assert sum(step.invalid_action is None for step in steps) > len(steps) / 4
        assert all(bool(step.decision.trace) == (mode == "cot") for step in steps)


def test_the_taught_model_in_the_package_wins_in_both_modes(tmp_path: Path) -> None:
    card = _card(tiny_folder(TINY_COT))
    first = card["base"]["recipe"]
    for stage in (first, card):
        assert stage["recipe"] == "sft" and stage["config"]["data"] == ["tiny"]
    assert first["config"]["model"] == "tiny" and card["config"]["prompt_share"] == 0.2
    assert first["base"]["weights_sha256"] == list_files(tiny_folder()).weights_sha256
    agent = make_agent("hf:tiny-cot?threads=1&device=cpu")
    config = RunConfig(agent="hf:tiny-cot", mode="both", episodes=12, max_steps=12)
    outcome = run(config, out=tmp_path / "run", agent=agent)
    for mode in MODES:
        assert sum(episode.success for episode in outcome.records if episode.mode == mode) >= 1


def _card(folder: Path) -> dict[str, Any]:
    """Return the card of a model in the package; its files are small, and it was made for the elicitation of today."""
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 8 * 2**20
    card: dict[str, Any] = json.loads((folder / "recipe.json").read_text())
    assert card["elicitations"] == {corpus.ENV: Elicitation.for_env(corpus.ENV).fingerprint}
    return card


def test_a_base_is_built_twice_the_same(tmp_path: Path) -> None:
    file = tmp_path / "base.toml"
    file.write_text('recipe = "base"\ngames = 12\nhidden = 32\nlayers = 1\nthreads = 1\n')
    for name in ("one", "two"):
        assert run_cli(["train", "--config", str(file), "--out", str(tmp_path / name)]) == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1]
