"""Near-duplicate frames: what counts as one, and against what it is compared."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.media import picture
from matryo.errors import ConfigError
from matryo.inputs.changes import mark_changes, similarity, thumbnail
from matryo.inputs.video import Frame

SCENE = picture(180, 320)


def news(pictures: list[np.ndarray], **options: float) -> list[bool]:
    frames = [Frame(float(n), rgb) for n, rgb in enumerate(pictures)]
    return [new for _, new in mark_changes(iter(frames), **options)]


def test_similarity_goes_from_black_and_white_to_equal() -> None:
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    assert similarity(thumbnail(black), thumbnail(white)) == 0
    assert similarity(thumbnail(SCENE), thumbnail(SCENE)) == 1
    half = np.concatenate([black[:32], white[32:]])
    assert similarity(thumbnail(black), thumbnail(half)) == 0  # the cell that changed most decides


def test_noise_is_no_change_and_a_small_thing_is(rng: np.random.Generator) -> None:
    noisy = [
        np.clip(SCENE + rng.normal(0, 10, SCENE.shape), 0, 255).astype(np.uint8) for _ in range(4)
    ]
    assert news(noisy) == [True, False, False, False]
    moved = SCENE.copy()
    moved[80:92, 100:112] = 255  # 0.25 % of the picture
    assert news([SCENE, moved, SCENE]) == [True, True, True]


def test_slow_changes_add_up() -> None:
    fading = [np.full((32, 32, 3), 100 + n, np.uint8) for n in range(20)]
    marked = news(fading)
    assert marked[0] and not marked[1] and 2 < sum(marked) < 6


def test_the_threshold_is_the_users() -> None:
    cut = [SCENE, SCENE, 255 - SCENE]
    assert news(cut, threshold=0) == [True, False, False]
    assert news(cut, threshold=1.01) == [True, True, True]
    for bad in (-0.1, float("nan")):
        with pytest.raises(ConfigError, match="threshold"):
            mark_changes(iter([]), bad)
