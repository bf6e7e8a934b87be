"""Typed front of the sound encoder's operations; specified by `reference_audio.py`."""

from __future__ import annotations

from matryo.kernels import matmul, matmul_group, rms_norm
from matryo.kernels.reference_audio import (
    audio_attend,
    audio_feed_forward,
    audio_group_norm,
    audio_light_conv,
)

__all__ = [
    "audio_attend", "audio_feed_forward", "audio_group_norm", "audio_light_conv", "matmul",
    "matmul_group", "rms_norm",
]  # fmt: skip
