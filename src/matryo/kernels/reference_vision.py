"""The operations of the vision encoder in plain numpy: their specification, and the oracle of the
kernel tests.

In: activations (H, W, C) float32, C-contiguous, one picture at a time; a `Filter` for each dense
convolution. Out: the same numbers as `matryo.kernels.vision`, up to the rounding of sums: here
everything is float64 and rounded once. Nothing is checked: arguments are trusted inside the
package.

int8: weights are `scale · q` per output channel, q in [-127, 127], and so that any four of them
whose products are added in 16 bits fit (`quantize_filter`; other weights give the same exact sums,
more slowly). Activations are quantised for each row of the product, that is for each output pixel
over all the input values it reads and zero: `scale = (max - min)/150`, `code = rint(x/scale) +
zero` in [0, 150] with `zero = rint(-min/scale)`, in float32, ties to even. One-sided values, as
GELU leaves them, thus keep nearly eight bits. Integer sums are exact; the result is `float(Σ (code
- zero)·q)·(scale·w_scale)`.

int16: weights are `scale · q` per output channel, and a channel's |q| add up to at most 2**20
(`quantize_finely`). Activations have one scale a row again, `scale = max |x| / 2047`, codes in
[-2047, 2047]: sums fit 32 bits and are exact, and the noise is a thousandth of int8's.

Source: docs/pictures.md; timm `mobilenetv5`; padding as TensorFlow's SAME.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from matryo.kernels.reference import rms_norm as rms_norm
from matryo.kernels.reference_pack import bf16_values

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int8]
I16 = npt.NDArray[np.int16]
U16 = npt.NDArray[np.uint16]

_SMALLEST_RANGE = 2.0**-100  # a row of activations with a smaller range counts as zero
_MOST_CODE = 150
_MOST_WORD = 2047  # of a pixel of an int16 product
_MOST_WEIGHTS = 1 << 20  # of a channel's int16 weights together, without their signs
_MOST_FOUR = 216  # of four weights of one sign before rounding; 218 after it, 150 · 218 < 2**15


class Filter:
    """The weights of a dense convolution, (Co, kh, kw, Ci): float32, bf16 as uint16 (which become
    float32), or int8 or int16 with a float32 scale per output channel.
    """

    def __init__(self, weights: F32 | U16 | I8 | I16, scales: F32 | None = None) -> None:
        self.weights: F32 | I8 | I16 = (
            bf16_values(cast(U16, weights)) if weights.dtype == np.uint16 else cast(F32, weights)
        )
        self.scales = scales

    @property
    def kind(self) -> str:
        """`f32`, `i8` or `i16`."""
        return {4: "f32", 2: "i16", 1: "i8"}[self.weights.itemsize]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(Co, kh, kw, Ci)."""
        co, kh, kw, ci = self.weights.shape
        return co, kh, kw, ci

    @property
    def nbytes(self) -> int:
        """Bytes of the weights and scales."""
        return self.weights.nbytes + (0 if self.scales is None else self.scales.nbytes)


def quantize_filter(weights: F32) -> tuple[I8, F32]:
    """int8 weights of the same shape, and scales (Co,), from float32 weights (Co, ...).

    A channel's scale is absmax/127, or a little more where the positive or the negative ones among
    weights 8g + {0, 1, 4, 5} or 8g + {2, 3, 6, 7} would add up to more than 216 steps.
    """
    rows = weights.reshape(len(weights), -1)
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8)))
    positive = np.maximum(padded, 0)
    most = np.zeros(len(rows), np.float32)
    for part in (positive, positive - padded):
        for four in ((0, 1, 4, 5), (2, 3, 6, 7)):
            sums = sum(part[:, i::8] for i in four)
            most = np.maximum(most, np.max(sums, axis=1))
    most /= np.float32(_MOST_FOUR)
    scales = np.maximum(np.abs(rows).max(axis=1) / np.float32(127.0), most)
    steps = np.where(scales > 0, scales, np.float32(1.0))[:, None]
    return np.rint(rows / steps).astype(np.int8).reshape(weights.shape), scales


def quantize_finely(weights: F32) -> tuple[I16, F32]:
    """int16 weights of the same shape, and scales (Co,), from float32 weights (Co, ...).

    A channel's scale is absmax/32767, or more where its weights would add up to too much.
    """
    rows = np.abs(weights.reshape(len(weights), -1))
    # Rounding adds at most half a step a weight.
    most = rows.sum(axis=1, dtype=np.float64) / (_MOST_WEIGHTS - rows.shape[1] / 2)
    scales = np.maximum(rows.max(axis=1) / 32767.0, most).astype(np.float32)
    steps = np.where(scales > 0, scales, np.float32(1.0)).reshape(-1, *[1] * (weights.ndim - 1))
    return np.rint(weights / steps).astype(np.int16), scales


def conv(
    filter: Filter,
    x: F32,
    stride: int,
    out: F32,
    bias: F32 | None = None,
    norm: F32 | None = None,
    eps: float = 1e-6,
    gelu: bool = False,
    gamma: F32 | None = None,
    residual: F32 | None = None,
) -> None:
    """out (H', W', Co) = x (H, W, Ci) convolved, H' = ceil(H / stride).

    Then, in this order and each left out if None: + bias (Co,), RMS norm times norm (Co,), GELU,
    · gamma (Co,), + residual (H', W', Co).
    """
    y = _product(filter, _patches(x, filter.shape[1:3], stride))
    out[...] = _finish(y, bias, norm, eps, gelu, gamma, residual)


