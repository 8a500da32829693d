"""The true context of a served model, prompts that lose a part, answers that end early, and servers that play another model."""

from pathlib import Path
from typing import Any

import pytest

from cotbench.agents import make_agent
from cotbench.agents.openai.context import find_entry
from cotbench.prompting.parsing import ACTION_CLOSE, THINK_CLOSE, THINK_OPEN
from tests import tiny_models
from tests.conftest import needs_hf, needs_openai
from tests.fake_server import FakeServer, Manners, running
from tests.served import CHAT, SHORT, TEMPLATE, asked, served

pytest_plugins = ("tests.serve",)
pytestmark = [needs_openai, pytest.mark.usefixtures("served_alone")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_models.tokenizer(tiny_models.CHATML).save_pretrained(folder)
    return folder


def _codec(folder: Path) -> Any:
    from transformers import AutoTokenizer

    from cotbench.agents.tokenization.chat_template import Chat

    return Chat(AutoTokenizer.from_pretrained(folder))


@pytest.mark.parametrize("place", ["max_model_len", "meta", "props", "info", "api/ps", "api/v0/models"])
def test_the_context_is_found_where_a_server_tells_it(place: str) -> None:
    with running(Manners(context=900, context_told=place)) as server:
        described = served(server).describe()
        assert described["context"] == 900, "the one that it works with, not the model's longest, nor another model's"
        assert described == served(server).describe()
        assert served(server, "context=800").describe()["context"] == 800, "unless the user says one"
    with running(Manners(context=900, context_told="")) as server:
        assert served(server).describe()["context"] is None


def test_a_models_entry_in_a_list() -> None:
    entries = [{"id": "a", "n": 1}, {"name": "b", "n": 2}]
    assert find_entry(entries, "b") == {"name": "b", "n": 2}
    assert find_entry(entries, "c") == {} and find_entry(entries[:1], "c") == entries[0], "a server of one model has no other"
    assert find_entry(None, "a") == find_entry(["a"], "a") == {}


@needs_hf
@pytest.mark.parametrize("place", ["meta", "props"])
def test_a_context_that_is_told_drops_observations(folder: Path, place: str) -> None:
    with running(Manners(context=1100, context_told=place), codec=_codec(folder)) as server:
        agent = served(server, f"tokenizer={folder}")
        few, many = agent.decide([asked("prompt", turns=2), asked("prompt", turns=20)])
        assert (few.dropped_observations, few.error, many.error) == (0, None, None)
        assert many.dropped_observations > 0


@needs_hf
def test_the_context_of_a_configuration_is_only_believed_with_a_word(folder: Path, tmp_path: Path) -> None:
    tiny_models.tokenizer(tiny_models.CHATML).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 1234}')
    with running(Manners(context=900, context_told=""), codec=_codec(folder)) as server:
        described = served(server, f"tokenizer={tmp_path}").describe()
        assert described["context"] == 1234
        assert "does not tell the length of its context" in described["warnings"][0] and "1234" in described["warnings"][0]
        assert "warnings" not in served(server, f"tokenizer={tmp_path}&context=900").describe()


# A prompt that loses a part, an answer that ends early.


@needs_hf
@pytest.mark.parametrize("style", [SHORT, TEMPLATE])
def test_a_prompt_that_is_cut_in_silence_is_an_error(folder: Path, style: Any) -> None:
    with running(Manners(context=1100, context_told="", truncates=True), codec=_codec(folder)) as server:
        for options in (f"tokenizer={folder}", f"tokenizer={folder}&way=completions"):
            few, many = served(server, options).decide([asked("prompt", style, turns=2), asked("cot", style, turns=20)])
            assert few.error is None
            assert many.error is not None and "silently truncated the prompt" in many.error and "?context=" in many.error
            cut = served(server, f"{options}&context=1100").decide([asked("cot", style, turns=20)])[0]
            assert cut.error is None and cut.dropped_observations > 0


def test_without_a_tokenizer_a_prompt_has_as_many_tokens_as_words() -> None:
    with running(Manners(context=300, context_told="", truncates=True)) as server:
        few, many = served(server).decide([asked("prompt"), asked("prompt", turns=30)])
        assert few.error is None
        assert many.error is not None and "silently truncated the prompt" in many.error and "?" in many.error


@pytest.mark.parametrize("mode", ["cot", "prompt"])
def test_an_answer_that_ends_where_the_context_is_full_is_an_error(mode: Any) -> None:
    with running(Manners(model=lambda prompt: "on " * 60)) as server:
        agent = served(server)
        assert agent.decide([asked(mode)])[0].error is None, "a budget that is spent is the model's own"
        server.manners.context = len(server.codec.encode(_rendered(server))) + 9
        error = agent.decide([asked(mode)])[0].error
        budget = SHORT.trace_tokens if mode == "cot" else SHORT.action_tokens
        assert error is not None and f"ended an answer after 9 of {budget} tokens" in error and "?tokenizer=" in error


def _rendered(server: FakeServer) -> str:
    body = server.bodies(CHAT)[0]
    shown = "".join(f"<|im_start|>{each['role']}\n{each['content']}<|im_end|>\n" for each in body["messages"])
    return shown.removesuffix("<|im_end|>\n")


# Another model; a turn that is repeated; numbers that are not told.


def test_another_model_than_the_named_one_may_be_playing(caplog: pytest.LogCaptureFixture) -> None:
    with running(Manners(any_name=True, owner="llamacpp", context=900, context_told="meta")) as server:
        described = served(server, model="qwen").describe()
        assert described["model"] == "qwen" and described["server"] == {"id": "fake", "owned_by": "llamacpp"}
        assert described["context"] == 900
        warning = "it answers for 'qwen', which it does not list (only 'fake'): another model may be playing"
        assert described["warnings"] == [warning] and warning in caplog.text
        assert "warnings" not in served(server).describe()


@pytest.mark.parametrize("stops", ["told", "kept", "silent"])
def test_a_server_that_repeats_the_opened_turn(stops: str) -> None:
    with running(Manners(repeats=True, stops=stops, owner="llamacpp")) as server:
        agent = served(server)
        assert agent.describe()["prefill"] == "chat", "it continues turns, and needs no tokenizer for that"
        cot, prompt = agent.decide([asked("cot"), asked("prompt")])
        assert cot.raw == "<think>I look around.</think>\n<action>look</action>" and cot.format_ok
        assert prompt.raw == "<action>look</action>" and prompt.format_ok
        assert cot.trace_tokens == 7
        assert agent.decide([asked("cot", TEMPLATE)])[0].raw == cot.raw, "where nothing is opened nothing is repeated"
        server.manners.model = lambda prompt: (
            f"{THINK_OPEN}so{THINK_CLOSE}" if prompt.endswith(THINK_OPEN) else f"a{ACTION_CLOSE}"
        )
        assert agent.decide([asked("cot")])[0].raw == "<think><think>so</think>\n<action>a</action>", "only once"
        server.manners.repeats = False
        error = agent.decide([asked("prompt")])[0].error
        assert error is not None and "but not in this answer" in error


def test_token_counts_that_are_not_told_are_no_zeros() -> None:
    with running(Manners(usage=False)) as server:
        warnings = served(server).describe()["warnings"]
        assert len(warnings) == 1 and "does not report how many tokens" in warnings[0]


def test_a_key_of_one_letter_garbles_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "e")
    with running() as server:
        agent = make_agent(f"openai:fake@{server.url}?retries=0")
        server.always = "400"
        error = agent.decide([asked("prompt")])[0].error
        assert error is not None and "answered 400: no, Bearer e" in error and "[key]" not in error
