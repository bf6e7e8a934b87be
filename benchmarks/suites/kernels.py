"""Single native products at the model's shapes, beside the bandwidth that limits them and numpy."""

from __future__ import annotations

from collections.abc import Sequence

from ..case import Case

TITLE = "Products"
EXPLANATION = (
    "One token (T=1) is limited by how fast the weights can be read, so the percentage is of the "
    "bandwidth measured beside it; 512 tokens by arithmetic, in billions of operations a second "
    "(two a weight and token). The weights of one repetition are larger than the caches together. "
    "numpy multiplies float32 matrices of the same shape."
)
CONTENDERS: tuple[str, ...] = ("ours",)
ROUNDS = 5
FRESH = False
MOST: dict[str, int] = {}
SHAPES = (
    "q4 16384x2048",
    "q4 2048x8192",
    "q4 2048x2048",
    "q8 16384x2048",
    "bf16 16384x2048",
    "f32 16384x2048",
)


def cases(sizes: Sequence[str]) -> list[Case]:
    return [
        Case("kernel", "", prompt=tokens, note=shape) for shape in SHAPES for tokens in (1, 512)
    ]
