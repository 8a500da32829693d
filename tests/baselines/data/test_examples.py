"""Examples: token for token what the model is asked with, over templates and tokenizers that misbehave."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents import make_agent
from cotbench.agents.hf.agent import HFAgent
from cotbench.agents.hf.attention import forward
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.baselines.data.admissible import admissible_of
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.examples import Example, Examples, make_examples
from cotbench.baselines.training.sequence_tree import build_trees
from cotbench.envs import Instructions
from cotbench.envs.registry import env_entry
from cotbench.errors import AgentError, UsageError
from cotbench.prompting.dialogue import Dialogue
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN, THINK_CLOSE, THINK_OPEN
from cotbench.prompting.query import Query
from tests import tiny_models
from tests.hf_agents import hf_agent

TOLD = Instructions("You act.", ("go to desk 1",))
FIRST = "You are in a room.\n\nYour task is to: look."
STEPS = (
    ("go to desk 1", "I look for a mug. It may be on the desk.", "On the desk you see a mug."),
    ("take mug from desk 1", "The mug is here: I take it.", "You take the mug."),
    ("[clean(item='mug')]", "Now it has to be clean.", "The mug is clean."),
    ("open fridge 1", "Putting it away, at last: ça y est…", "The fridge is open."),
)
PREFILL = Elicitation(trace_tokens=80, action_tokens=24)
LABELS = ["prompt", "think_open", "trace", "think_close", "action_open", "action", "closing"]
EVERY_TEMPLATE = pytest.mark.parametrize("template", tiny_models.TEMPLATES)
EVERY_HISTORY = pytest.mark.parametrize("history", ["actions", "traces"])


def demonstration(steps: Any = STEPS, first: str = FIRST, task: str = "t") -> Demonstration:
    return Demonstration(
        task=task,
        instructions=TOLD,
        observations=(first, *(step[2] for step in steps[:-1])),
        actions=tuple(step[0] for step in steps),
        traces=tuple(step[1] for step in steps),
    )


def query(step: int, elicitation: Elicitation = PREFILL, steps: Any = STEPS, **more: Any) -> Query:
    """The query that a rollout asks at this step, made as a rollout makes it."""
    dialogue = Dialogue(TOLD, (FIRST,))
    for action, trace, observation in steps[:step]:
        dialogue = dialogue.extended(action, trace, observation)
    return Query("e", "", "t", step, "cot", dialogue, elicitation, **more)


def examples(chat: Chat, elicitation: Elicitation = PREFILL, *played: Demonstration, **more: Any) -> Examples:
    return make_examples(played or [demonstration()], chat, {"": elicitation}, **{"context": 4096, **more})


def merging_tokenizer(regex: bool) -> Any:
    """A byte-level BPE that has read answers: its tokens reach over the borders of tags; without the regex, of words too."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=395,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [f"{THINK_OPEN}{trace}{THINK_CLOSE}\n{ACTION_OPEN}{action}{ACTION_CLOSE}" for action, trace, _ in STEPS[:3]]
    bpe.train_from_iterator(texts * 20, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    made.chat_template = tiny_models.CHATML
    return made


def asked(agent: HFAgent, one: Query, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens that went through the model for a query, in order; of a given action all but the last."""
    from cotbench.agents.hf import engine

    seen: list[int] = []

    def spy(model: Any, spans: Any) -> Any:
        for span in spans:
            seen.extend(span.ids)
        return forward(model, spans)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "forward", spy)
        (decision,) = agent.decide([one])
    agent._engine.close()  # The next query finds nothing computed.
    assert decision.error is None
    return seen


def check_spans(chat: Chat, made: Examples, steps: Any = STEPS) -> None:
    for example, (action, trace, _) in zip(made.flat, steps, strict=True):
        assert [span.label for span in example.spans] == LABELS
        assert [0, *(span.end for span in example.spans)] == [*(span.start for span in example.spans), len(example.ids)]
        said = {label: chat.decode(example.part(label)) for label in LABELS[1:]}  # type: ignore[arg-type]
        assert said == {
            "think_open": "<think>",
            "trace": trace,
            "think_close": "</think>\n",
            "action_open": "<action>",
            "action": action,
            "closing": "</action>" + chat.decode(chat.turn_end),
        }
        assert example.prompt + example.answer == example.ids


@EVERY_HISTORY
@EVERY_TEMPLATE
def test_every_span_reads_as_its_piece(template: str, history: str) -> None:
    chat = Chat(tiny_models.tokenizer(tiny_models.TEMPLATES[template]))
    elicitation = PREFILL.model_copy(update={"history": history})
    made = examples(chat, elicitation)
    check_spans(chat, made)
    for step, example in enumerate(made.flat):
        messages = elicitation.messages(query(step).dialogue, "cot")
        assert chat.decode(example.prompt) == chat.prompt_text(messages)
    assert (made.too_long, made.shortened, made.without_trace) == ((), 0, 0)


@pytest.mark.parametrize("regex", [True, False])
def test_spans_hold_where_tokens_reach_over_tags(regex: bool) -> None:
    chat = Chat(merging_tokenizer(regex))
    for last, tag in (("it.", "</think>"), (")]", "</action>")):
        assert chat.encode(last + tag) != chat.encode(last) + chat.encode(tag), "the tokenizer does merge"
    check_spans(chat, examples(chat))


def test_the_end_of_the_turn_closes_the_answer() -> None:
    tokenizer = tiny_models.tokenizer()
    chat = Chat(tokenizer)
    for example in examples(chat).flat:
        assert chat.decode(example.part("closing")) == "</action><|im_end|>"
        assert example.ids[-1] == tokenizer.eos_token_id


@EVERY_HISTORY
@EVERY_TEMPLATE
def test_the_model_is_asked_with_these_very_tokens(
    template: str, history: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = hf_agent(tmp_path, template=template)
    elicitation = PREFILL.model_copy(update={"history": history})
    made = examples(agent._chat, elicitation)
    for step, (action, trace, _) in enumerate(STEPS):
        tokens = asked(agent, query(step, elicitation, given_trace=trace, given_action=action), monkeypatch)
        assert tokens == list(made.flat[step].ids[: -1 - len(agent._chat.turn_end)])
        alone = asked(agent, replace(query(step, elicitation, given_action=action), mode="prompt"), monkeypatch)
        opening = made.flat[step].part("action_open")
        assert alone[: len(made.flat[step].prompt) + len(opening)] == [*made.flat[step].prompt, *opening], "both modes"


@pytest.mark.parametrize("regex", [True, False])
def test_the_model_is_asked_with_these_very_tokens_where_they_reach_over_tags(
    regex: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_models, "tokenizer", lambda template: merging_tokenizer(regex))
    agent = hf_agent(tmp_path)
    made = examples(agent._chat)
    for step, (action, trace, _) in enumerate(STEPS):
        tokens = asked(agent, query(step, given_trace=trace, given_action=action), monkeypatch)
        start = next(span.start for span in made.flat[step].spans if span.label == "action")
        assert tokens[:start] == list(made.flat[step].ids[:start])


@EVERY_TEMPLATE
def test_style_template_opens_nothing(template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = hf_agent(tmp_path, template=template, options="drafts=false")
    elicitation = PREFILL.model_copy(update={"style": "template", "action_tokens": 1})
    made = examples(agent._chat, elicitation)
    check_spans(agent._chat, made)
    for step, example in enumerate(made.flat[:2]):
        free = asked(agent, query(step, elicitation.model_copy(update={"trace_tokens": 1})), monkeypatch)
        assert free[: len(example.prompt)] == list(example.prompt)
        told = asked(agent, query(step, elicitation, given_trace="I look for a mug"), monkeypatch)
        plain = [("go to desk 1", "I look for a mug", "You see it.")] * (step + 1)
        (*_, same) = examples(agent._chat, elicitation, demonstration([*STEPS[:step], plain[0]])).flat
        end = next(span.end for span in same.spans if span.label == "think_close")
        assert told[:end] == list(same.ids[:end])


@EVERY_HISTORY
@EVERY_TEMPLATE
def test_the_prompts_of_an_episode_grow_into_one_tree(template: str, history: str) -> None:
    chat = Chat(tiny_models.tokenizer(tiny_models.TEMPLATES[template]))
    (episode,) = examples(chat, PREFILL.model_copy(update={"history": history})).episodes
    for before, after in itertools.pairwise(episode):
        assert after.prompt[: len(before.prompt)] == before.prompt
    (tree,) = build_trees(episode, [[1.0] * len(example.answer) for example in episode])
    check_tree(tree, episode)


def check_tree(tree: Any, episode: Any) -> None:
    assert [tree.trunk[: branch.at] + branch.ids for branch in tree.branches] == [example.ids for example in episode]
    assert tree.tokens == len(episode[-1].prompt) + sum(len(example.answer) for example in episode)


def test_a_dropped_prompt_is_the_one_of_evaluation_and_begins_another_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = 800
    agent = hf_agent(tmp_path, options=f"context={context}")
    steps = [(f"go to desk {turn}", f"I go on {turn}.", f"On the desk {turn} you see a mug and a desk.") for turn in range(14)]
    made = examples(agent._chat, PREFILL, demonstration(steps), context=context)
    assert not made.too_long
    dropped = 0
    for step, example in enumerate(made.flat):
        one = query(step, steps=steps, given_trace=steps[step][1], given_action=steps[step][0])
        (decision,) = agent.decide([one])
        dropped += decision.dropped_observations > 0
        agent._engine.close()
        assert asked(agent, one, monkeypatch) == list(example.ids[: -1 - len(agent._chat.turn_end)])
    assert made.shortened == dropped > 0
    (episode,) = made.episodes
    trees = build_trees(episode, [[1.0] * len(example.answer) for example in episode])
    assert 1 < len(trees) < len(episode)
    rest = list(episode)
    for tree in trees:
        group, rest = rest[: len(tree.branches)], rest[len(tree.branches) :]
        check_tree(tree, group)
    assert not rest


def test_what_is_too_long_is_counted_and_never_cut() -> None:
    chat = Chat(tiny_models.tokenizer())
    steps = list(STEPS)
    steps[1] = (steps[1][0], "and then " * 300, steps[1][2])
    made = examples(chat, PREFILL, demonstration(steps), context=900)
    assert made.too_long == ("t#1",)
    assert [example.step for example in made.flat] == [0, 2, 3]
    check_spans(chat, made, [steps[0], *steps[2:]])
    assert all(len(example.ids) <= 900 for example in made.flat)
    (tree,) = build_trees(made.episodes[0], [[1.0] * len(example.answer) for example in made.flat])
    check_tree(tree, made.flat)
    hopeless = examples(chat, PREFILL, demonstration(first="room " * 2000), demonstration(), context=900)
    assert hopeless.too_long == ("t#0", "t#1", "t#2", "t#3"), "not even the first observation fits"
    assert len(hopeless.episodes) == 1


def test_the_longest_example_may_fill_the_context() -> None:
    chat = Chat(tiny_models.tokenizer())
    elicitation = Elicitation(trace_tokens=1, action_tokens=1)
    longest = max(len(example.ids) for example in examples(chat, elicitation).flat)
    assert examples(chat, elicitation, context=longest).too_long == ()
    assert examples(chat, elicitation, context=longest - 1).too_long == ("t#3",)


def test_a_decision_without_a_trace_gives_no_example() -> None:
    chat = Chat(tiny_models.tokenizer())
    steps = [
        (action, trace if turn in (1, 3) else [None, ""][turn // 2], seen) for turn, (action, trace, seen) in enumerate(STEPS)
    ]
    made = examples(chat, PREFILL, demonstration(steps), demonstration([("look", None, "")], task="u"))
    assert [example.id for example in made.flat] == ["t#1", "t#3"]
    assert made.without_trace == 3
    assert len(made.episodes) == 1
    everything = examples(chat).flat
    assert made.flat == [everything[1], everything[3]], "what stands before them is shown all the same"


def test_a_task_that_was_played_twice_has_examples_of_two_names() -> None:
    chat = Chat(tiny_models.tokenizer())
    made = examples(chat, PREFILL, demonstration(STEPS[:2]), demonstration(STEPS[:1], task="u"), demonstration(STEPS[:1]))
    assert [example.id for example in made.flat] == ["t#0", "t#1", "u#0", "t@1#0"]
    assert {example.task for example in made.flat} == {"t", "u"}


def test_a_template_that_drops_traces_keeps_that_of_the_answer() -> None:
    tokenizer = tiny_models.tokenizer(tiny_models.STRIPS_THINKING)
    answer = {"role": "assistant", "content": f"{THINK_OPEN}I think.{THINK_CLOSE}\n<action>look</action>"}
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "u"}, answer], tokenize=False)
    assert "I think." not in rendered, "the template does drop it"
    chat = Chat(tokenizer)
    elicitation = PREFILL.model_copy(update={"history": "traces"})
    (*_, last) = examples(chat, elicitation).flat
    text = chat.decode(last.ids)
    assert all(trace in text for _, trace, _ in STEPS)


def word_tokenizer(words: list[str]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(["<unk>", *words])}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="<unk>")


def test_a_tokenizer_that_cannot_write_a_tag_is_refused() -> None:
    with pytest.raises(AgentError, match=r"the tokenizer of .* reads '<think>' as '.*<unk>': it cannot write that"):
        Chat(word_tokenizer(["go"]))


def test_a_part_that_is_not_there_is_empty() -> None:
    example = examples(Chat(tiny_models.tokenizer())).flat[0]
    assert replace(example, spans=example.spans[:1]).part("action") == ()
    assert isinstance(example, Example)


def test_a_prompt_lists_what_was_admissible_where_the_elicitation_does() -> None:
    made: Any = make_agent("hf:tiny?threads=1&device=cpu")
    env = env_entry("alfworld-gen").make(split="train", request=["admissible_actions"])
    task = next(iter(env._split_tasks()))
    text, info = env.reset(options={"task": task})
    texts, actions, lists = [text], [], []
    for _ in range(3):
        lists.append(tuple(info["admissible_actions"]))
        actions.append(lists[-1][len(actions)])
        text, *_, info = env.step(actions[-1])
        texts.append(text)
    one = Demonstration(
        env="alfworld-gen", task=task, observations=tuple(texts[:-1]), actions=tuple(actions), traces=("I go.",) * 3
    )
    again = one.model_copy(update={"actions": (actions[0],), "observations": (texts[0],), "traces": ("I go.",)})
    assert admissible_of([one, again]) == [tuple(lists), (lists[0],)]
    shown = Elicitation(show_admissible=True)
    chat = made._chat
    examples = make_examples([one, again], chat, {"alfworld-gen": shown}, context=4096)
    for step, example in enumerate(examples.episodes[0]):
        messages = shown.messages(one.dialogue(step), "cot", lists[step])
        assert list(example.part("prompt")) == chat.prompt_ids(messages)
    odd = one.model_copy(update={"observations": (texts[0], "A dragon.", texts[2])})
    with pytest.raises(UsageError, match="another text"):
        make_examples([odd], chat, {"alfworld-gen": shown}, context=4096)
    assert make_examples([odd], chat, {"alfworld-gen": Elicitation()}, context=4096).flat
