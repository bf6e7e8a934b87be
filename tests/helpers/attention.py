"""Pages and layers for the attention tests, and tolerances that follow from the arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from helpers.matrices import F32, F64, normal, stored
from matryo import kernels
from matryo.kernels import reference_pages as pages
from matryo.kernels.layer import Layer, Matrix

I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]

EPSILON = 2.0**-24  # half a unit in the last place of float32, relative


@dataclass(frozen=True)
class Shape:
    """H query heads, K kv heads, Dh head dim."""

    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 32


class Tables:
    """The same pages, num_pages[i] of sequence i, as a native table and as its numpy twin."""

    def __init__(self, kind: str, shape: Shape, window: int, num_pages: Sequence[int]) -> None:
        arguments = (kind, shape.num_kv_heads, shape.head_dim, window)
        size = pages.page_bytes(kind, shape.num_kv_heads, shape.head_dim)
        self.pages = [[np.zeros(size, np.uint8) for _ in range(count)] for count in num_pages]
        singles, twins = [], []
        for own in self.pages:
            singles.append(kernels.PageTable(*arguments))
            singles[-1].set(own)
            twins.append(pages.PageTable(*arguments))
            twins[-1].set(own)
        self.native = kernels.PageTable.stack(singles) if len(singles) > 1 else singles[0]
        self.twin = pages.PageTable.stack(twins)

    def fill(self, rng: np.random.Generator, lengths: Sequence[int]) -> None:
        """Random keys and values at positions 0 .. lengths[i] - 1 of sequence i; rings wrap."""
        table = self.twin
        for sequence, length in enumerate(lengths):
            shape = (length, table.num_kv_heads, table.head_dim)
            keys, values = normal(rng, *shape) * np.float32(0.5), normal(rng, *shape)
            positions = np.arange(length, dtype=np.int32)
            pages.write_rows(table, np.full(length, sequence, np.int32), positions, keys, values)

    def copied(self) -> list[list[U8]]:
        return [[page.copy() for page in own] for own in self.pages]


def rows(*parts: tuple[int, int, int]) -> tuple[I32, I32]:
    """(sequences, positions) of parts (sequence, first position, count)."""
    sequences = np.concatenate([np.full(count, sequence, np.int32) for sequence, _, count in parts])
    positions = np.concatenate(
        [np.arange(first, first + count, dtype=np.int32) for _, first, count in parts]
    )
    return sequences, positions


def attend_limit(table: pages.PageTable, queries: F32, sequences: I32, positions: I32) -> F64:
    """A bound (T, H, Dh) on the rounding error of attention in float32.

    A score sums Dh products; its error e multiplies a weight by exp(±2e): its own and that of the
    largest. The argument of exp is rounded, exp itself is good to 2^-22, and every page may rescale
    once. Mixing n values and dividing by the sum of n weights rounds 2n times, each time by at most
    EPSILON of Σ w |v|.
    """
    limit = np.empty(queries.shape)
    heads_per_kv = queries.shape[1] // table.num_kv_heads
    for row, (sequence, position) in enumerate(
        zip(sequences.tolist(), positions.tolist(), strict=True)
    ):
        first = max(0, position - table.window + 1) if table.window else 0
        keys, values = pages._read(table, sequence, first, position + 1)
        for head in range(queries.shape[1]):
            kv, query = head // heads_per_kv, queries[row, head].astype(np.float64)
            scores = keys[kv] @ query
            error = EPSILON * (table.head_dim + 4) * (np.abs(keys[kv]) @ np.abs(query)).max()
            spread = min(float(scores.max() - scores.min()), 88.0)
            num_keys, num_pages = len(scores), len(scores) // pages.PAGE + 2
            relative = 4 * error + EPSILON * (2 * spread + 8 * num_pages + 2 * num_keys + 8)
            weights = np.exp(scores - scores.max())
            limit[row, head] = relative * ((weights / weights.sum()) @ np.abs(values[kv])) + 1e-30
    return limit


def angles(positions: I32, head_dim: int) -> tuple[F32, F32]:
    """cos and sin (T, Dh/2)."""
    frequencies = 1e4 ** (-np.arange(head_dim // 2) / (head_dim // 2))
    angle = positions[:, None] * frequencies
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def random_layer(
    rng: np.random.Generator,
    kind: str,
    shape: Shape,
    hidden_size: int = 64,
    rank: int = 24,
    reader: bool = False,
) -> Layer:
    """A layer whose attention part is random; the rest only satisfies the shape checks."""
    d, queries, keys = (
        hidden_size,
        shape.num_heads * shape.head_dim,
        shape.num_kv_heads * shape.head_dim,
    )

    def matrix(rows: int, cols: int) -> Matrix:
        return stored(kind, "panel", normal(rng, rows, cols) / np.float32(np.sqrt(cols)))

    def norm(size: int) -> F32:
        return (1 + 0.3 * normal(rng, size)).astype(np.float32)

    vectors: dict[str, Any] = {
        "router": np.zeros((4, d), np.float32),
        "prediction_coefs": np.zeros((16, 4), np.float32),
        "correction_coefs": np.zeros((4, 4), np.float32),
        "correct_output_scale": norm(d),
    }
    for name in (
        "router",
        "input",
        "post_attention",
        "pre_ffn",
        "post_ffn",
        "post_ple",
        "post_laurel",
    ):
        vectors[f"{name}_norm"] = norm(d)
    return Layer(
        **vectors,
        q_norm=norm(shape.head_dim),
        k_norm=None if reader else norm(shape.head_dim),
        q=matrix(queries, d),
        k=None if reader else matrix(keys, d),
        v=None if reader else matrix(keys, d),
        o=matrix(d, queries),
        laurel_left=matrix(rank, d),
        laurel_right=matrix(d, rank),
        ple_gate=matrix(32, d),
        ple_projection=matrix(d, 32),
        ple_model_projection=matrix(32, d),
        segments=(),
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        eps=1e-6,
        sparsity_z=0.0,
    )
