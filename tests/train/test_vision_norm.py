"""The picture encoder's norms are timm's, values and gradients."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from timm.layers.norm import RmsNorm2d
from timm.layers.norm_act import RmsNormAct2d

from matryo.train.vision_norm import FusedNorm2d, FusedNormAct2d, fuse_norms


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", [RmsNorm2d, RmsNormAct2d])
def test_values_and_gradients_are_those_of_timm(
    kind: type[RmsNorm2d], layout: torch.memory_format
) -> None:
    more: dict[str, Any] = {"act_layer": torch.nn.GELU} if kind is RmsNormAct2d else {}
    plain = kind(24, eps=1e-6, **more)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        plain.weight.copy_(torch.randn(24, generator=generator))
    fused = torch.nn.Sequential(copy.deepcopy(plain))
    fuse_norms(fused)
    assert type(fused[0]) in (FusedNorm2d, FusedNormAct2d)
    x = torch.randn(3, 24, 5, 7, generator=generator).to(memory_format=layout)
    seen = torch.randn(x.shape, generator=generator)
    results = []
    for module in (plain, fused):
        given = x.clone().requires_grad_()
        out = module(given)
        (out * seen).sum().backward()
        weight = next(iter(module.parameters()))
        results.append((out.detach(), given.grad, weight.grad))
    for wanted, got in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=2e-5, atol=2e-5)


def test_texts_are_trained_without_timm() -> None:
    program = (
        "import sys; sys.modules['timm'] = None\n"
        "from matryo.train.importable import install; install()\n"
        "import matryo.train.loop"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_other_precisions_go_the_way_of_timm() -> None:
    plain = RmsNorm2d(8)
    fused = copy.deepcopy(plain)
    fuse_norms(fused)
    x = torch.randn(1, 8, 2, 2, generator=torch.Generator().manual_seed(1)).double()
    assert torch.equal(fused.double()(x), plain.double()(x))
