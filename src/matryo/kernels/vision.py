"""Typed front of the native operations of the vision encoder: those of `reference_vision.py`,
compiled.

In: C-contiguous arrays of the exact dtype (anything else is a TypeError or ValueError; nothing is
converted or copied); pictures are (H, W, C) float32. A `Filter` is packed when it is made and keeps
nothing of what it was made from: float32, bf16 as uint16, or int8 or int16 with scales.

No value depends on the number of threads. Products, before the steps that follow them, have the
same bits on every instruction set.
"""

from __future__ import annotations

from matryo import kernels  # noqa: F401  # says what to do if the native module is missing
from matryo._native import (
    Filter,
    attend_pixels,
    conv,
    depthwise,
    inverted_bottleneck,
    rms_norm,
)

__all__ = ["Filter", "attend_pixels", "conv", "depthwise", "inverted_bottleneck", "rms_norm"]
