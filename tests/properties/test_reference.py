"""The numpy twin against brute force: loops over single numbers, straight from the formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.packing import PlainMatrix, packed
from matryo.kernels import reference
from matryo.kernels.layer import Segment
from matryo.kernels.reference_pages import PageTable, page_bytes, write_rows

F32 = npt.NDArray[np.float32]
SIZES = st.integers(1, 5)
SEEDS = st.integers(0, 1 << 30)


def assert_close(got: F32, want: Any, tolerance: float = 2e-6) -> None:
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def normal(rng: np.random.Generator, *shape: int) -> F32:
    return rng.standard_normal(shape).astype(np.float32)


def matrix(dense: F32, layout: str = "panel", kind: str = "f32") -> PlainMatrix:
    rows, cols = dense.shape
    return PlainMatrix(kind, layout, rows, cols, packed(kind, layout, dense))


def rms(x: Sequence[float], weight: Sequence[float] | None, eps: float) -> list[float]:
    root = math.sqrt(sum(value * value for value in x) / len(x) + eps)
    return [value / root * (1.0 if weight is None else weight[i]) for i, value in enumerate(x)]


def dot(a: Any, b: Any) -> float:
    return math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def gelu(x: float) -> float:
    return 0.5 * x * (1.0 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


@given(
    tokens=SIZES,
    rows=st.integers(1, 40),
    cols=st.integers(1, 70),
    seed=SEEDS,
    softcap=st.sampled_from([0.0, 2.0]),
)
@settings(max_examples=15, deadline=None)
def test_products_and_logits(tokens: int, rows: int, cols: int, seed: int, softcap: float) -> None:
    rng = np.random.default_rng(seed)
    w, x = normal(rng, rows, cols), normal(rng, tokens, cols)
    out, capped = np.empty((tokens, rows), np.float32), np.empty((tokens, rows), np.float32)
    reference.matmul(matrix(w), x, out)
    reference.logits(matrix(w), x, softcap, capped)
    for t in range(tokens):
        for r in range(rows):
            product = dot(x[t], w[r])
            cap = softcap * math.tanh(product / softcap) if softcap else product
            assert out[t, r] == pytest.approx(product, rel=2e-5, abs=2e-5)
            assert capped[t, r] == pytest.approx(cap, rel=2e-5, abs=2e-5)


@given(kind=st.sampled_from(["q8", "q4"]), tokens=SIZES, groups=st.integers(1, 3), seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_quantised_products(kind: str, tokens: int, groups: int, seed: int) -> None:
    """Activations in groups of 32: scale absmax / 127, numbers rounded to even."""
    rng = np.random.default_rng(seed)
    w, x = matrix(normal(rng, 3, 32 * groups), kind=kind), normal(rng, tokens, 32 * groups)
    x[0, :32] = 0.0
    out, dense = np.empty((tokens, 3), np.float32), reference.dense(w)
    reference.matmul(w, x, out)
    for t in range(tokens):
        for r in range(3):
            total = 0.0
            for g in range(0, 32 * groups, 32):
                largest = np.abs(x[t, g : g + 32]).max()
                if largest > 0:
                    q = [round(float(v * (np.float32(127) / largest))) for v in x[t, g : g + 32]]
                    total += float(largest / np.float32(127)) * dot(q, dense[r, g : g + 32])
            assert out[t, r] == pytest.approx(total, rel=1e-5, abs=1e-5)


@given(tokens=SIZES, size=st.integers(1, 40), seed=SEEDS, weighted=st.booleans())
@settings(max_examples=20, deadline=None)
def test_norms(tokens: int, size: int, seed: int, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    x, weight, out = (
        normal(rng, tokens, size),
        normal(rng, size),
        np.empty((tokens, size), np.float32),
    )
    reference.rms_norm(x, weight if weighted else None, 1e-3, out)
    for t in range(tokens):
        want = rms(x[t].tolist(), weight.tolist() if weighted else None, 1e-3)
        assert_close(out[t], want)


@given(tokens=SIZES, slots=st.integers(1, 3), size=st.integers(1, 9), seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_per_layer_inputs(tokens: int, slots: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    projection, raw = normal(rng, tokens, slots * size), normal(rng, tokens, slots * size)
    weight, out = normal(rng, size), np.empty((tokens, slots * size), np.float32)
    reference.ple_combine(projection, raw, weight, 1e-6, out)
    for t in range(tokens):
        for start in range(0, slots * size, size):
            normed = rms(projection[t, start : start + size].tolist(), weight.tolist(), 1e-6)
            for i, value in enumerate(normed):
                want = (value + float(raw[t, start + i])) / math.sqrt(2)
                assert out[t, start + i] == pytest.approx(want, rel=1e-5, abs=1e-5)


def rescaled(target: Sequence[float], y: Sequence[float]) -> list[float]:
    magnitude = math.sqrt(sum(v * v for v in target) / len(target))
    own = math.sqrt(max(sum(v * v for v in y) / len(y), 1e-5))
    return [v * magnitude / own for v in y]


@given(tokens=SIZES, size=st.integers(1, 12), seed=SEEDS, small=st.booleans())
@settings(max_examples=20, deadline=None)
def test_streams_are_expanded_and_merged(tokens: int, size: int, seed: int, small: bool) -> None:
    """Projections whose mean square is below the floor of 1e-5 keep their smallness."""
    rng = np.random.default_rng(seed)
    e, y = normal(rng, tokens, size), normal(rng, 3, tokens, size)
    y *= np.float32(1e-3 if small else 1.0)
    streams, weight = normal(rng, 4, tokens, size), normal(rng, size)
    expanded, merged = y.copy(), np.empty_like(e)
    reference.altup_expand(e, expanded)
    reference.altup_merge(streams, y, weight, 1e-6, merged)
    for t in range(tokens):
        for i in range(3):
            assert_close(expanded[i, t], rescaled(e[t].tolist(), y[i, t].tolist()))
        parts = [streams[0, t].tolist()] + [
            rescaled(streams[0, t].tolist(), y[i, t].tolist()) for i in range(3)
        ]
        mean = [sum(values) / 4 for values in zip(*parts, strict=True)]
        assert_close(merged[t], rms(mean, weight.tolist(), 1e-6), tolerance=1e-5)


def router(layer: Any, x: Sequence[float]) -> list[float]:
    normed = [v / len(x) for v in rms(x, layer.router_norm.tolist(), layer.eps)]
    return [math.tanh(dot(normed, row)) for row in layer.router]


@given(tokens=st.integers(1, 3), size=st.integers(2, 9), ple=st.integers(1, 6), seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_prediction_and_correction(tokens: int, size: int, ple: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = {
        n: normal(rng, size)
        for n in ("router_norm", "input_norm", "correct_output_scale", "post_ple_norm")
    }
    gate, projection = normal(rng, ple, size), normal(rng, size, ple)
    layer: Any = SimpleNamespace(
        **vectors,
        router=size * normal(rng, 4, size),
        prediction_coefs=normal(rng, 16, 4),
        correction_coefs=normal(rng, 4, 4),
        eps=1e-6,
        ple_gate=matrix(gate),
        ple_projection=matrix(projection),
    )
    x, active, inputs = (
        normal(rng, 4, tokens, size),
        normal(rng, tokens, size),
        normal(rng, tokens, ple),
    )
    predictions, normed, out = np.empty_like(x), np.empty_like(active), np.empty_like(x)
    reference.altup_predict(layer, x, predictions, normed)
    reference.altup_correct(layer, predictions, active, inputs, out)
    for t in range(tokens):
        route = router(layer, x[0, t].tolist())
        for i in range(4):
            for d in range(size):
                mixed = sum(
                    dot(layer.prediction_coefs[4 * i + j], route) * float(x[j, t, d])
                    for j in range(4)
                )
                assert predictions[i, t, d] == pytest.approx(
                    float(x[i, t, d]) + mixed, rel=1e-5, abs=1e-5
                )
        want = rms(predictions[0, t].tolist(), layer.input_norm.tolist(), 1e-6)
        assert_close(normed[t], want, tolerance=1e-5)
        route = router(layer, active[t].tolist())
        corrected = [
            [
                float(predictions[i, t, d])
                + (dot(layer.correction_coefs[i], route) + 1)
                * float(active[t, d] - predictions[0, t, d])
                for d in range(size)
            ]
            for i in range(4)
        ]
        scaled = [
            a * float(b) for a, b in zip(corrected[0], layer.correct_output_scale, strict=True)
        ]
        gated = [gelu(dot(row, scaled)) * float(inputs[t, p]) for p, row in enumerate(gate)]
        added = rms([dot(row, gated) for row in projection], layer.post_ple_norm.tolist(), 1e-6)
        assert_close(out[0, t], corrected[0], tolerance=1e-4)
        for i in range(1, 4):
            assert_close(out[i, t], np.add(corrected[i], added), tolerance=1e-4)


@given(width=st.sampled_from([32, 64, 96]), sparse=st.booleans(), seed=SEEDS)
@settings(max_examples=12, deadline=None)
def test_feed_forward(width: int, sparse: bool, seed: int) -> None:
    """96 units in segments of 64 and 32, cut to a width; the cut of a sparse layer is that of the
    width's gates.
    """
    rng, size, z = np.random.default_rng(seed), 5, 1.0 if sparse else 0.0
    gate, up, down = normal(rng, 96, size), normal(rng, 96, size), normal(rng, size, 96)
    segments = []
    for part in (slice(0, 64), slice(64, 96)):
        if sparse:
            others = matrix(up[part], "rows"), matrix(np.ascontiguousarray(down[:, part].T), "rows")
        else:
            others = matrix(up[part]), matrix(np.ascontiguousarray(down[:, part]))
        segments.append(Segment(matrix(gate[part]), *others))
    layer: Any = SimpleNamespace(
        pre_ffn_norm=normal(rng, size),
        post_ffn_norm=normal(rng, size),
        eps=1e-6,
        sparsity_z=z,
        segments=segments,
        units=lambda n: [(segments[0], min(n, 64)), (segments[1], n - 64)][: 1 + (n > 64)],
    )
    hidden, out = normal(rng, 2, size), np.empty((2, size), np.float32)
    reference.feed_forward(layer, hidden, width, out)
    for t in range(2):
        x = rms(hidden[t].tolist(), layer.pre_ffn_norm.tolist(), 1e-6)
        gates = [dot(gate[f], x) for f in range(width)]
        if sparse:
            mean = sum(gates) / width
            cut = mean + z * math.sqrt(sum((g - mean) ** 2 for g in gates) / width)
            gates = [max(g - cut, 0.0) for g in gates]
        active = [gelu(g) * dot(up[f], x) for f, g in enumerate(gates)]
        total = rms(
            [dot(down[d, :width], active) for d in range(size)], layer.post_ffn_norm.tolist(), 1e-6
        )
        assert_close(out[t], hidden[t] + total, tolerance=1e-4)


@given(window=st.sampled_from([0, 1, 3, 70]), length=st.integers(1, 150), seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_attention_over_pages(window: int, length: int, seed: int) -> None:
    """Four query heads over two of keys and values; q·k is not scaled; a window counts the token
    itself.
    """
    rng = np.random.default_rng(seed)
    keys, values, queries = (
        normal(rng, length, 2, 4),
        normal(rng, length, 2, 4),
        normal(rng, length, 4, 4),
    )
    table = PageTable("f32", 2, 4, window)
    table.set([np.zeros(page_bytes("f32", 2, 4), np.uint8) for _ in range(3)])
    positions = np.arange(length, dtype=np.int32)
    write_rows(table, np.zeros(length, np.int32), positions, keys, values)
    asked = np.unique(rng.integers(0, length, 3)).astype(np.int32)
    out = np.empty((len(asked), 4, 4), np.float32)
    reference.attend(queries[asked], table, np.zeros(len(asked), np.int32), asked, out)
    for row, t in enumerate(asked.tolist()):
        seen = [s for s in range(t + 1) if not window or t - s < window]
        for head in range(4):
            scores = [dot(queries[t, head], keys[s, head // 2]) for s in seen]
            weights = [math.exp(score - max(scores)) for score in scores]
            for d in range(4):
                mixed = sum(
                    w * float(values[s, head // 2, d]) for w, s in zip(weights, seen, strict=True)
                )
                assert out[row, head, d] == pytest.approx(mixed / sum(weights), rel=1e-4, abs=1e-5)


def test_top_k_and_argmax_prefer_the_lower_id() -> None:
    values = np.array([1.0, 3.0, 3.0, -1.0, 2.0, 3.0], np.float32)
    ids, best = reference.top_k(values, 4)
    assert ids.tolist() == [1, 2, 5, 4] and best.tolist() == [3.0, 3.0, 3.0, 2.0]
    assert reference.argmax(values) == 1
