"""The feed-forward block, dense and sparse, over any prefix of the units of any segments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from helpers.layers import ROUNDING, gelu, norm_error, product_error, random_layer
from helpers.matrices import (
    F32,
    F64,
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
from matryo.kernels.layer import Layer, Matrix, Segment

TOKENS = [1, 2, 3, 4, 5, 33]
SPARSITY = {
    "dense": 0.0,
    "sparse": 1.0,
}  # one deviation above the mean keeps about 16 % of the units
WIDTHS = {(96,): (32, 96), (64, 96, 32): (64, 32, 96, 160, 192)}  # units of the segments: widths


def feed(layer: Layer, hidden: F32, width: int) -> F32:
    out, buffer = guarded(*hidden.shape)
    kernels.feed_forward(kernels.layer_handle(layer), hidden, width, out)
    assert guards_hold(buffer)
    return out


def normed(layer: Layer, hidden: F32) -> F32:
    """What the native block multiplies its gates with, bit for bit (test_vector.py)."""
    out = np.empty_like(hidden)
    kernels.rms_norm(hidden, layer.pre_ffn_norm, layer.eps, out)
    return out


def expected(layer: Layer, hidden: F32, width: int) -> tuple[F64, F64]:
    """The block in float64 from its norm on, and how far a float32 computation may be from it."""
    x = normed(layer, hidden)
    parts = list(layer.units(width))
    seen = reference._as_seen_by(parts[0][0].gate, x)
    gate_weights, up_weights = (
        np.concatenate([dense_of(getattr(segment, name))[:units] for segment, units in parts])
        for name in ("gate", "up")
    )
    gate, up = seen @ gate_weights.T, seen @ up_weights.T
    gate_error, up_error = product_limit(gate_weights, seen), product_limit(up_weights, seen)
    if layer.sparsity_z:
        gate, gate_error = beyond_the_cut(gate, gate_error, layer.sparsity_z)
    act = gelu(gate) * up
    act_error = (1.13 * gate_error + ROUNDING * np.abs(gelu(gate))) * np.abs(up)
    act_error += np.abs(gelu(gate)) * up_error + 1e-30
    if layer.sparsity_z:
        down = np.concatenate([dense_of(segment.down)[:units] for segment, units in parts]).T
        total, error = act @ down.T, product_error("f32", down, act, act_error)
    else:
        down = np.concatenate(
            [dense_of(segment.down)[:, :units] for segment, units in parts], axis=1
        )
        kind = parts[0][0].down.kind
        total = reference._as_seen_by(parts[0][0].down, act.astype(np.float32)) @ down.T
        error = product_error(kind, down, act, act_error)
    out = hidden + reference._rms(total, layer.post_ffn_norm, layer.eps)
    limit = norm_error(total, error, layer.post_ffn_norm, layer.eps) + ROUNDING * np.abs(out)
    return out, limit


def beyond_the_cut(gate: F64, error: F64, z: float) -> tuple[F64, F64]:
    """The gates' excess over mean + z · deviation, and its error: both move with the gates."""
    cut = gate.mean(axis=1, keepdims=True) + z * gate.std(axis=1, keepdims=True)
    cut_error = error.mean(axis=1, keepdims=True) + z * np.sqrt(
        np.mean(error * error, axis=1, keepdims=True)
    )
    return np.maximum(gate - cut, 0.0), error + cut_error + ROUNDING * np.abs(cut)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sparsity", SPARSITY)
@pytest.mark.parametrize("units", WIDTHS)
def test_every_width(
    isa: str, kind: str, sparsity: str, units: tuple[int, ...], rng: np.random.Generator
) -> None:
    """Widths that stop inside a segment, at its end, and beyond it."""
    layer = random_layer(rng, kind, units=units, sparsity_z=SPARSITY[sparsity])
    for width in WIDTHS[units]:
        for tokens in TOKENS:
            hidden = 2 * normal(rng, tokens, 64)
            wanted, limit = expected(layer, hidden, width)
            assert (np.abs(feed(layer, hidden, width) - wanted) <= limit).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sparsity", SPARSITY)
@pytest.mark.parametrize("d", [8, 40, 288, 800])
def test_every_hidden_size(
    isa: str, kind: str, sparsity: str, d: int, rng: np.random.Generator
) -> None:
    layer = random_layer(rng, kind, d=d, units=(64, 320), sparsity_z=SPARSITY[sparsity])
    for tokens in (1, 60):
        hidden = normal(rng, tokens, d)
        wanted, limit = expected(layer, hidden, 352)
        assert (np.abs(feed(layer, hidden, 352) - wanted) <= limit).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sparsity", SPARSITY)
def test_the_expectation_is_the_reference_and_its_bound_sees_a_missing_unit(
    kind: str, sparsity: str, rng: np.random.Generator
) -> None:
    layer = random_layer(rng, kind, units=(64, 96), sparsity_z=SPARSITY[sparsity])
    hidden, out, fewer = (
        normal(rng, 3, 64),
        np.empty((3, 64), np.float32),
        np.empty((3, 64), np.float32),
    )
    wanted, limit = expected(layer, hidden, 160)
    reference.feed_forward(layer, hidden, 160, out)
    assert (np.abs(out - wanted) <= limit).all()
    reference.feed_forward(layer, hidden, 128, fewer)
    assert np.median(np.abs(fewer - wanted) / limit) > 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sparsity", SPARSITY)
