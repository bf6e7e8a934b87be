"""Rows by index, and the choice of the largest logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.matrices import KINDS, LAYOUTS, guarded, guards_hold, normal, stored
from matryo import kernels
from matryo.kernels import reference


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cols", [1, 31, 32, 70, 256])
def test_gather_equals_the_stored_rows(
    isa: str, kind: str, layout: str, cols: int, rng: np.random.Generator
) -> None:
    w = stored(kind, layout, normal(rng, 37, cols))
    every_row = np.empty((37, cols), np.float32)
    kernels.unpack(w, every_row)
    for tokens in (0, 1, 3, 4, 9):
        ids = rng.integers(0, 37, tokens).astype(np.int32)
        out, buffer = guarded(tokens, cols)
        kernels.gather(w, ids, 45.25, out)
        assert guards_hold(buffer)
        assert np.array_equal(out, every_row[ids] * np.float32(45.25))


@pytest.mark.parametrize("bad", [-1, 5, 2**31 - 1])
def test_an_id_out_of_range_is_named(bad: int, rng: np.random.Generator) -> None:
    w = stored("q4", "rows", normal(rng, 5, 32))
    with pytest.raises(ValueError, match=rf"ids\[1\] = {bad}, expected 0..4"):
        kernels.gather(w, np.array([0, bad], np.int32), 1.0, np.zeros((2, 32), np.float32))


def test_gather_refuses_wrong_arguments(rng: np.random.Generator) -> None:
    w = stored("q4", "rows", normal(rng, 5, 32))
    ids, out = np.zeros(2, np.int32), np.zeros((2, 32), np.float32)
    bad_ids: Any
    for bad_ids in (ids.astype(np.int64), np.zeros(4, np.int32)[::2]):
        with pytest.raises(TypeError):
            kernels.gather(w, bad_ids, 1.0, out)
    with pytest.raises(TypeError):
        kernels.gather(w, ids, 1.0, np.zeros((2, 64), np.float32)[:, ::2])
    with pytest.raises(ValueError, match="out has shape"):
        kernels.gather(w, ids, 1.0, np.zeros((3, 32), np.float32))


def test_advising_rows_changes_nothing(rng: np.random.Generator) -> None:
    w = stored("q8", "rows", normal(rng, 500, 512))
    before = np.asarray(w.data).copy()
    kernels.advise_rows(w, np.array([0, 499, 7, 7], np.int32))
    assert np.array_equal(w.data, before)
    with pytest.raises(ValueError, match="rows layout"):
        kernels.advise_rows(stored("q4", "panel", normal(rng, 16, 32)), np.zeros(1, np.int32))


@pytest.mark.parametrize("size", [1, 2, 15, 64, 65, 1023, 1025, 5000])
def test_top_k_is_the_head_of_a_stable_sort(isa: str, size: int, rng: np.random.Generator) -> None:
    values = np.round(normal(rng, size) * 4).astype(np.float32)  # rounded: many ties
    order = np.argsort(-values, kind="stable")
    for k in {1, min(size, 7), size}:
        ids, chosen = kernels.top_k(values, k)
        assert ids.dtype == np.int32 and chosen.dtype == np.float32
        assert np.array_equal(ids, order[:k]) and np.array_equal(chosen, values[order[:k]])
        expected = reference.top_k(values, k)
        assert np.array_equal(ids, expected[0]) and np.array_equal(chosen, expected[1])
    assert kernels.argmax(values) == order[0] == reference.argmax(values)


def test_choices_ignore_nan_and_know_minus_infinity(isa: str) -> None:
    values = np.array([np.nan, -np.inf, 1.0, np.nan, 3.0, 3.0] * 20, np.float32)
    assert kernels.argmax(values) == 4
    assert list(kernels.top_k(values, 3)[0]) == [4, 5, 10]
    assert kernels.argmax(np.full(9, -np.inf, np.float32)) == 0
    for empty in (np.array([np.nan], np.float32), np.zeros(0, np.float32)):
        with pytest.raises(ValueError, match="no number"):
            kernels.argmax(empty)


@pytest.mark.parametrize("k", [0, -1, 4])
def test_top_k_refuses_a_k_that_does_not_fit(k: int) -> None:
    with pytest.raises(ValueError, match=r"k must lie in 1\.\.3"):
        kernels.top_k(np.zeros(3, np.float32), k)
