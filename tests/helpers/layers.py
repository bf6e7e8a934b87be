"""Random decoder layers for block tests, and bounds on the error of a float32 block.

d model · A altup streams · P per-layer dim · F ffn units
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from helpers.matrices import F32, F64, normal, product_limit, stored
from matryo.kernels import reference
from matryo.kernels.layer import Layer, Segment

STREAMS, RANK, HEADS, KV_HEADS, HEAD_DIM = 4, 8, 4, 2, 16
NORMS = (
    "router_norm", "input_norm", "post_attention_norm", "pre_ffn_norm", "post_ffn_norm",
    "post_ple_norm", "post_laurel_norm",
)  # fmt: skip
ROUNDING = 2.0**-21  # relative, of a norm or an activation function: a handful of float32 roundings


def random_layer(
    rng: np.random.Generator, kind: str = "f32", *, d: int = 64, ple: int = 32,
    units: Sequence[int] = (64,), sparsity_z: float = 0.0,
) -> Layer:  # fmt: skip
    """An owner layer with segments of `units`; weights so large that every non-linearity acts."""
    weights: dict[str, Any] = {
        name: stored(kind, "panel", _weights(rng, *size)) for name, size in _sizes(d, ple).items()
    }
    weights |= {name: 1.0 + 0.3 * normal(rng, d) for name in NORMS}
    weights |= {name: 1.0 + 0.3 * normal(rng, HEAD_DIM) for name in ("q_norm", "k_norm")}
    return Layer(
        **weights,
        router=np.float32(np.sqrt(d)) * normal(rng, STREAMS, d),
        prediction_coefs=np.float32(0.3) * normal(rng, STREAMS * STREAMS, STREAMS),
        correction_coefs=np.float32(0.3) * normal(rng, STREAMS, STREAMS),
        correct_output_scale=1.0 + 0.3 * normal(rng, d),
        segments=tuple(_segment(rng, kind, d, count, sparse=sparsity_z != 0.0) for count in units),
        num_heads=HEADS,
        num_kv_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        eps=1e-6,
        sparsity_z=sparsity_z,
    )


def _sizes(d: int, ple: int) -> dict[str, tuple[int, int]]:
    queries, keys = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    return {
        "q": (queries, d), "k": (keys, d), "v": (keys, d), "o": (d, queries),
        "laurel_left": (RANK, d), "laurel_right": (d, RANK),
        "ple_gate": (ple, d), "ple_projection": (d, ple), "ple_model_projection": (ple, d),
    }  # fmt: skip


def _weights(rng: np.random.Generator, rows: int, cols: int) -> F32:
    return np.float32(1.5 / np.sqrt(max(cols, 1))) * normal(rng, rows, cols)


def _segment(rng: np.random.Generator, kind: str, d: int, units: int, sparse: bool) -> Segment:
    gate, up, down = (_weights(rng, units, d) for _ in range(3))
    if sparse:
        return Segment(
            stored(kind, "panel", gate), stored(kind, "rows", up), stored(kind, "rows", down)
        )
    return Segment(
        stored(kind, "panel", gate),
        stored(kind, "panel", up),
        stored(kind, "panel", np.ascontiguousarray(down.T)),
    )


def product_error(kind: str, weights: F64, x: F64, error: F64) -> F64:
    """A bound on the error of a product of weights (R, C) with x (T, C) known within `error`."""
    limit: F64 = product_limit(weights, x) + seen_error(kind, x, error) @ np.abs(weights).T
    return limit


def seen_error(kind: str, x: F64, error: F64) -> F64:
    """What an error of x (T, C) becomes when a product with a matrix of this kind quantises it.

    A value moves by a whole step if it lies within its error of the middle between two steps, and
    the step of a group moves with the largest value.
    """
    if kind not in ("q8", "q4"):
        return error
    tokens, cols = x.shape
    padding = ((0, 0), (0, -cols % 32))
    groups, errors = (np.pad(a, padding).reshape(tokens, -1, 32) for a in (x, error))
    largest = np.abs(groups).max(axis=2, keepdims=True)
    step = np.maximum(largest, 1e-30) / 127.0
    moved = errors + errors.max(axis=2, keepdims=True) + ROUNDING * largest
    from_middle = np.abs(np.abs(groups / step - np.rint(groups / step)) - 0.5)
    seen: F64 = (moved + step * (from_middle <= moved / step)).reshape(tokens, -1)[:, :cols]
    return seen


def norm_error(x: F64, error: F64, weight: F32, eps: float) -> F64:
    """A bound on the error of rms(x) · weight for x (T, n) within `error`."""
    mean = np.mean(x * x, axis=-1, keepdims=True) + eps
    moved = np.sqrt(np.mean(error * error, axis=-1, keepdims=True) / mean)
    limit: F64 = (
        np.abs(weight) / np.sqrt(mean) * (1.1 * error + np.abs(x) * (1.1 * moved + ROUNDING))
    )
    return limit


def gelu(x: F64) -> F64:
    """The tanh form, as the reference has it; its slope is at most 1.13."""
    result: F64 = reference._gelu(x)
    return result
