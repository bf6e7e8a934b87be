"""The sound encoder's operations: every kind of weights, odd sizes, any number of frames and
threads.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from helpers.matrices import F32, guarded, guards_hold, normal, product_limit
from matryo import kernels, quantize
from matryo.kernels import audio, reference_audio
from matryo.kernels.reference_dense import dense_product, dense_weights

FRAMES = [0, 1, 2, 5, 70]
DENSE_KINDS = ["f32", "bf16", "i8"]
EPS, CLIP = 1e-6, 1e10


def dense(kind: str, weights: F32) -> audio.DenseMatrix:
    """Weights (R, C) stored as `kind`."""
    rows, cols = weights.shape
    return audio.DenseMatrix(kind, rows, cols, quantize.pack(kind, "panel", weights))


def spread(rng: np.random.Generator, rows: int, cols: int) -> F32:
    """Weights (R, C) that keep the size of what they read."""
    weights: F32 = (normal(rng, rows, cols) / np.sqrt(cols)).astype(np.float32)
    return weights


def limit_of(w: audio.DenseMatrix, x: F32) -> npt.NDArray[np.float64]:
    """A bound (T, R) on the rounding error of a product, also where a row of codes is inexact."""
    return product_limit(dense_weights(w).astype(np.float64), x.astype(np.float64)) * 2


@pytest.mark.parametrize("kind", DENSE_KINDS)
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (33, 20), (70, 300), (300, 512), (16, 771)])
@pytest.mark.parametrize("frames", [0, 1, 4, 13, 110])
def test_products(
    isa: str, kind: str, rows: int, cols: int, frames: int, rng: np.random.Generator
) -> None:
    ws, x = [dense(kind, spread(rng, n, cols)) for n in (rows, 17)], normal(rng, frames, cols)
    x[frames // 2 :] *= 30
    outs = [guarded(frames, w.rows) for w in ws]
    audio.audio_project(ws, None, CLIP, EPS, x, [out for out, _ in outs])
    for w, (out, buffer) in zip(ws, outs, strict=True):
        assert guards_hold(buffer)
        assert (np.abs(out - dense_product(w, x)) <= limit_of(w, x)).all()


@pytest.mark.parametrize("kind", DENSE_KINDS)
def test_projections_norm_what_they_read(isa: str, kind: str, rng: np.random.Generator) -> None:
    w, norm, x = dense(kind, spread(rng, 40, 48)), 1 + 0.2 * normal(rng, 48), normal(rng, 9, 48)
    for clip in (CLIP, 0.5):
        rows, out = np.empty_like(x), np.empty((9, 40), np.float32)
        kernels.rms_norm(np.clip(x, -clip, clip), norm, EPS, rows)
        audio.audio_project([w], norm, clip, EPS, x, [out])
        assert (np.abs(out - dense_product(w, rows)) <= limit_of(w, rows)).all()


@pytest.mark.parametrize("kind", DENSE_KINDS)
@pytest.mark.parametrize("frames", [0, 3, 110])
def test_added_products(isa: str, kind: str, frames: int, rng: np.random.Generator) -> None:
    w, norm = dense(kind, spread(rng, 40, 48)), 0.4 + 0.1 * normal(rng, 40)
    x, residual = normal(rng, frames, 48), normal(rng, frames, 40)
    for weight, clip in ((None, CLIP), (norm, CLIP), (norm, 0.5)):
        wanted, (out, buffer) = np.empty_like(residual), guarded(frames, 40)
        reference_audio.audio_add(w, weight, clip, EPS, x, residual, wanted)
        audio.audio_add(w, weight, clip, EPS, x, residual, out)
        assert guards_hold(buffer) and np.allclose(out, wanted, rtol=0, atol=1e-5)
        out[...] = residual
        audio.audio_add(w, weight, clip, EPS, x, out, out)  # in place
        assert np.allclose(out, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("bins", "channels"), [(1, 1), (20, 1), (7, 5), (10, 40)])
@pytest.mark.parametrize("count", [0, 1, 6, 40])
def test_convolutions_of_the_stem(
    isa: str, count: int, bins: int, channels: int, rng: np.random.Generator
) -> None:
    filters, rows = dense("f32", spread(rng, 19, 9 * channels)), normal(rng, 83, bins, channels)
    wanted = np.empty((count, -(-bins // 2), 19), np.float32)
    out, buffer = guarded(*wanted.shape)
    reference_audio.audio_stem_conv(filters, rows, wanted)
    audio.audio_stem_conv(filters, rows, out)
    assert guards_hold(buffer) and np.allclose(out, wanted, rtol=0, atol=1e-5)


class FeedForward:
    """Weights of one module with F = 4 d, the post norm small as in a trained encoder."""

    def __init__(self, kind: str, width: int, rng: np.random.Generator) -> None:
        self.up = dense(kind, spread(rng, 4 * width, width))
        self.down = dense(kind, spread(rng, width, 4 * width))
        self.pre, self.post = 1 + 0.2 * normal(rng, width), 0.4 + 0.1 * normal(rng, width)
        self.end = 1 + 0.2 * normal(rng, width)

    def run(
        self, feed_forward: Callable[..., None], x: F32, clip: float = CLIP, end: bool = False
    ) -> F32:
        out, buffer = guarded(*x.shape)
        feed_forward(
            self.up, self.down, self.pre, self.post, self.end if end else None, 0.5, clip, EPS, x,
            out,
        )  # fmt: skip
        assert guards_hold(buffer)
        return out


@pytest.mark.parametrize("kind", DENSE_KINDS)
@pytest.mark.parametrize("width", [8, 20, 96])
@pytest.mark.parametrize("frames", FRAMES)
def test_feed_forward(
    isa: str, kind: str, width: int, frames: int, rng: np.random.Generator
) -> None:
    module, x = FeedForward(kind, width, rng), 3 * normal(rng, frames, width)
    for clip, end in ((CLIP, False), (0.5, False), (CLIP, True)):
        got = module.run(audio.audio_feed_forward, x, clip, end)
        wanted = module.run(reference_audio.audio_feed_forward, x, clip, end)
        # A value next to a tie may have its other neighbour as its code: one step of 127.
        limit = 2e-5 if kind != "i8" else 3e-2
        assert np.allclose(got, wanted, rtol=0, atol=limit)
        assert np.abs(got - wanted).mean() < 3e-4 if frames else True


class Attention:
    """Queries, keys, values, positions; some keys are not valid."""

    def __init__(
        self, frames: int, past: int, heads: int, head_dim: int, rng: np.random.Generator
    ) -> None:
        width = heads * head_dim
        self.q, self.position = normal(rng, frames, width), normal(rng, past + 1, width)
        self.k, self.v = normal(rng, past + frames, width), normal(rng, past + frames, width)
        self.valid = (rng.random(past + frames) < 0.7).astype(np.uint8)
        self.scale = np.abs(normal(rng, head_dim)) * np.float32(2 / np.sqrt(head_dim))

    def run(self, attend: Callable[..., None], cap: float = 3.0) -> F32:
        out, buffer = guarded(*self.q.shape)
        attend(self.q, self.k, self.v, self.valid, self.position, self.scale, cap, out)
        assert guards_hold(buffer)
        return out


@pytest.mark.parametrize(("past", "heads", "head_dim"), [(12, 3, 24), (0, 1, 1), (4, 2, 33)])
@pytest.mark.parametrize("frames", FRAMES)
def test_attention(
    isa: str, frames: int, past: int, heads: int, head_dim: int, rng: np.random.Generator
) -> None:
    case = Attention(frames, past, heads, head_dim, rng)
    for cap in (3.0, 50.0, 1e6):
        got, wanted = case.run(audio.audio_attend, cap), case.run(reference_audio.audio_attend, cap)
        assert np.allclose(got, wanted, rtol=0, atol=2e-5)


def test_a_frame_that_sees_nothing_gets_zeros(isa: str, rng: np.random.Generator) -> None:
    case = Attention(5, 3, 2, 16, rng)
    case.valid[:] = 0
    case.valid[7] = 1  # the frame 4
    out = case.run(audio.audio_attend)
    assert (out[:4] == 0).all() and np.allclose(out[4], case.v[7])


@pytest.mark.parametrize("taps", [1, 2, 5])
@pytest.mark.parametrize("width", [1, 24, 67])
@pytest.mark.parametrize("frames", FRAMES)
def test_light_conv(isa: str, frames: int, width: int, taps: int, rng: np.random.Generator) -> None:
    gates, past, norm = (
        normal(rng, frames, 2 * width),
        normal(rng, taps - 1, width),
        normal(rng, width),
    )
    weights = normal(rng, taps, width)
    for clip in (CLIP, 0.7):
        wanted, kept, ours = np.empty((frames, width), np.float32), past.copy(), past.copy()
        reference_audio.audio_light_conv(gates, kept, weights, norm, clip, EPS, wanted)
        out, buffer = guarded(frames, width)
        audio.audio_light_conv(gates, ours, weights, norm, clip, EPS, out)
        assert guards_hold(buffer)
        assert np.allclose(out, wanted, rtol=0, atol=1e-5)
        assert np.allclose(ours, kept, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1, 33, 1_100])
@pytest.mark.parametrize("frames", FRAMES)
def test_group_norm(isa: str, frames: int, size: int, rng: np.random.Generator) -> None:
    x, weight = 5 + 3 * normal(rng, frames, size), normal(rng, size)
    sums, ours = np.array([7.0, 7 * size * 4.0, 7 * size * 9.5]), np.zeros(3)
    ours[:] = sums
    wanted = np.empty_like(x)
    reference_audio.audio_group_norm(x, weight, sums, 1e-3, wanted)
    out, buffer = guarded(*x.shape)
    audio.audio_group_norm(x, weight, ours, 1e-3, out)
    assert guards_hold(buffer)
    assert np.allclose(out, wanted, rtol=1e-5, atol=1e-5)
    assert np.allclose(ours, sums, rtol=1e-6)


def test_the_group_norm_stays_accurate_for_hours(isa: str, rng: np.random.Generator) -> None:
    """Four hours of frames of 20 ms: sums in float32 would be off by per cents."""
    frames, size = 720_000, 4
    x = (1_000 + rng.standard_normal((frames, size))).astype(np.float32)
    seen = np.arange(1, frames + 1) * size
    means = np.cumsum(x.sum(axis=1, dtype=np.longdouble)) / seen
    squares = np.cumsum(np.square(x - means[:, None]).sum(axis=1)) / seen
    wanted = np.maximum((x - means[:, None]) / np.sqrt(squares + 1e-3)[:, None], 0)
    sums, out = np.zeros(3), np.empty_like(x)
    audio.audio_group_norm(x, np.ones(size, np.float32), sums, 1e-3, out)
    # A mean of 1,000 rounded to float32 is off by 3e-5.
    assert np.abs(out[-1000:] - wanted[-1000:]).max() < 1e-4


def all_ops(rng: np.random.Generator, frames: int) -> Callable[[slice], list[F32]]:
    """Every operation over a part of the frames, and whatever it leaves for the next part."""
    width, module = 40, FeedForward("i8", 40, rng)
    case = Attention(frames, 12, 2, 20, rng)
    x, gates = normal(rng, frames, width), normal(rng, frames, 2 * width)
    taps, weight = normal(rng, 5, width), normal(rng, width)
    past, sums = np.zeros((4, width), np.float32), np.zeros(3)
    square = [dense(kind, spread(rng, width, width)) for kind in DENSE_KINDS]

    def run(rows: slice) -> list[F32]:
        outs = [np.empty((rows.stop - rows.start, width), np.float32) for _ in range(8)]
        audio.audio_feed_forward(
            module.up, module.down, module.pre, module.post, module.end, 0.5, CLIP, EPS, x[rows],
            outs[0],
        )  # fmt: skip
        for w, out in zip(square, outs[4:7], strict=True):
            audio.audio_add(w, module.post, CLIP, EPS, x[rows], x[rows], out)
        audio.audio_project([square[2]], module.pre, CLIP, EPS, x[rows], [outs[7]])
        keys = slice(rows.start, rows.stop + 12)
        audio.audio_attend(
            case.q[rows], case.k[keys], case.v[keys], case.valid[keys], case.position, case.scale,
            5.0, outs[1],
        )  # fmt: skip
        audio.audio_light_conv(gates[rows], past, taps, weight, CLIP, EPS, outs[2])
        audio.audio_group_norm(x[rows], weight, sums, 1e-3, outs[3])
        return outs

    return run


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_frames_have_the_bits_they_have_in_pieces(isa: str, threads: int) -> None:
    frames, before = 531, kernels.threads()
    cuts = (0, 1, 2, 5, 64, 70, 200, frames)
    kernels.set_threads(threads)
    whole = all_ops(np.random.default_rng(5), frames)(slice(0, frames))
    kernels.set_threads(2)
    run = all_ops(np.random.default_rng(5), frames)
    pieces = [run(slice(*cut)) for cut in pairwise(cuts)]
    kernels.set_threads(before)
    for index, wanted in enumerate(whole):
        assert np.array_equal(np.concatenate([piece[index] for piece in pieces]), wanted)


def test_the_bits_are_the_same_on_every_instruction_set() -> None:
    before, results = kernels.isa(), []
    for name in kernels.isas():
        kernels.set_isa(name)
        results.append(all_ops(np.random.default_rng(6), 9)(slice(0, 9)))
    kernels.set_isa(before)
    for other in results[1:]:
        assert all(np.array_equal(*pair) for pair in zip(results[0], other, strict=True))


def test_wrong_arguments_are_refused(rng: np.random.Generator) -> None:
    module, x, out = FeedForward("f32", 8, rng), normal(rng, 3, 8), np.empty((3, 8), np.float32)
    bad: Any
    for bad in (x.astype(np.float64), normal(rng, 6, 8)[::2], x[0]):
        with pytest.raises(TypeError):
            audio.audio_add(module.down, None, CLIP, EPS, bad, out, out)
        with pytest.raises(TypeError):
            audio.audio_project([module.up], None, CLIP, EPS, x, [bad])
        with pytest.raises(TypeError):
            audio.audio_group_norm(bad, x[0], np.zeros(3), 1e-3, out)
    arguments: list[Any] = [
        module.up, module.down, module.pre, module.post, None, 0.5, CLIP, EPS, x, out,
    ]  # fmt: skip
    wrong: list[tuple[int, Any, str]] = [
        (0, module.down, "up is 8 x 32, expected any number of rows x 8"),
        (1, module.up, "down is 32 x 8, expected 8 x 32"),
        (2, module.pre[:7], "pre_norm has shape"),
        (3, module.post[:7], "post_norm has shape"),
        (4, module.end[:7], "end_norm has shape"),
        (5, float("nan"), "gain must be finite"),
        (6, 0.0, "clip must be finite and > 0"),
        (7, -1.0, "eps must be finite and > 0"),
        (9, out[:2], "out has shape"),
        (9, x, "out must not be x"),
    ]
    for index, value, message in wrong:
        changed = [*arguments[:index], value, *arguments[index + 1 :]]
        with pytest.raises(ValueError, match=message):
            audio.audio_feed_forward(*changed)


def test_wrong_arguments_of_products_are_refused(rng: np.random.Generator) -> None:
    w, x, out = dense("i8", spread(rng, 8, 8)), normal(rng, 3, 8), np.empty((3, 8), np.float32)
    for ws, outs, message in (
        ([w], [], "1 matrices and 0 outs"),
        ([w, dense("f32", spread(rng, 8, 8))], [out, out], "one kind"),
        ([dense("i8", spread(rng, 8, 9))], [out], "expected any number of rows x 8"),
        ([w], [out[:2]], "an out has shape"),
        ([w], [x], "out must not be x"),
    ):
        with pytest.raises(ValueError, match=message):
            audio.audio_project(ws, None, CLIP, EPS, x, outs)
    with pytest.raises(ValueError, match="residual has shape"):
        audio.audio_add(w, None, CLIP, EPS, x, x[:2], out)
    with pytest.raises(ValueError, match="norm has shape"):
        audio.audio_add(w, x[0, :3], CLIP, EPS, x, x, out)
    with pytest.raises(ValueError, match="part of the residual"):
        both = np.zeros((4, 8), np.float32)
        audio.audio_add(w, None, CLIP, EPS, x, both[:3], both[1:])
    rows, filters = normal(rng, 4, 6, 1), dense("f32", spread(rng, 5, 9))
    with pytest.raises(ValueError, match="2 outputs need 5 rows, got 4"):
        audio.audio_stem_conv(filters, rows, np.empty((2, 3, 5), np.float32))
    with pytest.raises(ValueError, match="kind f32"):
        audio.audio_stem_conv(dense("i8", spread(rng, 5, 9)), rows, np.empty((1, 3, 5), np.float32))


def test_matrices_check_what_they_are_made_of(rng: np.random.Generator) -> None:
    data = quantize.pack("i8", "panel", normal(rng, 20, 300))
    with pytest.raises(ValueError, match="expected one of f32, bf16, i8, got 'q8'"):
        audio.DenseMatrix("q8", 20, 300, data)
    with pytest.raises(ValueError, match=r"stored as 2 panels of 5120 bytes, got"):
        audio.DenseMatrix("i8", 20, 300, data[:, 1:].copy())
    with pytest.raises(ValueError, match="or another dtype"):
        audio.DenseMatrix("f32", 20, 300, data)
    with pytest.raises(ValueError, match="rows and cols"):
        audio.DenseMatrix("i8", 0, 300, data[:0])
    with pytest.raises(TypeError, match="C-contiguous"):
        audio.DenseMatrix("i8", 20, 300, data.T)
    matrix = audio.DenseMatrix("i8", 20, 300, data)
    assert (matrix.kind, matrix.rows, matrix.cols) == ("i8", 20, 300)
    assert np.shares_memory(matrix.data, data)


def test_wrong_shapes_of_attention_and_norms_are_refused(rng: np.random.Generator) -> None:
    case = Attention(4, 2, 2, 8, rng)
    fields: list[tuple[str, npt.NDArray[Any], str]] = [
        ("k", case.k[1:], "k has shape"),
        ("v", case.v[1:], "v has shape"),
        ("valid", case.valid[1:], "valid has shape"),
        ("position", case.position[:0], "position has 0 rows"),
        ("scale", case.scale[:3], "multiple of the 3"),
        ("scale", case.scale[:0], "multiple of the 0"),
    ]
    for name, value, message in fields:
        changed = Attention(4, 2, 2, 8, rng)
        setattr(changed, name, value)
        with pytest.raises(ValueError, match=message):
            changed.run(audio.audio_attend)
    with pytest.raises(ValueError, match="cap must be finite"):
        case.run(audio.audio_attend, 0.0)
    x, past = normal(rng, 4, 8), np.zeros((1, 8), np.float32)
    with pytest.raises(ValueError, match="gates has shape"):
        audio.audio_light_conv(x, past, x[:2], x[0], CLIP, EPS, x.copy())
    with pytest.raises(ValueError, match="past has shape"):
        audio.audio_light_conv(normal(rng, 4, 16), past, x[:3], x[0], CLIP, EPS, x.copy())
    with pytest.raises(ValueError, match="sums has shape"):
        audio.audio_group_norm(x, x[0], np.zeros(2), 1e-3, x.copy())
