"""Prompts rendered on this side: the token ids of the hf: agent."""

from pathlib import Path
from typing import Any

import pytest

from cotbench.errors import AgentError
from cotbench.prompting.elicitation import Elicitation
from cotbench.prompting.parsing import ACTION_CLOSE, ACTION_OPEN, THINK_CLOSE, THINK_OPEN
from tests import tiny_models
from tests.conftest import needs_hf, needs_openai
from tests.fake_server import LOGPROB, FakeServer, Manners, running
from tests.served import CHAT, COMPLETIONS, SHORT, TEMPLATE, asked, served

pytest_plugins = ("tests.serve",)
pytestmark = [needs_openai, needs_hf, pytest.mark.usefixtures("served_alone")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _saved(tmp_path_factory.mktemp("tokenizer"), tiny_models.CHATML)


def _saved(folder: Path, template: str | None) -> Path:
    tiny_models.tokenizer(template).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def melting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with a token for the dot before a closing tag and the tag's beginning."""
    trained = tiny_models.tokenizer().train_new_from_iterator([f"I look around.{THINK_CLOSE} go to desk"] * 50, vocab_size=330)
    trained.chat_template = tiny_models.CHATML
    folder = tmp_path_factory.mktemp("melting")
    trained.save_pretrained(folder)
    return folder


def _codec(folder: Path) -> Any:
    from transformers import AutoTokenizer

    from cotbench.agents.tokenization.chat_template import Chat

    return Chat(AutoTokenizer.from_pretrained(folder))


def test_prompts_as_token_ids_are_those_of_the_hf_agent(melting: Path) -> None:
    from cotbench.agents.tokenization.token_ids import truncate_ids

    chat = _codec(melting)
    with running(codec=chat) as server:
        agent = served(server, f"tokenizer={melting}&way=completions")
        told = agent.describe()
        assert (told["prefill"], told["reason"], told["prompts"]) == ("completions", "chat: not wanted", "ids")
        assert len(told["tokenizer_sha256"]) == 64 and told["tokenizer"] == str(melting)
        server.manners.model = lambda prompt: f"I look.{THINK_CLOSE}" if prompt.endswith(THINK_OPEN) else f"look{ACTION_CLOSE}"
        cot, prompt = agent.decide([asked("cot"), asked("prompt")])
        p = chat.prompt_ids(SHORT.messages(asked("cot").dialogue, "cot"))
        thought = chat.encode(f"I look.{THINK_CLOSE}")
        assert ".</" in map(chat.decode, ([id_] for id_ in thought)), "the tag begins inside a token"
        opened = chat.encode(THINK_OPEN) + truncate_ids(chat, thought, "I look.") + chat.encode(f"{THINK_CLOSE}\n")
        sent = [body["prompt"] for body in server.bodies(COMPLETIONS)]
        expected = [p + chat.encode(THINK_OPEN), p + opened + chat.encode(ACTION_OPEN), p + chat.encode(ACTION_OPEN)]
        assert sorted(sent) == sorted(expected)
        assert cot.prompt_tokens == prompt.prompt_tokens == len(p)
        assert (cot.trace_tokens, cot.action_tokens) == (len(thought), len(chat.encode(f"look{ACTION_CLOSE}")))
        assert cot.action_logprob == pytest.approx(LOGPROB * cot.action_tokens)
        free = agent.decide([asked("prompt", TEMPLATE)])[0]
        assert free.action == "look" and server.bodies(CHAT) == [], "every style goes the one way"
        assert (cot.tokens, prompt.tokens) == (None, None)
        tokens = agent.decide([asked("cot", return_tokens=True)])[0].tokens
        action = chat.encode(f"look{ACTION_CLOSE}")
        assert tokens is not None and list(tokens.prompt_ids) == p
        assert list(tokens.completion_ids) == [*opened, *chat.encode(ACTION_OPEN), *action]
        assert sum(not harness for harness in tokens.harness) == len(chat.encode("I look")) + len(action)
        assert sum(tokens.logprobs) == pytest.approx(LOGPROB * (len(chat.encode("I look")) + len(action)))
        server.manners.token_ids = False
        assert agent.decide([asked("cot", return_tokens=True)])[0].tokens is None, "nothing is tokenized again"


@pytest.mark.parametrize("completions", ["ids", "text"])
def test_a_server_without_continue_final_message_is_sent_prompts(folder: Path, completions: str) -> None:
    with running(Manners(continues="refuses", owner="", completions=completions, stops="kept"), codec=_codec(folder)) as server:
        agent = served(server, f"tokenizer={folder}")
        told = agent.describe()
        assert (told["prefill"], told["prompts"]) == ("completions", completions)
        assert told["reason"] == "chat: the server refuses continue_final_message (422)"
        cot, prompt = agent.decide([asked("cot"), asked("prompt")])
        assert (cot.trace, cot.action, prompt.action, cot.format_ok) == ("I look around.", "look", "look", True)
        assert agent.decide([asked("prompt", TEMPLATE)])[0].action == "look" and len(server.bodies(CHAT)) == 1


def test_a_template_that_rewrites_the_last_turn_is_not_trusted(folder: Path) -> None:
    with running(Manners(rewrites=True), codec=_codec(folder)) as server:
        told = served(server, f"tokenizer={folder}").describe()
        assert told["prefill"] == "completions"
        assert "chat: with continue_final_message the server counts" in told["reason"]
        told = served(server, f"tokenizer={folder}&way=chat").describe()
        assert told["prefill"] == "none" and "completions: not wanted" in told["reason"]
    with running(codec=_codec(folder)) as server:
        assert served(server, f"tokenizer={folder}").describe()["prefill"] == "chat"


def test_what_a_template_rewrites_is_refused(tmp_path: Path) -> None:
    rewriting = tiny_models.CHATML.replace(
        "{{ m.content }}", "{{ m.content | replace('<reasoning>', '') | replace('Hm.', '') }}"
    )
    saved = _saved(tmp_path, rewriting)
    traced = [{"observation": "Task", "turns": [{"action": "look", "trace": trace}]} for trace in ("Hm.", "So.")]
    with running(codec=_codec(saved)) as server:
        agent = served(server, f"tokenizer={saved}&way=chat")
        assert agent.describe()["prefill"] == "chat"
        agent.require(SHORT)
        for fitting in ({"think_tag": "thoughts"}, {"examples": traced[1:]}):
            agent.require(Elicitation(**SHORT.model_dump() | fitting))
        for rewritten in ({"think_tag": "reasoning"}, {"examples": traced}, {"examples": traced, "style": "template"}):
            with pytest.raises(AgentError, match="would show the model another chat"):
                agent.require(Elicitation(**SHORT.model_dump() | rewritten))
        exact = served(server, f"tokenizer={saved}&way=completions")
        exact.require(Elicitation(**SHORT.model_dump(), think_tag="reasoning", examples=traced))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("dated", "the chat template writes the date of today"),
        ("system last", "the chat template does not write a turn that stands at '<action>' as it writes past turns"),
        ("empty past thinking", "the chat template does not write a turn that stands at '<action>' as it writes past turns"),
        ("strips thinking", "the chat template does not write a turn that stands at '<think>a</think>\\n<action>' as"),
    ],
)
def test_a_server_is_not_left_to_render_what_it_would_render_otherwise(tmp_path: Path, name: str, reason: str) -> None:
    saved = _saved(tmp_path, (tiny_models.TEMPLATES | tiny_models.UNUSUAL_TEMPLATES)[name])
    with running(codec=_codec(saved)) as server:
        agent = served(server, f"tokenizer={saved}")
        told = agent.describe()
        assert told["prefill"] == "completions" and told["reason"].startswith(f"chat: {reason}")
        assert any("prompts change daily" in warning for warning in told.get("warnings", ())) == (name == "dated")
        query = asked("cot", turns=2)
        agent.decide([query])
        prompt = _codec(saved).prompt_ids(SHORT.messages(query.dialogue, "cot"))
        assert all(body["prompt"][: len(prompt)] == prompt for body in server.bodies(COMPLETIONS))
        assert server.bodies(COMPLETIONS) and not server.bodies(CHAT)


