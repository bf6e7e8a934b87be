"""Sound to log-mel frames, whole or while it arrives.

In: mono samples (N,) float32 at 16 kHz, about -1 to 1. Out: frames (T, num_mels) float32, one each
10 ms, and for whole clips a mask (T,) bool, True = the frame begins inside the sound. A frame's
values depend on its own 512 samples alone, so a stream gives the bits of the whole clip.
Source: transformers `feature_extraction_gemma3n.py`; the quirks are its own and the encoder was
trained with them: 513 samples a frame of which the last is not used, pre-emphasis inside the frame,
an FFT twice as long as needed, magnitudes and not powers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from matryo import kernels
from matryo.errors import InputError
from matryo.quantize import pack

F32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SAMPLE_RATE_HZ = 16_000
WINDOW = 512  # samples: 32 ms
FRAME = WINDOW + 1  # samples that must be there for a frame to exist
HOP = 160  # samples: 10 ms
ALIGNMENT = 128  # clips are padded with zeros to a multiple of it
_FFT_LENGTH = 1024
_LOWEST_HZ, _HIGHEST_HZ = 125.0, 7600.0
_PREEMPHASIS = 0.97
_FLOOR = 1e-5  # of a mel value, before the logarithm
_LOUDEST = 1e6  # beyond it a square of the spectrum may overflow; sound lies within -1 and 1
_BLOCK_FRAMES = 1024  # bounds the memory of long clips


def check_samples(samples: object, sample_rate_hz: int = SAMPLE_RATE_HZ) -> F32:
    """The samples as a contiguous array. Raises InputError for anything but mono float32 numbers
    at 16 kHz.
    """
    if sample_rate_hz != SAMPLE_RATE_HZ:
        raise InputError(
            f"sound has {sample_rate_hz} samples a second, expected {SAMPLE_RATE_HZ}; resample it"
        )
    if not isinstance(samples, np.ndarray):
        raise InputError(f"sound is {type(samples).__name__}, expected a numpy array of samples")
    if samples.dtype != np.float32 or samples.ndim != 1:
        raise InputError(
            f"sound is {samples.dtype} of shape {samples.shape}, expected float32 of shape "
            "(samples,): one channel, values from -1 to 1"
        )
    if samples.size and not float(np.abs(samples).max()) <= _LOUDEST:  # NaN compares false
        bad = int(np.flatnonzero(~(np.abs(samples) <= _LOUDEST))[0])
        raise InputError(
            f"sample {bad} of the sound is {samples[bad]}, expected a number from -1 to 1"
        )
    return np.ascontiguousarray(samples)


def padded_length(num_samples: int) -> int:
    """Samples of a clip with the zeros that are put at its end."""
    return -(-num_samples // ALIGNMENT) * ALIGNMENT


def num_frames(num_samples: int) -> int:
    """Frames of a signal of that many samples, padding included."""
    return max(0, (num_samples - FRAME) // HOP + 1)


class MelFilters:
    """The filter bank for `num_mels` bins: equal steps on the mel scale, triangles of height 1."""

    def __init__(self, num_mels: int = 128) -> None:
        self.num_mels = num_mels
        steps = np.arange(WINDOW, dtype=np.float32)
        self._window = (0.5 * (1 - np.cos(2 * np.pi * steps / WINDOW))).astype(np.float32)
        bank = np.ascontiguousarray(_triangles(num_mels).T, np.float32)
        # Not BLAS: its bits depend on the number of frames.
        bins, size = bank.shape
        self._bank = kernels.Matrix("f32", "panel", bins, size, pack("f32", "panel", bank))

    def frames(self, samples: F32) -> F32:
        """Log-mel (T, num_mels) of every whole frame that begins at a multiple of 160 samples."""
        mel = np.empty((num_frames(len(samples)), self.num_mels), np.float32)
        for first in range(0, len(mel), _BLOCK_FRAMES):
            block = mel[first : first + _BLOCK_FRAMES]
            end = (first + len(block) - 1) * HOP + FRAME
            self._block(samples[first * HOP : end], block)
        return mel

    def clip(self, samples: F32, num_samples: int | None = None) -> tuple[F32, Mask]:
        """Log-mel and mask of a whole clip, padded as the longest clip of a batch is.

        num_samples: of that longest clip, this one if None. Raises InputError for bad samples, a
        clip that is too short for one frame, or a longer clip than `num_samples`.
        """
        samples = check_samples(samples)
        longest = len(samples) if num_samples is None else num_samples
        if longest < len(samples):
            raise InputError(
                f"sound has {len(samples)} samples, the longest of its batch {longest}"
            )
        padded = np.zeros(padded_length(longest), np.float32)
        padded[: len(samples)] = samples
        mel = self.frames(padded)
        if not len(samples) or not len(mel):
            raise InputError(
                f"sound has {len(samples)} samples, expected at least {FRAME} ({WINDOW // 16} ms)"
            )
        return mel, np.arange(len(mel)) * HOP < len(samples)

    def _block(self, samples: F32, out: F32) -> None:
        frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]
        shaped = np.empty((len(frames), WINDOW), np.float32)
        shaped[:, 1:] = frames[:, 1:WINDOW] - np.float32(_PREEMPHASIS) * frames[:, : WINDOW - 1]
        shaped[:, 0] = frames[:, 0] * np.float32(1.0 - _PREEMPHASIS)
        shaped *= self._window
        spectrum = np.fft.rfft(shaped, n=_FFT_LENGTH)
        real, imag = spectrum.real.astype(np.float32), spectrum.imag.astype(np.float32)
        kernels.matmul(self._bank, np.sqrt(real * real + imag * imag), out)
        np.log(np.maximum(out, np.float32(_FLOOR)), out=out)


class MelStream:
    """Log-mel frames of sound that arrives in pieces of any size; keeps fewer than 513 samples."""

    def __init__(self, filters: MelFilters) -> None:
        self._filters = filters
        self._tail = np.empty(0, np.float32)  # begins where the next frame does
        self._num_samples = 0

    def push(self, samples: F32) -> Iterator[F32]:
        """Frames (n, num_mels) that are complete now, in blocks; checked samples only."""
        self._num_samples += len(samples)
        for first in range(0, len(samples), _BLOCK_FRAMES * HOP):
            block = samples[first : first + _BLOCK_FRAMES * HOP]
            self._tail = np.concatenate([self._tail, block]) if len(self._tail) else block
            mel = self._filters.frames(self._tail)
            self._tail = self._tail[len(mel) * HOP :].copy()
            if len(mel):
                yield mel

    def finish(self) -> Iterator[F32]:
        """The frames that the zeros at the end of the clip complete."""
        missing = padded_length(self._num_samples) - self._num_samples
        yield from self.push(np.zeros(missing, np.float32))


def _triangles(num_mels: int) -> npt.NDArray[np.float64]:
    """Weights (bins of the spectrum, num_mels)."""
    frequency = np.arange(_FFT_LENGTH // 2 + 1) * (SAMPLE_RATE_HZ / _FFT_LENGTH)
    lowest, highest = (2595.0 * np.log10(1.0 + hz / 700.0) for hz in (_LOWEST_HZ, _HIGHEST_HZ))
    points = 700.0 * (10 ** (np.linspace(lowest, highest, num_mels + 2) / 2595.0) - 1.0)
    distance, width = points[None, :] - frequency[:, None], np.diff(points)
    rising, falling = -distance[:, :-2] / width[:-1], distance[:, 2:] / width[1:]
    return np.maximum(0.0, np.minimum(rising, falling))
