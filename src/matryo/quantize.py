"""Float weights to kernel layouts and back, and which tensor gets which kind.

In: float32 matrices. Out: arrays of docs/architecture.md section 2, made by the native packer.
`unpack` is the exact inverse of what a kernel reads, for tests and reports.

Policy. `q4` stores what is large and read in full for every token at 4 bits; the projections
through narrow places (LAuReL, per-layer embeddings, AltUp) are 1-3 % of the bytes and stay at 8
bits, because an error there is not averaged out. The figures behind this are in
docs/quantisation.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.errors import ConfigError
from matryo.kernels.reference_dense import pack_i8, panel_bytes

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]

PANEL, GROUP = 16, 32
WEIGHTS = ("f32", "bf16", "q8", "q4")
_NARROW = (
    "laurel_left", "laurel_right", "ple_gate", "ple_projection", "ple_model_projection",
    "altup_projection", "altup_unembed",
)  # fmt: skip
_LARGE = ("embed", "ple", "q", "k", "v", "o", "gate", "up", "down")

# weights -> family of tensors -> kind
KIND_POLICY: Mapping[str, Mapping[str, str]] = {
    weights: dict.fromkeys(_LARGE, weights)
    | dict.fromkeys(_NARROW, "q8" if weights == "q4" else weights)
    for weights in WEIGHTS
}


def family(name: str) -> str:
    """The policy's word for a packed matrix: `layers.3.ffn.0.gate` -> `gate`, `ple.0` -> `ple`."""
    return next(part for part in reversed(name.split(".")) if not part.isdigit())


def kind_of(name: str, weights: str) -> str:
    """The kind a packed matrix is stored as. Raises ConfigError for unknown `weights`."""
    if weights not in KIND_POLICY:
        raise ConfigError(f"weights is {weights!r}; allowed: {', '.join(WEIGHTS)}")
    return KIND_POLICY[weights][family(name)]


def stored_as(kind: str, layout: str, rows: int, cols: int) -> tuple[str, tuple[int, ...]]:
    """Safetensors dtype and shape of a matrix in `layout`; see docs/architecture.md section 2."""
    groups = -(-cols // GROUP)
    pieces = -(-rows // PANEL) if layout == "panel" else rows
    match kind, layout:
        case "f32", "panel":
            return "F32", (pieces, groups * GROUP, PANEL)
        case "bf16", "panel":
            return "BF16", (pieces, groups * GROUP // 2, PANEL, 2)
        case "q8", "panel":
            return "U8", (pieces, groups, 544)
        case "q4", "panel":
            return "U8", (pieces, groups, 288)
        case "i8", "panel":
            return "U8", (pieces, panel_bytes(cols))
        case "f32", "rows":
            return "F32", (pieces, groups * GROUP)
        case "bf16", "rows":
            return "BF16", (pieces, groups * GROUP)
        case "q8", "rows":
            return "U8", (pieces, groups * 34)
        case "q4", "rows":
            return "U8", (pieces, groups * 18)
    raise ConfigError(f"no storage for kind {kind!r} in layout {layout!r}")


def empty(kind: str, layout: str, rows: int, cols: int) -> Array:
    """An uninitialised array for `pack` to fill."""
    dtype, shape = stored_as(kind, layout, rows, cols)
    return np.empty(shape, {"F32": np.float32, "BF16": np.uint16, "U8": np.uint8}[dtype])


def pack(kind: str, layout: str, dense: F32) -> Array:
    """dense (R, C) float32 -> stored array.

    Raises ValueError naming the first weight that is not finite.
    """
    from matryo import kernels

    if kind == "i8":
        return pack_i8(dense)
    out = empty(kind, layout, *dense.shape)
    kernels.pack(kind, layout, np.ascontiguousarray(dense), out)
    return out


def unpack(kind: str, layout: str, rows: int, cols: int, stored: Array) -> F32:
    """The float32 matrix (rows, cols) that a kernel computes with."""
    from matryo import kernels

    dense = np.empty((rows, cols), np.float32)
    kernels.unpack(kernels.Matrix(kind, layout, rows, cols, stored), dense)
    return dense
