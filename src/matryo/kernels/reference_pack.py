"""Packing and unpacking in numpy: the specification of the stored bytes, also of native `pack`.

    R rows · C columns · G groups of 32 columns · PANEL 16 rows

Layouts: docs/architecture.md section 2. Every step is one IEEE operation in float32 in a fixed
order (no fused multiply-add, sums by halves), so that all instruction sets agree on every byte,
also where two candidate scales are nearly equal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matryo.kernels.layer import Matrix

F32 = npt.NDArray[np.float32]
I8 = npt.NDArray[np.int8]
U16 = npt.NDArray[np.uint16]
U8 = npt.NDArray[np.uint8]

GROUP = 32  # columns that share one scale
PANEL = 16  # rows interleaved in one panel
SMALLEST_ABSMAX = np.float32(2.0**-100)  # a group below it counts as zero

# q4: scale = m / d for m the weight of largest magnitude; the choice: native/kernels/pack.inc.
DIVISORS = tuple(np.float32(d) for d in (-8.0, -7.2, -7.6, -8.3, -8.6, -8.9, 7.0))


class Codes(NamedTuple):
    """Groups of one matrix: integers and the bits of their bf16 scales."""

    q: I8  # (R, G, 32)
    scales: U16  # (R, G)


def pack(kind: str, layout: str, dense: F32, out: npt.NDArray[Any]) -> None:
    """Stores dense (R, C) f32 as `kind` in `layout`; `out`, of the stored shape, is overwritten.

    Raises ValueError naming row and column of the first weight that is not finite.
    """
    broken = np.argwhere(~np.isfinite(dense))
    if len(broken):
        row, column = broken[0]
        raise ValueError(
            f"pack: weight at row {row}, column {column} is not finite ({dense[row, column]})"
        )
    rows, cols = dense.shape
    padded = np.zeros(
        (-(-rows // PANEL) * PANEL if layout == "panel" else rows, -(-cols // GROUP) * GROUP),
        np.float32,
    )
    padded[:rows, :cols] = dense
    if kind in ("f32", "bf16"):
        out[...] = _dense_layout(
            padded if kind == "f32" else bf16_bits(padded), layout, kind
        ).reshape(out.shape)
        return
    codes = (q4_codes if kind == "q4" else q8_codes)(
        padded.reshape(len(padded), padded.shape[1] // GROUP, GROUP)
    )
    out[...] = (_panel_bytes if layout == "panel" else _row_bytes)(codes, kind).reshape(out.shape)


def unpack(matrix: Matrix, out: F32) -> None:
    """Writes the weights of `matrix` to out (R, C) f32."""
    data, rows, cols = np.asarray(matrix.data), matrix.rows, matrix.cols
    padded = -(-cols // GROUP) * GROUP
    if matrix.kind in ("f32", "bf16"):
        values = data if matrix.kind == "f32" else bf16_values(data)
        if matrix.layout == "panel":
            order = (0, 2, 1) if matrix.kind == "f32" else (0, 2, 1, 3)
            values = values.transpose(order).reshape(len(data) * PANEL, padded)
    else:
        codes = (_panel_codes if matrix.layout == "panel" else _row_codes)(data, matrix.kind)
        scaled = codes.q.astype(np.float32) * bf16_values(codes.scales)[..., None]
        values = scaled.reshape(len(scaled), padded)
    out[...] = values[:rows, :cols]


def bf16_bits(values: F32) -> U16:
    """The bits of the nearest bf16, ties to even; a NaN stays a NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def bf16_values(bits: U16) -> F32:
    """The float32 values of bf16 bits."""
    return (np.ascontiguousarray(bits).astype(np.uint32) << 16).view(np.float32)


def q4_codes(groups: F32) -> Codes:
    """groups (R, G, 32): the scale of least squared error of several, the first of equals."""
    high, low = groups.max(-1), groups.min(-1)
    largest = np.where(high >= -low, high, low)
    used = np.abs(largest) >= SMALLEST_ABSMAX
    m: F32 = np.where(used, largest, np.float32(1)).astype(np.float32)
    unit: F32 = (1 / np.abs(m)).astype(np.float32)
    relative = groups * unit[..., None]
    best_error = np.full(m.shape, np.inf, np.float32)
    best = Codes(np.zeros(groups.shape, np.int8), np.zeros(m.shape, np.uint16))
    for divisor in DIVISORS:
        bits = bf16_bits(m / divisor)
        scale = bf16_values(bits)
        q = _rounded(groups, scale, -8, 7)
        difference: F32 = relative - q * (scale * unit)[..., None]
        error = tree_sum(difference * difference)
        better = used & (error < best_error)
        best_error[better] = error[better]
        best.q[better] = q[better]
        best.scales[better] = bits[better]
    return best


