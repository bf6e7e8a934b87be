"""Norms and the ends of the AltUp streams: odd widths, any number of tokens and threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.layers import ROUNDING, norm_error
from helpers.matrices import F32, F64, guarded, guards_hold, normal
from matryo import kernels
from matryo.kernels import reference

SIZES = [1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 2048, 2080]
EPS = 1e-6


def rms_norm(x: F32, weight: F32 | None, eps: float = EPS) -> F32:
    out, buffer = guarded(*x.shape)
    kernels.rms_norm(x, weight, eps, out)
    assert guards_hold(buffer)
    return out


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("tokens", [0, 1, 3])
def test_rms_norm(isa: str, n: int, tokens: int, rng: np.random.Generator) -> None:
    x, weight = normal(rng, tokens, n), normal(rng, n)
    for given in (weight, None):
        wanted = reference._rms(x, given, EPS)
        limit = 2 * ROUNDING * np.abs(wanted) + 1e-30
        assert (np.abs(rms_norm(x, given) - wanted) <= limit).all()


def test_rms_norm_of_large_tiny_and_zero_rows(isa: str) -> None:
    x = np.outer([1e15, 1e-3, 1e-15, 0.0], np.linspace(-1, 1, 96)).astype(np.float32)
    wanted = reference._rms(x, None, EPS)
    got = rms_norm(x, None)
    assert np.allclose(got, wanted, rtol=2 * ROUNDING, atol=0)
    assert (got[3] == 0).all()


def test_the_sum_of_squares_keeps_its_precision_over_long_rows(isa: str) -> None:
    """Plain addition in float32 of 2^18 equal squares would be off by 1e-4 and more."""
    x = np.full((1, 1 << 18), 1.1, np.float32)
    assert np.allclose(rms_norm(x, None, 0.0), 1.0, rtol=3e-5, atol=0)


@pytest.mark.parametrize("n", [1, 33, 2048])
def test_norms_have_the_same_bits_on_every_instruction_set(
    n: int, rng: np.random.Generator
) -> None:
    before = kernels.isa()
    x, weight = normal(rng, 3, n), normal(rng, n)
    results = []
    for name in kernels.isas():
        kernels.set_isa(name)
        results.append(rms_norm(x, weight))
    kernels.set_isa(before)
    assert all(np.array_equal(results[0], other) for other in results[1:])


def expand(e: F32, y: F32) -> F32:
    out, buffer = guarded(*y.shape)
    out[...] = y
    kernels.altup_expand(e, out)
    assert guards_hold(buffer)
    return out


@pytest.mark.parametrize("n", [1, 31, 64, 100, 2048])
@pytest.mark.parametrize("tokens", [0, 1, 2, 5])
def test_altup_expand(isa: str, n: int, tokens: int, rng: np.random.Generator) -> None:
    e, y = 3 * normal(rng, tokens, n), normal(rng, 3, tokens, n)
    wanted = y.copy()
    reference.altup_expand(e, wanted)
    assert np.allclose(expand(e, y), wanted, rtol=4 * ROUNDING, atol=0)


def test_altup_expand_of_rows_below_the_floor(isa: str, rng: np.random.Generator) -> None:
    """A mean square below 1e-5 counts as 1e-5: vanishing rows are not blown up, zero stays zero."""
    e, y = normal(rng, 2, 64), 1e-4 * normal(rng, 3, 2, 64)
    y[1] = 0.0
    wanted = y.copy()
    reference.altup_expand(e, wanted)
    got = expand(e, y)
    assert np.allclose(got, wanted, rtol=4 * ROUNDING, atol=0)
    assert (got[1] == 0).all() and np.abs(got[0]).max() < 0.5


def merge(x: F32, y: F32, weight: F32) -> F32:
    out, buffer = guarded(*x.shape[1:])
    kernels.altup_merge(x, y, weight, EPS, out)
    assert guards_hold(buffer)
    return out


@pytest.mark.parametrize("n", [1, 31, 64, 100, 2048])
@pytest.mark.parametrize("tokens", [0, 1, 2, 5])
def test_altup_merge(isa: str, n: int, tokens: int, rng: np.random.Generator) -> None:
    x, y, weight = 3 * normal(rng, 4, tokens, n), normal(rng, 3, tokens, n), normal(rng, n)
    wanted = np.empty((tokens, n), np.float32)
    reference.altup_merge(x, y, weight, EPS, wanted)
    streams = np.concatenate([x[:1].astype(np.float64), reference._rescaled(x[0], y)])
    error: F64 = 2 * ROUNDING * np.abs(streams).mean(axis=0)
    limit = norm_error(streams.mean(axis=0), error, weight, EPS)
    assert (np.abs(merge(x, y, weight) - wanted) <= limit).all()


def combine(projection: F32, raw: F32, weight: F32) -> F32:
    out, buffer = guarded(*projection.shape)
    kernels.ple_combine(projection, raw, weight, EPS, out)
    assert guards_hold(buffer)
    return out


@pytest.mark.parametrize("dim", [1, 5, 32, 256])
@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("tokens", [1, 4])
def test_ple_combine(isa: str, dim: int, slots: int, tokens: int, rng: np.random.Generator) -> None:
    projection, raw = 5 * normal(rng, tokens, slots * dim), normal(rng, tokens, slots * dim)
    weight = normal(rng, dim)
    wanted = np.empty_like(projection)
    parts = projection.reshape(tokens, slots, dim)
    wanted[...] = (reference._rms(parts, weight, EPS).reshape(tokens, -1) + raw) / np.sqrt(2.0)
    limit = 2 * ROUNDING * (np.abs(wanted) + 2 * np.abs(raw)) + 1e-30
    assert (np.abs(combine(projection, raw, weight) - wanted) <= limit).all()


@pytest.mark.parametrize("shape", [(0, 64), (3, 0), (0, 0)])
def test_empty_arrays(isa: str, shape: tuple[int, int]) -> None:
    x, weight, streams = (
        np.zeros(shape, np.float32),
        np.zeros(shape[1], np.float32),
        np.zeros((4, *shape), np.float32),
    )
    assert rms_norm(x, weight).shape == shape
    assert expand(x, streams[:3]).shape == (3, *shape)
    assert merge(streams, streams[:3], weight).shape == shape
    assert combine(x, x, np.ones(32, np.float32)).shape == shape


@pytest.mark.parametrize("n", [33, 256])
def test_a_row_has_the_bits_it_has_alone_with_any_number_of_threads(
    isa: str, n: int, rng: np.random.Generator
) -> None:
    x, y, weight = normal(rng, 4, 37, n), normal(rng, 3, 37, n), normal(rng, n)
    before = kernels.threads()
    for threads in (1, 2, 3):
        kernels.set_threads(threads)
        whole = (
            rms_norm(x[0], weight),
            expand(x[0], y)[0],
            merge(x, y, weight),
            combine(x[0], x[1], weight),
        )
        for t in (0, 17, 36):
            row = slice(t, t + 1)
            xs, ys = np.ascontiguousarray(x[:, row]), np.ascontiguousarray(y[:, row])
            alone = (
                rms_norm(xs[0], weight),
                expand(xs[0], ys)[0],
                merge(xs, ys, weight),
                combine(xs[0], xs[1], weight),
            )
            for many, one in zip(whole, alone, strict=True):
                assert np.array_equal(many[row], one)
    kernels.set_threads(before)


def test_wrong_arguments_are_refused() -> None:
    x, weight, out = (np.zeros(shape, np.float32) for shape in ((2, 8), (8,), (2, 8)))
    streams, others = np.zeros((4, 2, 8), np.float32), np.zeros((3, 2, 8), np.float32)
    strided = np.zeros((4, 8), np.float32)[::2]
    bad: Any
    for bad in (x.astype(np.float64), strided, x[0]):
        with pytest.raises(TypeError):
            kernels.rms_norm(bad, weight, EPS, out)
        with pytest.raises(TypeError):
            kernels.rms_norm(x, weight, EPS, bad)
        with pytest.raises(TypeError):
            kernels.altup_expand(bad, others)
        with pytest.raises(TypeError):
            kernels.altup_merge(streams, others, weight, EPS, bad)
        with pytest.raises(TypeError):
            kernels.ple_combine(bad, x, weight, EPS, out)
    with pytest.raises(ValueError, match=r"rms_norm: weight has shape \(7\), expected \(8\)"):
        kernels.rms_norm(x, weight[:7], EPS, out)
    with pytest.raises(ValueError, match=r"rms_norm: out has shape \(1, 8\), expected \(2, 8\)"):
        kernels.rms_norm(x, weight, EPS, out[:1])
    with pytest.raises(ValueError, match="eps must be finite"):
        kernels.rms_norm(x, weight, float("nan"), out)
    with pytest.raises(ValueError, match=r"y has shape \(4, 2, 8\), expected \(3, 2, 8\)"):
        kernels.altup_expand(x, streams)
    with pytest.raises(ValueError, match=r"x has shape \(3, 2, 8\), expected \(4, 2, 8\)"):
        kernels.altup_merge(others, others, weight, EPS, out)
    with pytest.raises(ValueError, match="multiple of the 3 of weight"):
        kernels.ple_combine(x, x, weight[:3], EPS, out)
    with pytest.raises(ValueError, match="multiple of the 0 of weight"):
        kernels.ple_combine(x, x, weight[:0], EPS, out)
    with pytest.raises(ValueError, match=r"raw has shape \(1, 8\), expected \(2, 8\)"):
        kernels.ple_combine(x, x[:1], weight, EPS, out)
