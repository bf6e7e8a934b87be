"""Attention over pages equals its numpy twin; a row has the same bits alone and in any batch."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from helpers.attention import I32, Shape, Tables, attend_limit, rows
from helpers.matrices import F32, guarded, guards_hold, normal
from matryo import kernels
from matryo.kernels import reference
from matryo.kernels.reference_pages import KV_KINDS, PAGE, page_bytes


def attended(tables: Tables, queries: F32, sequences: I32, positions: I32) -> F32:
    out, buffer = guarded(*queries.shape)
    before = tables.copied()
    kernels.attend(queries, tables.native, sequences, positions, out)
    assert guards_hold(buffer)
    assert all(
        np.array_equal(*pair)
        for own, kept in zip(tables.pages, before, strict=True)
        for pair in zip(own, kept, strict=True)
    )
    return out


def expect_attention(tables: Tables, queries: F32, sequences: I32, positions: I32) -> F32:
    got = attended(tables, queries, sequences, positions)
    wanted = np.empty_like(queries)
    reference.attend(queries, tables.twin, sequences, positions, wanted)
    limit = attend_limit(tables.twin, queries, sequences, positions)
    assert (np.abs(got - wanted) <= limit).all()
    return got


@pytest.mark.parametrize("kind", KV_KINDS)
@pytest.mark.parametrize("window", [0, 1, 20, 100])
@pytest.mark.parametrize("tokens", [1, 2, 3, 5, 17, 64, 80])
def test_attention_equals_its_twin(
    isa: str, kind: str, window: int, tokens: int, rng: np.random.Generator
) -> None:
    shape = Shape()
    tables = Tables(kind, shape, window, [-(-(300 + tokens) // PAGE)])
    tables.fill(rng, [300 + tokens])
    for first in (0, 60, 200, 300):
        queries = normal(rng, tokens, shape.num_heads, shape.head_dim)
        expect_attention(tables, queries, *rows((0, first, tokens)))


@pytest.mark.parametrize("kind", KV_KINDS)
@pytest.mark.parametrize("num_heads", [2, 4, 6, 8, 10])
@pytest.mark.parametrize("head_dim", [2, 10, 24, 32, 64, 256])
def test_every_head_shape(
    isa: str, kind: str, num_heads: int, head_dim: int, rng: np.random.Generator
) -> None:
    shape = Shape(num_heads, 2, head_dim)
    tables = Tables(kind, shape, 0, [3])
    tables.fill(rng, [150])
    for tokens in (1, 6):
        queries = normal(rng, tokens, num_heads, head_dim) * np.float32(head_dim**-0.5)
        expect_attention(tables, queries, *rows((0, 150 - tokens, tokens)))


@pytest.mark.parametrize("kind", KV_KINDS)
def test_a_ring_that_wraps(isa: str, kind: str, rng: np.random.Generator) -> None:
    shape, window = Shape(), 70
    tables = Tables(kind, shape, window, [4])
    tables.fill(rng, [1000])
    for tokens in (1, 3, 33):
        queries = normal(rng, tokens, shape.num_heads, shape.head_dim)
        expect_attention(tables, queries, *rows((0, 1000 - tokens, tokens)))


@pytest.mark.parametrize("kind", KV_KINDS)
def test_several_sequences(isa: str, kind: str, rng: np.random.Generator) -> None:
    shape = Shape()
    tables = Tables(kind, shape, 0, [3, 1, 9])
    tables.fill(rng, [130, 1, 570])
    batches = [
        rows((0, 129, 1), (1, 0, 1), (2, 569, 1)),
        rows((2, 500, 40), (0, 3, 1), (2, 540, 30)),
    ]
    for sequences, positions in batches:
        queries = normal(rng, len(sequences), shape.num_heads, shape.head_dim)
        expect_attention(tables, queries, sequences, positions)


@pytest.mark.parametrize("kind", KV_KINDS)
@pytest.mark.parametrize("window", [0, 100])
def test_a_row_alone_has_the_same_bits(
    isa: str, kind: str, window: int, rng: np.random.Generator
) -> None:
    shape = Shape(8, 2, 48)
    tables = Tables(kind, shape, window, [12, 12])
    tables.fill(rng, [700, 700])
    sequences, positions = rows((0, 0, 70), (1, 230, 60), (0, 600, 100))
    queries = normal(rng, len(positions), shape.num_heads, shape.head_dim)
    together = attended(tables, queries, sequences, positions)
    for first in range(0, len(positions), 11):
        one = slice(first, first + 1)
        alone = attended(tables, queries[one], sequences[one], positions[one])
        assert np.array_equal(alone, together[one])
    for size in (9, 31):
        pieces = [slice(i, i + size) for i in range(0, len(positions), size)]
        parts = [attended(tables, queries[p], sequences[p], positions[p]) for p in pieces]
        assert np.array_equal(np.concatenate(parts), together)


@pytest.mark.parametrize("kind", KV_KINDS)
def test_the_bits_do_not_depend_on_the_threads(
    isa: str, kind: str, rng: np.random.Generator
) -> None:
    shape = Shape(4, 1, 64)
    tables = Tables(kind, shape, 0, [12])
    tables.fill(rng, [760])
    before = kernels.threads()
    for tokens in (1, 3, 90):
        queries = normal(rng, tokens, shape.num_heads, shape.head_dim)
        results = []
        for threads in (1, 2, 3):
            kernels.set_threads(threads)
            results.append(attended(tables, queries, *rows((0, 760 - tokens, tokens))))
        assert all(np.array_equal(results[0], other) for other in results[1:])
    kernels.set_threads(before)


def test_the_bits_are_the_same_on_every_instruction_set(rng: np.random.Generator) -> None:
    shape, before = Shape(8, 2, 40), kernels.isa()
    for kind in KV_KINDS:
        tables = Tables(kind, shape, 0, [5])
        tables.fill(rng, [300])
        queries = normal(rng, 20, shape.num_heads, shape.head_dim)
        results = []
        for name in kernels.isas():
            kernels.set_isa(name)
            results.append(attended(tables, queries, *rows((0, 280, 20))))
        kernels.set_isa(before)
        assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("kind", ["f32", "bf16"])
def test_what_is_not_visible_never_counts(isa: str, kind: str, rng: np.random.Generator) -> None:
    """Not even as 0 · NaN: slots before the window and after the newest row may hold anything."""
    shape, window = Shape(), 40
    tables = Tables(kind, shape, window, [4])
    tables.fill(rng, [200])
    sequences, positions = rows((0, 150, 9))
    queries = normal(rng, 9, shape.num_heads, shape.head_dim)
    wanted = attended(tables, queries, sequences, positions)
    hidden = [*range(0, 150 - window + 1), *range(159, 256)]
    for page in range(4):
        view = tables.twin.view(0, page)
        slots = [position % PAGE for position in hidden if position // PAGE == page]
        nan = np.uint16(0x7FC0) if kind == "bf16" else np.float32(np.nan)
        for head in range(shape.num_kv_heads):
            view.keys[head][:, slots] = nan
            view.values[head][slots] = nan
    assert np.array_equal(attended(tables, queries, sequences, positions), wanted)


def test_scores_of_any_size(isa: str, rng: np.random.Generator) -> None:
    """Differences beyond the range of exp give weights of zero, not overflow."""
    shape = Shape()
    tables = Tables("f32", shape, 0, [3])
    tables.fill(rng, [150])
    for factor in (0.0, 1e-20, 100.0, 1e4):
        queries = normal(rng, 3, shape.num_heads, shape.head_dim) * np.float32(factor)
        out = attended(tables, queries, *rows((0, 147, 3)))
        assert np.isfinite(out).all()
        if factor == 0.0:  # all keys weigh the same
            mean = tables_mean(tables, 150)
            assert np.allclose(out[-1].reshape(2, 2, -1), mean[:, None], rtol=0, atol=1e-6)


def tables_mean(tables: Tables, length: int) -> F32:
    from matryo.kernels.reference_pages import _read

    mean: F32 = _read(tables.twin, 0, 0, length)[1].mean(axis=1).astype(np.float32)
    return mean


def test_a_table_keeps_its_pages_alive(rng: np.random.Generator) -> None:
    shape = Shape()
    tables = Tables("f32", shape, 0, [2])
    tables.fill(rng, [100])
    queries = normal(rng, 1, shape.num_heads, shape.head_dim)
    wanted = attended(tables, queries, *rows((0, 99, 1)))
    table = kernels.PageTable("f32", shape.num_kv_heads, shape.head_dim, 0)
    table.set([page.copy() for page in tables.pages[0]])
    stacked = kernels.PageTable.stack([table])
    table.set([])
    del table
    gc.collect()
    litter = [
        np.full(len(page), 255, np.uint8) for page in tables.pages[0]
    ]  # may reuse freed memory
    out = np.empty_like(queries)
    kernels.attend(queries, stacked, *rows((0, 99, 1)), out)
    assert np.array_equal(out, wanted) and litter


def test_no_rows(rng: np.random.Generator) -> None:
    tables = Tables("f32", Shape(), 0, [1])
    nothing = np.zeros(0, np.int32)
    assert attended(tables, np.zeros((0, 4, 32), np.float32), nothing, nothing).shape == (0, 4, 32)


@pytest.mark.parametrize(
    ("window", "num_pages", "part", "message"),
    [
        (0, 2, (0, 128, 1), "sequence 0 has 2 pages, these positions need 3"),
        (0, 0, (0, 0, 1), "sequence 0 has 0 pages, these positions need 1"),
        (0, 2, (0, -1, 1), r"positions\[0\] = -1"),
        (0, 2, (0, 2**31 - 1, 1), "has 2 pages"),
        (0, 2, (1, 0, 1), r"sequences\[0\] = 1, the table has 1"),
        (0, 2, (-1, 0, 1), r"sequences\[0\] = -1"),
        (70, 2, (0, 1000, 60), "has 2 pages, these positions need 3"),
    ],
)
def test_rows_outside_the_pages_are_refused(
    window: int, num_pages: int, part: tuple[int, int, int], message: str
) -> None:
    tables = Tables("f32", Shape(), window, [num_pages])
    sequence, first, count = part
    positions = (np.arange(count) + first).astype(np.int32)
    sequences = np.full(count, sequence, np.int32)
    queries = np.zeros((count, 4, 32), np.float32)
    with pytest.raises(ValueError, match=message):
        kernels.attend(queries, tables.native, sequences, positions, np.empty_like(queries))


def test_wrong_arguments_are_refused() -> None:
    tables = Tables("bf16", Shape(), 0, [2])
    sequences, positions = rows((0, 100, 3))
    queries = np.zeros((3, 4, 32), np.float32)
    out = np.zeros_like(queries)
    wrong_types: tuple[tuple[Any, ...], ...] = (
        (queries.astype(np.float64), sequences, positions, out),
        (np.zeros((3, 4, 64), np.float32)[:, :, ::2], sequences, positions, out),
        (queries, sequences.astype(np.int64), positions, out),
        (queries, sequences, np.zeros(6, np.int32)[::2], out),
        (queries, sequences, positions, out.astype(np.float64)),
        (queries, sequences, positions, np.zeros((6, 4, 32), np.float32)[::2]),
    )
    for query, sequence, position, result in wrong_types:
        with pytest.raises(TypeError):
            kernels.attend(query, tables.native, sequence, position, result)
    wrong_shapes: tuple[tuple[Any, ...], ...] = (
        (queries, sequences[:2], positions, out, "sequences has shape"),
        (queries, sequences, positions[:2], out, "positions has shape"),
        (queries, sequences, positions, out[:2], "out has shape"),
        (queries[:, :, :16].copy(), sequences, positions, out, "queries has shape"),
        (
            queries[:, :3].copy(),
            sequences,
            positions,
            out,
            "3 query heads, expected a multiple of 2",
        ),
        (queries[:, :0].copy(), sequences, positions, out, "0 query heads"),
    )
    for query, sequence, position, result, message in wrong_shapes:
        with pytest.raises(ValueError, match=message):
            kernels.attend(query, tables.native, sequence, position, result)


@pytest.mark.parametrize(
    "arguments",
    [("f16", 2, 32, 0), ("f32", 0, 32, 0), ("f32", 2, 31, 0), ("f32", 2, 0, 0), ("f32", 2, 32, -1)],
)
def test_a_table_that_cannot_be_is_refused(arguments: tuple[str, int, int, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        kernels.PageTable(*arguments)


def test_pages_that_do_not_fit_are_refused() -> None:
    size = page_bytes("int8", 2, 32)
    table = kernels.PageTable("int8", 2, 32, 0)
    good = np.zeros(size, np.uint8)
    with pytest.raises(ValueError, match=r"pages\[1\] has shape"):
        table.set([good, np.zeros(size - 1, np.uint8)])
    with pytest.raises(ValueError, match="multiple of 4 bytes"):
        table.set([np.zeros(size + 64, np.uint8)[1 : size + 1]])
    locked = good.copy()
    locked.flags.writeable = False
    wrong_pages: tuple[Any, ...] = (
        good.view(np.int8),
        np.zeros(2 * size, np.uint8)[::2],
        good.reshape(2, -1),
        locked,
    )
    for bad in wrong_pages:
        with pytest.raises(TypeError):
            table.set([bad])


def test_tables_that_differ_are_not_stacked() -> None:
    tables = [kernels.PageTable("f32", 2, 32, 0), kernels.PageTable("f32", 2, 32, 8)]
    with pytest.raises(ValueError, match="at least one"):
        kernels.PageTable.stack([])
    with pytest.raises(ValueError, match="equal kind"):
        kernels.PageTable.stack(tables)
    pair = kernels.PageTable.stack(tables[:1] * 2)
    with pytest.raises(ValueError, match="one sequence each"):
        kernels.PageTable.stack([pair, pair])
