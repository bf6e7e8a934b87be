"""Typed front of the native operations of the sound encoder: those of `reference_audio.py`,
compiled.

In: C-contiguous arrays of the exact dtype (anything else is a TypeError or ValueError; nothing is
converted or copied). Every row is computed by itself in a fixed order: no bit depends on the number
of frames of a call or of threads.
"""

from __future__ import annotations

from matryo._native import (
    DenseMatrix,
    audio_add,
    audio_attend,
    audio_feed_forward,
    audio_group_norm,
    audio_light_conv,
    audio_project,
    audio_stem_conv,
)
from matryo.kernels import compiled  # noqa: F401  # says what to do if it is missing

__all__ = [
    "DenseMatrix", "audio_add", "audio_attend", "audio_feed_forward", "audio_group_norm",
    "audio_light_conv", "audio_project", "audio_stem_conv",
]  # fmt: skip
