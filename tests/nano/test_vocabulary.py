"""The tokenizer: ids of the special tokens, single tokens of the chat frames, our own loader."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts.nano.corpus import rows, vocabulary

from matryo.inputs.chat import ChatTemplate
from matryo.inputs.tokenizer import Tokenizer

WORDS = ("el gato duerme", "le chat dort", "the cat sleeps", "o gato dorme", "il gatto dorme")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of few texts."""
    cache = tmp_path_factory.mktemp("nano")
    listed = [
        rows.chat("translate", "en", f"{words} {n}", words) for words in WORDS for n in (1, 2)
    ]
    rows.write(cache / "train" / "translate.jsonl", listed)
    vocabulary.build(cache / "sources", cache, 0)
    return cache / "tokenizer"


def test_special_tokens_have_their_ids(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json", bos_id=2)
    for spelling, token in (
        ("<pad>", 0), ("<eos>", 1), ("<bos>", 2), ("<unk>", 3), ("<mask>", 4),
        *vocabulary.PLACED.items(), *vocabulary.ADDED.items(),
    ):  # fmt: skip
        assert tokenizer.id_of(spelling) == token
        assert tokenizer.encode(spelling) == [token]
        assert tokenizer.bytes_of(token) == b""
    assert vocabulary.MEDIA_IDS == {
        "boi_token_id": 107, "eoi_token_id": 8192, "image_token_id": 8193,
        "boa_token_id": 108, "eoa_token_id": 8208, "audio_token_id": 8209,
    }  # fmt: skip


def test_any_text_comes_back(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json", bos_id=2)
    for text in (*WORDS, "Grüße, 🌍\n\t42"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    digits = tokenizer.encode("2048")
    assert [tokenizer.decode([token]) for token in digits] == list("2048")


def test_the_frames_of_the_template_are_single_tokens(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(folder / "tokenizer.json", bos_id=2)
    template = ChatTemplate.from_file(
        folder / "chat_template.jinja", variables={"bos_token": "<bos>"}
    )
    content = [{"type": "image"}, {"type": "audio"}, {"type": "text", "text": " the cat "}]
    text = template.render([{"role": "user", "content": content}])
    assert text == (
        "<bos><start_of_turn>user\n<image_soft_token><audio_soft_token>the cat<end_of_turn>\n"
        "<start_of_turn>model\n"
    )
    assert len(tokenizer.encode("<start_of_turn>user\n\n\n<start_of_image>")) == 4
    assert len(tokenizer.encode("<start_of_turn>model\n")) == 3
    assert len(tokenizer.encode("the cat sleeps")) == 3
