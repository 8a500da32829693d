"""The text of tokens that come one by one is the text of all of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import needs_hf

pytestmark = needs_hf

from cotbench.agents.tokenization.chat_template import Chat
from cotbench.agents.tokenization.detokenizer import Detokenizer
from tests import tiny_models


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat(tiny_models.tokenizer())


@given(ids=st.lists(st.integers(0, 320), max_size=30) | st.text(max_size=12))
def test_any_tokens(chat: Chat, ids: list[int] | str) -> None:
    tokens = chat.encode(ids) if isinstance(ids, str) else ids
    assert chat.decodes_bytes
    text = Detokenizer(chat)
    for count, token in enumerate(tokens, 1):
        assert text.append(token) == chat.decode(tokens[:count])


def test_a_decoder_that_looks_at_neighbours_gets_all_tokens() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {piece: number for number, piece in enumerate(["▁", "▁go", "to", "<0xE2>", "<0x82>", "<0xAC>", "<unk>"])}
    unigram = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made = PreTrainedTokenizerFast(tokenizer_object=unigram, eos_token="<unk>", unk_token="<unk>")
    neighbours = Chat.__new__(Chat)
    neighbours._tokenizer = made
    assert not neighbours.decodes_bytes
    text = Detokenizer(neighbours)
    tokens = [1, 2, 3, 4, 5, 3, 1, 0]
    assert [text.append(token) for token in tokens] == [neighbours.decode(tokens[: n + 1]) for n in range(len(tokens))]
