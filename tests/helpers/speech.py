"""Sound that a gate takes for speech."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
RATE = 16_000


def spoken(seconds: float, hertz: float = 220.0) -> F32:
    """A tone that swells five times a second."""
    time = np.arange(round(seconds * RATE)) / RATE
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * 5 * time)
    return (0.2 * np.sin(2 * np.pi * hertz * time) * swell).astype(np.float32)


def conversation(*seconds: float, pause: float = 1.0) -> F32:
    """Utterances of so many seconds with silence before, between and after them."""
    silence = np.zeros(round(pause * RATE), np.float32)
    parts = [silence]
    for number, length in enumerate(seconds):
        parts += [spoken(length, 220.0 * (1 + number)), silence]
    return np.concatenate(parts)