def test_a_row_has_the_bits_it_has_alone_with_any_number_of_threads(
    isa: str, kind: str, sparsity: str, rng: np.random.Generator
) -> None:
    layer = random_layer(rng, kind, d=96, units=(320, 64), sparsity_z=SPARSITY[sparsity])
    hidden = normal(rng, 133, 96)
    before = kernels.threads()
    alone = np.concatenate([feed(layer, hidden[t : t + 1], 352) for t in range(len(hidden))])
    for threads in (1, 2, 3):
        kernels.set_threads(threads)
        for tokens in (2, 3, 4, 5, 129, 133) if threads == 1 else (1, 4, 133):
            assert np.array_equal(feed(layer, hidden[:tokens], 352), alone[:tokens])
    kernels.set_threads(before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sparsity", SPARSITY)
def test_segments_do_not_change_the_bits(
    isa: str, kind: str, sparsity: str, rng: np.random.Generator
) -> None:
    """A prefix across segments equals the same units stored as one: plans of any shells agree."""
    z = SPARSITY[sparsity]
    state = rng.bit_generator.state
    whole = random_layer(rng, kind, units=(192,), sparsity_z=z)
    rng.bit_generator.state = state
    parts = split(random_layer(rng, kind, units=(192,), sparsity_z=z), (64, 32, 96))
    hidden = normal(rng, 9, 64)
    for width in (64, 96, 160, 192):
        for tokens in (1, 9):
            row = hidden[:tokens]
            assert np.array_equal(feed(parts, row, width), feed(whole, row, width))


def split(layer: Layer, units: tuple[int, ...]) -> Layer:
    """The only segment of `layer` cut into several."""
    (whole,) = layer.segments
    segments, start = [], 0
    for count in units:
        rows = slice(start, start + count)
        gate, up = (restored(matrix, dense_of(matrix)[rows]) for matrix in (whole.gate, whole.up))
        down = dense_of(whole.down)
        down = down[:, rows] if whole.down.layout == "panel" else down[rows]
        segments.append(Segment(gate, up, restored(whole.down, down)))
        start += count
    return replace(layer, segments=tuple(segments))


def restored(like: Matrix, dense: F64) -> kernels.Matrix:
    return stored(like.kind, like.layout, np.ascontiguousarray(dense, np.float32))


def test_no_tokens(isa: str, rng: np.random.Generator) -> None:
    for z in SPARSITY.values():
        assert feed(random_layer(rng, sparsity_z=z), normal(rng, 0, 64), 64).shape == (0, 64)


def test_no_units_leave_the_hidden_state(isa: str, rng: np.random.Generator) -> None:
    hidden = normal(rng, 3, 64)
    for z in SPARSITY.values():
        assert np.array_equal(feed(random_layer(rng, sparsity_z=z), hidden, 0), hidden)


@pytest.mark.parametrize("tokens", [1, 40])
def test_every_unit_can_be_kept(isa: str, tokens: int, rng: np.random.Generator) -> None:
    """A cut far below the mean: lists of kept units are full."""
    layer = random_layer(rng, "q4", units=(320, 96), sparsity_z=-20.0)
    hidden = normal(rng, tokens, 64)
    wanted, limit = expected(layer, hidden, 416)
    assert (np.abs(feed(layer, hidden, 416) - wanted) <= limit).all()


@pytest.mark.parametrize("tokens", [1, 40])
def test_no_unit_need_be_kept(isa: str, tokens: int, rng: np.random.Generator) -> None:
    layer = random_layer(rng, "q4", units=(320, 96), sparsity_z=30.0)
    hidden = normal(rng, tokens, 64)
    assert np.array_equal(feed(layer, hidden, 416), hidden)


@pytest.mark.parametrize("sparsity", SPARSITY)
@pytest.mark.parametrize("tokens", [1, 6])
def test_a_broken_row_shows_and_leaves_the_others_alone(
    isa: str, sparsity: str, tokens: int, rng: np.random.Generator
) -> None:
    layer = random_layer(rng, "f32", units=(96,), sparsity_z=SPARSITY[sparsity])
    hidden = normal(rng, tokens, 64)
    clean = feed(layer, hidden, 96)
    hidden[-1, 5] = np.nan
    broken = feed(layer, hidden, 96)
    assert np.isnan(broken[-1]).all()
    assert np.array_equal(broken[:-1], clean[:-1])


def test_wrong_arguments_are_refused(rng: np.random.Generator) -> None:
    layer = kernels.layer_handle(random_layer(rng, units=(64, 32)))
    hidden, out = np.zeros((2, 64), np.float32), np.zeros((2, 64), np.float32)
    bad: Any
    for bad in (hidden.astype(np.float64), np.zeros((4, 64), np.float32)[::2], hidden[0]):
        with pytest.raises(TypeError):
            kernels.feed_forward(layer, bad, 64, out)
        with pytest.raises(TypeError):
            kernels.feed_forward(layer, hidden, 64, bad)
    frozen = out.copy()
    frozen.flags.writeable = False
    with pytest.raises(TypeError):
        kernels.feed_forward(layer, hidden, 64, frozen)
    with pytest.raises(ValueError, match=r"hidden has shape \(2, 32\), expected \(2, 64\)"):
        kernels.feed_forward(layer, np.zeros((2, 32), np.float32), 64, out)
    with pytest.raises(ValueError, match=r"out has shape \(1, 64\), expected \(2, 64\)"):
        kernels.feed_forward(layer, hidden, 64, out[:1])
    for width in (-32, 40, 128):
        with pytest.raises(
            ValueError, match=rf"width is {width}, expected a multiple of 32 in 0\.\.96"
        ):
            kernels.feed_forward(layer, hidden, width, out)