def q8_codes(groups: F32) -> Codes:
    """groups (R, G, 32): scale = absmax / 127, rounded to bf16, and the integers for it."""
    absmax = np.abs(groups).max(-1)
    used = absmax >= SMALLEST_ABSMAX
    scale: F32 = np.where(used, absmax, np.float32(127)).astype(np.float32) / np.float32(127)
    bits = bf16_bits(scale)
    q = _rounded(groups, bf16_values(bits), -127, 127)
    return Codes(
        np.where(used[..., None], q, 0).astype(np.int8), np.where(used, bits, 0).astype(np.uint16)
    )


def tree_sum(values: F32) -> F32:
    """Sum over the last axis (32) by halves: i and i + 16, then i and i + 8, and so on."""
    while values.shape[-1] > 1:
        half = values.shape[-1] // 2
        values = values[..., :half] + values[..., half:]
    return values[..., 0]


def _rounded(groups: F32, scale: F32, low: int, high: int) -> F32:
    inverse = np.float32(1) / scale
    return np.clip(np.rint(groups * inverse[..., None]), np.float32(low), np.float32(high))


def _dense_layout(values: npt.NDArray[Any], layout: str, kind: str) -> npt.NDArray[Any]:
    if layout == "rows":
        return values
    rows, cols = values.shape
    if kind == "f32":
        return values.reshape(rows // PANEL, PANEL, cols).transpose(0, 2, 1)
    return values.reshape(rows // PANEL, PANEL, cols // 2, 2).transpose(0, 2, 1, 3)


def _panel_bytes(codes: Codes, kind: str) -> U8:
    rows, groups, _ = codes.q.shape
    # (panel, g, j, r, b): byte (j * 16 + r) * 4 + b holds column 4 j + b of row r
    q = codes.q.reshape(rows // PANEL, PANEL, groups, 8, 4).transpose(0, 2, 3, 1, 4)
    if kind == "q4":
        nibbles = (q + 8).astype(np.uint8)
        stored = nibbles[:, :, :4] | (nibbles[:, :, 4:] << 4)
    else:
        stored = np.ascontiguousarray(q).view(np.uint8)
    scales = np.ascontiguousarray(
        codes.scales.reshape(rows // PANEL, PANEL, groups).transpose(0, 2, 1)
    )
    return np.concatenate(
        [
            stored.reshape(rows // PANEL, groups, 512 if kind == "q8" else 256),
            scales.view(np.uint8),
        ],
        axis=-1,
    )


def _panel_codes(data: U8, kind: str) -> Codes:
    panels, groups, size = data.shape
    stored = data[..., : size - 2 * PANEL].reshape(
        panels, groups, 8 if kind == "q8" else 4, PANEL, 4
    )
    if kind == "q4":
        q = np.concatenate([stored & 15, stored >> 4], axis=2).astype(np.int8) - np.int8(8)
    else:
        q = np.ascontiguousarray(stored).view(np.int8)
    scales = np.ascontiguousarray(data[..., size - 2 * PANEL :]).view(np.uint16)
    return Codes(
        q.transpose(0, 3, 1, 2, 4).reshape(panels * PANEL, groups, GROUP),
        scales.transpose(0, 2, 1).reshape(panels * PANEL, groups),
    )


def _row_bytes(codes: Codes, kind: str) -> U8:
    rows, groups, _ = codes.q.shape
    if kind == "q4":
        nibbles = (codes.q + 8).astype(np.uint8)
        stored = nibbles[..., :16] | (nibbles[..., 16:] << 4)
    else:
        stored = codes.q.view(np.uint8)
    return np.concatenate(
        [stored.reshape(rows, groups * (32 if kind == "q8" else 16)), codes.scales.view(np.uint8)],
        axis=1,
    )


def _row_codes(data: U8, kind: str) -> Codes:
    rows, size = data.shape
    groups = size // (18 if kind == "q4" else 34)
    stored = np.ascontiguousarray(data[:, : size - 2 * groups]).reshape(
        rows, groups, 32 if kind == "q8" else 16
    )
    if kind == "q4":
        q = np.concatenate([stored & 15, stored >> 4], axis=2).astype(np.int8) - np.int8(8)
    else:
        q = stored.view(np.int8)
    return Codes(q, np.ascontiguousarray(data[:, size - 2 * groups :]).view(np.uint16))
