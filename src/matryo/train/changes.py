"""Pictures and sounds changed a little, so that an encoder learns what does not matter.

In: a picture with transparency, log-mel frames, a strength from 0 to 1, a random generator. Out:
pixels and frames of the kind the encoders take.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]

SILENCE = float(np.log(1e-5))  # a bin without energy
_NARROW_HZ = (3300.0, 4000.0)  # where telephones and old recordings end
_LOWEST_HZ, _HIGHEST_HZ = 125.0, 7600.0


def changed_pixels(rgba: U8, side: int, strength: float, rng: np.random.Generator) -> F32:
    """(S, S, 4) to pixels (3, side, side): cropped or shrunk, on a background, in other colours."""
    from PIL import Image

    from matryo.inputs.image import to_pixels

    size = rgba.shape[0]
    background = _background(side, strength, rng)
    # What is seen of the picture: from four fifths of it to half as much again.
    seen = size * np.exp(rng.uniform(-0.25, 0.35) * strength)
    ratio = np.exp(rng.uniform(-0.12, 0.12) * strength)
    shift = rng.uniform(-0.5, 0.5, 2) * np.abs(size - seen) + rng.normal(0, 0.02 * strength, 2)
    turn = rng.normal(0, 0.12) * strength
    c, s = np.cos(turn) * seen / side, np.sin(turn) * seen / side
    middle = size / 2 + shift
    half = side / 2
    # Output pixel (x, y) shows the input at a·x + b·y + c and d·x + e·y + f.
    matrix = (c * ratio, -s, middle[0] - (c * ratio - s) * half,
              s, c / ratio, middle[1] - (s + c / ratio) * half)  # fmt: skip
    moved = Image.fromarray(rgba).transform(
        (2 * side, 2 * side),
        Image.Transform.AFFINE,
        tuple(v / 2 if n in (0, 1, 3, 4) else v for n, v in enumerate(matrix)),
        Image.Resampling.BILINEAR,
    )
    small = np.asarray(moved.resize((side, side), Image.Resampling.BOX), np.float32)
    alpha = small[..., 3:] / 255
    rgb = small[..., :3] * alpha + background * (1 - alpha)
    gain = 1 + rng.uniform(-0.25, 0.25, 3) * strength * (rng.random() < 0.8)
    offset = rng.uniform(-30, 30) * strength
    rgb = np.clip(rgb * gain + offset, 0, 255)
    if rng.random() < 0.6 * strength:  # some artists draw in paler colours
        grey = rgb.mean(2, keepdims=True)
        rgb = np.clip(grey + (rgb - grey) * rng.uniform(0, 1.5), 0, 255)
    return to_pixels(np.rint(rgb).astype(np.uint8))


def _background(side: int, strength: float, rng: np.random.Generator) -> F32:
    """White, a colour, pale more often than not, or a change from one to another; it broadcasts to
    (side, side, 3).
    """
    first = np.full((1, 1, 3), 255, np.float32)
    if rng.random() > 0.6 * strength:
        return first
    darkest = 0 if rng.random() < 0.35 else 160
    first, second = (rng.uniform(darkest, 255, (1, 1, 3)).astype(np.float32) for _ in range(2))
    if rng.random() < 0.5:
        return first
    ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    if rng.random() < 0.5:
        ramp = ramp.transpose(1, 0, 2)
    changing: F32 = first + (second - first) * ramp
    return changing


def changed_sound(
    mel: F32, valid: int, longest: int, strength: float, rng: np.random.Generator
) -> tuple[F32, int]:
    """Log-mel (T, bins) to another (T', bins) and how many of its frames are sound: slower or
    faster, louder or softer, in the band of a telephone, with gaps in time and frequency.

    valid: frames of `mel` that are sound · longest: most frames of a clip
    """
    speed = np.exp(rng.uniform(-0.12, 0.12) * strength)
    length = min(max(1, round(len(mel) * speed)), max(longest, len(mel)))
    places = np.minimum(np.arange(length) * (len(mel) / length), len(mel) - 1)
    first = places.astype(np.int64)
    part = (places - first).astype(np.float32)[:, None]
    out = mel[first] * (1 - part) + mel[np.minimum(first + 1, len(mel) - 1)] * part
    sound = min(length, max(1, round(valid * length / len(mel))))
    bins = mel.shape[1]
    # The tilt stands for another microphone, the shift for another distance.
    tilt = np.linspace(-1, 1, bins, dtype=np.float32) * rng.normal(0, 0.4) * strength
    out += tilt + np.float32(rng.normal(0, 0.8) * strength)
    if rng.random() < 0.35 * strength:
        out[:, _bin_of(rng.uniform(*_NARROW_HZ), bins) :] = SILENCE
    for _ in range(2):
        width = int(rng.integers(0, int(bins * 0.12 * strength) + 1))
        start = int(rng.integers(0, bins - width + 1))
        out[:, start : start + width] = out.mean()
        width = int(rng.integers(0, min(int(sound * 0.08 * strength), 30) + 1))
        start = int(rng.integers(0, sound - width + 1))
        out[start : start + width] = out.mean()
    return np.maximum(out, np.float32(SILENCE)), sound


def _bin_of(hertz: float, bins: int) -> int:
    """The first bin above a frequency."""
    low, high, here = (2595 * np.log10(1 + hz / 700) for hz in (_LOWEST_HZ, _HIGHEST_HZ, hertz))
    return int(np.clip(np.ceil((here - low) / (high - low) * (bins + 1)), 1, bins))
