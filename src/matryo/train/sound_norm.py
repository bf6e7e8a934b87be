"""The first convolutions of the sound encoder, trained without dozens of passes over their outputs.

In: the encoder of transformers. Out: the same values up to the rounding of sums. Cumulative group
norm is differentiated by hand:

    m_t = Σ_{u<=t} s_u / n t        s_t the sum of the n values of time t
    v_t = Σ_{u<=t} q_u / n t        q_t = Σ_i (x_ti - m_t)²
    y_ti = (x_ti - m_t) r_t w_c     r_t = 1 / √(v_t + ε)

Source: transformers' modeling_gemma3n; https://arxiv.org/abs/1803.08494 for the norm of a group.

B clips · T times · F bins · C channels · n = F·C
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import Function
from torch.nn import functional
from transformers.models.gemma3n.modeling_gemma3n import Gemma3nAudioSSCPConvBlock


class CumulativeNorm(Function):
    """x (B, T, F, C) over all values up to its time, times a weight (C)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        counts = _counts(x)
        sums = x.sum((2, 3))
        mean = sums.cumsum(1) / counts
        centred = x - mean[..., None, None]
        squares = torch.linalg.vector_norm(centred, dim=(2, 3)).square()
        scale = torch.rsqrt(squares.cumsum(1) / counts + eps)
        ctx.save_for_backward(x, weight, sums, mean, scale)
        return centred.mul_(scale[..., None, None] * weight)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        grad, (x, weight, sums, mean, scale) = grads[0], ctx.saved_tensors
        counts = _counts(x)
        n = x.shape[2] * x.shape[3]
        centred = x - mean[..., None, None]
        product = grad * centred
        weight_grad = torch.einsum("btfc,bt->c", product, scale)
        # Through r, then the squares of every time before.
        to_variance = -0.5 * scale.pow(3) * (product.sum(2) @ weight)
        to_squares = 2 * _from_later(to_variance / counts)
        # Through m, where it is taken off and inside the squares.
        taken_off = scale * (grad.sum(2) @ weight)
        inside = to_squares * (sums - n * mean)
        to_sums = _from_later(-(taken_off + inside) / counts)
        x_grad = torch.mul(grad, scale[..., None, None] * weight, out=product)
        x_grad.addcmul_(centred, to_squares[..., None, None]).add_(to_sums[..., None, None])
        return x_grad, weight_grad, None


_norm: Any = CumulativeNorm.apply


class FusedConvBlock(Gemma3nAudioSSCPConvBlock):
    """Convolution, cumulative norm and ReLU of (B, C, T, F), channels together in memory."""

    def forward(self, audio_encodings: torch.Tensor) -> torch.Tensor:
        """Values (B, C', T', F')."""
        if self.conv.weight.dtype != torch.float32:
            return super().forward(audio_encodings)
        padded = functional.pad(audio_encodings, self.manual_padding)
        out = self.conv(padded).float().permute(0, 2, 3, 1).contiguous()
        normed: torch.Tensor = _norm(out, self.norm.weight, self.norm.eps)
        return functional.relu_(normed).permute(0, 3, 1, 2)


def fuse_convolutions(tower: torch.nn.Module) -> None:
    """Changes the classes of its first blocks in place, and the order of their filters."""
    for module in tower.modules():
        if type(module) is Gemma3nAudioSSCPConvBlock:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            module.__class__ = FusedConvBlock


def _counts(x: torch.Tensor) -> torch.Tensor:
    """How many values there are up to each time (T)."""
    n = x.shape[2] * x.shape[3]
    return torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device) * n


def _from_later(values: torch.Tensor) -> torch.Tensor:
    """Σ_{u>=t} of (B, T)."""
    return values.flip(1).cumsum(1).flip(1)
