"""What lies between the matrix products of a layer, as a few operations with gradients.

In: float32 tensors on the processor. Out: the values and gradients of transformers' modules up to
the rounding of sums, in one pass over memory each way where those take dozens; the products stay
torch's. `nested.py` falls back to transformers' own modules for other devices and dtypes.
Source: matryo.kernels.training; spec in transformers' modeling_gemma3n.

B batch · T tokens · N = B·T · d model · A streams (4)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd import Function

from matryo.kernels import training

native: Any = training  # whose weights are unpacked from lists, which no signature can tell
Array = np.ndarray[Any, np.dtype[np.float32]]


def _array(tensor: torch.Tensor, *shape: int) -> Array:
    """The values as an array of `shape`; copied only if they do not lie in order."""
    array: Array = tensor.detach().contiguous().reshape(shape or tensor.shape).numpy()
    return array


def _weight(tensor: torch.Tensor) -> Array:
    """A copy of a small weight: one that numpy has seen could no longer be freed when its layer has
    ended, as those are that were put together for it.
    """
    return _array(tensor.detach().clone())


def _empty(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float32)


class Predict(Function):
    """Streams x (A, B, T, d) to predictions (A, B, T, d), the first of them again, and its norm.

    The first comes twice, so that its many uses have gradients of its own size.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, router_norm: torch.Tensor, router: torch.Tensor,
        coefs: torch.Tensor, input_norm: torch.Tensor, eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
        streams, *_, d = x.shape
        n = x[0].numel() // d
        predictions, first, normed = _empty(*x.shape), _empty(*x.shape[1:]), _empty(*x.shape[1:])
        routes = _empty(n, streams)
        weights = [_weight(w) for w in (router_norm, router, coefs, input_norm)]
        native.training_predict(
            _array(x, streams, n, d), *weights, eps,
            _array(predictions, streams, n, d), _array(first, n, d), _array(normed, n, d),
            routes.numpy(),
        )  # fmt: skip
        ctx.save_for_backward(x, router_norm, router, coefs, input_norm, predictions, routes)
        ctx.eps = eps
        return predictions, first, normed

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, router_norm, router, coefs, input_norm, predictions, routes = ctx.saved_tensors
        streams, *_, d = x.shape
        n = x[0].numel() // d
        x_grad, sums = _empty(*x.shape), _empty((2 + streams) * d + coefs.numel())
        weights = [_weight(w) for w in (router_norm, router, coefs, input_norm)]
        native.training_predict_grad(
            _array(x, streams, n, d), *weights, ctx.eps,
            _array(predictions, streams, n, d), routes.numpy(),
            _array(grads[0], streams, n, d), _array(grads[1], n, d), _array(grads[2], n, d),
            _array(x_grad, streams, n, d), sums.numpy(),
        )  # fmt: skip
        parts = sums.split([d, streams * d, coefs.numel(), d])
        return (
            x_grad, parts[0], parts[1].view_as(router), parts[2].view_as(coefs), parts[3], None
        )  # fmt: skip


