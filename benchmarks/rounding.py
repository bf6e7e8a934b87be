"""Ways to round a matrix to 4 or 8 bits and back, all as float32, to compare them.

In: a float32 matrix whose groups of 32 run along the columns. Out: the matrix a kernel would
compute with. `search` is the packer itself; the others are what it was chosen over.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .synthetic.values import from_bf16, to_bf16

F32 = npt.NDArray[np.float32]
GROUP = 32


def packed(kind: str) -> Callable[[F32], F32]:
    """There and back through the packer."""

    def round_trip(matrix: F32) -> F32:
        from matryo.quantize import pack, unpack

        rows, columns = matrix.shape
        return unpack(kind, "panel", rows, columns, pack(kind, "panel", matrix))

    return round_trip


def grouped(matrix: F32) -> F32:
    """(R, C) -> (R, groups, 32), zeros behind the last column."""
    rows, columns = matrix.shape
    padded = np.zeros((rows, -(-columns // GROUP) * GROUP), np.float32)
    padded[:, :columns] = matrix
    return padded.reshape(rows, -1, GROUP)


def scaled(matrix: F32, scale_of: Callable[[F32], F32], low: int, high: int) -> F32:
    """Round every group to integers from `low` to `high` times its scale, stored as bf16."""
    groups = grouped(matrix)
    scale = from_bf16(to_bf16(np.ascontiguousarray(scale_of(groups), np.float32)))[..., None]
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    integers = np.rint(groups * inverse).clip(low, high)
    restored: F32 = (integers * scale).reshape(len(matrix), -1)[:, : matrix.shape[1]]
    return np.ascontiguousarray(restored, np.float32)


def extreme(groups: F32) -> F32:
    """The value of largest magnitude, with its sign."""
    high, low = groups.max(-1), groups.min(-1)
    chosen: F32 = np.where(high >= -low, high, low).astype(np.float32)
    return chosen


def symmetric(matrix: F32) -> F32:
    """scale = absmax / 7: the textbook's."""
    return scaled(matrix, lambda groups: np.abs(groups).max(-1) / np.float32(7), -7, 7)


def signed(matrix: F32) -> F32:
    """scale = extreme / -8, as ggml's Q4_0: the largest value becomes exactly -8."""
    return scaled(matrix, lambda groups: extreme(groups) / np.float32(-8), -8, 7)


ROUNDINGS: dict[str, Callable[[F32], F32]] = {
    "absmax / 7": symmetric,
    "extreme / -8 (as Q4_0)": signed,
    "search": packed("q4"),
    "8 bits": packed("q8"),
}


def relative_error(matrix: F32, restored: F32) -> float:
    """Root mean square of the difference over that of the matrix."""
    difference = (restored - matrix).astype(np.float64)
    return float(np.sqrt((difference**2).sum() / (matrix.astype(np.float64) ** 2).sum()))
