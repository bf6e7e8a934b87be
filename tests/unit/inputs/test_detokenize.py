"""Streams of tokens and whole lists give the same text, and the same text as the tokenizers
library.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.text_files import PIECES, byte_level, gemma_like, llama_like
from matryo.errors import CheckpointError, InputError
from matryo.inputs.detokenize import Detokenizer
from matryo.inputs.tokenizer import Tokenizer

DOCUMENTS = {"gemma": gemma_like(), "bytes": byte_level(), "llama": llama_like()}
TOKENIZERS = {
    name: Tokenizer.from_text(json.dumps(document)) for name, document in DOCUMENTS.items()
}


@pytest.fixture(params=sorted(TOKENIZERS))
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]


def pieces(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.add(token) for token in ids), detokenizer.finish()]


@given(text=st.text())
@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_any_text_survives_the_way_to_tokens_and_back(name: str, text: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text)
    back = "".join(pieces(tokenizer, ids))
    assert back == tokenizer.decode(ids)
    assert back == tokenizer._backend.decode(ids, skip_special_tokens=True)
    if name == "bytes":
        assert back == text


@given(ids=st.lists(st.integers(0, 310)))
@pytest.mark.parametrize("name", sorted(TOKENIZERS))
def test_pieces_are_whole_characters_and_join_to_the_text(name: str, ids: list[int]) -> None:
    tokenizer = TOKENIZERS[name]
    parts = pieces(tokenizer, ids)
    for part in parts:
        part.encode()
    assert "".join(parts) == tokenizer.decode(ids)


@given(ids=st.lists(st.integers(0, 256)))
def test_broken_bytes_read_as_the_library_reads_them(ids: list[int]) -> None:
    tokenizer = TOKENIZERS["bytes"]
    assert tokenizer.decode(ids) == tokenizer._backend.decode(ids, skip_special_tokens=True)


def test_an_emoji_in_bytes_comes_out_with_its_last_byte() -> None:
    ids = [3 + byte for byte in "🌍".encode()]
    assert pieces(TOKENIZERS["gemma"], ids) == ["", "", "", "🌍", ""]


def test_an_unfinished_character_becomes_one_replacement_at_the_end() -> None:
    ids = [3 + byte for byte in "🌍".encode()[:3]]
    assert pieces(TOKENIZERS["gemma"], ids) == ["", "", "", "�"]


def test_a_leading_space_is_dropped_only_where_the_decoder_says_so_and_only_at_the_start() -> None:
    the = 300 + PIECES.index("▁the")
    assert TOKENIZERS["gemma"].decode([the, the]) == " the the"
    assert TOKENIZERS["llama"].decode([2, the, the]) == "the the"
    continued = Detokenizer(TOKENIZERS["llama"], continues=True)
    assert continued.add(the) == " the"


def test_special_and_unknown_ids_have_no_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([100_000]) == ""
    assert TOKENIZERS["gemma"].decode([0, 1, 2]) == ""


def test_negative_ids_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="not negative"):
        tokenizer.decode([-1])


def test_a_decoder_that_is_no_map_from_tokens_is_refused() -> None:
    document = gemma_like()
    document["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    with pytest.raises(CheckpointError, match="WordPiece"):
        Tokenizer.from_text(json.dumps(document))