def test_a_token_that_the_server_puts_first_is_not_sent_twice(tmp_path: Path, folder: Path) -> None:
    begins = _saved(tmp_path / "begins", "{{ bos_token }}" + tiny_models.CHATML)
    manners = Manners(continues="refuses", owner="", completions="begins")
    with running(manners, codec=_codec(begins)) as server:
        agent = served(server, f"tokenizer={begins}&way=completions")
        assert agent.describe()["prompts"] == "text, begun by the server"
        assert agent.decide([asked("prompt")])[0].action == "look"
        assert server.bodies()[0]["prompt"].startswith("<|im_start|>system")
    with running(manners, codec=_codec(folder)) as server:
        agent = served(server, f"tokenizer={folder}")
        assert agent.describe()["prefill"] == "none", "one token more than the prompt has: not the same prompt"
        assert "sent as text, the server counts" in agent.describe()["reason"]


def test_a_wanted_tokenizer_must_be_there(server: FakeServer, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="cannot load the tokenizer of"):
        served(server, f"tokenizer={tmp_path}")
    with pytest.raises(AgentError, match="no tokenizer: 'fake' is neither a folder"):
        served(server, "way=completions")


def test_a_small_context_drops_the_oldest_observations(folder: Path) -> None:
    with running(Manners(context=1100), codec=_codec(folder)) as server:
        agent = served(server, f"tokenizer={folder}")
        few, many = agent.decide([asked("prompt", turns=2), asked("prompt", turns=20)])
        assert few.dropped_observations == 0 and few.error is None
        assert many.dropped_observations > 0 and many.error is None
        assert many.prompt_tokens + SHORT.trace_tokens + SHORT.action_tokens <= 1100
        tight = served(server, f"tokenizer={folder}&context=130")
        error = tight.decide([asked("prompt", turns=2)])[0].error
        assert error is not None and "--max-steps" in error