def depthwise(
    weight: F32,
    x: F32,
    stride: int,
    out: F32,
    norm: F32 | None = None,
    eps: float = 1e-6,
    gelu: bool = False,
) -> None:
    """out (H', W', C): each channel of x (H, W, C) has its own k x k of weight (k, k, C).

    Then RMS norm times norm (C,), GELU.
    """
    patches = _patches(x.astype(np.float64), weight.shape[:2], stride)
    y = np.einsum("hwijc,ijc->hwc", patches, weight.astype(np.float64))
    out[...] = _finish(y, None, norm, eps, gelu, None, None)


def inverted_bottleneck(
    expand: Filter,
    project: Filter,
    x: F32,
    out: F32,
    norm_expand: F32,
    norm_project: F32,
    eps: float,
    gamma: F32 | None = None,
    residual: F32 | None = None,
    coarse: F32 | None = None,
) -> None:
    """out (H, W, Co) from x (H, W, Ci): two pointwise convolutions with a wide middle.

    The first with + coarse (h, w, wide) enlarged to (H, W) by nearest neighbours, norm and GELU;
    the second with norm, · gamma, + residual (H, W, Co).
    """
    sums = _product(expand, _patches(x, (1, 1), 1))
    if coarse is not None:
        rows, columns = (_nearest(*sizes) for sizes in zip(coarse.shape, x.shape[:2], strict=False))
        sums += coarse[rows][:, columns]
    wide = _finish(sums, None, norm_expand, eps, True, None, None).astype(np.float32)
    conv(project, wide, 1, out, None, norm_project, eps, False, gamma, residual)


def attend_pixels(q: F32, k: F32, v: F32, heads: int, scale: float, out: F32) -> None:
    """out (N, heads·kd): softmax(scale · q kᵀ) v for q (N, heads·kd); all share k, v (M, kd)."""
    queries = q.reshape(len(q), heads, -1).astype(np.float64)
    scores = queries @ k.T.astype(np.float64) * scale
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    out[...] = (weights @ v.astype(np.float64)).reshape(out.shape)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis of `size` so that it gives ceil(size / stride) outputs; the
    odd one goes after.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _nearest(size: int, wanted: int) -> npt.NDArray[np.intp]:
    """For each of `wanted` places the nearest of `size`, rounded as the reference does."""
    scale = np.float32(size) / np.float32(wanted)
    places = np.floor(np.arange(wanted, dtype=np.float32) * scale).astype(np.intp)
    nearest: npt.NDArray[np.intp] = np.minimum(places, size - 1)
    return nearest


def _patches(x: npt.NDArray[Any], kernel: tuple[int, int], stride: int) -> npt.NDArray[Any]:
    """A view (H', W', kh, kw, C) of the zero-padded input: what each output pixel reads."""
    pad = [same_padding(size, side, stride) for size, side in zip(x.shape[:2], kernel, strict=True)]
    padded = np.pad(x, [*pad, (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(0, 1))
    return windows[::stride, ::stride].transpose(0, 1, 3, 4, 2)


def _product(filter: Filter, patches: F32) -> F64:
    """(H', W', Co): one dot product for each output pixel and channel."""
    height, width = patches.shape[:2]
    rows = patches.reshape(height * width, -1)
    weights = filter.weights.reshape(filter.shape[0], -1).astype(np.float64)
    if filter.scales is None:
        y = rows.astype(np.float64) @ weights.T
    else:
        quantize = quantize_rows_finely if filter.kind == "i16" else quantize_rows
        codes, zeros, steps = quantize(rows)
        sums = (codes - zeros[:, None]).astype(np.float64) @ weights.T  # exact below 2**53
        y = sums * (steps[:, None] * filter.scales)
    return y.reshape(height, width, -1)


def quantize_rows(rows: F32) -> tuple[F32, F32, F32]:
    """Codes (N, K) of the values, zeros (N,) and steps (N,): values = steps · (codes - zeros)."""
    low = np.minimum(rows.min(axis=1), np.float32(0.0))
    width = np.maximum(rows.max(axis=1), np.float32(0.0)) - low
    width = np.where(width < _SMALLEST_RANGE, np.float32(0.0), width)
    inverse = np.float32(_MOST_CODE) / np.where(width > 0, width, np.float32(np.inf))
    zeros = np.rint(-low * inverse)
    codes = np.clip(np.rint(rows * inverse[:, None]) + zeros[:, None], 0, _MOST_CODE)
    steps: F32 = (width / np.float32(_MOST_CODE)).astype(np.float32)
    return codes, zeros, steps


def quantize_rows_finely(rows: F32) -> tuple[F32, F32, F32]:
    """As `quantize_rows`, for int16 weights; zeros are 0."""
    most = np.abs(rows).max(axis=1)
    most = np.where(most < _SMALLEST_RANGE, np.float32(0.0), most)
    inverse = np.float32(_MOST_WORD) / np.where(most > 0, most, np.float32(np.inf))
    codes = np.clip(np.rint(rows * inverse[:, None]), -_MOST_WORD, _MOST_WORD)
    steps: F32 = (most / np.float32(_MOST_WORD)).astype(np.float32)
    return codes, np.zeros(len(rows), np.float32), steps


def _finish(
    y: F64,
    bias: F32 | None,
    norm: F32 | None,
    eps: float,
    gelu: bool,
    gamma: F32 | None,
    residual: F32 | None,
) -> F64:
    if bias is not None:
        y = y + bias
    if norm is not None:
        y = y / np.sqrt(np.mean(y * y, axis=-1, keepdims=True) + eps) * norm
    if gelu:
        y = 0.5 * y * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (y + 0.044715 * y**3)))
    if gamma is not None:
        y = y * gamma
    return y if residual is None else y + residual
