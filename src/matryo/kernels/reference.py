"""Every native operation in plain numpy: the specification, and the oracle of the kernel tests.

Same names, same argument order and same results as `matryo._native`, up to the rounding of sums:
here an operation computes in float64 and rounds once, there in float32 in a fixed order. A `layer`
is `matryo.kernels.layer.Layer`, a `table` is `matryo.kernels.reference_pages.PageTable`. Nothing is
checked: arguments are trusted inside the package.

T tokens · d model · A altup streams · P per-layer dim · F ffn units · V vocab
H query heads · K kv heads · Dh head dim
Source: docs/architecture.md sections 2 and 4; transformers `modeling_gemma3n.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from matryo.kernels.layer import Layer, Matrix, required
from matryo.kernels.reference_pack import pack, unpack
from matryo.kernels.reference_pages import PageTable, attend, write_rows

__all__ = [
    "PageTable", "advise_rows", "altup_correct", "altup_expand", "altup_merge", "altup_predict",
    "argmax", "attend", "attention", "feed_forward", "gather", "layer_handle", "logits", "matmul",
    "matmul_group", "pack", "ple_combine", "rms_norm", "sparse_ffn", "top_k", "unpack", "write_kv",
]  # fmt: skip

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I32 = npt.NDArray[np.int32]
Real = npt.NDArray[np.floating]

GROUP = 32
_MAGNITUDE_FLOOR = 1e-5  # of a mean square, before the root
_SMALLEST_ABSMAX = 2.0**-100  # below it a group of activations counts as zero


def layer_handle(layer: Layer) -> Layer:
    """What the blocks take for `layer`: itself."""
    return layer


def dense(matrix: Matrix) -> F64:
    """The stored weights (rows, cols) as float64."""
    out = np.empty((matrix.rows, matrix.cols), np.float32)
    unpack(matrix, out)
    return out.astype(np.float64)


def matmul(w: Matrix, x: F32, out: F32) -> None:
    """out (T, R) = x (T, C) · wᵀ.

    Against q8 and q4 the activations are quantised in groups of 32 columns.
    """
    out[...] = _product(w, x)


def matmul_group(ws: Sequence[Matrix], x: F32, outs: Sequence[F32]) -> None:
    """Several products of one input: outs[i] (T, R_i) = x · ws[i]ᵀ."""
    for w, out in zip(ws, outs, strict=True):
        matmul(w, x, out)


def gather(w: Matrix, ids: I32, scale: float, out: F32) -> None:
    """out (T, C) = rows `ids` of w, times scale."""
    out[...] = dense(w)[ids] * scale


def advise_rows(w: Matrix, ids: I32) -> None:
    """Tells the system that rows `ids` of a mapped table are needed soon. Nothing to do here."""


def rms_norm(x: F32, weight: F32 | None, eps: float, out: F32) -> None:
    """out (T, n) = x / sqrt(mean(x²) + eps), times weight (n) if there is one."""
    out[...] = _rms(x, weight, eps)


def altup_expand(e: F32, y: F32) -> None:
    """Rescales the projections y (A-1, T, d), in place, to the magnitude of the embeddings e."""
    y[...] = _rescaled(e, y)


def altup_merge(x: F32, y: F32, weight: F32, eps: float, out: F32) -> None:
    """Merges the streams into out (T, d).

    x (A, T, d) · y (A-1, T, d) the unembedded others · weight (d) the final norm
    """
    streams = np.concatenate([x[:1].astype(np.float64), _rescaled(x[0], y)])
    out[...] = _rms(streams.mean(axis=0), weight, eps)


def ple_combine(projection: F32, raw: F32, weight: F32, eps: float, out: F32) -> None:
    """out (T, n·P) = (rms(projection, slot by slot) + raw) / sqrt 2, weight (P)."""
    slots = projection.reshape(len(projection), -1, len(weight))
    out[...] = (_rms(slots, weight, eps).reshape(projection.shape) + raw) / math.sqrt(2.0)


def logits(head: Matrix, hidden: F32, softcap: float, out: F32) -> None:
    """out (T, V) = softcap · tanh(hidden (T, d) · headᵀ / softcap); softcap 0: the product."""
    product = _product(head, hidden)
    out[...] = softcap * np.tanh(product / softcap) if softcap else product


def top_k(values: F32, k: int) -> tuple[I32, F32]:
    """Ids and values of the k largest of values (V,), largest first, equals by ascending id."""
    ids = np.argsort(-values, kind="stable")[:k].astype(np.int32)
    return ids, values[ids]


def argmax(values: F32) -> int:
    """The id of the largest of values (V,), the lowest of equal ones."""
    return int(np.argmax(values))


def altup_predict(layer: Layer, x: F32, predictions: F32, normed: F32) -> None:
    """predictions (A, T, d) from the streams x (A, T, d).

    normed (T, d) is the input norm of predictions[0].
    """
    route = _router(layer, x[0])
    num_streams = len(x)
    # Row A·i + j of the coefficients mixes input stream j into output stream i.
    mix = (route @ layer.prediction_coefs.astype(np.float64).T).reshape(
        -1, num_streams, num_streams
    )
    predictions[...] = x + np.einsum("tij,jtd->itd", mix, x.astype(np.float64))
    normed[...] = _rms(predictions[0], layer.input_norm, layer.eps)


def attention(
    layer: Layer, normed: F32, active: F32, table: PageTable, sequences: I32, positions: I32,
    cos: F32, sin: F32, write_kv: bool, hidden: F32,
) -> None:  # fmt: skip
    """hidden (T, d) = ((active + rms(attention)) + laurel) / sqrt 2.

    normed, active (T, d) · sequences, positions (T,) · cos, sin (T, Dh/2). Owners first write K/V
    if `write_kv`. Row i sees the keys of its own sequence up to its position, as many as the
    window of the table allows. q·k is scaled by 1.
    """
    if write_kv:
        _write_kv(layer, normed, table, sequences, positions, cos, sin)
    heads = _heads(_product(layer.q, normed), layer.num_heads)
    queries = _rotated(_rms(heads, layer.q_norm, layer.eps), cos, sin).astype(np.float32)
    mixed = np.empty_like(queries)
    attend(queries, table, sequences, positions, mixed)
    projected = _product(layer.o, mixed.reshape(len(normed), -1))
    laurel = _product(layer.laurel_right, _product(layer.laurel_left, normed).astype(np.float32))
    laurel = normed + _rms(laurel, layer.post_laurel_norm, layer.eps)
    residual = active + _rms(projected, layer.post_attention_norm, layer.eps)
    hidden[...] = (residual + laurel) / math.sqrt(2.0)


def write_kv(
    layer: Layer, normed: F32, table: PageTable, sequences: I32, positions: I32, cos: F32, sin: F32
) -> None:
    """Only the K/V part of `attention`, for positions that no later layer needs."""
    _write_kv(layer, normed, table, sequences, positions, cos, sin)


def _write_kv(
    layer: Layer, normed: F32, table: PageTable, sequences: I32, positions: I32, cos: F32, sin: F32
) -> None:
    keys = _heads(_product(required(layer.k), normed), layer.num_kv_heads)
    keys = _rotated(_rms(keys, layer.k_norm, layer.eps), cos, sin)
    values = _rms(_heads(_product(required(layer.v), normed), layer.num_kv_heads), None, layer.eps)
    write_rows(table, sequences, positions, keys.astype(np.float32), values.astype(np.float32))


def feed_forward(layer: Layer, hidden: F32, width: int, out: F32) -> None:
    """out (T, d) = hidden + rms(ffn(rms(hidden))) over the first `width` units of all segments."""
    x = _rms(hidden, layer.pre_ffn_norm, layer.eps).astype(np.float32)
    total = sparse_ffn(layer, x, width) if layer.sparsity_z else _dense_ffn(layer, x, width)
    out[...] = hidden + _rms(total, layer.post_ffn_norm, layer.eps)


def _dense_ffn(layer: Layer, x: F32, width: int) -> F64:
    total = np.zeros(x.shape)
    for segment, units in layer.units(width):
        gate = x_product(segment.gate, x)[:, :units]
        active = (_gelu(gate) * x_product(segment.up, x)[:, :units]).astype(np.float32)
        total += _as_seen_by(segment.down, active) @ dense(segment.down)[:, :units].T
    return total


def sparse_ffn(layer: Layer, x: F32, width: int) -> F64:
    """The FFN of a layer whose gate is cut at mean + z·deviation over the units of the plan.

    Up and down are stored by rows. A kept gate is shifted by the cut; a cut unit contributes
    exactly 0, so its rows are not needed. x (T, d) normed -> (T, d).
    """
    parts = list(layer.units(width))
    gate = np.concatenate(
        [x_product(segment.gate, x)[:, :units] for segment, units in parts], axis=1
    )
    up = np.concatenate([x_product(segment.up, x)[:, :units] for segment, units in parts], axis=1)
    down = np.concatenate([dense(segment.down)[:units] for segment, units in parts])
    cut = gate.mean(axis=1, keepdims=True) + layer.sparsity_z * gate.std(axis=1, keepdims=True)
    active = (_gelu(np.maximum(gate - cut, 0.0)) * up).astype(np.float32).astype(np.float64)
    total: F64 = active @ down
    return total


def x_product(w: Matrix, x: F32) -> F64:
    """x · wᵀ rounded to float32, as one stage hands it to the next."""
    return _product(w, x).astype(np.float32).astype(np.float64)


def altup_correct(layer: Layer, predictions: F32, active_out: F32, ple_inputs: F32, x: F32) -> None:
    """Writes the streams x (A, T, d): predictions corrected, then the per-layer inputs added.

    active_out (T, d) is what the layer made of predictions[0]; ple_inputs (T, P). Stream 0 gets no
    per-layer input.
    """
    coefs = _router(layer, active_out) @ layer.correction_coefs.astype(np.float64).T + 1.0
    innovation = active_out.astype(np.float64) - predictions[0]
    corrected = predictions + coefs.T[:, :, None] * innovation
    scaled = (corrected[0] * layer.correct_output_scale).astype(np.float32)
    gate = (_gelu(x_product(layer.ple_gate, scaled)) * ple_inputs).astype(np.float32)
    corrected[1:] += _rms(_product(layer.ple_projection, gate), layer.post_ple_norm, layer.eps)
    x[...] = corrected


def _product(w: Matrix, x: F32) -> F64:
    result: F64 = _as_seen_by(w, x) @ dense(w).T
    return result


def _as_seen_by(w: Matrix, x: F32) -> F64:
    """The activations (T, C) as a product with `w` takes them.

    Quantised in groups of 32 columns for q8 and q4.
    """
    if w.kind not in ("q8", "q4"):
        return x.astype(np.float64)
    tokens, cols = x.shape
    groups = np.zeros((tokens, -(-cols // GROUP), GROUP), np.float32)
    groups.reshape(tokens, -1)[:, :cols] = x
    absmax = np.abs(groups).max(axis=2, keepdims=True)
    absmax[absmax < _SMALLEST_ABSMAX] = np.inf  # quantises to zeros
    q = np.rint(groups * (np.float32(127.0) / absmax))
    scale = np.where(np.isinf(absmax), np.float32(0.0), absmax / np.float32(127.0))
    seen: F64 = (q.astype(np.float64) * scale).reshape(tokens, -1)[:, :cols]
    return seen


def _rms(x: Real, weight: F32 | None, eps: float) -> F64:
    wide = x.astype(np.float64)
    normed: F64 = wide / np.sqrt(np.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return normed if weight is None else normed * weight


def _rescaled(target: F32, y: F32) -> F64:
    """y (n, T, d) with the root mean square of target (T, d)."""
    wide = y.astype(np.float64)
    magnitude = np.sqrt(np.mean(np.square(target, dtype=np.float64), axis=-1, keepdims=True))
    own = np.mean(wide * wide, axis=-1, keepdims=True)
    scaled: F64 = wide * magnitude / np.sqrt(np.maximum(own, _MAGNITUDE_FLOOR))
    return scaled


def _router(layer: Layer, x: F32) -> F64:
    normed = _rms(x, layer.router_norm, layer.eps) / x.shape[-1]
    route: F64 = np.tanh(normed @ layer.router.astype(np.float64).T)
    return route


def _heads(x: F64, num_heads: int) -> F64:
    return x.reshape(len(x), num_heads, -1)


def _rotated(x: F64, cos: F32, sin: F32) -> F64:
    """x (T, heads, Dh) rotated: a head is its real parts, then its imaginary ones."""
    first, second = np.split(x, 2, axis=-1)
    c, s = cos[:, None, :], sin[:, None, :]
    return np.concatenate([first * c - second * s, second * c + first * s], axis=-1)


def _gelu(x: F64) -> F64:
    """GELU in its tanh form."""
    value: F64 = 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    return value
