"""Random values, a chunk of rows at a time, and the formats derived from them.

In: a `TensorSpec` and a seed. Out: `chunks(...)` yields `Chunk`s whose `bf16` is uint16 (rows,
columns); `Chunk.q4_0` and `Chunk.q6_k` give the same values in ggml's blocks.
Q4_0: 32 values share one float16 scale d = extreme / -8 (the value of largest magnitude, with its
sign, becomes code 0), code = trunc(x / d + 8.5) capped at 15, low nibbles are values 0..15 and high
nibbles 16..31. Q6_K: 256 values share one float16 d, each 16 of them an int8 multiple of it; codes
of 6 bits, their low nibbles and high pairs stored apart. Its scales come from the extremes alone,
where llama-quantize searches for better ones: the same bytes and time, a little less exact.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from .shapes import TensorSpec

CHUNK_VALUES = 1 << 21
Q4_0_GROUP = 32
Q4_0_BYTES = 18
Q6_K_GROUP = 256
Q6_K_BYTES = 210


def to_bf16(values: np.ndarray) -> np.ndarray:
    """float32 -> uint16 bit patterns, rounded to nearest even; the values must be finite."""
    bits = values.view(np.uint32)
    odd = (bits >> 16) & 1
    return ((bits + 0x7FFF + odd) >> 16).astype(np.uint16)


def from_bf16(bits: np.ndarray) -> np.ndarray:
    """uint16 bit patterns -> float32, exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def quantize_q4_0(values: np.ndarray) -> np.ndarray:
    """float32 (rows, columns), columns a multiple of 32 -> uint8 (rows, columns / 32, 18)."""
    groups = values.reshape(-1, Q4_0_GROUP)
    high, low = groups.max(axis=1), groups.min(axis=1)
    scale = np.where(high > -low, high, low) / np.float32(-8)
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    codes = np.minimum((groups * inverse[:, None] + np.float32(8.5)).astype(np.uint8), 15)
    blocks = np.empty((len(groups), Q4_0_BYTES), dtype=np.uint8)
    blocks[:, :2] = scale.astype(np.float16).view(np.uint8).reshape(-1, 2)
    np.bitwise_or(codes[:, :16], codes[:, 16:] << 4, out=blocks[:, 2:])
    return blocks.reshape(len(values), -1, Q4_0_BYTES)


def quantize_q6_k(values: np.ndarray) -> np.ndarray:
    """float32 (rows, columns), columns a multiple of 256 -> uint8 (rows, columns / 256, 210)."""
    parts = values.reshape(-1, 16, 16)
    high, low = parts.max(axis=2), parts.min(axis=2)
    wanted = np.where(high > -low, high, low) / np.float32(-32)
    extreme = np.take_along_axis(wanted, np.abs(wanted).argmax(1)[:, None], 1)
    d = (extreme / np.float32(-128)).astype(np.float16)
    step = d.astype(np.float32)
    scales = np.divide(wanted, step, out=np.zeros_like(wanted), where=step != 0)
    scales = np.rint(scales).clip(-128, 127).astype(np.int8)
    unit = step * scales
    inverse = np.divide(1, unit, out=np.zeros_like(unit), where=unit != 0)
    codes = np.rint(parts * inverse[:, :, None]).clip(-32, 31).astype(np.int8)
    # Two halves of 128 codes, each four runs of 32.
    q = (codes + 32).view(np.uint8).reshape(-1, 2, 4, 32)
    blocks = np.empty((len(parts), Q6_K_BYTES), dtype=np.uint8)
    nibbles = (q[:, :, :2] & 15) | ((q[:, :, 2:] & 15) << 4)
    pairs = q >> 4
    blocks[:, :128] = nibbles.reshape(-1, 128)
    shifted = pairs[:, :, 0] | pairs[:, :, 1] << 2 | pairs[:, :, 2] << 4 | pairs[:, :, 3] << 6
    blocks[:, 128:192] = shifted.reshape(-1, 64)
    blocks[:, 192:208] = scales.view(np.uint8)
    blocks[:, 208:] = d.view(np.uint8)
    return blocks.reshape(len(values), -1, Q6_K_BYTES)


class Chunk:
    """Consecutive rows of one tensor: `start` is the first row, `bf16` uint16 (rows, columns)."""

    def __init__(self, start: int, bf16: np.ndarray) -> None:
        self.start = start
        self.bf16 = bf16

    @cached_property
    def f32(self) -> np.ndarray:
        return from_bf16(self.bf16)

    @cached_property
    def q4_0(self) -> np.ndarray:
        return quantize_q4_0(self.f32)

    @cached_property
    def q6_k(self) -> np.ndarray:
        return quantize_q6_k(self.f32)


def chunks(spec: TensorSpec, seed: int) -> Iterator[Chunk]:
    """The tensor's values in row order. They depend on the seed and the name only, not on the chunk
    size.
    """
    generator = np.random.Generator(np.random.SFC64([seed, zlib.crc32(spec.name.encode())]))
    step = max(1, CHUNK_VALUES // spec.columns)
    first_row: np.ndarray | None = None
    for start in range(0, spec.rows, step):
        rows = min(step, spec.rows - start)
        values = generator.standard_normal((rows, spec.columns), dtype=np.float32)
        values *= np.float32(spec.spread)
        values += np.float32(spec.mean)
        bits = to_bf16(values)
        if spec.name == "model.embed_tokens.weight":
            # Published checkpoints fill the multimodal rows with copies of the pad row.
            first_row = bits[0].copy() if first_row is None else first_row
            padding = np.arange(start, start + rows) >= spec.rows - 256
            bits[padding] = first_row
        yield Chunk(start, bits)
