"""The AltUp blocks of a layer: predictions, corrections, the per-layer input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.layers import ROUNDING, gelu, norm_error, product_error, random_layer
from helpers.matrices import F32, F64, KINDS, dense_of, guarded, guards_hold, normal
from matryo import kernels
from matryo.kernels import reference
from matryo.kernels.layer import Layer

TOKENS = [1, 2, 3, 4, 5, 33]


def predict(layer: Layer, x: F32) -> tuple[F32, F32]:
    predictions, guards = guarded(*x.shape)
    normed, more_guards = guarded(*x.shape[1:])
    kernels.altup_predict(kernels.layer_handle(layer), x, predictions, normed)
    assert guards_hold(guards) and guards_hold(more_guards)
    return predictions, normed


def correct(layer: Layer, predictions: F32, active: F32, ple: F32) -> F32:
    x, buffer = guarded(*predictions.shape)
    kernels.altup_correct(kernels.layer_handle(layer), predictions, active, ple, x)
    assert guards_hold(buffer)
    return x


def route_error(layer: Layer, x: F32) -> F64:
    """A bound (T, A) on the error of the router's output."""
    normed = np.abs(reference._rms(x, layer.router_norm, layer.eps)) / x.shape[-1]
    limit: F64 = 2 * ROUNDING * (normed @ np.abs(layer.router.astype(np.float64)).T + 1.0)
    return limit


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("d", [32, 40, 96, 2048])
def test_predict(isa: str, tokens: int, d: int, rng: np.random.Generator) -> None:
    layer = random_layer(rng, d=d)
    x = 3 * normal(rng, 4, tokens, d)
    predictions, normed = predict(layer, x)
    wanted, wanted_normed = np.empty_like(predictions), np.empty_like(normed)
    reference.altup_predict(layer, x, wanted, wanted_normed)
    coefs = np.abs(layer.prediction_coefs.astype(np.float64))
    mix = (np.abs(reference._router(layer, x[0])) @ coefs.T).reshape(-1, 4, 4)
    mix_error = (route_error(layer, x[0]) @ coefs.T).reshape(-1, 4, 4) + ROUNDING * mix
    magnitude = np.abs(x.astype(np.float64))
    limit = np.einsum("tij,jtd->itd", mix_error + ROUNDING * mix, magnitude) + ROUNDING * magnitude
    assert (np.abs(predictions - wanted) <= limit).all()
    wide = wanted[0].astype(np.float64)
    normed_limit = norm_error(wide, limit[0], layer.input_norm, layer.eps)
    assert (np.abs(normed - wanted_normed) <= normed_limit).all()
    if tokens > 1:
        route = reference._router(layer, x[0])
        assert (np.abs(route) > 0.5).any() and (
            np.abs(route) < 0.5
        ).any()  # tanh is neither flat nor a line


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d, ple", [(32, 32), (40, 8), (96, 48), (64, 256)])
def test_correct(isa: str, kind: str, d: int, ple: int, rng: np.random.Generator) -> None:
    layer = random_layer(rng, kind, d=d, ple=ple)
    for tokens in TOKENS:
        predictions, active = 2 * normal(rng, 4, tokens, d), 2 * normal(rng, tokens, d)
        inputs = normal(rng, tokens, ple)
        got = correct(layer, predictions, active, inputs)
        wanted, limit = expected_correction(layer, predictions, active, inputs)
        assert (np.abs(got - wanted) <= limit).all()


def expected_correction(
    layer: Layer, predictions: F32, active: F32, inputs: F32
) -> tuple[F64, F64]:
    """The streams in float64, and how far a float32 computation may be from them."""
    kind, coefs = layer.ple_gate.kind, layer.correction_coefs.astype(np.float64)
    gains = reference._router(layer, active) @ coefs.T + 1.0
    gain_error = route_error(layer, active) @ np.abs(coefs).T + 2 * ROUNDING
    innovation = active.astype(np.float64) - predictions[0]
    corrected = predictions + gains.T[:, :, None] * innovation
    error = (gain_error.T[:, :, None] + ROUNDING * np.abs(gains.T[:, :, None])) * np.abs(innovation)
    error += ROUNDING * np.abs(predictions)
    scale = layer.correct_output_scale.astype(np.float64)
    first = corrected[0] * scale
    first_error = error[0] * np.abs(scale) + ROUNDING * np.abs(first)
    gate = reference._product(layer.ple_gate, first.astype(np.float32))
    gate_error = product_error(kind, dense_of(layer.ple_gate), first, first_error)
    act = gelu(gate) * inputs
    act_error = (1.13 * gate_error + ROUNDING * np.abs(gelu(gate))) * np.abs(inputs) + 1e-30
    added = reference._product(layer.ple_projection, act.astype(np.float32))
    added_error = product_error(kind, dense_of(layer.ple_projection), act, act_error)
    corrected[1:] += reference._rms(added, layer.post_ple_norm, layer.eps)
    error[1:] += norm_error(added, added_error, layer.post_ple_norm, layer.eps) + ROUNDING * np.abs(
        corrected[1:]
    )
    return corrected, error


