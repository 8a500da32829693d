"""Control traces: the same states and actions, other traces."""

from collections import Counter
from functools import partial

import pytest

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents.hf.agent import HFAgent
from cotbench.agents.hf.tokenizer import load_tokenizer
from cotbench.agents.tokenization.chat_template import Chat
from cotbench.baselines.data.demonstration import Demonstration
from cotbench.baselines.data.examples import make_examples
from cotbench.baselines.data.trace_controls import TraceControl, control_traces, filler
from cotbench.baselines.recipes.sft import SFT
from cotbench.baselines.recipes.sft_config import SFTConfig
from cotbench.baselines.training.batching import computed_tokens, make_steps
from cotbench.envs import Instructions
from cotbench.envs.registry import env_entry
from cotbench.errors import UsageError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.query import Query
from tests import tiny_models


def played(tasks: int = 6, turns: int = 5) -> list[Demonstration]:
    return [
        Demonstration(
            task=f"t{task}",
            instructions=Instructions("You act."),
            observations=("Look.",) * turns,
            actions=tuple(f"go to desk {turn + task % 2}" for turn in range(turns)),
            traces=tuple(None if turn == 2 else f"I think of {task} and then of {turn}." for turn in range(turns)),
        )
        for task in range(tasks)
    ]


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat(tiny_models.tokenizer())


@pytest.mark.parametrize("control", ["own", "none", "shuffled", "filler"])
def test_states_and_actions_stay(control: TraceControl, chat: Chat) -> None:
    given = played()
    found = control_traces(given, control, chat, 0)
    left = {"traces"}
    assert [one.model_dump(exclude=left) for one in found] == [one.model_dump(exclude=left) for one in given]
    for one, other in zip(found, given, strict=True):
        with_trace = [trace is not None for trace in one.traces]
        assert with_trace == [trace is not None for trace in other.traces]
    assert (found == given) == (control in ("own", "none"))


def test_a_shuffled_trace_is_of_another_task_and_another_action_and_each_is_used_once(chat: Chat) -> None:
    given = played()
    actions = {trace: (one.task, action) for one in given for trace, action in zip(one.traces, one.actions, strict=True)}
    orders = []
    for seed in (0, 1, 0):
        found = control_traces(given, "shuffled", chat, seed)
        orders.append([trace for one in found for trace in one.traces])
        assert Counter(orders[-1]) == Counter(trace for one in given for trace in one.traces)
        for one in found:
            for trace, action in zip(one.traces, one.actions, strict=True):
                if trace is not None:
                    task, own = actions[trace]
                    assert task != one.task and own != action
    assert orders[0] == orders[2] != orders[1]


def test_traces_that_cannot_be_shuffled_are_refused(chat: Chat) -> None:
    for given in (played(tasks=1), [one.model_copy(update={"actions": ("look",) * 5}) for one in played()]):
        with pytest.raises(UsageError, match="traces=shuffled: there is no way") as error:
            control_traces(given, "shuffled", chat, 0)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("tokenizer", ["random", "tiny"])
def test_filler_is_as_long_as_the_trace(tokenizer: str, chat: Chat) -> None:
    words = chat if tokenizer == "random" else Chat(load_tokenizer(tokenizer)[0])
    for tokens in (1, 2, 3, 7, 18, 40):
        text = filler(words, tokens)
        assert len(words.encode(text)) == tokens, text
        assert not set(text) - {".", " "}
    made = [make_examples(control_traces(played(), kind, words, 0), words, {"": Elicitation()}, context=4096) for kind in KINDS]
    lengths = [[[len(example.ids) for example in episode] for episode in one.episodes] for one in made]
    assert lengths[0] == lengths[1]


KINDS: tuple[TraceControl, ...] = ("own", "filler")


def test_a_bare_example_is_the_prompt_modes_answer(chat: Chat) -> None:
    given = control_traces(played(), "none", chat, 0)
    shown = Elicitation(history="traces")
    bare = make_examples(given, chat, {"": shown}, context=4096, bare=True)
    assert (len(bare.flat), bare.without_trace) == (24, 6), "a decision without a trace may be a deliberate mistake"
    for example in bare.flat:
        assert [span.label for span in example.spans] == ["prompt", "action_open", "action", "closing"]
        assert chat.decode(example.answer).startswith("<action>go to desk ")
        assert "I think of" not in chat.decode(example.ids), "no trace is shown, also none of a past turn"
    silent = [one.model_copy(update={"traces": (None,) * 5}) for one in played()]
    assert len(make_examples(silent, chat, {"": Elicitation()}, context=4096, bare=True).flat) == 30
    own = make_examples(played(), chat, {"": Elicitation()}, context=4096)
    prompts = {example.id: example.prompt for example in bare.flat}
    assert all(prompts[example.id] == example.prompt for example in own.flat), "the two modes share a prompt"