def test_a_given_actions_log_probability(folder: Path) -> None:
    chat = _codec(folder)
    with running(codec=chat) as server:
        agent = served(server, f"tokenizer={folder}&way=completions")
        said = agent.decide([asked("prompt", given_action="take mug")])[0]
        before = chat.prompt_ids(SHORT.messages(asked("prompt").dialogue, "prompt")) + chat.encode(ACTION_OPEN)
        target = chat.encode(f"take mug{ACTION_CLOSE}")
        assert server.bodies()[0]["prompt"] == before + target
        assert said.action_logprob == pytest.approx(-0.1 * sum(range(len(before), len(before) + len(target))), abs=1e-3)
        assert (said.action, said.generated_tokens) == ("take mug", 0)
        server.manners.logprobs = False
        error = agent.decide([asked("prompt", given_action="take mug")])[0].error
        assert error is not None and "does not return log-probabilities" in error
        error = served(server, f"tokenizer={folder}").decide([asked("prompt", given_action="take mug")])[0].error
        assert error is not None and "way=completions" in error


def test_texts_that_a_server_reads_as_other_tokens_are_counted(melting: Path, caplog: pytest.LogCaptureFixture) -> None:
    chat = _codec(melting)
    assert chat.encode(f"look.{THINK_CLOSE}") != chat.encode("look.") + chat.encode(THINK_CLOSE)
    with running(Manners(continues="refuses", owner="", completions="text"), codec=chat) as server:
        agent = served(server, f"tokenizer={melting}")
        agent.decide([asked("cot", given_trace="I look"), asked("prompt")])
        assert (agent._writer.merges.sent, agent._writer.merges.merged) == (2, 0)
        agent.decide([asked("cot", given_trace="I look.")])
        assert (agent._writer.merges.sent, agent._writer.merges.merged) == (3, 1)
        agent.close()
        assert "1 of 3 prompts were sent as text" in caplog.text
