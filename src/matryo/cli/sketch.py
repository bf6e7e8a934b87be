"""A picture and a sound drawn with characters.

In: a picture or sound file. Out: rich text: two pixels a character for a picture, one bar each
moment for a sound.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from rich.text import Text

SIDE, MOMENTS = 32, 64
_BARS = " ▁▂▃▄▅▆▇█"


def picture(path: Path, side: int = SIDE) -> Text:
    """`side` characters wide and half as many lines high. Raises InputError for what is no
    picture.
    """
    from rich.text import Text

    from matryo.inputs.image import load_image

    pixels = np.rint(255 * load_image(path, side)).astype(int).transpose(1, 2, 0)
    text = Text()
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        for above, below in zip(upper, lower, strict=True):
            text.append("▀", f"rgb({_colour(above)}) on rgb({_colour(below)})")
        text.append("\n")
    return text


def wave(path: Path, moments: int = MOMENTS) -> Text:
    """One line. Raises InputError for what is no sound."""
    from rich.text import Text

    from matryo.inputs.sound import load_sound

    parts = np.array_split(load_sound(path), moments)
    loud = np.sqrt([float(np.mean(part**2)) if len(part) else 0.0 for part in parts])
    heights = np.rint((len(_BARS) - 1) * loud / max(float(loud.max()), 1e-9)).astype(int)
    return Text("".join(_BARS[height] for height in heights))


def _colour(pixel: npt.NDArray[np.int_]) -> str:
    return ",".join(str(value) for value in pixel)
