"""The fused operations are the modules of transformers, in value and gradient, on every instruction
set; what torch derives in float64 is the measure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from matryo.train import fused as operations

fused: Any = operations  # torch leaves `Function.apply` untyped

EPS = 1e-6
CLOSE = 2e-5  # of the largest value of a tensor
SHAPES = [(1, 1, 8), (2, 9, 40), (3, 14, 33)]  # B, T, width: fewer and more tokens than pieces


def drawn(seed: int, *shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def compare(
    ours: Callable[..., Any], wanted: Callable[..., Any], inputs: list[torch.Tensor]
) -> None:
    """Values, and gradients of a random sum of all outputs, against float64."""
    outcomes = []
    for function, dtype in ((ours, torch.float32), (wanted, torch.float64)):
        given = [x.detach().to(dtype).requires_grad_() for x in inputs]
        out = function(*given)
        out = out if isinstance(out, tuple) else (out,)
        weights = drawn(99, *(tuple(value.shape) for value in out))
        sum((value * weight).sum() for value, weight in zip(out, weights, strict=True)).backward()
        outcomes.append([*out, *(x.grad for x in given)])
    for number, (got, expected) in enumerate(zip(*outcomes, strict=True)):
        error = (got.double() - expected).abs().max().item()
        assert error <= CLOSE * expected.abs().max().item(), number


def rms(x: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    normed = x * (x.square().mean(-1, keepdim=True) + EPS).rsqrt()
    return normed if weight is None else normed * weight


def route(x: torch.Tensor, norm: torch.Tensor, router: torch.Tensor) -> torch.Tensor:
    return torch.tanh(functional.linear(rms(x, norm) / x.shape[-1], router))


@pytest.mark.parametrize(("rows", "tokens", "d"), SHAPES)
def test_predict(isa: str, rows: int, tokens: int, d: int) -> None:
    def wanted(x: Any, norm: Any, router: Any, coefs: Any, weight: Any) -> Any:
        mix = functional.linear(route(x[0], norm, router), coefs).unflatten(-1, (4, 4))
        found = x + torch.einsum("btij,jbtd->ibtd", mix, x)
        return found, found[0], rms(found[0], weight)

    inputs = drawn(1, (4, rows, tokens, d), (d,), (4, d), (16, 4), (d,))
    inputs[2] *= 5  # so that tanh bends
    compare(lambda *given: fused.Predict.apply(*given, EPS), wanted, inputs)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(("rows", "tokens", "d"), SHAPES)
def test_norm(isa: str, rows: int, tokens: int, d: int, weighted: bool) -> None:
    inputs = drawn(2, (rows, tokens, d), *[(d,)] * weighted)
    compare(lambda x, w=None: fused.Norm.apply(x, w, EPS), lambda x, w=None: rms(x, w), inputs)


@pytest.mark.parametrize(("rows", "tokens", "d"), SHAPES)
def test_post_attention(isa: str, rows: int, tokens: int, d: int) -> None:
    def wanted(first: Any, a: Any, wa: Any, normed: Any, b: Any, wb: Any, wn: Any) -> Any:
        hidden = (first + rms(a, wa) + normed + rms(b, wb)) / 2**0.5
        return hidden, rms(hidden, wn)

    shape = (rows, tokens, d)
    inputs = drawn(3, shape, shape, (d,), shape, shape, (d,), (d,))
    compare(lambda *given: fused.PostAttention.apply(*given, EPS), wanted, inputs)


@pytest.mark.parametrize("multiplier", [None, 0.0, 1.6449])
@pytest.mark.parametrize(("rows", "tokens", "width"), SHAPES)
def test_gated(isa: str, rows: int, tokens: int, width: int, multiplier: float | None) -> None:
    def wanted(gate: Any, up: Any) -> Any:
        if multiplier is not None:
            mean, deviation = gate.mean(-1, keepdim=True), gate.std(-1, keepdim=True, correction=0)
            gate = functional.relu(gate - (mean + deviation * multiplier))
        return functional.gelu(gate, approximate="tanh") * up

    inputs = drawn(4, *[(rows, tokens, width)] * 2)
    inputs[0] *= 3
    compare(lambda *given: fused.Gated.apply(*given, multiplier), wanted, inputs)


def test_a_gate_of_equal_values_has_finite_gradients() -> None:
    gate, up = torch.ones(1, 2, 8, requires_grad=True), torch.ones(1, 2, 8, requires_grad=True)
    fused.Gated.apply(gate, up, 1.6449).sum().backward()
    assert gate.grad is not None and bool(gate.grad.isfinite().all())


def test_what_is_no_number_shows() -> None:
    gate, up = torch.tensor([[[1.0, float("nan"), 3.0]]]), torch.ones(1, 1, 3)
    assert bool(fused.Gated.apply(gate, up, None).isnan().any())
    assert bool(fused.Gated.apply(gate, up, 0.5).isnan().any())


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize(("heads", "n"), [(1, 8), (3, 36)])
def test_rotated(isa: str, batches: int, heads: int, n: int) -> None:
    """Angles of every row of the batch, or the same for all."""
    angles = drawn(6, (batches, 5, n // 2))[0]
    cosine, sine = (torch.cat([f(angles)] * 2, -1) for f in (torch.cos, torch.sin))

    def wanted(x: Any, weight: Any) -> Any:
        x = rms(x, weight)
        turned = torch.cat([-x[..., n // 2 :], x[..., : n // 2]], -1)
        return x * cosine.double()[:, :, None] + turned * sine.double()[:, :, None]

    inputs = drawn(5, (2, 5, heads, n), (n,))
    compare(lambda x, weight: fused.Rotated.apply(x, weight, EPS, cosine, sine), wanted, inputs)


@pytest.mark.parametrize(("rows", "tokens", "d"), SHAPES)
def test_correction(isa: str, rows: int, tokens: int, d: int) -> None:
    """Both halves together, since the gains go from one to the other."""

    def wanted(
        p: Any, active: Any, norm: Any, router: Any, coefs: Any, scale: Any, *more: Any
    ) -> Any:
        added, weight = more
        gains = functional.linear(route(active, norm, router), coefs) + 1
        corrected = p + torch.einsum("bta,btd->abtd", gains, active - p[0])
        others = corrected[1:] + rms(added, weight)
        return corrected[0] * scale, torch.cat([corrected[:1], others])

    def ours(
        p: Any, active: Any, norm: Any, router: Any, coefs: Any, scale: Any, *more: Any
    ) -> Any:
        gains, scaled = fused.CorrectFirst.apply(p[0], active, norm, router, coefs, scale, EPS)
        return scaled, fused.CorrectAll.apply(p, active, gains, *more, EPS)

    shape = (rows, tokens, d)
    inputs = drawn(7, (4, *shape), shape, (d,), (4, d), (4, 4), (d,), shape, (d,))
    inputs[3] *= 5
    compare(ours, wanted, inputs)


def test_strided_inputs_are_taken() -> None:
    x, weight = drawn(8, (6, 5, 7), (7,))
    turned = x.transpose(0, 1)
    assert torch.equal(
        fused.Norm.apply(turned, weight, EPS), fused.Norm.apply(turned.contiguous(), weight, EPS)
    )


def test_the_number_of_threads_changes_no_bit() -> None:
    from matryo import kernels

    before, results = kernels.threads(), []
    for threads in (1, 3):
        kernels.set_threads(threads)
        x, weight = (value.requires_grad_() for value in drawn(9, (4, 37, 40), (40,)))
        fused.Norm.apply(x, weight, EPS).square().sum().backward()
        results.append((x.grad, weight.grad))
    kernels.set_threads(before)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
