"""The operations of the sound encoder in plain numpy: their specification, and the oracle of the
kernel tests.

Same names, argument order and results as `matryo.kernels.audio`, up to the rounding of sums: here
everything is float64 and rounded once. Nothing is checked: arguments are trusted inside the
package. Rows are frames, 40 ms each (20 ms in the first half of the stem).

T frames · d width · F ffn units · H heads · Dh head dim · P past frames · K taps · M values a frame
Source: docs/sound.md; transformers `modeling_gemma3n.py`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from matryo.kernels.layer import Matrix
from matryo.kernels.reference import matmul, matmul_group, rms_norm

__all__ = [
    "audio_attend", "audio_feed_forward", "audio_group_norm", "audio_light_conv", "matmul",
    "matmul_group", "rms_norm",
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
    up: Matrix,
    down: Matrix,
    pre_norm: F32,
    post_norm: F32,
    gain: float,
    clip: float,
    eps: float,
    x: F32,
    out: F32,
) -> None:
    """out (T, d) = x + gain · rms(clipped(down · silu(up · rms(clipped(x))))).

    up (F, d), down (d, F) panel · pre_norm, post_norm (d) · clipped: to -clip .. clip
    """
    normed, hidden = np.empty_like(x), np.empty((len(x), up.rows), np.float32)
    rms_norm(np.clip(x, -clip, clip), pre_norm, eps, normed)
    matmul(up, normed, hidden)
    total = np.empty_like(x)
    matmul(down, _silu(hidden.astype(np.float64)).astype(np.float32), total)
    rms_norm(np.clip(total, -clip, clip), post_norm, eps, total)
    out[...] = x + gain * total.astype(np.float64)


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


def _sigmoid(x: F64) -> F64:
    return 1.0 / (1.0 + np.exp(-x))


def _silu(x: F64) -> F64:
    return x * _sigmoid(x)
