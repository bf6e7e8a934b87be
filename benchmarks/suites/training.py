"""A training step, ours beside transformers' own modules."""

from __future__ import annotations

from collections.abc import Sequence

from ..case import Case

TITLE = "Training"
EXPLANATION = (
    "A step of a model with 12.5 million parameters (8 layers, d 256, FFN 1024, 8,192 tokens of "
    "vocabulary, 32 rows of 128 tokens), float32, from the tokens to the moved weights. `one` size "
    "learns from the text; of `two` the narrower learns from the wider as well. transformers runs "
    "its own modules eagerly with torch's losses and AdamW. The peak is that of torch's product of "
    "two 1024 x 1024 matrices, measured before each step."
)
OURS = "training:matryo"
CONTENDERS: tuple[str, ...] = (OURS, "training:transformers")
ROUNDS = 5
FRESH = True
MOST: dict[str, int] = {}


def cases(sizes: Sequence[str]) -> list[Case]:
    """`sizes` are ignored: how many the model holds is the case."""
    return [Case("step", count) for count in ("one", "two")]
