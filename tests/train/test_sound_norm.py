"""The sound encoder's first convolutions are those of transformers, values and gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers.models.gemma3n import modeling_gemma3n as reference
from transformers.models.gemma3n.configuration_gemma3n import Gemma3nAudioConfig

from matryo.train.sound_norm import CumulativeNorm, FusedConvBlock, fuse_convolutions


def test_the_gradient_of_the_norm_is_that_of_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)
    norm: Any = CumulativeNorm.apply
    assert torch.autograd.gradcheck(lambda *given: norm(*given, 1e-3), (x, weight))


@pytest.mark.parametrize("channels", [[4, 3], [1, 8]])
def test_values_and_gradients_are_those_of_transformers(channels: list[int]) -> None:
    config = Gemma3nAudioConfig(hidden_size=16, input_feat_size=32, sscp_conv_channel_size=channels)
    torch.manual_seed(2)
    plain = reference.Gemma3nAudioSubSampleConvProjection(config)
    with torch.no_grad():
        for name, weight in plain.named_parameters():
            weight.normal_(mean=1.0 if "norm" in name else 0.0)
    fused = copy.deepcopy(plain)
    fuse_convolutions(fused)
    assert isinstance(fused.conv_0, FusedConvBlock)
    x = torch.randn(2, 37, 32) * torch.linspace(0.1, 3, 37)[:, None] + 2
    results = []
    for module in (plain, fused):
        given = x.clone().requires_grad_()
        out = module(given)
        out.square().sum().backward()
        results.append([out.detach(), given.grad, *(w.grad for w in module.parameters())])
    for wanted, got in zip(*results, strict=True):
        assert wanted is not None and got is not None
        size = float(wanted.abs().max())
        torch.testing.assert_close(got, wanted, rtol=2e-4, atol=1e-5 * size)