@pytest.mark.parametrize("kind", ["f32", "q4"])
def test_the_bound_of_the_correction_would_see_a_wrong_part(
    kind: str, rng: np.random.Generator
) -> None:
    """What the tests above allow is far below the part of any step of the block, about 1."""
    layer = random_layer(rng, kind, d=64, ple=64)
    predictions, active = 2 * normal(rng, 4, 5, 64), 2 * normal(rng, 5, 64)
    inputs = normal(rng, 5, 64)
    _, limit = expected_correction(layer, predictions, active, inputs)
    assert np.median(limit[0]) < 1e-4
    assert np.median(limit[1:]) < (3e-3 if kind == "f32" else 0.1)


def test_the_reference_is_the_expectation(rng: np.random.Generator) -> None:
    layer = random_layer(rng, "q8")
    predictions, active = 2 * normal(rng, 4, 3, 64), 2 * normal(rng, 3, 64)
    inputs, x = normal(rng, 3, 32), np.empty((4, 3, 64), np.float32)
    reference.altup_correct(layer, predictions, active, inputs, x)
    wanted, limit = expected_correction(layer, predictions, active, inputs)
    assert (np.abs(x - wanted) <= limit).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_has_the_bits_it_has_alone_with_any_number_of_threads(
    isa: str, kind: str, rng: np.random.Generator
) -> None:
    layer = random_layer(rng, kind, d=96, ple=64)
    x, active, inputs = normal(rng, 4, 37, 96), normal(rng, 37, 96), normal(rng, 37, 64)
    before = kernels.threads()
    wanted = None
    for threads in (1, 2, 3):
        kernels.set_threads(threads)
        results = (*predict(layer, x), correct(layer, x, active, inputs))
        wanted = wanted or results
        assert all(np.array_equal(got, first) for got, first in zip(results, wanted, strict=True))
        for t in (0, 20, 36):
            row = slice(t, t + 1)
            one = np.ascontiguousarray(x[:, row])
            predictions, normed = predict(layer, one)
            assert np.array_equal(predictions, results[0][:, row])
            assert np.array_equal(normed, results[1][row])
            assert np.array_equal(correct(layer, one, active[row], inputs[row]), results[2][:, row])
    kernels.set_threads(before)


def test_no_tokens(isa: str, rng: np.random.Generator) -> None:
    layer, x, row = random_layer(rng), normal(rng, 4, 0, 64), normal(rng, 0, 64)
    predictions, normed = predict(layer, x)
    assert predictions.shape == (4, 0, 64) and normed.shape == (0, 64)
    assert correct(layer, x, row, normal(rng, 0, 32)).shape == (4, 0, 64)


def test_wrong_arguments_are_refused(rng: np.random.Generator) -> None:
    layer = kernels.layer_handle(random_layer(rng))
    x, row, inputs = (np.zeros(shape, np.float32) for shape in ((4, 2, 64), (2, 64), (2, 32)))
    out = np.empty_like(x)
    bad: Any
    for bad in (x.astype(np.float64), np.zeros((4, 4, 64), np.float32)[:, ::2], x[0]):
        with pytest.raises(TypeError):
            kernels.altup_predict(layer, bad, out, row)
        with pytest.raises(TypeError):
            kernels.altup_predict(layer, x, bad, row)
        with pytest.raises(TypeError):
            kernels.altup_correct(layer, x, row, inputs, bad)
    with pytest.raises(
        ValueError, match=r"altup_predict: x has shape \(3, 2, 64\), expected \(4, 2, 64\)"
    ):
        kernels.altup_predict(layer, x[:3], out, row)
    with pytest.raises(ValueError, match=r"predictions has shape \(3, 2, 64\)"):
        kernels.altup_predict(layer, x, out[:3], row)
    with pytest.raises(ValueError, match=r"normed has shape \(2, 32\), expected \(2, 64\)"):
        kernels.altup_predict(layer, x, out, inputs)
    with pytest.raises(ValueError, match=r"ple_inputs has shape \(2, 64\), expected \(2, 32\)"):
        kernels.altup_correct(layer, x, row, row, out)
    with pytest.raises(
        ValueError, match=r"predictions has shape \(4, 2, 64\), expected \(4, 1, 64\)"
    ):
        kernels.altup_correct(layer, x, row[:1], inputs[:1], out)
    with pytest.raises(ValueError, match=r"altup_correct: x has shape"):
        kernels.altup_correct(layer, x, row, inputs, out[:3])
