"""Which frames of a video show something new; the others can reuse what was computed before.

In: `Frame`s. Out: each with whether it differs from the last one that did. The measure is plain
enough to choose a threshold by eye: how far the grey level of any part of the picture has moved.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from matryo.errors import ConfigError
from matryo.inputs.image import Rgb
from matryo.inputs.video import Frame

Thumbnail = npt.NDArray[np.float32]

THUMBNAIL = 32
CELLS = 8
DEFAULT_THRESHOLD = 0.98
"""Above it a frame counts as the same: docs/media.md has the measurements it was chosen by."""


def thumbnail(rgb: Rgb) -> Thumbnail:
    """(32, 32) f32 grey in [0, 1]: the mean of each part of a picture (H, W, 3) uint8."""
    from PIL import Image

    grey = Image.fromarray(rgb).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX).convert("L")
    small: Thumbnail = np.asarray(grey, np.float32) / np.float32(255)
    return small


def similarity(a: Thumbnail, b: Thumbnail) -> float:
    """1 for equal thumbnails, 0 for black and white; decided by the one of 8 x 8 cells that changed
    most, so that a small thing that moves is not lost in a large background that does not.
    """
    side = THUMBNAIL // CELLS
    cells = np.abs(a - b).reshape(CELLS, side, CELLS, side).mean(axis=(1, 3))
    return float(1 - cells.max())


def mark_changes(
    frames: Iterator[Frame], threshold: float = DEFAULT_THRESHOLD
) -> Iterator[tuple[Frame, bool]]:
    """Each frame with True if it is new: its similarity to the last new one is below `threshold`.

    0 keeps the first frame only, more than 1 makes all of them new. Slow changes add up: the
    comparison is with the last new frame, not with the one before. Raises ConfigError if the
    threshold is negative.
    """
    if not threshold >= 0:
        raise ConfigError(f"threshold: expected a similarity from 0, got {threshold}")
    return _marked(frames, threshold)


def _marked(frames: Iterator[Frame], threshold: float) -> Iterator[tuple[Frame, bool]]:
    last: Thumbnail | None = None
    for frame in frames:
        small = thumbnail(frame.rgb)
        is_new = last is None or similarity(last, small) < threshold
        if is_new:
            last = small
        yield frame, is_new
