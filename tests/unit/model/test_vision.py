"""The picture encoder: what it accepts, what it refuses, and that pictures do not mix."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from helpers.mobilenet import TINY, picture, random_state, vision_config
from helpers.vision import encoder, packed
from matryo.errors import CheckpointError, InputError, MatryoError, ShapeError
from matryo.kernels.reference_vision import Filter
from matryo.model import vision
from matryo.model.vision import VisionEncoder, check_pixels
from matryo.model.vision_weights import vision_weights

Array = npt.NDArray[Any]

BAD: dict[str, tuple[Any, type[MatryoError], str]] = {
    "a list": ([[[0.5]]], ShapeError, r"expected float32 \(3, height, width\), got list"),
    "bytes": (np.zeros((3, 8, 8), np.uint8), ShapeError, "got uint8"),
    "float64": (np.zeros((3, 8, 8)), ShapeError, "got float64"),
    "channels last": (np.zeros((8, 8, 3), np.float32), ShapeError, r"got float32 \(8, 8, 3\)"),
    "a batch": (np.zeros((1, 3, 8, 8), np.float32), ShapeError, r"\(1, 3, 8, 8\)"),
    "no rows": (np.zeros((3, 0, 8), np.float32), ShapeError, "no pixels"),
    "0 to 255": (np.full((3, 8, 8), 255, np.float32), InputError, "255 to 255; divide bytes by"),
    "below zero": (np.full((3, 8, 8), -0.1, np.float32), InputError, "got -0.1"),
    "NaN": (np.full((3, 8, 8), np.nan, np.float32), InputError, "got nan"),
    "infinity": (np.full((3, 8, 8), np.inf, np.float32), InputError, "got inf"),
}


@pytest.fixture(scope="module")
def tiny() -> VisionEncoder:
    return encoder(random_state(TINY))


@pytest.mark.parametrize("pixels, error, message", BAD.values(), ids=BAD)
def test_bad_pixels(
    tiny: VisionEncoder, pixels: Any, error: type[MatryoError], message: str
) -> None:
    with pytest.raises(error, match=message):
        tiny.encode(pixels)


def test_one_bad_value_is_enough() -> None:
    pixels = np.full((3, 40, 30), 0.5, np.float32)
    check_pixels(pixels)
    pixels[1, 39, 7] = np.nan
    with pytest.raises(InputError, match="got nan"):
        check_pixels(pixels)


def test_a_picture_may_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision, "MAX_PIXELS", 8 * 7)
    check_pixels(np.zeros((3, 8, 7), np.float32))
    with pytest.raises(InputError, match="9 x 8 are more than 56"):
        check_pixels(np.zeros((3, 8, 9), np.float32))


def test_a_picture_is_left_as_it_was_and_leaves_nothing_behind(tiny: VisionEncoder) -> None:
    one, other = picture(64, 48), picture(80, 32, seed=1)
    before = one.copy()
    first = tiny.encode(one)
    tiny.encode(other)
    np.testing.assert_array_equal(tiny.encode(one), first)
    np.testing.assert_array_equal(one, before)


def test_memory_of_small_pictures_is_kept(
    tiny: VisionEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.encode(picture(64, 48))
    (kept,) = tiny._kept
    tiny.encode(picture(64, 48))
    assert tiny._kept == [kept]
    monkeypatch.setattr(vision, "_KEPT_BYTES", kept.num_bytes() - 1)
    tiny.encode(picture(64, 48))
    assert not tiny._kept


def test_strided_pixels(tiny: VisionEncoder) -> None:
    pixels = picture(64, 48)
    turned = np.ascontiguousarray(pixels.transpose(1, 2, 0)).transpose(2, 0, 1)
    np.testing.assert_array_equal(tiny.encode(turned), tiny.encode(pixels))


def test_black_and_white(tiny: VisionEncoder) -> None:
    for value in (0.0, 1.0):
        assert np.isfinite(tiny.encode(np.full((3, 32, 32), value, np.float32))).all()


def weights_of(tensors: dict[str, Array]) -> None:
    vision_weights(vision_config(), tensors, Filter)


def test_packed_tensors_are_checked() -> None:
    tensors = packed(random_state(TINY), "q8")
    weights_of(tensors)
    broken: list[tuple[dict[str, Array], str]] = [
        ({"stages.2.3.expand.scales": np.ones(3, np.float32)}, "expand.scales: wrong shape"),
        ({"stages.2.3.expand.scales": np.full(64, np.nan, np.float32)}, "scales: holds NaN"),
        ({"stages.2.3.expand.scales": np.ones(64)}, "scales: wrong dtype .*float32"),
        ({"stages.2.1.start.scales": np.ones(64, np.float32)}, "start.scales: unknown tensor"),
        ({"stages.2.3.expand": np.ones((64, 1, 1, 32))}, "expand: wrong dtype .*got float64"),
        ({"stem.norm": np.ones(16, np.uint16)}, "stem.norm: wrong dtype .*got uint16"),
        ({"stem.norm": np.full(16, np.inf, np.float32)}, "stem.norm: holds NaN or infinity"),
        ({"stem.norm": np.ones(15, np.float32)}, "stem.norm: wrong shape"),
    ]
    for change, message in broken:
        with pytest.raises(CheckpointError, match=message):
            weights_of({**tensors, **change})
    del tensors["stages.3.3.project.scales"]
    with pytest.raises(CheckpointError, match=r"stages\.3\.3\.project\.scales: tensor is missing"):
        weights_of(tensors)
