"""Draw the pictures of docs/media.md: what the encoders are given, and where their tokens lie.

In: a directory to write to (docs/images). Out: picture-tokens.png and sound-tokens.png, made of a
drawn scene and a synthetic sound by matryo's own loaders.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from matryo.inputs.image import load_rgb
from matryo.inputs.mel import HOP, MelFilters
from matryo.inputs.sound import RATE, load_sound

TARGET = Path(__file__).resolve().parent.parent / "docs" / "images"
GRID = 16  # tokens along each side of a picture
FRAMES_PER_TOKEN = 16  # log-mel frames of 10 ms: a token each 160 ms
INK, PAPER, LINE = (31, 41, 51), (255, 255, 255), (255, 196, 0)
SIDE, MARGIN, SCALE = 320, 16, 3

Rgb = npt.NDArray[np.uint8]


def scene() -> Image.Image:
    """Hills, a sun and a house in landscape format."""
    image = Image.new("RGB", (960, 540), (150, 200, 235))
    draw = ImageDraw.Draw(image)
    draw.ellipse((700, 60, 820, 180), fill=(255, 220, 90))
    draw.ellipse((-200, 300, 700, 900), fill=(90, 150, 80))
    draw.ellipse((400, 340, 1300, 900), fill=(60, 120, 70))
    draw.rectangle((240, 260, 400, 400), fill=(200, 120, 90))
    draw.polygon([(220, 260), (420, 260), (320, 180)], fill=(120, 60, 50))
    draw.rectangle((300, 320, 340, 400), fill=(70, 50, 40))
    return image


def draw_picture(path: Path) -> None:
    """The scene, the square it becomes, and the grid of its tokens."""
    shown = scene()
    square = Image.fromarray(load_rgb(np.asarray(shown), 768)).resize((SIDE, SIDE))
    width = SIDE * shown.width // shown.height
    page = Image.new("RGB", (width + 2 * SIDE + 4 * MARGIN, SIDE + 3 * MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    titles = ("the picture, 960 x 540", "resized to 768 x 768", "16 x 16 tokens")
    lefts = (MARGIN, width + 2 * MARGIN, width + SIDE + 3 * MARGIN)
    top = 2 * MARGIN
    for left, title, part in zip(
        lefts, titles, (shown.resize((width, SIDE)), square, square), strict=True
    ):
        draw.text((left, MARGIN // 2), title, INK)
        page.paste(part, (left, top))
    for number in range(GRID + 1):
        at = number * SIDE // GRID
        draw.line((lefts[2] + at, top, lefts[2] + at, top + SIDE), LINE)
        draw.line((lefts[2], top + at, lefts[2] + SIDE, top + at), LINE)
    save(page, path)


def voice() -> npt.NDArray[np.float32]:
    """Two seconds at 44.1 kHz that rise and fall like vowels, with a pause."""
    time = np.arange(2 * 44_100) / 44_100
    pitch = 140 + 40 * np.sin(2 * np.pi * 0.8 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / 44_100
    formants = (500 + 250 * np.sin(2 * np.pi * time), 1500 + 600 * np.cos(2 * np.pi * 0.7 * time))
    wave = np.zeros_like(time)
    for harmonic in range(1, 40):
        hertz = harmonic * pitch
        gain = sum(np.exp(-(((hertz - f) / 250) ** 2)) for f in formants) + 0.05
        wave += gain * np.sin(harmonic * phase) / 12
    loudness = np.clip(np.sin(2 * np.pi * 1.5 * time) * 3, 0, 1)
    return np.asarray(wave * loudness, np.float32)


def draw_sound(path: Path) -> None:
    """The waveform over its log-mel frames, with a tick where each token begins."""
    samples = load_sound(voice(), rate=44_100)
    frames, _ = MelFilters().clip(samples)
    low, high = np.log(1e-5), frames.max()
    grey = np.clip((frames.T[::-1] - low) / (high - low), 0, 1)
    colours = np.stack([grey**0.6 * 250, grey**1.4 * 220, 90 + 100 * grey * (1 - grey)], axis=-1)
    picture = Image.fromarray(colours.astype(np.uint8))
    width, height = SCALE * picture.width, 2 * picture.height
    wave_height = 80
    page = Image.new("RGB", (width + 2 * MARGIN, wave_height + height + 5 * MARGIN), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 4), "samples at 16 kHz", INK)
    middle = 2 * MARGIN + wave_height // 2 - 8
    for column in range(width):
        part = samples[column * HOP // SCALE : (column + 1) * HOP // SCALE + 1]
        if len(part):
            top, bottom = (middle - 40 * float(v) for v in (part.max(), part.min()))
            draw.line((MARGIN + column, top, MARGIN + column, bottom), (61, 126, 166))
    top = wave_height + 2 * MARGIN
    draw.text((MARGIN, top - 14), "128 log-mel bands, a frame each 10 ms", INK)
    page.paste(picture.resize((width, height), Image.Resampling.NEAREST), (MARGIN, top))
    for frame in range(0, picture.width, FRAMES_PER_TOKEN):
        at = MARGIN + SCALE * frame
        draw.line((at, top, at, top + height + 8), LINE)
        draw.text((at + 3, top + height + 2), str(frame // FRAMES_PER_TOKEN), INK)
    seconds = len(samples) / RATE
    note = f"tokens, one each 160 ms: {seconds:g} s of sound"
    draw.text((MARGIN, top + height + 18), note, INK)
    save(page, path)


def save(page: Image.Image, path: Path) -> None:
    """With few colours: a picture in a repository stays small."""
    page.quantize(128).save(path, "PNG", optimize=True)


def main(directory: Path) -> None:
    """Write both pictures."""
    directory.mkdir(parents=True, exist_ok=True)
    draw_picture(directory / "picture-tokens.png")
    draw_sound(directory / "sound-tokens.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
