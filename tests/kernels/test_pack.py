"""Packing: native bytes equal the numpy twin's, and the twin keeps its promises."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.matrices import F32, KINDS, LAYOUTS, empty_storage, normal, stored
from matryo import kernels
from matryo.kernels import reference, reference_pack

SIZES = [(0, 32), (3, 0), (1, 1), (16, 32), (17, 33), (40, 100), (64, 1088)]


def awkward(rng: np.random.Generator, rows: int, cols: int) -> F32:
    """Rows of very different magnitude, zero rows, constant rows, opposite extremes."""
    dense = normal(rng, rows, cols) * np.exp(rng.uniform(-80, 80, (rows, 1))).astype(np.float32)
    dense[2:3] = 0
    dense[3:4] = -0.25
    dense[4:5, ::2] = 3.5
    dense[4:5, 1::2] = -3.5
    dense[5:6] *= np.float32(1e-38)
    return dense


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_native_bytes_equal_the_twin(
    isa: str, kind: str, layout: str, size: tuple[int, int], rng: np.random.Generator
) -> None:
    dense = awkward(rng, *size)
    ours, twin = empty_storage(kind, layout, *size), empty_storage(kind, layout, *size)
    kernels.pack(kind, layout, dense, ours)
    reference.pack(kind, layout, dense, twin)
    assert np.array_equal(ours, twin)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_unpack_equals_the_twin(
    isa: str, kind: str, layout: str, size: tuple[int, int], rng: np.random.Generator
) -> None:
    matrix = stored(kind, layout, awkward(rng, *size))
    ours, twin = np.full(size, np.nan, np.float32), np.full(size, np.nan, np.float32)
    kernels.unpack(matrix, ours)
    reference.unpack(matrix, twin)
    assert np.array_equal(ours, twin)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_error_of_a_weight_is_bounded(kind: str, layout: str, rng: np.random.Generator) -> None:
    dense = normal(rng, 40, 128)
    back = np.empty_like(dense)
    kernels.unpack(stored(kind, layout, dense), back)
    error = np.abs(back - dense)
    absmax = np.abs(dense).reshape(40, -1, 32).max(-1).repeat(32, axis=1)
    step = {"f32": 0.0, "bf16": 2.0**-8, "q8": 1 / 127, "q4": 1 / 7}[kind]
    if kind == "bf16":
        assert (error <= np.abs(dense) * step).all()  # half of the last of 8 bits
    elif (
        kind == "q8"
    ):  # half a step of the rounded scale, and clipping of what that scale is short of
        assert (error <= absmax * (step / 2 * (1 + 2.0**-8) + 2.0**-8)).all()
    elif (
        kind == "q4"
    ):  # a candidate may clip the extreme by up to 1 - 7 / 8.9 of it where that pays elsewhere
        assert (error <= absmax * (1 - 7 / 8.9 + 2.0**-8)).all()
    else:
        assert np.array_equal(back, dense)


def test_q4_chooses_the_best_of_its_candidates(rng: np.random.Generator) -> None:
    groups = normal(rng, 200, 1, 32)
    codes = reference_pack.q4_codes(groups)
    chosen = codes.q * reference_pack.bf16_values(codes.scales)[..., None].astype(np.float64)
    error = ((chosen - groups) ** 2).sum(-1)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(-1, keepdims=True), -1)[..., 0]
    for divisor in (-8.0, -7.2, -8.6, 7.0):
        scale = reference_pack.bf16_values(reference_pack.bf16_bits(largest / np.float32(divisor)))
        q = np.clip(np.rint(groups / scale[..., None].astype(np.float64)), -8, 7)
        other = ((q * scale[..., None] - groups) ** 2).sum(-1)
        assert (error <= other * (1 + 1e-5)).all()


def test_every_integer_of_q4_is_used(rng: np.random.Generator) -> None:
    codes = reference_pack.q4_codes(normal(rng, 100, 4, 32))
    assert set(np.unique(codes.q)) == set(range(-8, 8))
    assert (codes.scales >> 15).any()  # a negative scale turns a positive extreme into -8


def test_what_is_exact_stays_exact(rng: np.random.Generator) -> None:
    q = rng.integers(-8, 8, (16, 64)).astype(np.float32)
    q[:, ::32] = -8
    dense = q * np.float32(0.5)
    back = np.empty_like(dense)
    kernels.unpack(stored("q4", "panel", dense), back)
    assert np.array_equal(back, dense)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_that_is_not_finite_is_named(isa: str, kind: str, value: float) -> None:
    dense = np.ones((40, 70), np.float32)
    dense[33, 65] = value
    out = empty_storage(kind, "panel", 40, 70)
    for pack in (kernels.pack, reference.pack):
        with pytest.raises(ValueError, match="row 33, column 65 is not finite"):
            pack(kind, "panel", dense, out)


def test_wrong_arguments_are_refused() -> None:
    dense = np.ones((16, 32), np.float32)
    out = empty_storage("q4", "panel", 16, 32)
    with pytest.raises(ValueError, match=r"stored as uint8 \(1, 1, 288\)"):
        kernels.pack("q4", "panel", dense, np.zeros((1, 1, 289), np.uint8))
    with pytest.raises(ValueError, match="kind: expected one of f32, bf16, q8, q4"):
        kernels.pack("q5", "panel", dense, out)
    with pytest.raises(ValueError, match="layout: expected one of panel, rows"):
        kernels.pack("q4", "columns", dense, out)
    with pytest.raises(TypeError):
        kernels.pack("q4", "panel", dense.astype(np.float64), out)
    with pytest.raises(TypeError):
        kernels.pack("q4", "panel", np.ones((32, 32), np.float32)[::2], out)


def test_a_matrix_checks_its_data() -> None:
    with pytest.raises(
        ValueError, match=r"q4 panel matrix of 17 x 32 is stored as uint8 \(2, 1, 288\)"
    ):
        kernels.Matrix("q4", "panel", 17, 32, np.zeros((1, 1, 288), np.uint8))
    with pytest.raises(ValueError, match="float32"):
        kernels.Matrix("f32", "rows", 2, 32, np.zeros((2, 32), np.float64))
    with pytest.raises(ValueError, match="rows and cols"):
        kernels.Matrix("f32", "rows", -1, 32, np.zeros((2, 32), np.float32))
    with pytest.raises(TypeError):
        kernels.Matrix("f32", "rows", 2, 32, np.zeros((4, 32), np.float32)[::2])


def test_a_matrix_is_a_view_that_keeps_its_data() -> None:
    data = np.zeros((2, 32), np.float32)
    matrix = kernels.Matrix("f32", "rows", 2, 32, data)
    assert matrix.data is data and matrix.nbytes == data.nbytes
    assert (matrix.kind, matrix.layout, matrix.rows, matrix.cols) == ("f32", "rows", 2, 32)
    frozen = np.ones((2, 32), np.float32)
    frozen.flags.writeable = False
    kernels.Matrix("f32", "rows", 2, 32, frozen)
