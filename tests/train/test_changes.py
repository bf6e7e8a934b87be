"""What changes in a picture or a sound at random, and what does not."""

from __future__ import annotations

import numpy as np

from matryo.train.changes import SILENCE, changed_pixels, changed_sound

SIDE = 64


def drawing() -> np.ndarray:
    """A red square in the middle of nothing."""
    rgba = np.zeros((96, 96, 4), np.uint8)
    rgba[24:72, 24:72] = [220, 20, 20, 255]
    return rgba


def test_a_transparent_picture_stands_on_another_background_each_time() -> None:
    made = [changed_pixels(drawing(), SIDE, 1.0, np.random.default_rng(n)) for n in range(60)]
    assert {(one.shape, one.dtype) for one in made} == {((3, SIDE, SIDE), np.dtype(np.float32))}
    corners = np.stack([one[:, 0, 0] for one in made])
    assert len(np.unique(corners.round(2), axis=0)) > 30
    middles = np.stack([one[:, SIDE // 2, SIDE // 2] for one in made])
    # What is drawn stays what it is: red, or grey where the colours were taken out.
    assert (middles[:, 0] >= middles[:, 1:].max(1) - 0.15).all()
    changing = [one for one in made if np.ptp(one[:, 0, 0] - one[:, -1, -1]) > 0.05]
    assert changing  # from one colour to another


def test_no_strength_is_no_change() -> None:
    one, two = (changed_pixels(drawing(), SIDE, 0.0, np.random.default_rng(n)) for n in (1, 2))
    assert (one == two).all() and (one[:, 0, 0] == 1).all()
    mel = np.random.default_rng(0).normal(size=(50, 16)).astype(np.float32)
    same, sound = changed_sound(mel, 40, 100, 0.0, np.random.default_rng(1))
    assert sound == 40 and np.abs(same - np.maximum(mel, SILENCE)).max() < 1e-6


def test_changed_sound_keeps_its_place_in_a_clip() -> None:
    mel = np.random.default_rng(0).normal(size=(90, 16)).astype(np.float32)
    for seed in range(40):
        out, sound = changed_sound(mel, 80, 100, 1.0, np.random.default_rng(seed))
        assert len(out) <= 100 and 1 <= sound <= len(out) and out.dtype == np.float32
        assert np.isfinite(out).all() and out.min() >= np.float32(SILENCE)
