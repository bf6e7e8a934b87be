"""The stored form of kind i8: what it holds, and that it holds it exactly."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.matrices import normal
from matryo.kernels.reference_dense import (
    DenseMatrix,
    dense_weights,
    pack_i8,
    panel_bytes,
    rounded_rows,
    unpack_i8,
)


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (16, 256), (33, 300), (5, 771)])
def test_weights_come_back_within_half_a_step_of_their_block(
    rows: int, cols: int, rng: np.random.Generator
) -> None:
    dense = normal(rng, rows, cols) * np.linspace(0.1, 9, cols, dtype=np.float32)
    data = pack_i8(dense)
    assert data.shape == (-(-rows // 16), panel_bytes(cols))
    codes, scales = unpack_i8(data, rows, cols)
    weights = dense_weights(DenseMatrix("i8", rows, cols, data))
    steps = np.repeat(scales, 256, axis=1)[:, :cols]
    assert (np.abs(weights - dense) <= 0.501 * steps).all()
    assert scales.shape == (rows, -(-cols // 256)) and np.abs(codes).max() <= 127


def test_four_products_of_one_sign_fit_sixteen_bits() -> None:
    codes, _ = unpack_i8(pack_i8(np.ones((2, 16), np.float32)), 2, 16)
    assert np.abs(codes.astype(int)).max() <= 64


def test_sums_of_codes_lie_before_them(rng: np.random.Generator) -> None:
    data = pack_i8(normal(rng, 16, 300))
    codes, _ = unpack_i8(data, 16, 300)
    sums = np.ascontiguousarray(data[:, 64:128]).view(np.int32)
    assert np.array_equal(sums[0], codes[:, :256].sum(axis=1, dtype=np.int32))


def test_rows_are_rounded_within_their_blocks(rng: np.random.Generator) -> None:
    x = normal(rng, 4, 300)
    x[:, 256:] *= 1e-3
    x[1, :256] = np.abs(x[1, :256])
    rounded = rounded_rows(x)
    for block in (slice(0, 256), slice(256, 300)):
        low, high = np.minimum(x[:, block].min(1), 0), np.maximum(x[:, block].max(1), 0)
        step = ((high - low) / 127)[:, None]
        assert (np.abs(rounded - x)[:, block] <= 1.001 * step).all()
        assert (np.abs(rounded - x)[:, block] <= 0.501 * step).mean() > 0.95
    assert (rounded_rows(np.zeros((2, 5), np.float32)) == 0).all()


def test_weights_that_are_not_finite_are_named(rng: np.random.Generator) -> None:
    dense = normal(rng, 3, 4)
    dense[1, 2] = np.inf
    with pytest.raises(ValueError, match="row 1, column 2 is not finite"):
        pack_i8(dense)
