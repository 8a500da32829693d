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


_PIECES = [
    "▁",
    "▁go",
    "to",
    "a",
    *(f"<0x{byte:02X}>" for byte in (0xE2, 0x82, 0xAC, 0x20, 0x41, 0xFF)),
    "<unk>",
    "▁▁",
    "€",
    "<0xc3>",
    "",
]


def _pieces(*, strip: bool = True, decoder: str = "sequence") -> Chat:
    """A tokenizer with SentencePiece's decoder (`strip`: Llama 2's, else Gemma's), with Metaspace's, or a longer one."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {piece: number for number, piece in enumerate(_PIECES)}
    backend = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    sequence = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)
    longer = decoders.Sequence([*steps, decoders.Replace("a", "b")])
    backend.decoder = {"sequence": sequence, "metaspace": decoders.Metaspace(), "longer": longer}[decoder]
    chat = Chat.__new__(Chat)
    chat._tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<unk>", unk_token="<unk>")
    return chat


@pytest.fixture(scope="module", params=[True, False])
def pieces(request: pytest.FixtureRequest) -> Chat:
    return _pieces(strip=request.param)


@given(
    tokens=st.lists(st.integers(0, len(_PIECES)), max_size=12)
)  # The last is a token of a padded vocabulary: it has no piece.
def test_any_pieces(pieces: Chat, tokens: list[int]) -> None:
    assert pieces.decodes_pieces and not pieces.decodes_bytes
    text = Detokenizer(pieces)
    assert [text.append(token) for token in tokens] == [pieces.decode(tokens[: n + 1]) for n in range(len(tokens))]


def test_a_piece_takes_no_longer_than_the_first(monkeypatch: pytest.MonkeyPatch, pieces: Chat) -> None:
    decode, longest = pieces.decode, 0

    def decoded(ids: list[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return decode(ids)

    monkeypatch.setattr(pieces, "decode", decoded)
    text = Detokenizer(pieces)
    for _ in range(200):
        last = text.append(1)
    assert len(last.split()) == 200 and longest == 2


@pytest.mark.parametrize("decoder", ["metaspace", "longer"])
def test_another_decoder_gets_all_tokens(decoder: str) -> None:
    neighbours = _pieces(decoder=decoder)
    assert not neighbours.decodes_bytes and not neighbours.decodes_pieces
    text = Detokenizer(neighbours)
    tokens = [1, 2, 3, 4, 5, 3, 1, 0]
    assert [text.append(token) for token in tokens] == [neighbours.decode(tokens[: n + 1]) for n in range(len(tokens))]
