"""The norms of the picture encoder in one pass over memory each way.

In: timm's encoder, its channels together in memory. Out: the same values up to the rounding of
sums; other devices and dtypes go timm's own way. A third of the time of a pass is in these norms.

B pictures · C channels · H, W sides
"""

from __future__ import annotations

import torch
from timm.layers.norm import RmsNorm2d
from timm.layers.norm_act import RmsNormAct2d

from matryo.train.fused import Norm


class FusedNorm2d(RmsNorm2d):
    """Over the channels of each place of (B, C, H, W)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Values of x's shape and layout."""
        if not _fits(x):
            return super().forward(x)
        return _over_channels(x, self.weight, self.eps)


class FusedNormAct2d(RmsNormAct2d):
    """The same, and then the activation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Values of x's shape and layout."""
        if not _fits(x):
            return super().forward(x)
        active: torch.Tensor = self.act(self.drop(_over_channels(x, self.weight, self.eps)))
        return active


_FUSED = {RmsNorm2d: FusedNorm2d, RmsNormAct2d: FusedNormAct2d}


def fuse_norms(tower: torch.nn.Module) -> None:
    """Changes the classes of its norms in place."""
    for module in tower.modules():
        fused = _FUSED.get(type(module))
        if fused is not None:
            module.__class__ = fused


def _fits(x: torch.Tensor) -> bool:
    return (
        x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    )


def _over_channels(x: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    normed: torch.Tensor = Norm.apply(x.permute(0, 2, 3, 1), weight, eps)  # type: ignore[no-untyped-call]
    return normed.permute(0, 3, 1, 2)
