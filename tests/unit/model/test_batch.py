"""Rows of a pass that do not fit together are refused before anything runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.random_weights import SMALL, config_of
from matryo.errors import InputError
from matryo.kernels.reference_pages import PageTable
from matryo.model import Batch, KVCache

CONFIG = config_of(SMALL)
OWNERS = (0, 1, 2)


def cache(length: int = 0, reserve: int = 8) -> KVCache:
    made = KVCache(CONFIG, OWNERS, kind="f32", chunk=16, make_table=PageTable)
    made.reserve(length)
    made.commit(length)
    made.reserve(reserve)
    return made


def i32(*values: int) -> Any:
    return np.array(values, np.int32)


def check(batch: Batch) -> None:
    batch.check(OWNERS, CONFIG.vocab_size, CONFIG.hidden_size)


def test_parts_become_rows() -> None:
    first, second = cache(3), cache()
    batch = Batch.of([([7, 8], 3, first), ([9], 0, second)])
    assert batch.ids.tolist() == [7, 8, 9] and batch.positions.tolist() == [3, 4, 0]
    assert batch.sequences.tolist() == [0, 0, 1] and batch.last_rows().tolist() == [1, 2]
    check(batch)
    step = Batch.step(5, 3, first)
    check(step)
    assert step.last_rows().tolist() == [0]


@pytest.mark.parametrize(
    ("ids", "positions", "sequences", "message"),
    [
        ([], [], [], "at least one"),
        ([1], [3, 4], [0], "expected as many"),
        ([1, 2], [3, 4], [0], "expected as many"),
        ([-1], [3], [0], "token id -1"),
        ([544], [3], [0], "token id 544"),
        ([1], [2], [0], "do not continue"),
        ([1], [4], [0], "do not continue"),
        ([1, 2], [3, 5], [0, 0], "do not continue"),
        ([1, 2, 3], [3, 3, 5], [0, 0, 0], "ascend one by one"),
        ([1] * 62, list(range(3, 65)), [0] * 62, "do not continue"),
    ],
)
def test_rows_of_one_sequence(
    ids: list[int], positions: list[int], sequences: list[int], message: str
) -> None:
    batch = Batch(i32(*ids), i32(*positions), i32(*sequences), (cache(3),))
    with pytest.raises(InputError, match=message):
        check(batch)


@pytest.mark.parametrize(
    ("sequences", "positions"),
    [
        ([0, 0, 0], [3, 4, 5]),  # the second sequence has no row
        ([1, 0, 0], [0, 3, 4]),
        ([0, 1, 0], [3, 0, 4]),
        ([0, 0, 2], [3, 4, 0]),
    ],
)
def test_sequences_must_be_neighbours_in_order(sequences: list[int], positions: list[int]) -> None:
    batch = Batch(i32(1, 2, 3), i32(*positions), i32(*sequences), (cache(3), cache()))
    with pytest.raises(InputError, match="neighbours"):
        check(batch)


def test_caches_of_other_layers() -> None:
    with pytest.raises(InputError, match="other K/V layers"):
        Batch.step(1, 0, cache()).check((0, 2), 544, 64)


@pytest.mark.parametrize(
    ("shape", "dtype", "rows", "message"),
    [
        ((1, 64), np.float32, None, r"expected float32 \(2, 64\)"),
        ((2, 63), np.float32, None, "expected float32"),
        ((2, 64), np.float64, None, "expected float32"),
        ((2, 64), np.float32, [0, 2], "must lie in 0..1"),
        ((2, 64), np.float32, [-1, 0], "must lie in 0..1"),
        ((2, 64), np.float32, [0], "expected float32"),
    ],
)
def test_embeddings(
    shape: tuple[int, int], dtype: Any, rows: list[int] | None, message: str
) -> None:
    where = None if rows is None else i32(*rows)
    batch = Batch.of([([1, 2], 0, cache())], np.zeros(shape, dtype), where)
    with pytest.raises(InputError, match=message):
        check(batch)


def test_no_embeddings_for_no_rows() -> None:
    check(Batch.of([([1, 2], 0, cache())], np.zeros((0, 64), np.float32), i32()))
