"""The operations of the sound encoder in plain numpy: their specification, and the oracle of the
kernel tests.

Same names, argument order and results as `matryo.kernels.audio`, up to the rounding of sums: here
everything is float64 and rounded once. Nothing is checked: arguments are trusted inside the
package. Rows are frames, 40 ms each (20 ms in the first half of the stem).

T frames · d width · F ffn units · H heads · Dh head dim · P past frames · K taps · M values a frame
Source: docs/sound.md; transformers `modeling_gemma3n.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from matryo.kernels.reference import rms_norm
from matryo.kernels.reference_dense import AnyDenseMatrix, DenseMatrix, dense_product

__all__ = [
    "DenseMatrix", "audio_add", "audio_attend", "audio_feed_forward", "audio_group_norm",
    "audio_light_conv", "audio_project", "audio_stem_conv",
]  # fmt: skip

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]


def audio_group_norm(x: F32, weight: F32, sums: F64, eps: float, out: F32) -> None:
    """out (T, M) = max(0, (x - mean) / sqrt(variance + eps) · weight), over all frames so far.

    x (T, M) · weight (M) · sums (3): frames, sum of values, sum of squared deviations, all since
    the sound began; updated. Each past frame deviates from the mean that held when it came.
    """
    size = x.shape[1]
    for row, result in zip(x.astype(np.float64), out, strict=True):
        sums[0] += 1
        sums[1] += row.sum()
        mean = sums[1] / (sums[0] * size)
        sums[2] += np.square(row - mean).sum()
        deviation = np.sqrt(sums[2] / (sums[0] * size) + eps)
        result[...] = np.maximum(0.0, (row - mean) / deviation * weight)


def audio_feed_forward(
    up: AnyDenseMatrix,
    down: AnyDenseMatrix,
    pre_norm: F32,
    post_norm: F32,
    end_norm: F32 | None,
    gain: float,
    clip: float,
    eps: float,
    x: F32,
    out: F32,
) -> None:
    """out (T, d) = x + gain · rms(clipped(down · silu(up · rms(clipped(x))))).

    Then rms(clipped(out); end_norm) of that if there is an end norm.
    up (F, d), down (d, F) · norms (d) · clipped: to -clip .. clip
    """
    hidden = dense_product(up, _clipped_norm(x, pre_norm, clip, eps)).astype(np.float32)
    total = dense_product(down, _silu(hidden.astype(np.float64)).astype(np.float32))
    added = _clipped_norm(total.astype(np.float32), post_norm, clip, eps)
    y = (x + gain * added.astype(np.float64)).astype(np.float32)
    out[...] = y if end_norm is None else _clipped_norm(y, end_norm, clip, eps)


def audio_project(
    ws: Sequence[AnyDenseMatrix],
    norm: F32 | None,
    clip: float,
    eps: float,
    x: F32,
    outs: Sequence[F32],
) -> None:
    """outs[i] (T, R_i) = ws[i] · rms(clipped(x); norm); of x (T, d) itself if norm is None."""
    rows = x if norm is None else _clipped_norm(x, norm, clip, eps)
    for w, out in zip(ws, outs, strict=True):
        out[...] = dense_product(w, rows)


def audio_add(
    w: AnyDenseMatrix,
    norm: F32 | None,
    clip: float,
    eps: float,
    x: F32,
    residual: F32,
    out: F32,
) -> None:
    """out (T, d) = residual + rms(clipped(w · x); norm); w · x itself if norm is None.

    w (d, C) · x (T, C)
    """
    product = dense_product(w, x).astype(np.float32)
    added = product if norm is None else _clipped_norm(product, norm, clip, eps)
    out[...] = residual + added


def audio_stem_conv(filter: AnyDenseMatrix, rows: F32, out: F32) -> None:
    """out (T, ceil(F / 2), C): a 3 x 3 filter with strides of two.

    filter (C, 9 · C_in) f32, columns ordered time, frequency, channel · rows (2 T + 1 or more, F,
    C_in), a zero on both sides of F
    """
    count, bins, channels = out.shape
    padded = np.pad(rows, ((0, 0), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
    windows = windows[: 2 * count : 2, ::2].transpose(0, 1, 3, 4, 2)
    patches = np.ascontiguousarray(windows).reshape(count * bins, filter.cols)
    out[...] = dense_product(filter, patches).reshape(count, bins, channels)


def audio_attend(
    q: F32, k: F32, v: F32, valid: U8, position: F32, scale: F32, cap: float, out: F32
) -> None:
    """Attention of each frame over itself and the P frames before it, head by head.

    q, out (T, H·Dh) · k, v (P + T, H·Dh): row P + t belongs to frame t · valid (P + T): 0 = unseen
    position (P + 1, H·Dh): row i is added to the key i frames back · scale (Dh) multiplies q
    Scores are cap · tanh(score / cap). A frame that sees nothing gets zeros.
    """
    past, size = len(position) - 1, len(scale)
    heads = (-1, q.shape[1] // size, size)
    queries = q.reshape(heads) * scale.astype(np.float64)
    keys, values, offsets = k.reshape(heads), v.reshape(heads), position.reshape(heads)
    for t, query in enumerate(queries):
        seen = slice(t, t + past + 1)
        score = np.einsum("hd,khd->hk", query, keys[seen] + offsets[::-1].astype(np.float64))
        score = np.where(valid[seen] != 0, cap * np.tanh(score / cap), -np.inf)
        highest = score.max(axis=1, keepdims=True)
        weight = np.exp(score - np.where(np.isfinite(highest), highest, 0.0))
        total = np.where(np.isfinite(highest), weight.sum(axis=1, keepdims=True), 1.0)
        out[t] = np.einsum("hk,khd->hd", weight / total, values[seen]).reshape(-1)


def audio_light_conv(
    gates: F32, past: F32, taps: F32, norm: F32, clip: float, eps: float, out: F32
) -> None:
    """out (T, d) = silu(rms(clipped(Σ_i taps[i] · z[t - K + 1 + i]) ; norm)), z = a · sigmoid(b).

    gates (T, 2 d): a, then b · past (K - 1, d): the z before frame 0, replaced by the last ones
    taps (K, d) · norm (d)
    """
    width, count = out.shape[1], len(taps)
    a, b = gates[:, :width].astype(np.float64), gates[:, width:].astype(np.float64)
    z = np.concatenate([past, (a * _sigmoid(b)).astype(np.float32)])
    total = np.zeros(out.shape)
    for i in range(count):
        total += taps[i].astype(np.float64) * z[i : i + len(out)]
    rms_norm(np.clip(total, -clip, clip).astype(np.float32), norm, eps, out)
    out[...] = _silu(out.astype(np.float64))
    past[...] = z[len(z) - (count - 1) :]


def _clipped_norm(x: F32, norm: F32, clip: float, eps: float) -> F32:
    out = np.empty_like(x)
    rms_norm(np.clip(x, -clip, clip), norm, eps, out)
    return out


def _sigmoid(x: F64) -> F64:
    return 1.0 / (1.0 + np.exp(-x))


def _silu(x: F64) -> F64:
    return x * _sigmoid(x)
