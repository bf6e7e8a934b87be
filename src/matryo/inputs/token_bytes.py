"""The bytes each token stands for, from the decoder that a tokenizer.json describes.

In: the `decoder` object of a tokenizer.json and one token. Out: its bytes, independent of its
neighbours.
Every decoder that Gemma-like checkpoints ship is a map from tokens to bytes whose results are
joined and read as UTF-8: metaspace replaced by spaces with byte fallback (`<0xE2>`), or the
byte-level alphabet. Seen this way a stream of tokens is a stream of bytes, and the only thing that
text needs to wait for is the end of a UTF-8 character.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from matryo.errors import CheckpointError

TokenBytes = Callable[[str], bytes]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def token_bytes(decoder: Mapping[str, Any] | None) -> tuple[TokenBytes, bool]:
    """Return the map from a token to its bytes, and whether a text's first space is dropped.

    Raises CheckpointError for a decoder that is not a map from single tokens to bytes.
    """
    steps = _steps(decoder)
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"]:
        return byte_level_bytes, False
    replacements: list[tuple[str, str]] = []
    strips_first = False
    for step, kind in zip(steps, kinds, strict=True):
        if kind == "Replace":
            replacements.append(_replacement(step))
        elif kind == "Metaspace":
            replacements.append((str(step.get("replacement", "▁")), " "))
            strips_first = step.get("prepend_scheme", "always") != "never"
        elif kind == "Strip" and _strips_spaces_in_front(step):
            strips_first = step["start"] == 1
        elif kind not in ("ByteFallback", "Fuse"):
            raise CheckpointError(
                f"tokenizer.json: decoder {kind!r} is not supported; "
                "supported are ByteLevel, Metaspace, Replace, ByteFallback, Fuse and Strip of one "
                "leading space"
            )
    return _replaced_bytes(replacements, byte_fallback="ByteFallback" in kinds), strips_first


def byte_level_bytes(token: str) -> bytes:
    """Bytes of a token in the byte-level alphabet; a token outside of it (an added one) is plain
    text.
    """
    try:
        return bytes(_BYTE_OF_LETTER[letter] for letter in token)
    except KeyError:
        return token.encode()


def _replaced_bytes(replacements: list[tuple[str, str]], *, byte_fallback: bool) -> TokenBytes:
    def to_bytes(token: str) -> bytes:
        if byte_fallback and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(match.group(1), 16)])
        for old, new in replacements:
            token = token.replace(old, new)
        return token.encode()

    return to_bytes


def _strips_spaces_in_front(step: Mapping[str, Any]) -> bool:
    """Whether a Strip takes no more than one space off the beginning."""
    return (step.get("content"), step.get("stop")) == (" ", 0) and step.get("start") in (0, 1)


def _steps(decoder: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    if decoder is None:
        return []
    steps = decoder.get("decoders", []) if decoder.get("type") == "Sequence" else [decoder]
    if not isinstance(steps, list) or not all(isinstance(step, Mapping) for step in steps):
        raise CheckpointError("tokenizer.json: decoder: expected a list of objects in `decoders`")
    return steps


def _replacement(step: Mapping[str, Any]) -> tuple[str, str]:
    pattern, content = step.get("pattern"), step.get("content")
    old = pattern.get("String") if isinstance(pattern, Mapping) else None
    if not isinstance(old, str) or not old or not isinstance(content, str):
        raise CheckpointError(
            "tokenizer.json: decoder Replace: expected a non-empty string pattern and a string, "
            f"got {step!r}"
        )
    return old, content


def _byte_of_letter() -> dict[str, int]:
    # The alphabet of byte-level BPE: printable Latin-1 bytes are themselves, the others follow from
    # U+0100 in order.
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    table = {chr(byte): byte for byte in printable}
    table.update({chr(0x100 + index): byte for index, byte in enumerate(others)})
    return table


_BYTE_OF_LETTER = _byte_of_letter()
