"""Weights for many rows at once, in numpy: the specification of kind `i8`, which stores them, and
of products with them.

    R rows · C columns · PANEL 16 rows · BLOCK 256 columns (the last block may have fewer)

A block of a row of weights has its own float32 scale, `w = scale · q`, as a block of a row of
activations has, `x = scale · (code - zero)`. Both are those of `reference_vision`
(`quantize_filter`, `quantize_rows`), block by block. Integer sums are exact, so a block adds
`(x scale · w scale) · float(Σ (code - zero) q)`, blocks in order.

f32 and bf16 are the panels of `reference_pack`, used as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from matryo.kernels.reference_pack import PANEL, bf16_values
from matryo.kernels.reference_vision import quantize_filter, quantize_rows

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

BLOCK = 256
_HEADER = 2 * PANEL * 4  # bytes before the codes of a block: scales, sums of codes


class AnyDenseMatrix(Protocol):
    """Stored weights (rows, cols), kind f32, bf16 or i8: native or plain."""

    @property
    def kind(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    @property
    def data(self) -> npt.NDArray[Any]: ...


@dataclass(frozen=True, slots=True, eq=False)
class DenseMatrix:
    """The plain twin of `matryo.kernels.audio.DenseMatrix`."""

    kind: str
    rows: int
    cols: int
    data: npt.NDArray[Any]


def panel_bytes(cols: int) -> int:
    """Bytes of 16 rows of kind i8."""
    return sum(_HEADER + PANEL * (size + -size % 8) for size in _block_sizes(cols))


def pack_i8(dense: F32) -> U8:
    """dense (R, C) -> (ceil(R / 16), panel_bytes(C)).

    A panel is its blocks one after the other: scales (16) f32, sums of codes (16) i32, codes
    [k / 4][row][k % 4] int8, k padded to a multiple of 8. Raises ValueError for weights that are
    not finite.
    """
    rows, cols = dense.shape
    if not np.isfinite(dense).all():
        row, column = np.argwhere(~np.isfinite(dense))[0]
        raise ValueError(f"weight at row {row}, column {column} is not finite")
    panels = -(-rows // PANEL)
    padded = np.zeros((panels * PANEL, cols), np.float32)
    padded[:rows] = dense
    parts = []
    for first, size in zip(range(0, cols, BLOCK), _block_sizes(cols), strict=True):
        codes, scales = quantize_filter(padded[:, first : first + size])
        codes = np.pad(codes, ((0, 0), (0, -size % 8)))
        sums = codes.sum(axis=1, dtype=np.int32)
        fours = codes.reshape(panels, PANEL, -1, 4).transpose(0, 2, 1, 3)
        parts += [
            scales.reshape(panels, PANEL).view(np.uint8),
            sums.reshape(panels, PANEL).view(np.uint8),
            np.ascontiguousarray(fours).view(np.uint8).reshape(panels, -1),
        ]
    return np.concatenate(parts, axis=1)


def unpack_i8(data: U8, rows: int, cols: int) -> tuple[npt.NDArray[np.int8], F32]:
    """Codes (R, C) and scales (R, blocks)."""
    panels, start = len(data), 0
    codes, scales = [], []
    for size in _block_sizes(cols):
        depth = size + -size % 8
        header, end = start + _HEADER, start + _HEADER + PANEL * depth
        scales.append(np.ascontiguousarray(data[:, start : start + PANEL * 4]).view(np.float32))
        fours = np.ascontiguousarray(data[:, header:end]).view(np.int8)
        fours = fours.reshape(panels, depth // 4, PANEL, 4).transpose(0, 2, 1, 3)
        codes.append(fours.reshape(panels * PANEL, depth)[:, :size])
        start = end
    of_rows = np.stack(scales, axis=-1).reshape(panels * PANEL, -1)
    return np.concatenate(codes, axis=1)[:rows], of_rows[:rows]


def dense_weights(w: AnyDenseMatrix) -> F32:
    """The weights (R, C) that products compute with."""
    data = np.asarray(w.data)
    if w.kind == "i8":
        codes, scales = unpack_i8(data, w.rows, w.cols)
        return codes * np.repeat(scales, BLOCK, axis=1)[:, : w.cols]
    values = data if w.kind == "f32" else bf16_values(data)
    order = (0, 2, 1) if w.kind == "f32" else (0, 2, 1, 3)
    dense: F32 = values.transpose(order).reshape(len(data) * PANEL, -1)[: w.rows, : w.cols]
    return dense


def rounded_rows(x: F32) -> F64:
    """x (T, C) as products with i8 see it."""
    out = np.empty(x.shape)
    for first in range(0, x.shape[1], BLOCK) if len(x) else ():
        codes, zeros, steps = quantize_rows(x[:, first : first + BLOCK])
        out[:, first : first + BLOCK] = (codes - zeros[:, None]) * steps[:, None].astype(np.float64)
    return out


def dense_product(w: AnyDenseMatrix, x: F32) -> F64:
    """x (T, C) · wᵀ."""
    rows = rounded_rows(x) if w.kind == "i8" else x.astype(np.float64)
    product: F64 = rows @ dense_weights(w).astype(np.float64).T
    return product


def _block_sizes(cols: int) -> list[int]:
    return [min(BLOCK, cols - first) for first in range(0, cols, BLOCK)]
