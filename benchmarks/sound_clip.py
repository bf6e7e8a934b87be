"""The sound that every sound encoder is given."""

from __future__ import annotations

import numpy as np

RATE_HZ = 16_000


def clip(seconds: int) -> np.ndarray:
    """(16000 seconds,) float32: tones that rise and fall like syllables, over noise."""
    count = seconds * RATE_HZ
    time = np.arange(count) / RATE_HZ
    pitch = 140 + 40 * np.sin(2 * np.pi * 0.7 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE_HZ
    voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 9))
    loudness = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * time)
    noise = np.random.default_rng(0).standard_normal(count)
    return (0.1 * voice * loudness + 0.01 * noise).astype(np.float32)
