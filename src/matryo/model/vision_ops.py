"""What the picture encoder needs of a kernel library: the native one (`matryo.kernels.vision`) or
the numpy twin (`reference_vision`). Both are modules; this protocol is what they have in common.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]


class VisionOps(Protocol):
    """Activations are (H, W, C), C-contiguous; filters are opaque."""

    @property
    def Filter(self) -> Any: ...
    def conv(
        self,
        filter: Any,
        x: F32,
        stride: int,
        out: F32,
        /,
        bias: F32 | None = None,
        norm: F32 | None = None,
        eps: float = 1e-6,
        gelu: bool = False,
        gamma: F32 | None = None,
        residual: F32 | None = None,
    ) -> None: ...
    def depthwise(
        self,
        weight: F32,
        x: F32,
        stride: int,
        out: F32,
        /,
        norm: F32 | None = None,
        eps: float = 1e-6,
        gelu: bool = False,
    ) -> None: ...
    def inverted_bottleneck(
        self,
        expand: Any,
        project: Any,
        x: F32,
        out: F32,
        norm_expand: F32,
        norm_project: F32,
        eps: float,
        /,
        gamma: F32 | None = None,
        residual: F32 | None = None,
        coarse: F32 | None = None,
    ) -> None: ...
    def attend_pixels(
        self, q: F32, k: F32, v: F32, heads: int, scale: float, out: F32, /
    ) -> None: ...
    def rms_norm(self, x: F32, weight: F32 | None, eps: float, out: F32, /) -> None: ...


def native_ops() -> VisionOps:
    """The compiled operations. Raises KernelError if they are missing."""
    from matryo.kernels import vision

    return vision
