"""The script that draws the pictures of docs/media.md still draws those that are there."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["picture-tokens.png", "sound-tokens.png"])
def test_the_pictures_are_fresh(name: str, tmp_path: Path) -> None:
    runpy.run_path(str(ROOT / "scripts" / "media_pictures.py"))["main"](tmp_path)
    drawn, kept = (Image.open(d / name).convert("L") for d in (tmp_path, ROOT / "docs" / "images"))
    assert drawn.size == kept.size
    # Fonts and palettes differ a little between versions of Pillow.
    difference = np.abs(np.asarray(drawn, np.float32) - np.asarray(kept, np.float32))
    assert difference.mean() < 3
