"""Stored matrices for kernel tests, and tolerances that follow from the arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from matryo import kernels
from matryo.kernels import reference
from matryo.kernels.layer import Matrix as AnyMatrix

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

KINDS = ("f32", "bf16", "q8", "q4")
LAYOUTS = ("panel", "rows")
GUARD = np.float32(12345.0)


def empty_storage(kind: str, layout: str, rows: int, cols: int) -> npt.NDArray[Any]:
    """An array of the stored shape and dtype, filled with what packing has to overwrite."""
    padded, panels = -(-cols // 32) * 32, -(-rows // 16)
    shapes: dict[tuple[str, str], tuple[int, ...]] = {
        ("f32", "panel"): (panels, padded, 16),
        ("bf16", "panel"): (panels, padded // 2, 16, 2),
        ("q8", "panel"): (panels, padded // 32, 544),
        ("q4", "panel"): (panels, padded // 32, 288),
        ("f32", "rows"): (rows, padded),
        ("bf16", "rows"): (rows, padded),
        ("q8", "rows"): (rows, padded + padded // 16),
        ("q4", "rows"): (rows, padded // 2 + padded // 16),
    }
    dtype = {"f32": np.float32, "bf16": np.uint16}.get(kind, np.uint8)
    return np.full(shapes[kind, layout], 77, dtype)


def stored(kind: str, layout: str, dense: F32) -> kernels.Matrix:
    """`dense` (R, C) packed natively."""
    rows, cols = dense.shape
    data = empty_storage(kind, layout, rows, cols)
    kernels.pack(kind, layout, dense, data)
    return kernels.Matrix(kind, layout, rows, cols, data)


def dense_of(matrix: AnyMatrix) -> F64:
    """The weights a matrix holds, as float64."""
    return reference.dense(matrix)


def normal(rng: np.random.Generator, *shape: int) -> F32:
    """Standard normal float32."""
    return rng.standard_normal(shape).astype(np.float32)


def guarded(*shape: int) -> tuple[F32, F32]:
    """A C-contiguous array and the larger buffer around it, filled with GUARD."""
    size = int(np.prod(shape))
    buffer = np.full(size + 32, GUARD, np.float32)
    return buffer[16 : 16 + size].reshape(shape), buffer


def guards_hold(buffer: F32) -> bool:
    """Whether nothing was written outside the array that `guarded` returned."""
    return bool((buffer[:16] == GUARD).all() and (buffer[-16:] == GUARD).all())


def product_limit(weights: F64, x: F64) -> F64:
    """A bound (T, R) on the rounding error of x · weightsᵀ in float32.

    Every addition rounds a partial sum no larger than the sum of magnitudes by at most 2^-24 of it,
    and every product is rounded once more.
    """
    terms = weights.shape[1] + 4
    limit: F64 = 2.0**-24 * terms * (np.abs(x) @ np.abs(weights).T) + 1e-30
    return limit
