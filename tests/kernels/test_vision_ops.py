"""The operations of the vision encoder against their numpy twins: odd sizes, every kernel and
stride of the model, both arithmetic classes, any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from helpers.matrices import F32, guarded, guards_hold, normal
from matryo import kernels
from matryo.kernels import reference_vision as reference
from matryo.kernels import vision

EPS = 1e-6
KINDS = ["f32", "i8", "i16"]
LIMITS = {"f32": 2e-5, "i8": 5e-3, "i16": 3e-4}  # behind a middle that is rounded
QUANTIZE: dict[str, Callable[[F32], tuple[Any, F32]]] = {
    "i8": reference.quantize_filter,
    "i16": reference.quantize_finely,
}


@pytest.fixture
def team() -> Iterator[None]:
    """Leaves the number of threads as it was."""
    before = kernels.threads()
    yield
    kernels.set_threads(before)


def filters(
    rng: np.random.Generator, kind: str, co: int, kernel: int, ci: int
) -> tuple[vision.Filter, reference.Filter]:
    """The same random weights for both sides."""
    weights = normal(rng, co, kernel, kernel, ci)
    if kind == "f32":
        return vision.Filter(weights), reference.Filter(weights)
    codes, scales = QUANTIZE[kind](weights)
    return vision.Filter(codes, scales), reference.Filter(codes, scales)


def close(got: F32, wanted: F32, limit: float = 2e-5) -> bool:
    """Within `limit` of the largest value: sums of normal terms that cancel lose the most."""
    return bool((np.abs(got - wanted) <= limit * max(1.0, float(np.abs(wanted).max()))).all())


def run_conv(filter: vision.Filter, x: F32, stride: int, **after: Any) -> F32:
    """The native conv; also that it writes nothing outside of its output."""
    shape = (-(-x.shape[0] // stride), -(-x.shape[1] // stride), filter.shape[0])
    out, buffer = guarded(*shape)
    vision.conv(filter, x, stride, out, **after)
    assert guards_hold(buffer)
    return out


def reference_conv(filter: reference.Filter, x: F32, stride: int, **after: Any) -> F32:
    """The numpy conv."""
    out = np.empty(
        (-(-x.shape[0] // stride), -(-x.shape[1] // stride), filter.shape[0]), np.float32
    )
    reference.conv(filter, x, stride, out, **after)
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("co", [1, 15, 16, 17, 33, 64, 80])
@pytest.mark.parametrize("ci", [1, 3, 4, 7, 32, 61])
def test_pointwise_conv(isa: str, kind: str, co: int, ci: int, rng: np.random.Generator) -> None:
    native, plain = filters(rng, kind, co, 1, ci)
    x = normal(rng, 3, 5, ci)
    assert close(run_conv(native, x, 1), reference_conv(plain, x, 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pixels", [1, 2, 5, 6, 7, 11, 12, 13, 95, 97, 193, 200])
def test_any_number_of_pixels(isa: str, kind: str, pixels: int, rng: np.random.Generator) -> None:
    native, plain = filters(rng, kind, 20, 1, 10)
    x = normal(rng, 1, pixels, 10)
    assert close(run_conv(native, x, 1), reference_conv(plain, x, 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ci", [255, 256, 257, 513, 1030, 1537])
def test_products_longer_than_a_block(
    isa: str, kind: str, ci: int, rng: np.random.Generator
) -> None:
    native, plain = filters(rng, kind, 18, 1, ci)
    x = normal(rng, 2, 4, ci)
    assert close(run_conv(native, x, 1), reference_conv(plain, x, 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 2), (5, 1), (5, 2), (2, 1)])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 4), (7, 8), (9, 5)])
def test_conv_of_patches(
    isa: str,
    kind: str,
    kernel: int,
    stride: int,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> None:
    native, plain = filters(rng, kind, 19, kernel, 6)
    x = normal(rng, *size, 6)
    assert close(run_conv(native, x, stride), reference_conv(plain, x, stride))


@pytest.mark.parametrize("kind", KINDS)
def test_patches_longer_than_a_block(isa: str, kind: str, rng: np.random.Generator) -> None:
    native, plain = filters(rng, kind, 18, 3, 70)
    x = normal(rng, 5, 6, 70)
    assert close(run_conv(native, x, 1), reference_conv(plain, x, 1))


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (4, 4), (5, 8), (13, 30), (40, 19)])
@pytest.mark.parametrize(("co", "ci"), [(16, 16), (17, 40), (80, 33), (130, 20)])
def test_conv_with_fewer_multiplications(
    isa: str, size: tuple[int, int], co: int, ci: int, rng: np.random.Generator
) -> None:
    """Kernel 3, stride 1 and enough channels: tiles of 4 x 4 outputs, whole or not."""
    native, plain = filters(rng, "f32", co, 3, ci)
    x = normal(rng, *size, ci)
    after = {"bias": normal(rng, co), "norm": normal(rng, co), "residual": normal(rng, *size, co)}
    assert close(run_conv(native, x, 1), reference_conv(plain, x, 1), 3e-6)
    assert close(run_conv(native, x, 1, **after), reference_conv(plain, x, 1, **after))


def test_fewer_multiplications_keep_impulses(isa: str) -> None:
    """One bright pixel, and one weight at each place of the filter: every output by itself."""
    weights = np.zeros((16, 3, 3, 16), np.float32)
    for tap in range(9):
        weights[tap, tap // 3, tap % 3, tap] = 1.0 + tap
    native, plain = vision.Filter(weights), reference.Filter(weights)
    x = np.zeros((9, 9, 16), np.float32)
    for y, column in [(0, 0), (3, 4), (8, 8)]:
        x[...] = 0.0
        x[y, column] = 1.0
        assert close(run_conv(native, x, 1), reference_conv(plain, x, 1), 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parts", range(32))
def test_what_follows_a_conv(isa: str, kind: str, parts: int, rng: np.random.Generator) -> None:
    native, plain = filters(rng, kind, 37, 3, 5)
    x = normal(rng, 4, 5, 5)
    after: dict[str, Any] = {"eps": 0.5}
    if parts & 1:
        after["bias"] = 3 * normal(rng, 37)
    if parts & 2:
        after["norm"] = normal(rng, 37)
    if parts & 4:
        after["gelu"] = True
    if parts & 8:
        after["gamma"] = normal(rng, 37)
    if parts & 16:
        after["residual"] = normal(rng, 4, 5, 37)
    assert close(run_conv(native, x, 1, **after), reference_conv(plain, x, 1, **after))


@pytest.mark.parametrize("narrow", [False, True])
def test_integer_products_are_exact(isa: str, narrow: bool, rng: np.random.Generator) -> None:
    """Extreme codes, up to where sums in 16 bits end; inputs that are their own codes."""
    most = 107 if narrow else 127
    codes = rng.choice(np.array([-most, most], np.int8), (17, 1, 1, 904))
    if narrow:  # among 0, 1, 4, 5 of each eight, and among 2, 3, 6, 7, at most 218
        codes.reshape(17, -1, 8)[..., 4:] = rng.integers(-2, 3, (17, 113, 4))
    codes[0] = np.tile(np.array([most, most, -most, -most, 2, 2, -2, -2], np.int8), 113)
    x = rng.choice(np.array([-75, 75], np.float32), (2, 3, 904))
    x[0, 0, :-1], x[0, 0, -1] = 75, -75
    wanted = x.astype(np.int64) @ codes.reshape(17, 904).T.astype(np.int64)
    out = run_conv(vision.Filter(codes, np.ones(17, np.float32)), x, 1)
    assert np.array_equal(out, wanted.astype(np.float32))


def test_the_largest_16_bit_products_fit_their_sums(isa: str, rng: np.random.Generator) -> None:
    """Weights and codes as large as they may be, all of one sign and of both."""
    depth, most = 1030, 2047
    codes = np.full((17, 1, 1, depth), (1 << 20) // depth, np.int16)
    codes[1::2] *= rng.choice(np.array([-1, 1], np.int16), (8, 1, 1, depth))
    codes[2] = 0
    codes[2, ..., :33] = [32767] * 32 + [(1 << 20) - 32 * 32767]
    x = rng.choice(np.array([-most, most], np.float32), (2, 3, depth))
    x[0, 0], x[0, 1] = most, -most
    x[0, 2] = rng.integers(-most, most, depth)
    x[0, 2, 0] = most  # its codes are its values too
    wanted = x.astype(np.int64) @ codes.reshape(17, depth).T.astype(np.int64)
    assert np.abs(wanted).max() > 0.99 * 2**31
    out = run_conv(vision.Filter(codes, np.ones(17, np.float32)), x, 1)
    assert np.array_equal(out, wanted.astype(np.float32))


def test_fine_filters_are_nearly_exact(isa: str, rng: np.random.Generator) -> None:
    for size, co, kernel, ci in ((6, 20, 1, 900), (6, 20, 3, 300), (5, 1, 1, 1)):
        weights, x = normal(rng, co, kernel, kernel, ci), normal(rng, size, size, ci)
        wanted = reference_conv(reference.Filter(weights), x, 1)
        noise = {
            kind: np.linalg.norm(run_conv(vision.Filter(*quantize(weights)), x, 1) - wanted)
            / np.linalg.norm(wanted)
            for kind, quantize in QUANTIZE.items()
        }
        assert noise["i16"] < 2e-3 and (ci == 1 or noise["i16"] < noise["i8"] / 10)


@pytest.mark.parametrize("depth", [1, 3, 500, 4000])
def test_fine_filters_keep_the_bound_of_their_sums(depth: int, rng: np.random.Generator) -> None:
    for weights in (normal(rng, 7, 1, 1, depth), np.ones((2, 1, 1, depth), np.float32)):
        codes, scales = reference.quantize_finely(weights)
        assert np.abs(codes.astype(int)).sum(axis=(1, 2, 3)).max() <= 1 << 20
        values = codes * scales.reshape(-1, 1, 1, 1)
        assert (np.abs(values - weights) <= 0.505 * scales.reshape(-1, 1, 1, 1)).all()
    codes, scales = reference.quantize_finely(np.zeros((2, 1, 1, depth), np.float32))
    assert not codes.any() and not scales.any()


def test_quantised_filters_keep_the_bound_of_sums_in_16_bits(rng: np.random.Generator) -> None:
    for weights in (normal(rng, 9, 3, 3, 5), np.ones((4, 1, 1, 24), np.float32)):
        codes, scales = reference.quantize_filter(weights)
        rows = np.pad(codes.reshape(len(codes), -1).astype(int), ((0, 0), (0, -codes[0].size % 8)))
        for four in ([0, 1, 4, 5], [2, 3, 6, 7]):
            part = rows.reshape(len(codes), -1, 8)[..., four]
            assert np.maximum(part, 0).sum(axis=-1).max() <= 218
            assert np.maximum(-part, 0).sum(axis=-1).max() <= 218
        values = codes * scales.reshape(-1, 1, 1, 1)
        assert (np.abs(values - weights) <= 0.5001 * scales.reshape(-1, 1, 1, 1)).all()


@pytest.mark.parametrize("kind", ["i8", "i16"])
def test_rows_of_zeros_and_of_tiny_values(isa: str, kind: str, rng: np.random.Generator) -> None:
    native, plain = filters(rng, kind, 8, 1, 12)
    x = normal(rng, 1, 4, 12)
    x[0, 1], x[0, 2] = 0.0, 1e-35
    got = run_conv(native, x, 1)
    assert close(got, reference_conv(plain, x, 1))
    assert (got[0, 1:3] == 0).all()


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 9), (8, 6), (13, 16)])
@pytest.mark.parametrize("channels", [1, 7, 16, 33])
def test_depthwise(
    isa: str,
    kernel: int,
    stride: int,
    size: tuple[int, int],
    channels: int,
    rng: np.random.Generator,
) -> None:
    weight, x, norm = (
        normal(rng, kernel, kernel, channels),
        normal(rng, *size, channels),
        normal(rng, channels),
    )
    parts: list[dict[str, Any]] = [{}, {"norm": norm}, {"norm": norm, "eps": 0.5, "gelu": True}]
    for after in parts:
        out, buffer = guarded(-(-size[0] // stride), -(-size[1] // stride), channels)
        vision.depthwise(weight, x, stride, out, **after)
        assert guards_hold(buffer)
        wanted = np.empty_like(out)
        reference.depthwise(weight, x, stride, wanted, **after)
        assert close(out, wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("size", "wide"), [((1, 1), 8), ((5, 7), 50), ((14, 14), 300)])
@pytest.mark.parametrize("rest", [False, True])
def test_inverted_bottleneck(
    isa: str, kind: str, size: tuple[int, int], wide: int, rest: bool, rng: np.random.Generator
) -> None:
    expand, plain_expand = filters(rng, kind, wide, 1, 24)
    project, plain_project = filters(rng, kind, 20, 1, wide)
    x, norms = normal(rng, *size, 24), (normal(rng, wide), normal(rng, 20))
    after = (normal(rng, 20), normal(rng, *size, 20)) if rest else (None, None)
    out, buffer = guarded(*size, 20)
    vision.inverted_bottleneck(expand, project, x, out, *norms, EPS, *after)
    assert guards_hold(buffer)
    wanted = np.empty_like(out)
    reference.inverted_bottleneck(plain_expand, plain_project, x, wanted, *norms, EPS, *after)
    # A middle value that lands on the other side of a rounding moves an output by one step.
    assert close(out, wanted, LIMITS[kind])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("coarse", [(1, 1), (7, 5), (14, 10), (9, 3), (20, 20)])
def test_a_coarse_picture_is_added_before_the_norm(
    isa: str, kind: str, coarse: tuple[int, int], rng: np.random.Generator
) -> None:
    expand, plain_expand = filters(rng, kind, 50, 1, 24)
    project, plain_project = filters(rng, kind, 20, 1, 50)
    x, norms = normal(rng, 14, 10, 24), (normal(rng, 50), normal(rng, 20))
    added = 3 * normal(rng, *coarse, 50)
    out, wanted, without = (np.empty((14, 10, 20), np.float32) for _ in range(3))
    vision.inverted_bottleneck(expand, project, x, out, *norms, EPS, coarse=added)
    reference.inverted_bottleneck(plain_expand, plain_project, x, wanted, *norms, EPS, coarse=added)
    assert close(out, wanted, LIMITS[kind])
    vision.inverted_bottleneck(expand, project, x, without, *norms, EPS)
    assert not close(without, wanted, 0.1)


@pytest.mark.parametrize("pixels", [1, 3, 50, 130])
@pytest.mark.parametrize("keys", [1, 5, 16, 37, 300])
@pytest.mark.parametrize(("heads", "dim"), [(1, 4), (3, 10), (2, 64)])
def test_attend_pixels(
    isa: str, pixels: int, keys: int, heads: int, dim: int, rng: np.random.Generator
) -> None:
    q, k, v = normal(rng, pixels, heads * dim), normal(rng, keys, dim), normal(rng, keys, dim)
    scale = 2.0 / np.sqrt(dim)
    out, buffer = guarded(pixels, heads * dim)
    vision.attend_pixels(q, k, v, heads, scale, out)
    assert guards_hold(buffer)
    wanted = np.empty_like(out)
    reference.attend_pixels(q, k, v, heads, scale, wanted)
    assert close(out, wanted)


def test_attention_to_large_scores_stays_finite(isa: str, rng: np.random.Generator) -> None:
    q, k, v = 300 * normal(rng, 9, 16), 300 * normal(rng, 40, 16), normal(rng, 40, 16)
    out, wanted = np.empty_like(q), np.empty_like(q)
    vision.attend_pixels(q, k, v, 1, 1.0, out)
    reference.attend_pixels(q, k, v, 1, 1.0, wanted)
    assert close(out, wanted, 1e-3)


@pytest.mark.usefixtures("team")
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_for_any_number_of_threads(
    isa: str, kind: str, rng: np.random.Generator
) -> None:
    expand, _ = filters(rng, kind, 96, 1, 40)
    project, _ = filters(rng, kind, 40, 1, 96)
    patches, _ = filters(rng, kind, 24, 3, 40)
    x, weight = normal(rng, 17, 13, 40), normal(rng, 3, 3, 40)
    norms = normal(rng, 96), normal(rng, 40)
    q, k = normal(rng, 221, 40), normal(rng, 70, 20)
    results: list[list[F32]] = []
    for threads in (1, 2, 3):
        kernels.set_threads(threads)
        outs = [np.empty((17, 13, 40), np.float32) for _ in range(2)]
        vision.inverted_bottleneck(expand, project, x, outs[0], *norms, EPS, None, x)
        vision.depthwise(weight, x, 1, outs[1], norms[1])
        outs.append(run_conv(patches, x, 2, gelu=True))
        outs.append(run_conv(patches, x, 1, gelu=True))
        outs.append(np.empty((221, 40), np.float32))
        vision.attend_pixels(q, k, k, 2, 0.5, outs[4])
        results.append(outs)
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_products_have_the_same_bits_on_every_instruction_set(
    kind: str, rng: np.random.Generator
) -> None:
    before = kernels.isa()
    x, native = normal(rng, 6, 7, 90), filters(rng, kind, 50, 3, 90)[0]
    results = []
    for name in kernels.isas():
        kernels.set_isa(name)
        results.append(run_conv(native, x, 1))
    kernels.set_isa(before)
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_filters_of_bf16_bits(rng: np.random.Generator) -> None:
    weights = normal(rng, 5, 3, 3, 4)
    bits = (weights.view(np.uint32) >> 16).astype(np.uint16)
    rounded = (bits.astype(np.uint32) << 16).view(np.float32)
    x = normal(rng, 4, 4, 4)
    assert np.array_equal(
        run_conv(vision.Filter(bits), x, 1), run_conv(vision.Filter(rounded), x, 1)
    )


def test_a_filter_says_what_it_is(rng: np.random.Generator) -> None:
    weights = normal(rng, 20, 3, 3, 5)
    plain = vision.Filter(weights)
    assert (plain.kind, plain.shape, plain.nbytes) == ("f32", (20, 3, 3, 5), 32 * 45 * 4)
    small = vision.Filter(*reference.quantize_filter(weights))
    assert (small.kind, small.shape, small.nbytes) == ("i8", (20, 3, 3, 5), 32 * 48 + 2 * 32 * 4)
    fine = vision.Filter(*reference.quantize_finely(weights))
    assert (fine.kind, fine.shape, fine.nbytes) == ("i16", (20, 3, 3, 5), 32 * 92 + 2 * 32 * 4)


def test_a_filter_copies_its_weights(rng: np.random.Generator) -> None:
    weights, x = normal(rng, 4, 1, 1, 4), normal(rng, 2, 2, 4)
    native = vision.Filter(weights)
    wanted = run_conv(native, x, 1)
    weights[...] = 0
    assert np.array_equal(run_conv(native, x, 1), wanted)


def test_wrong_filters_are_refused(rng: np.random.Generator) -> None:
    weights = normal(rng, 4, 1, 1, 3)
    codes, scales = reference.quantize_filter(weights)
    bad: Any
    for bad in (weights.astype(np.float64), weights[0], weights[::2], weights.astype(np.int32)):
        with pytest.raises(TypeError):
            vision.Filter(bad)
    for integers in (codes, codes.astype(np.int16)):
        with pytest.raises(ValueError, match="integer weights need scales"):
            vision.Filter(integers)
    many = np.full((4, 1, 1, 33), 32767, np.int16)
    many[:3] = 1
    with pytest.raises(ValueError, match="weights of channel 3 add up to 1081311, expected at mo"):
        vision.Filter(many, scales)
    with pytest.raises(ValueError, match="scales belong to integer"):
        vision.Filter(weights, scales)
    with pytest.raises(ValueError, match=r"scales has shape \(3\), expected \(4\)"):
        vision.Filter(codes, scales[:3])
    with pytest.raises(ValueError, match=r"\(4, 1, 1, 0\), expected \(Co, kh, kw, Ci\)"):
        vision.Filter(np.zeros((4, 1, 1, 0), np.float32))


def test_wrong_arguments_are_refused(rng: np.random.Generator) -> None:
    filter = vision.Filter(normal(rng, 8, 3, 3, 4))
    x, out = normal(rng, 5, 6, 4), np.zeros((5, 6, 8), np.float32)
    bad: Any
    for bad in (x.astype(np.float64), x[:, ::2], x[0]):
        with pytest.raises(TypeError):
            vision.conv(filter, bad, 1, out)
    frozen = out.copy()
    frozen.flags.writeable = False
    with pytest.raises(TypeError):
        vision.conv(filter, x, 1, frozen)
    with pytest.raises(ValueError, match="filter reads 4 channels, x has 3"):
        vision.conv(filter, normal(rng, 5, 6, 3), 1, out)
    with pytest.raises(ValueError, match=r"out has shape \(5, 6, 8\), expected \(3, 3, 8\)"):
        vision.conv(filter, x, 2, out)
    with pytest.raises(ValueError, match="stride is 0"):
        vision.conv(filter, x, 0, out)
    with pytest.raises(ValueError, match="eps must be finite"):
        vision.conv(filter, x, 1, out, eps=-1.0)
    for name in ("bias", "norm", "gamma"):
        with pytest.raises(ValueError, match=rf"{name} has shape \(7\), expected \(8\)"):
            seven: dict[str, Any] = {name: np.ones(7, np.float32)}
            vision.conv(filter, x, 1, out, **seven)
    with pytest.raises(ValueError, match="residual has shape"):
        vision.conv(filter, x, 1, out, residual=x)
    square = vision.Filter(normal(rng, 4, 1, 1, 4))
    with pytest.raises(ValueError, match="out overlaps x"):
        vision.conv(square, x, 1, x)
    with pytest.raises(ValueError, match="none of them 0"):
        vision.conv(square, x[:0], 1, x[:0])


def test_wrong_arguments_of_the_other_operations_are_refused(rng: np.random.Generator) -> None:
    x, norm = normal(rng, 5, 6, 4), normal(rng, 4)
    out = np.empty_like(x)
    with pytest.raises(ValueError, match=r"weight has shape \(3, 2, 4\), expected \(3, 3, 4\)"):
        vision.depthwise(normal(rng, 3, 2, 4), x, 1, out)
    with pytest.raises(ValueError, match=r"expected \(3, 3, 4\)"):
        vision.depthwise(normal(rng, 3, 3, 4), x, 2, out)
    square, wide = vision.Filter(normal(rng, 4, 1, 1, 4)), vision.Filter(normal(rng, 4, 3, 3, 4))
    with pytest.raises(ValueError, match="filters of kernel 1"):
        vision.inverted_bottleneck(square, wide, x, out, norm, norm, EPS)
    with pytest.raises(ValueError, match="project reads 5 channels, expand writes 4"):
        five = vision.Filter(normal(rng, 4, 1, 1, 5))
        vision.inverted_bottleneck(square, five, x, out, norm, norm, EPS)
    with pytest.raises(ValueError, match="norm_expand has shape"):
        vision.inverted_bottleneck(square, square, x, out, norm[:3], norm, EPS)
    q, k, mixed = normal(rng, 6, 8), normal(rng, 3, 4), np.empty((6, 8), np.float32)
    with pytest.raises(ValueError, match=r"v has shape \(2, 4\), expected \(3, 4\)"):
        vision.attend_pixels(q, k, k[:2], 2, 1.0, mixed)
    with pytest.raises(ValueError, match=r"q has shape \(6, 8\), expected \(6, 12\)"):
        vision.attend_pixels(q, k, k, 3, 1.0, mixed)
    with pytest.raises(ValueError, match="scale must be finite"):
        vision.attend_pixels(q, k, k, 2, float("nan"), mixed)
    with pytest.raises(ValueError, match="M >= 1"):
        vision.attend_pixels(q, k[:0], k[:0], 2, 1.0, mixed)