class Norm(Function):
    """x (..., n) over its root mean square, times a weight (n) if there is one."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
        n, out = x.shape[-1], _empty(*x.shape)
        native.rms_norm(
            _array(x, -1, n), None if weight is None else _weight(weight), eps, _array(out, -1, n)
        )
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight = ctx.saved_tensors
        n, x_grad = x.shape[-1], _empty(*x.shape)
        sums = _empty(0 if weight is None else n)
        native.training_norm_grad(
            _array(x, -1, n), None if weight is None else _weight(weight), ctx.eps,
            _array(grads[0], -1, n), _array(x_grad, -1, n), sums.numpy(),
        )  # fmt: skip
        return x_grad, None if weight is None else sums, None


class PostAttention(Function):
    """hidden = (first + rms(attended) + normed + rms(laurel)) / √2, and its norm; all (B, T, d)."""

    @staticmethod
    def forward(
        ctx: Any, first: torch.Tensor, attended: torch.Tensor, attended_norm: torch.Tensor,
        normed: torch.Tensor, laurel: torch.Tensor, laurel_norm: torch.Tensor,
        next_norm: torch.Tensor, eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        d, hidden, following = first.shape[-1], _empty(*first.shape), _empty(*first.shape)
        native.training_post_attention(
            _array(first, -1, d), _array(attended, -1, d), _weight(attended_norm),
            _array(normed, -1, d), _array(laurel, -1, d), _weight(laurel_norm), _weight(next_norm),
            eps, _array(hidden, -1, d), _array(following, -1, d),
        )  # fmt: skip
        ctx.save_for_backward(attended, attended_norm, laurel, laurel_norm, next_norm, hidden)
        ctx.eps = eps
        return hidden, following

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        attended, attended_norm, laurel, laurel_norm, next_norm, hidden = ctx.saved_tensors
        d = hidden.shape[-1]
        hidden_grad = grads[0].clone(memory_format=torch.contiguous_format)  # changed in place
        attended_grad, laurel_grad = _empty(*hidden.shape), _empty(*hidden.shape)
        sums = _empty(3 * d)
        native.training_post_attention_grad(
            _array(attended, -1, d), _weight(attended_norm), _array(laurel, -1, d),
            _weight(laurel_norm), _weight(next_norm), ctx.eps, _array(hidden, -1, d),
            _array(grads[1], -1, d), _array(hidden_grad, -1, d), _array(attended_grad, -1, d),
            _array(laurel_grad, -1, d), sums.numpy(),
        )  # fmt: skip
        a, b, c = sums.split(d)
        return hidden_grad, attended_grad, a, hidden_grad, laurel_grad, b, c, None


class Gated(Function):
    """gelu(max(gate - cut, 0)) · up over units (..., n); cut = mean + `multiplier` deviations of
    the row, none if the multiplier is None.
    """

    @staticmethod
    def forward(
        ctx: Any, gate: torch.Tensor, up: torch.Tensor, multiplier: float | None
    ) -> torch.Tensor:
        n, act = gate.shape[-1], _empty(*gate.shape)
        moments = _empty(gate.numel() // n, 2)
        native.training_gated(
            _array(gate, -1, n), _array(up, -1, n), multiplier, _array(act, -1, n), moments.numpy()
        )
        ctx.save_for_backward(gate, up, moments)
        ctx.multiplier = multiplier
        return act

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        gate, up, moments = ctx.saved_tensors
        n, gate_grad, up_grad = gate.shape[-1], _empty(*gate.shape), _empty(*gate.shape)
        native.training_gated_grad(
            _array(gate, -1, n), _array(up, -1, n), ctx.multiplier, moments.numpy(),
            _array(grads[0], -1, n), _array(gate_grad, -1, n), _array(up_grad, -1, n),
        )  # fmt: skip
        return gate_grad, up_grad, None


class Rotated(Function):
    """Heads x (B, T, H, n), normed and turned by the angles of their positions, (1 or B, T, n)."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float, cosine: torch.Tensor,
        sine: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        heads, n = x.shape[-2:]
        out = _empty(*x.shape)
        native.training_rotated(
            _array(x, -1, heads, n), _weight(weight), eps, _array(cosine, -1, n),
            _array(sine, -1, n), _array(out, -1, heads, n),
        )  # fmt: skip
        ctx.save_for_backward(x, weight, cosine, sine)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight, cosine, sine = ctx.saved_tensors
        heads, n = x.shape[-2:]
        x_grad, sums = _empty(*x.shape), _empty(n)
        native.training_rotated_grad(
            _array(x, -1, heads, n), _weight(weight), ctx.eps, _array(cosine, -1, n),
            _array(sine, -1, n), _array(grads[0], -1, heads, n), _array(x_grad, -1, heads, n),
            sums.numpy(),
        )  # fmt: skip
        return x_grad, sums, None, None, None


