"""Sound to soft tokens: the USM conformer encoder of Gemma 3n.

In: mono samples (N,) float32 at 16 kHz, or log-mel frames (T, num_mels) with a mask (T,), of any
length. Out: tokens (ceil(T / 16), d) float32, one each 160 ms, before the embedder. How it works:
docs/sound.md.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from matryo.errors import InputError
from matryo.inputs.mel import (
    SAMPLE_RATE_HZ,
    MelFilters,
    check_samples,
    num_frames,
    padded_length,
)
from matryo.kernels import audio as native
from matryo.model.audio_forward import F32, AudioForward, AudioOps, Mask
from matryo.model.audio_stream import AudioStream
from matryo.model.audio_weights import AudioWeights
from matryo.tower_config import AudioConfig


class AudioEncoder:
    """A sound encoder over immutable weights; many sounds may be encoded at the same time."""

    def __init__(
        self, config: AudioConfig, weights: AudioWeights, ops: AudioOps | None = None
    ) -> None:
        """ops: `matryo.kernels.audio` if None, or its numpy twin."""
        self.config, self.weights = config, weights
        self._ops = cast(AudioOps, native) if ops is None else ops
        self._filters = MelFilters(config.num_mels)

    def encode(
        self,
        samples: F32 | None = None,
        *,
        mel: F32 | None = None,
        mask: Mask | None = None,
        sample_rate_hz: int = SAMPLE_RATE_HZ,
    ) -> F32:
        """Tokens (n, d) of a whole sound: of samples, or of mel frames and their mask.

        Tokens of masked frames are zeros; without a mask every frame is valid. Raises InputError
        for anything that is no such sound, or a sound too short for one frame (32 ms).
        """
        if (samples is None) == (mel is None) or (mask is not None and mel is None):
            raise InputError("expected either samples, or mel frames with or without a mask")
        if samples is not None:
            samples = check_samples(samples, sample_rate_hz)
            if not self.num_tokens(len(samples)):
                raise InputError(f"sound has {len(samples)} samples, expected at least 513 (32 ms)")
            return self.stream().finish(samples)
        mel, mask = self._checked_mel(mel, mask)
        forward = self._forward()
        return np.concatenate([forward.take(mel, mask), forward.finish()])

    def stream(self, sample_rate_hz: int = SAMPLE_RATE_HZ) -> AudioStream:
        """A new stream for a sound that is still arriving. Raises InputError for another rate."""
        check_samples(np.empty(0, np.float32), sample_rate_hz)
        return AudioStream(self._filters, self._forward())

    def num_tokens(self, num_samples: int) -> int:
        """Tokens of a sound of that many samples."""
        return -(-num_frames(padded_length(num_samples)) // self.config.frames_per_token)

    def valid_tokens(self, mask: Mask) -> Mask:
        """Which tokens of mel frames with this mask (T,) hold sound; the others are zeros."""
        return np.ascontiguousarray(mask[:: self.config.frames_per_token])

    def _forward(self) -> AudioForward:
        return AudioForward(self.config, self.weights, self._ops)

    def _checked_mel(self, mel: object, mask: object) -> tuple[F32, Mask]:
        bins = self.config.num_mels
        if not isinstance(mel, np.ndarray) or mel.dtype != np.float32 or mel.ndim != 2:
            raise InputError(f"mel is {_described(mel)}, expected float32 of shape (T, {bins})")
        if mel.shape[1] != bins or not len(mel):
            raise InputError(f"mel has shape {mel.shape}, expected (T, {bins}) with T from 1")
        if not np.isfinite(mel).all():
            raise InputError("mel holds NaN or infinity")
        if mask is None:
            mask = np.ones(len(mel), np.bool_)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (len(mel),):
            raise InputError(f"mask is {_described(mask)}, expected bool of shape ({len(mel)},)")
        return np.ascontiguousarray(mel), mask


def _described(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return type(value).__name__
