"""The picture encoder against timm's, or against its arithmetic in torch where timm is missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.mobilenet import TINY, State, features, picture, random_state
from helpers.timm_encoder import timm_features
from helpers.vision import cosines, encoder
from matryo.kernels import reference_vision, vision

OPS: dict[str, Any] = {"reference": reference_vision, "native": vision}
# Stage 2 is 16 times smaller: the grid's 4 x 4, a multiple (pooled), others (interpolated).
SIZES = ((64, 64), (128, 64), (96, 64), (50, 70), (33, 47), (16, 200), (1, 1))
TOLERANCE = 5e-5  # of features up to 6; two orders of summing differ by 1e-5


@pytest.fixture(scope="module")
def state() -> State:
    return random_state(TINY)


@pytest.mark.parametrize("size", SIZES)
def test_the_oracle_is_timm(state: State, size: tuple[int, int]) -> None:
    pytest.importorskip("timm")
    pixels = picture(*size)
    expected = timm_features(state, TINY, pixels, side=4)
    np.testing.assert_allclose(features(state, TINY, pixels), expected, atol=TOLERANCE)


@pytest.mark.parametrize("size", SIZES)
def test_features_are_those_of_the_reference(
    state: State, backend: str, size: tuple[int, int]
) -> None:
    pixels = picture(*size)
    expected = features(state, TINY, pixels)
    assert np.abs(expected).max() > 3  # the weights are not such that everything is near zero
    got = encoder(state, ops=OPS[backend]).encode(pixels)
    np.testing.assert_allclose(got, expected, atol=TOLERANCE)


def test_a_grid_of_sixteen_by_sixteen(state: State) -> None:
    """What Gemma 3n uses, at its smallest size."""
    pixels = picture(256, 256)
    got = encoder(state, side=16, ops=vision).encode(pixels)
    assert got.shape == (256, 2048)
    np.testing.assert_allclose(got, features(state, TINY, pixels, side=16), atol=TOLERANCE)


def test_bf16_filters_are_rounded_weights(state: State, backend: str) -> None:
    pixels = picture(64, 64)
    exact, rounded = (
        encoder(state, kind, ops=OPS[backend]).encode(pixels) for kind in ("f32", "bf16")
    )
    assert 0 < np.abs(exact - rounded).max() < 0.2
    assert cosines(exact, rounded).min() > 0.9995


@pytest.mark.parametrize("weights", ["q8", "q4"])
def test_int8_features_point_the_same_way(state: State, backend: str, weights: str) -> None:
    """Channels are few here, so errors average out less than in the full encoder."""
    pixels = picture(128, 128)
    exact, rounded = (
        encoder(state, kind, ops=OPS[backend]).encode(pixels) for kind in ("f32", weights)
    )
    assert cosines(exact, rounded).min() > 0.995