class CorrectFirst(Function):
    """The gains (N, A) of the correction, and the corrected first stream, scaled (B, T, d)."""

    @staticmethod
    def forward(
        ctx: Any, first: torch.Tensor, active: torch.Tensor, router_norm: torch.Tensor,
        router: torch.Tensor, coefs: torch.Tensor, scale: torch.Tensor, eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        d, streams = first.shape[-1], router.shape[0]
        n = first.numel() // d
        gains, routes, scaled = _empty(n, streams), _empty(n, streams), _empty(*first.shape)
        native.training_correct_first(
            _array(first, n, d), _array(active, n, d),
            *(_weight(w) for w in (router_norm, router, coefs, scale)), eps,
            gains.numpy(), routes.numpy(), _array(scaled, n, d),
        )  # fmt: skip
        ctx.save_for_backward(first, active, router_norm, router, coefs, scale, gains, routes)
        ctx.eps = eps
        return gains, scaled

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        first, active, router_norm, router, coefs, scale, gains, routes = ctx.saved_tensors
        d, streams = first.shape[-1], router.shape[0]
        n = first.numel() // d
        first_grad, active_grad = _empty(*first.shape), _empty(*first.shape)
        sums = _empty((2 + streams) * d + coefs.numel())
        native.training_correct_first_grad(
            _array(first, n, d), _array(active, n, d),
            *(_weight(w) for w in (router_norm, router, coefs, scale)), ctx.eps,
            gains.detach().numpy(), routes.numpy(), _array(grads[1], n, d),
            grads[0].clone(memory_format=torch.contiguous_format).numpy(),
            _array(first_grad, n, d), _array(active_grad, n, d), sums.numpy(),
        )  # fmt: skip
        parts = sums.split([d, streams * d, coefs.numel(), d])
        return (
            first_grad, active_grad, parts[0], parts[1].view_as(router), parts[2].view_as(coefs),
            parts[3], None,
        )  # fmt: skip


class CorrectAll(Function):
    """Predictions (A, B, T, d) corrected by `active` with the gains; rms(added) on all but one."""

    @staticmethod
    def forward(
        ctx: Any, predictions: torch.Tensor, active: torch.Tensor, gains: torch.Tensor,
        added: torch.Tensor, added_norm: torch.Tensor, eps: float,
    ) -> torch.Tensor:  # fmt: skip
        streams, *_, d = predictions.shape
        n, x = active.numel() // d, _empty(*predictions.shape)
        native.training_correct_all(
            _array(predictions, streams, n, d), _array(active, n, d), _array(gains),
            _array(added, n, d), _weight(added_norm), eps, _array(x, streams, n, d),
        )  # fmt: skip
        ctx.save_for_backward(predictions, active, gains, added, added_norm)
        ctx.eps = eps
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        predictions, active, gains, added, added_norm = ctx.saved_tensors
        streams, *_, d = predictions.shape
        n = active.numel() // d
        # The other predictions have the gradient of what they became.
        predictions_grad = grads[0].clone(memory_format=torch.contiguous_format)
        active_grad, added_grad = _empty(*active.shape), _empty(*active.shape)
        gains_grad, sums = _empty(n, streams), _empty(d)
        native.training_correct_all_grad(
            _array(predictions, streams, n, d), _array(active, n, d), _array(gains),
            _array(added, n, d), _weight(added_norm), ctx.eps, _array(grads[0], streams, n, d),
            _array(predictions_grad[0], n, d), _array(active_grad, n, d),
            _array(added_grad, n, d), gains_grad.numpy(), sums.numpy(),
        )  # fmt: skip
        return predictions_grad, active_grad, gains_grad, added_grad, sums, None


def head_rows(
    logits: torch.Tensor,
    theirs: torch.Tensor | None,
    labels: torch.Tensor,
    o: Any,
    entropy: float,
    divergence: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `matryo.train.head._plain_rows`; logits (n, V) become the gradient, theirs are used up."""
    losses = _empty(len(logits), 2)
    native.training_head(
        logits.numpy(), None if theirs is None else theirs.numpy(), labels.contiguous().numpy(),
        o.softcap, 0.0 if o.teacher is None else o.teacher.softcap, entropy, divergence,
        o.temperature, losses.numpy(),
    )  # fmt: skip
    sums = losses.sum(0, dtype=torch.float64)
    sums[1] *= o.temperature**2
    return sums, logits
