"""One decoder layer's weights, as the blocks take them.

Matrices are packed (docs/architecture.md section 2), vectors are float32 arrays. Nothing here
computes.

d model · A altup streams · r laurel rank · P per-layer dim · F ffn units
H query heads · K kv heads · Dh head dim
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from matryo.errors import KernelError

F32 = npt.NDArray[np.float32]
_T = TypeVar("_T")

VECTORS = (
    "router_norm", "router", "prediction_coefs", "correction_coefs", "correct_output_scale",
    "input_norm", "post_attention_norm", "pre_ffn_norm", "post_ffn_norm", "post_ple_norm",
    "post_laurel_norm", "q_norm", "k_norm",
)  # fmt: skip
MATRICES = (
    "q", "k", "v", "o", "laurel_left", "laurel_right", "ple_gate", "ple_projection",
    "ple_model_projection",
)  # fmt: skip
OWNER_ONLY = frozenset({"k", "v", "k_norm"})


class Matrix(Protocol):
    """A stored matrix, native or plain: kind (f32 bf16 q8 q4), layout (panel rows), size, bytes."""

    @property
    def kind(self) -> str: ...
    @property
    def layout(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    @property
    def data(self) -> npt.NDArray[Any]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """The FFN units one shell adds to a layer.

    gate (F, d) panel; in dense layers up (F, d) and down (d, F) panel, in sparse ones both
    (F, d) rows, down transposed.
    """

    gate: Matrix
    up: Matrix
    down: Matrix

    @property
    def num_units(self) -> int:
        return self.gate.rows


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Layer:
    """k, v, k_norm are None in layers that read another layer's K/V. sparsity_z 0 = dense FFN."""

    router_norm: F32  # (d)
    router: F32  # (A, d)
    prediction_coefs: F32  # (A·A, A)
    correction_coefs: F32  # (A, A)
    correct_output_scale: F32  # (d)
    input_norm: F32  # (d)
    post_attention_norm: F32  # (d)
    pre_ffn_norm: F32  # (d)
    post_ffn_norm: F32  # (d)
    post_ple_norm: F32  # (d)
    post_laurel_norm: F32  # (d)
    q_norm: F32  # (Dh)
    k_norm: F32 | None  # (Dh)
    q: Matrix  # (H·Dh, d)
    k: Matrix | None  # (K·Dh, d)
    v: Matrix | None  # (K·Dh, d)
    o: Matrix  # (d, H·Dh)
    laurel_left: Matrix  # (r, d)
    laurel_right: Matrix  # (d, r)
    ple_gate: Matrix  # (P, d)
    ple_projection: Matrix  # (d, P)
    ple_model_projection: Matrix  # (P, d)
    segments: tuple[Segment, ...]
    num_heads: int
    num_kv_heads: int
    head_dim: int
    eps: float
    sparsity_z: float

    @property
    def num_units(self) -> int:
        """FFN units at hand, of all segments together."""
        return sum(segment.num_units for segment in self.segments)

    def units(self, width: int) -> Iterator[tuple[Segment, int]]:
        """The segments of the first `width` units, and how many units of each."""
        left = width
        for segment in self.segments:
            taken = min(left, segment.num_units)
            if taken:
                yield segment, taken
            left -= taken


def required(value: _T | None) -> _T:
    """Narrows a weight that only owner layers have. Raises KernelError for a reader layer."""
    if value is None:
        raise KernelError("this layer has no key/value weights: it reads those of an owner layer")
    return value
