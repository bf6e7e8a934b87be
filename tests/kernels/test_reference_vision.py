"""The numpy twins of the vision operations, against torch and against sums written out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from matryo.kernels.reference_vision import (
    Filter,
    attend_pixels,
    conv,
    depthwise,
    inverted_bottleneck,
    quantize_filter,
    same_padding,
)

F32 = npt.NDArray[np.float32]

# height, width, kernel, stride
SHAPES = ((8, 8, 3, 2), (9, 7, 3, 2), (8, 10, 5, 2), (9, 6, 5, 1), (7, 5, 1, 1), (1, 1, 5, 2))


def random(*shape: int, seed: int = 0) -> F32:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def torch_conv(x: F32, weight: F32, stride: int, groups: int = 1) -> torch.Tensor:
    """x (H, W, Ci), weight (Co, kh, kw, Ci) -> (1, Co, H', W')."""
    kernel = weight.shape[1]
    pads = [*same_padding(x.shape[1], kernel, stride), *same_padding(x.shape[0], kernel, stride)]
    picture = F.pad(torch.from_numpy(x).permute(2, 0, 1)[None], pads)
    return F.conv2d(
        picture, torch.from_numpy(weight).permute(0, 3, 1, 2), stride=stride, groups=groups
    )


def output(size: tuple[int, int], stride: int, channels: int) -> F32:
    return np.full((-(-size[0] // stride), -(-size[1] // stride), channels), np.nan, np.float32)


def test_padding_is_tensorflows() -> None:
    assert same_padding(8, 3, 2) == (0, 1)
    assert same_padding(7, 3, 2) == (1, 1)
    assert same_padding(8, 5, 2) == (1, 2)
    assert same_padding(8, 5, 1) == (2, 2)
    assert same_padding(8, 1, 2) == (0, 0)


@pytest.mark.parametrize("height, width, kernel, stride", SHAPES)
def test_conv(height: int, width: int, kernel: int, stride: int) -> None:
    x, weight = random(height, width, 6), random(5, kernel, kernel, 6)
    bias, norm, gamma = random(5, seed=1), random(5, seed=2), random(5, seed=3)
    out = output((height, width), stride, 5)
    residual = random(*out.shape, seed=4)
    conv(Filter(weight), x, stride, out, bias, norm, 1e-6, True, gamma, residual)
    y = torch_conv(x, weight, stride)[0].permute(1, 2, 0) + torch.from_numpy(bias)
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-6) * torch.from_numpy(norm)
    y = F.gelu(y, approximate="tanh") * torch.from_numpy(gamma) + torch.from_numpy(residual)
    np.testing.assert_allclose(out, y.numpy(), atol=3e-5)


@pytest.mark.parametrize("height, width, kernel, stride", SHAPES)
def test_depthwise(height: int, width: int, kernel: int, stride: int) -> None:
    x, weight = random(height, width, 6), random(kernel, kernel, 6)
    out = output((height, width), stride, 6)
    depthwise(weight, x, stride, out)
    grouped = np.ascontiguousarray(weight.transpose(2, 0, 1)[..., None])
    expected = torch_conv(x, grouped, stride, groups=6)[0].permute(1, 2, 0)
    np.testing.assert_allclose(out, expected.numpy(), atol=1e-5)


def test_inverted_bottleneck_is_two_convolutions() -> None:
    x, expand, project = random(3, 4, 6), Filter(random(20, 1, 1, 6)), Filter(random(6, 1, 1, 20))
    norms = random(20, seed=1), random(6, seed=2)
    gamma, wide, expected, out = random(6, seed=3), *(np.empty((3, 4, n), "f4") for n in (20, 6, 6))
    conv(expand, x, 1, wide, norm=norms[0], gelu=True)
    conv(project, wide, 1, expected, norm=norms[1], gamma=gamma, residual=x)
    inverted_bottleneck(expand, project, x, out, *norms, 1e-6, gamma, x)
    np.testing.assert_array_equal(out, expected)


def test_attend_pixels() -> None:
    q, k, v = random(12, 3 * 8), random(5, 8), random(5, 8, seed=1)
    out = np.empty_like(q)
    attend_pixels(q, k, v, 3, 0.5, out)
    heads = torch.from_numpy(q).reshape(12, 3, 8).transpose(0, 1)
    keys, values = (torch.from_numpy(side).expand(3, -1, -1) for side in (k, v))
    attended = F.scaled_dot_product_attention(heads, keys, values, scale=0.5)
    expected = attended.transpose(0, 1).flatten(1)
    np.testing.assert_allclose(out, expected.numpy(), atol=1e-6)


def test_int8_is_exact_integers_times_scales() -> None:
    """Each output pixel has its own scale and zero, over all the pixels that it reads."""
    x = random(3, 3, 4) * np.array([1, 10, 100], np.float32)[:, None, None]
    codes, scales = quantize_filter(random(2, 3, 3, 4))
    out = output((3, 3), 1, 2)
    conv(Filter(codes, scales), x, 1, out)
    patch = x[0:2, 0:2]  # what the first output pixel reads, apart from zeros of the padding
    low, high = min(patch.min(), np.float32(0)), max(patch.max(), np.float32(0))
    step = (high - low) / np.float32(150)
    rounded = np.rint(patch * (np.float32(150) / (high - low))).astype(np.int64)
    assert np.ptp(rounded) in (149, 150)  # the whole range is used
    sums = (codes[:, 1:, 1:].astype(np.int64) * rounded).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(out[0, 0], sums * step * scales, rtol=1e-5)


def test_int8_of_a_filter() -> None:
    weights = random(3, 1, 1, 8)
    weights[0, ..., 4] = 5 * np.abs(weights[0]).max()  # alone, it decides on the scale
    weights[1] = 0
    codes, scales = quantize_filter(weights)
    assert codes.shape == weights.shape and codes.dtype == np.int8 and scales.dtype == np.float32
    assert np.abs(codes[0]).max() == 127 and scales[1] == 0 and not codes[1].any()
    error = np.abs(codes * scales[:, None, None, None] - weights).max(axis=(1, 2, 3))
    assert (error <= scales * 0.5001).all()


def test_int8_of_a_black_picture_is_zero() -> None:
    codes, scales = quantize_filter(random(2, 3, 3, 4))
    out = output((4, 4), 1, 2)
    conv(Filter(codes, scales), np.zeros((4, 4, 4), np.float32), 1, out)
    assert not out.any()


def test_the_size_of_a_filter() -> None:
    weights = random(3, 1, 1, 8)
    assert Filter(weights).kind == "f32" and Filter(weights).nbytes == 96
    small = Filter(*quantize_filter(weights))
    assert (small.kind, small.shape, small.nbytes) == ("i8", (3, 1, 1, 8), 24 + 12)
