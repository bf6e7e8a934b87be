"""A clip of sound through the encoder, whole."""

from __future__ import annotations

from collections.abc import Sequence

from ..case import Case

TITLE = "Sound encoder"
EXPLANATION = (
    "From samples to tokens, the mel spectrogram included. The rate is seconds of sound a second: "
    "5 is a fifth of real time. transformers reads clips up to 30 s. "
    "Checkpoints with 4-bit weights keep this encoder at 8 bits."
)
CONTENDERS: tuple[str, ...] = (
    "our_sound:f32", "our_sound:q8", "transformers_sound:f32", "transformers_sound:bf16",
)  # fmt: skip
SECONDS = (5, 30, 120)
ROUNDS = 5
FRESH = True
MOST: dict[str, int] = {"transformers_sound:bf16": 0}


def cases(sizes: Sequence[str]) -> list[Case]:
    return [Case("sound", "", prompt=seconds) for seconds in SECONDS]
