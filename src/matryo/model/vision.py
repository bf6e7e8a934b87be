"""The picture encoder, MobileNet-V5: pixels -> features of a small grid, in the order of the
network.

In: one picture (3, H, W) float32 in [0, 1], of any size; a `VisionConfig` and prepared weights.
Out: (side², C) float32, row by row of the grid (256 features of 2048 numbers in Gemma 3n).

Stem, stages of blocks that each halve the picture, then the fusion: the last stage is enlarged to
the size of the stage before it, both go through one wide layer, and the result is pooled to the
grid. Activations are (H, W, C) from the stem to the grid, so that no operation rearranges them. A
convolution with a stride gives ceil(H / stride) rows: pictures are padded as TensorFlow's SAME
does.

Source: timm `mobilenetv5.py`, `_efficientnet_blocks.py`, `attention2d.py`; docs/pictures.md.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.errors import InputError, ShapeError
from matryo.model.vision_ops import VisionOps, native_ops
from matryo.model.vision_weights import (
    AttentionWeights,
    BlockWeights,
    BottleneckWeights,
    VisionWeights,
)
from matryo.tower_config import VisionConfig
from matryo.vision_structure import CHANNELS, KV_STRIDE

F32 = npt.NDArray[np.float32]

EPS = 1e-6  # of every norm here; the config's is that of the embedder
MAX_PIXELS = 4096 * 4096
_STEM_STRIDE = 2
_KEPT_BYTES = 64 << 20  # of scratch memory between pictures


class VisionEncoder:
    """Config, weights and kernels. Threads may share an encoder."""

    def __init__(
        self, config: VisionConfig, weights: VisionWeights, ops: VisionOps | None = None
    ) -> None:
        self.config = config
        self.weights = weights
        self._ops = native_ops() if ops is None else ops
        self._kept: list[_Scratch] = []  # of a small picture, for the next one; at most one

    def encode(self, pixels: F32) -> F32:
        """Features (side², C) of one picture: pixels (3, H, W) float32 from 0 to 1.

        Raises ShapeError for another shape or dtype, InputError for a value outside [0, 1] or more
        than MAX_PIXELS.
        """
        check_pixels(pixels)
        scratch = self._take_scratch()
        x = self._stem(pixels, scratch)
        *stages, last = self.weights.stages
        for stage in stages:
            x = self._stage(stage, x, scratch)
        fine = x.copy()  # the last stage writes over it
        fused = self._fusion(fine, self._stage(last, x, scratch), scratch)
        grid = _resized(fused, self.config.output_side)
        grid = np.ascontiguousarray(grid.reshape(-1, grid.shape[-1]))
        features = np.empty_like(grid)
        self._ops.rms_norm(grid, self.weights.final_norm, EPS, features)
        if scratch.num_bytes() <= _KEPT_BYTES:
            self._kept[:] = [scratch]
        return features

    def _take_scratch(self) -> _Scratch:
        try:
            return self._kept.pop()
        except IndexError:
            return _Scratch()

    def _stem(self, pixels: F32, scratch: _Scratch) -> F32:
        weights = self.weights
        picture = np.ascontiguousarray(pixels.transpose(1, 2, 0))
        out = scratch.output(*_strided(picture, _STEM_STRIDE), len(weights.stem_norm))
        self._ops.conv(
            weights.stem, picture, _STEM_STRIDE, out,
            bias=weights.stem_bias, norm=weights.stem_norm, eps=EPS, gelu=True,
        )  # fmt: skip
        return out

    def _stage(self, blocks: tuple[BlockWeights, ...], x: F32, scratch: _Scratch) -> F32:
        for block in blocks:
            if isinstance(block, AttentionWeights):
                x = self._attention(block, x, scratch)
            else:
                x = self._bottleneck(block, x, scratch)
        return x

    def _bottleneck(self, weights: BottleneckWeights, x: F32, scratch: _Scratch) -> F32:
        """[depthwise, norm]; widen, norm, GELU; [depthwise, norm, GELU]; back, norm, scale, add."""
        shape = weights.shape
        start, expand, middle = shape.strides
        residual = x if shape.skip else None
        if weights.start is not None:
            y = scratch.take("start", *_strided(x, start), shape.width_in)
            self._ops.depthwise(weights.start, x, start, y, norm=weights.start_norm, eps=EPS)
            x = y
        if shape.kernel == 1 and weights.middle is None:
            out = scratch.output(*x.shape[:2], shape.width)
            self._ops.inverted_bottleneck(
                weights.expand, weights.project, x, out, weights.expand_norm, weights.project_norm,
                EPS, gamma=weights.gamma, residual=residual,
            )  # fmt: skip
            return out
        wide = scratch.take("wide", *_strided(x, expand), shape.wide)
        self._ops.conv(
            weights.expand, x, expand, wide, norm=weights.expand_norm, eps=EPS, gelu=True
        )
        if weights.middle is not None:
            y = scratch.take("middle", *_strided(wide, middle), shape.wide)
            self._ops.depthwise(
                weights.middle, wide, middle, y, norm=weights.middle_norm, eps=EPS, gelu=True
            )
            wide = y
        out = scratch.output(*wide.shape[:2], shape.width)
        self._ops.conv(
            weights.project, wide, 1, out,
            norm=weights.project_norm, eps=EPS, gamma=weights.gamma, residual=residual,
        )  # fmt: skip
        return out

    def _attention(self, weights: AttentionWeights, x: F32, scratch: _Scratch) -> F32:
        """norm; queries of every pixel, keys and values of every (other) pixel; out, scale, add."""
        shape = weights.shape
        height, width, channels = x.shape
        y = scratch.take("start", height, width, channels)
        self._ops.rms_norm(_rows(x), weights.norm, EPS, _rows(y))
        q = scratch.take("query", height, width, shape.heads * shape.head_dim)
        self._ops.conv(weights.query, y, 1, q)
        keys = self._projected(
            "key", weights.key, weights.key_down, weights.key_down_norm, y, scratch
        )
        values = self._projected(
            "value", weights.value, weights.value_down, weights.value_down_norm, y, scratch
        )
        attended = scratch.take("attended", *q.shape)
        scale = 1.0 / math.sqrt(shape.head_dim)
        self._ops.attend_pixels(_rows(q), keys, values, shape.heads, scale, _rows(attended))
        out = scratch.output(height, width, channels)
        self._ops.conv(weights.output, attended, 1, out, gamma=weights.gamma, residual=x)
        return out

    def _projected(
        self, role: str, filter: Any, down: F32 | None, norm: F32 | None, y: F32, scratch: _Scratch
    ) -> F32:
        """Keys or values (M, head_dim): [depthwise with a stride, norm]; 1x1."""
        if down is not None:
            source = scratch.take("down", *_strided(y, KV_STRIDE), y.shape[2])
            self._ops.depthwise(down, y, KV_STRIDE, source, norm=norm, eps=EPS)
            y = source
        out = scratch.take(role, *y.shape[:2], filter.shape[0])
        self._ops.conv(filter, y, 1, out)
        return _rows(out)

    def _fusion(self, fine: F32, coarse: F32, scratch: _Scratch) -> F32:
        """Both stages side by side, the coarse one enlarged, through one wide layer.

        The coarse channels' part of the layer's products is computed before it is enlarged.
        """
        weights = self.weights.fusion
        sums = scratch.take("wide", *coarse.shape[:2], weights.coarse.shape[0])
        self._ops.conv(weights.coarse, coarse, 1, sums)
        out = scratch.output(*fine.shape[:2], weights.project.shape[0])
        self._ops.inverted_bottleneck(
            weights.fine, weights.project, fine, out, weights.expand_norm, weights.project_norm,
            EPS, gamma=weights.gamma, coarse=sums,
        )  # fmt: skip
        return out


class _Scratch:
    """Memory of one picture's activations at a time, used again by every block.

    Output buffers take turns, so a block's input is never its output; the others are named by role.
    """

    def __init__(self) -> None:
        self._memory: dict[str, F32] = {}
        self._turn = 0

    def num_bytes(self) -> int:
        return sum(memory.nbytes for memory in self._memory.values())

    def output(self, *shape: int) -> F32:
        self._turn = 1 - self._turn
        return self.take(f"output {self._turn}", *shape)

    def take(self, role: str, *shape: int) -> F32:
        size = math.prod(shape)
        memory = self._memory.get(role)
        if memory is None or memory.size < size:
            memory = self._memory[role] = np.empty(size, np.float32)
        return memory[:size].reshape(shape)


def check_pixels(pixels: F32) -> None:
    """Raises ShapeError or InputError unless these are pixels (3, H, W) float32 from 0 to 1."""
    expected = f"pixels: expected float32 ({CHANNELS}, height, width), "
    if not isinstance(pixels, np.ndarray):
        raise ShapeError(f"{expected}got {type(pixels).__name__}")
    if pixels.dtype != np.float32 or pixels.ndim != 3 or pixels.shape[0] != CHANNELS:
        raise ShapeError(f"{expected}got {pixels.dtype} {pixels.shape}")
    if 0 in pixels.shape:
        raise ShapeError(f"{expected}got no pixels: {pixels.shape}")
    if pixels[0].size > MAX_PIXELS:
        raise InputError(
            f"pixels: {pixels.shape[2]} x {pixels.shape[1]} are more than {MAX_PIXELS}; "
            "make the picture smaller"
        )
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0.0 and high <= 1.0):  # NaN compares as false
        raise InputError(
            f"pixels: expected numbers from 0 to 1, got {low:g} to {high:g}; divide bytes by 255"
        )


def _rows(x: F32) -> F32:
    return x.reshape(-1, x.shape[2])


def _strided(x: F32, stride: int) -> tuple[int, int]:
    """Height and width of what a convolution makes of x."""
    return -(-x.shape[0] // stride), -(-x.shape[1] // stride)


def _resized(x: F32, side: int) -> F32:
    """(H, W, C) -> (side, side, C): means of equal pieces, or bilinear if H or W has none."""
    height, width, channels = x.shape
    if height % side == 0 and width % side == 0:
        pieces = x.reshape(side, height // side, side, width // side, channels)
        pooled: F32 = pieces.mean(axis=(1, 3), dtype=np.float32)
        return pooled
    upper, lower, down = _between(height, side)
    left, right, across = _between(width, side)
    rows = x[upper] + (x[lower] - x[upper]) * down[:, None, None]
    mixed: F32 = rows[:, left] + (rows[:, right] - rows[:, left]) * across[:, None]
    return mixed


def _between(size: int, wanted: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], F32]:
    """For each of `wanted` places the two neighbours among `size`, and the weight of the second."""
    scale = np.float32(size) / np.float32(wanted)
    half = np.float32(0.5)
    centres = (np.arange(wanted, dtype=np.float32) + half) * scale - half
    centres = np.maximum(centres, 0, dtype=np.float32)
    first = centres.astype(np.intp)
    second = np.minimum(first + 1, size - 1)
    return first, second, (centres - first).astype(np.float32)