def test_matched_compute_and_a_number_of_steps() -> None:
    long, short = [[50, 60, 70], [80, 90]] * 10, [[20, 30, 40], [50, 60]] * 10
    usual = {"unit": "decision", "batch": 4, "seed": 0, "tokens": 1000}
    own = make_steps(long, epochs=2, **usual)  # type: ignore[arg-type]
    wanted = computed_tokens(own, long)
    assert wanted == 2 * sum(map(sum, long))
    matched = make_steps(short, epochs=2, compute=wanted, **usual)  # type: ignore[arg-type]
    assert 0 <= computed_tokens(matched, short) - wanted < 4 * 60
    assert matched[-1].epoch > own[-1].epoch
    assert [step.progress for step in matched] == [index / len(matched) for index in range(len(matched))]
    for count in (1, 7, 40):
        steps = make_steps(short, epochs=2, max_steps=count, **usual)  # type: ignore[arg-type]
        assert len(steps) == count
    plain = make_steps(short, epochs=2, **usual)  # type: ignore[arg-type]
    assert [step.parts for step in make_steps(short, epochs=9, max_steps=len(plain), **usual)] == [step.parts for step in plain]  # type: ignore[arg-type]


def test_a_share_of_the_decisions_is_trained_in_prompt_mode(chat: Chat) -> None:
    given, elicitations = played(tasks=60), {"": Elicitation(history="traces")}
    make = partial(make_examples, given, chat, elicitations, context=4096)
    reasoned, bare = ({one.id: one for one in made.flat} for made in (make(), make(bare=True)))
    before: set[str] = set()
    for share in (0.0, 0.2, 0.5, 0.9, 1.0):
        found = make(prompt_share=share)
        assert (len(found.flat), found.without_trace) == (240, 60)
        chosen = {one.id for one in found.flat if one == bare[one.id]}
        assert all(one == reasoned[one.id] for one in found.flat if one.id not in chosen)
        assert before <= chosen and abs(len(chosen) - share * 240) <= 30, share
        before = chosen
    halves = [{one.id for one in make(prompt_share=0.5, seed=seed).flat if not one.part("trace")} for seed in (0, 1, 0)]
    assert halves[0] == halves[2] != halves[1]
    fewer = make_examples(given[:7], chat, elicitations, context=4096, prompt_share=0.5)
    assert {one.id for one in fewer.flat if not one.part("trace")} == {
        one for one in halves[0] if one.split("#")[0] in {f"t{task}" for task in range(7)}
    }


def test_what_is_trained_in_prompt_mode_is_what_prompt_mode_computes() -> None:
    agent = HFAgent("tiny", device="cpu")
    (one,) = (one for one in played(tasks=1))
    query = Query("e", "", "t0", 1, "prompt", one.dialogue(1), Elicitation(), return_tokens=True)
    (decision,) = agent.decide([query])
    assert decision.format_ok and decision.tokens is not None
    actions = (one.actions[0], decision.action, *one.actions[2:])
    answered = one.model_copy(update={"actions": actions})
    examples = make_examples([answered], agent._chat, {"": Elicitation()}, context=4096, prompt_share=1.0)
    example = next(found for found in examples.flat if found.step == 1)
    computed = (*decision.tokens.prompt_ids, *decision.tokens.completion_ids)
    assert example.ids[: len(computed)] == computed and len(example.ids) - len(computed) <= 2
    agent.close()


def test_prompt_share_is_an_option_of_sft_that_leaves_other_trainings_as_they_were() -> None:
    options = {"model": "tiny", "data": ("tiny",)}
    assert "prompt_share" not in SFTConfig(**options).model_dump()
    assert SFTConfig(**options, prompt_share=0.2).model_dump()["prompt_share"] == 0.2
    with pytest.raises(UsageError, match=r"prompt_share=0.2 with traces=none.*omit --prompt-share"):
        SFTConfig(**options, prompt_share=0.2, traces="none")
    usual, some = (
        SFT.cost(SFTConfig(**options, prompt_share=share), env_entry("alfworld-gen").sizes, 100) for share in (0, 0.5)
    )
    assert some < usual
    assert SFT.paper_row(SFTConfig(**options)) == "SFT" and SFT.paper_row(SFTConfig(**options, prompt_share=0.2)) is None
