"""Panel products: every instruction set, kind and awkward size; the same bits for any call."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.matrices import (
    F32,
    KINDS,
    dense_of,
    guarded,
    guards_hold,
    normal,
    product_limit,
    stored,
)
from matryo import kernels
from matryo.kernels import reference


def product(w: kernels.Matrix, x: F32) -> F32:
    out, buffer = guarded(len(x), w.rows)
    kernels.matmul(w, x, out)
    assert guards_hold(buffer)
    return out


def expect_product(w: kernels.Matrix, x: F32, got: F32) -> None:
    seen, weights = reference._as_seen_by(w, x), dense_of(w)
    error = np.abs(got - seen @ weights.T)
    assert (error <= product_limit(weights, seen)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [0, 1, 2, 15, 16, 17, 31, 32, 33, 48, 100])
def test_every_row_count(isa: str, kind: str, rows: int, rng: np.random.Generator) -> None:
    w = stored(kind, "panel", normal(rng, rows, 96))
    for tokens in (1, 3):
        x = normal(rng, tokens, 96)
        expect_product(w, x, product(w, x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cols", [0, 1, 2, 31, 32, 33, 63, 64, 70, 1024, 1056, 2080])
def test_every_column_count(isa: str, kind: str, cols: int, rng: np.random.Generator) -> None:
    w = stored(kind, "panel", normal(rng, 20, cols))
    for tokens in (1, 6):
        x = normal(rng, tokens, cols)
        expect_product(w, x, product(w, x))


@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_do_not_depend_on_the_number_of_tokens(
    isa: str, kind: str, rng: np.random.Generator
) -> None:
    w = stored(kind, "panel", normal(rng, 50, 1100))
    x = normal(rng, 133, 1100)
    alone = np.concatenate([product(w, x[t : t + 1]) for t in range(len(x))])
    for tokens in [*range(0, 10), 33, 96, 97, 100, 133]:
        assert np.array_equal(product(w, x[:tokens]), alone[:tokens])


@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_do_not_depend_on_the_threads(
    isa: str, kind: str, rng: np.random.Generator
) -> None:
    w = stored(kind, "panel", normal(rng, 500, 320))
    x = normal(rng, 37, 320)
    before = kernels.threads()
    results = []
    for threads in (1, 2, 3, 5):
        kernels.set_threads(threads)
        results.append(product(w, x))
    kernels.set_threads(before)
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_quantised_products_have_the_same_bits_on_every_instruction_set(
    rng: np.random.Generator,
) -> None:
    before = kernels.isa()
    x = normal(rng, 5, 200)
    for kind in KINDS:
        w = stored(kind, "panel", normal(rng, 40, 200))
        results = []
        for name in kernels.isas():
            kernels.set_isa(name)
            results.append(product(w, x))
        kernels.set_isa(before)
        assert all(np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_a_group_equals_its_members(isa: str, tokens: int, rng: np.random.Generator) -> None:
    matrices = [
        stored(kind, "panel", normal(rng, rows, 160)) for kind in KINDS for rows in (1, 40, 300)
    ]
    x = normal(rng, tokens, 160)
    outs = [np.full((tokens, w.rows), np.nan, np.float32) for w in matrices]
    kernels.matmul_group(matrices, x, outs)
    for w, out in zip(matrices, outs, strict=True):
        assert np.array_equal(out, product(w, x))


def test_large_and_tiny_activations(isa: str, rng: np.random.Generator) -> None:
    w = stored("q4", "panel", normal(rng, 16, 96))
    for scale in (1e-35, 1e-20, 1e20, 1e35):
        x = normal(rng, 2, 96) * np.float32(scale)
        expect_product(w, x, product(w, x))
    assert np.array_equal(product(w, np.zeros((1, 96), np.float32)), np.zeros((1, 16)))


def test_data_at_any_alignment(isa: str, rng: np.random.Generator) -> None:
    w = stored("q4", "panel", normal(rng, 33, 64))
    x = normal(rng, 3, 64)
    shifted = np.empty(w.data.nbytes + 1, np.uint8)
    view = shifted[1:].reshape(w.data.shape)
    view[...] = w.data
    assert np.array_equal(product(kernels.Matrix("q4", "panel", 33, 64, view), x), product(w, x))


@pytest.mark.parametrize("softcap", [0.0, 30.0])
def test_logits(isa: str, softcap: float, rng: np.random.Generator) -> None:
    w = stored("q4", "panel", normal(rng, 100, 64))
    hidden = normal(rng, 5, 64)
    out, buffer = guarded(5, 100)
    kernels.logits(w, hidden, softcap, out)
    assert guards_hold(buffer)
    raw = product(w, hidden).astype(np.float64)
    wanted = softcap * np.tanh(raw / softcap) if softcap else raw
    assert np.allclose(out, wanted, rtol=4e-7, atol=0)
    assert softcap == 0 or np.abs(raw - out).max() > 0.1  # the cap was exercised


def test_wrong_arguments_are_refused(rng: np.random.Generator) -> None:
    w = stored("q4", "panel", normal(rng, 16, 64))
    rows = stored("q4", "rows", normal(rng, 16, 64))
    x, out = np.zeros((2, 64), np.float32), np.zeros((2, 16), np.float32)
    bad_x: Any
    bad_out: Any
    for bad_x in (x.astype(np.float64), np.zeros((4, 64), np.float32)[::2], x[0]):
        with pytest.raises(TypeError):
            kernels.matmul(w, bad_x, out)
    for bad_out in (out.astype(np.float64), np.zeros((2, 32), np.float32)[:, ::2]):
        with pytest.raises(TypeError):
            kernels.matmul(w, x, bad_out)
        with pytest.raises(TypeError):
            kernels.matmul_group([w], x, [bad_out])
        with pytest.raises(TypeError):
            kernels.logits(w, x, 0.0, bad_out)
    frozen = out.copy()
    frozen.flags.writeable = False
    with pytest.raises(TypeError):
        kernels.matmul(w, x, frozen)
    with pytest.raises(ValueError, match=r"x has 32 columns, expected 64"):
        kernels.matmul(w, np.zeros((2, 32), np.float32), out)
    with pytest.raises(ValueError, match=r"out has shape \(2, 15\), expected \(2, 16\)"):
        kernels.matmul(w, x, np.zeros((2, 15), np.float32))
    with pytest.raises(ValueError, match="panel"):
        kernels.matmul(rows, x, out)
    with pytest.raises(ValueError, match="1 matrices but 2 outputs"):
        kernels.matmul_group([w], x, [out, out])
    with pytest.raises(ValueError, match="softcap"):
        kernels.logits(w, x, float("nan"), out)
