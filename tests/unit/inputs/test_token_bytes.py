"""Decoders of tokenizer files as maps from tokens to bytes."""

from __future__ import annotations

from typing import Any

import pytest

from matryo.errors import CheckpointError
from matryo.inputs.token_bytes import byte_level_bytes, token_bytes

REPLACE = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
FALLBACK, FUSE = {"type": "ByteFallback"}, {"type": "Fuse"}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "decoders": list(steps)}


def test_no_decoder_is_plain_text() -> None:
    to_bytes, strips = token_bytes(None)
    assert to_bytes("<0xE2>▁a") == "<0xE2>▁a".encode() and not strips


def test_gemma() -> None:
    to_bytes, strips = token_bytes(sequence(REPLACE, FALLBACK, FUSE))
    assert not strips
    assert (
        to_bytes("▁▁the") == b"  the"
        and to_bytes("<0xE2>") == b"\xe2"
        and to_bytes("<0xe2>") == b"\xe2"
    )
    assert to_bytes("<0xE2>x") == b"<0xE2>x" and to_bytes("é") == "é".encode()


def test_bytes_are_only_bytes_where_the_decoder_says_so() -> None:
    to_bytes, _ = token_bytes(sequence(REPLACE, FUSE))
    assert to_bytes("<0xE2>") == b"<0xE2>"


def test_replacements_run_in_order() -> None:
    second = {"type": "Replace", "pattern": {"String": " "}, "content": "_"}
    to_bytes, _ = token_bytes(sequence(REPLACE, second))
    assert to_bytes("▁a") == b"_a"


@pytest.mark.parametrize(
    ("step", "strips"),
    [
        ({"type": "Strip", "content": " ", "start": 1, "stop": 0}, True),
        ({"type": "Strip", "content": " ", "start": 0, "stop": 0}, False),
        ({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}, True),
        ({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never"}, False),
        ({"type": "Metaspace", "replacement": "▁"}, True),
    ],
)
def test_a_leading_space_may_be_dropped(step: dict[str, Any], strips: bool) -> None:
    assert token_bytes(sequence(REPLACE, step))[1] is strips
    assert token_bytes(step)[1] is strips


def test_the_byte_level_alphabet_covers_every_byte() -> None:
    to_bytes, strips = token_bytes({"type": "ByteLevel"})
    assert to_bytes is byte_level_bytes and not strips
    assert to_bytes("Ġa") == b" a" and to_bytes("Ċ") == b"\n" and to_bytes("<bos> x") == b"<bos> x"
    from tokenizers import pre_tokenizers

    assert sorted(byte_level_bytes(c)[0] for c in pre_tokenizers.ByteLevel.alphabet()) == list(
        range(256)
    )


@pytest.mark.parametrize(
    "decoder",
    [
        {"type": "WordPiece"},
        {},
        {"type": "CTC"},
        sequence({"type": "ByteLevel"}, FUSE),
        {"type": "Sequence", "decoders": "all"},
        {"type": "Sequence", "decoders": ["Fuse"]},
        {"type": "Replace", "pattern": {"Regex": "a+"}, "content": ""},
        {"type": "Replace", "pattern": {"String": ""}, "content": "a"},
        {"type": "Replace", "pattern": "a", "content": "b"},
        {"type": "Replace", "pattern": {"String": "a"}, "content": None},
        {"type": "Strip", "content": "x", "start": 1, "stop": 0},
        {"type": "Strip", "content": " ", "start": 1, "stop": 1},
        {"type": "Strip", "content": " ", "start": 2, "stop": 0},
    ],
)
def test_other_decoders_are_refused(decoder: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: decoder"):
        token_bytes(decoder)
