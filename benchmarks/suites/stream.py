"""Sound that arrives in real time: how late its tokens are."""

from __future__ import annotations

from collections.abc import Sequence

from ..case import Case

TITLE = "Sound while it arrives"
EXPLANATION = (
    "Pieces are given to the stream when they would come from a microphone. Lag: from the end of "
    "the 160 ms that a token stands for until the token is there; it can be negative, because the "
    "encoder needs only the first 0.13 s. Work: of one piece that gives a token."
)
CONTENDERS: tuple[str, ...] = ("our_sound:q8", "our_sound:f32")
ROUNDS = 2
FRESH = True
MOST: dict[str, int] = {}


def cases(sizes: Sequence[str]) -> list[Case]:
    return [Case("stream", "", prompt=20, generate=piece) for piece in (20, 160)]
