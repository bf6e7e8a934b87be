"""Pictures from vector drawings: 96 x 96, transparent, or RGB on a background of their own.

In: icon sets as iconify packs them (`icons.json`: SVG bodies and sizes). Out: PNG files. The model
sees 64 x 64; the rest is room for crops while training. Two of five backgrounds are white. Pictures
to learn from are transparent, because a background that never changes is enough to know a picture
by; the trainer puts them on another one each time.
"""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scripts.nano.corpus import rows

SIDE = 96
MARGIN = 4

Picture = npt.NDArray[np.uint8]  # (SIDE, SIDE, 3), or 4 with transparency


@cache
def icon_set(folder: Path) -> dict[str, Any]:
    """The parsed icons.json of one set."""
    document: dict[str, Any] = json.loads((folder / "package" / "icons.json").read_text("utf-8"))
    return document


def svg(icons: dict[str, Any], name: str) -> bytes | None:
    """The SVG document of an icon or of what its alias stands for, None if there is none."""
    icon = icons["icons"].get(name)
    if icon is None:
        alias = icons.get("aliases", {}).get(name)
        # A turned or mirrored alias is another picture.
        if alias is None or set(alias) - {"parent", "hidden"}:
            return None
        icon = icons["icons"].get(alias["parent"])
        if icon is None:
            return None
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {width} {height}"
    side = SIDE - 2 * MARGIN
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}" width="{side}" height="{side}">{icon["body"]}</svg>'
    ).encode()


def background(rng: random.Random) -> Picture:
    """White, a pale or any other colour, or a change from one to another."""
    kind = rng.random()
    low = 0 if kind > 0.85 else 160
    first = np.array([rng.randint(low, 255) for _ in range(3)], float)
    second = first
    if kind < 0.4:
        first = second = np.full(3, 255.0)
    elif kind > 0.7:
        second = np.array([rng.randint(low, 255) for _ in range(3)], float)
    ramp = np.linspace(0, 1, SIDE)[:, None, None]
    if rng.random() < 0.5:
        ramp = ramp.transpose(1, 0, 2)
    picture = first + (second - first) * ramp
    return np.broadcast_to(picture, (SIDE, SIDE, 3)).round().astype(np.uint8)


def draw(document: bytes, rng: random.Random | None) -> Picture | None:
    """The drawing in the middle of a background that `rng` draws, or of a transparent one; None if
    it cannot be drawn or is empty.
    """
    import pyvips  # type: ignore[import-untyped, import-not-found, unused-ignore]

    try:
        drawing = pyvips.Image.svgload_buffer(document)
        flat = np.frombuffer(drawing.write_to_memory(), np.uint8)
    except pyvips.Error:
        return None
    pixels = flat.reshape(drawing.height, drawing.width, drawing.bands)
    if drawing.bands != 4 or not pixels[..., 3].any():
        return None
    top, left = (SIDE - drawing.height) // 2, (SIDE - drawing.width) // 2
    inside = slice(top, top + drawing.height), slice(left, left + drawing.width)
    if rng is None:
        layer = np.zeros((SIDE, SIDE, 4), np.uint8)
        layer[inside] = pixels
        return layer
    picture = background(rng).astype(float)
    place = picture[inside]
    alpha = pixels[..., 3:] / 255.0
    place[:] = place * (1 - alpha) + pixels[..., :3] * alpha
    return picture.round().astype(np.uint8)


def make(document: bytes, target: Path, file: str, *, on_background: bool) -> bool:
    """Draw `target / file` if it is not there yet; whether it is there now.

    on_background: on one that depends on `file` alone, else transparent
    """
    path = target / file
    if not path.exists():
        picture = draw(document, rows.generator(file) if on_background else None)
        if picture is not None:
            save(picture, path)
    return path.exists()


def save(picture: Picture, path: Path) -> None:
    """Write a PNG."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, optimize=True)
