"""What the model needs of a kernel library: the native one (`matryo.kernels`) or the numpy twin
(`reference`).

Both are modules; this protocol is what they have in common. Shapes are given in
docs/architecture.md section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from matryo.kernels.layer import Layer

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]


class Ops(Protocol):
    """Operations in the order of the forward pass; matrices, handles and tables are opaque."""

    @property
    def PageTable(self) -> Any: ...

    def layer_handle(self, layer: Layer, /) -> Any: ...
    def gather(self, w: Any, ids: I32, scale: float, out: F32, /) -> None: ...
    def advise_rows(self, w: Any, ids: I32, /) -> None: ...
    def matmul(self, w: Any, x: F32, out: F32, /) -> None: ...
    def matmul_group(self, ws: Sequence[Any], x: F32, outs: Sequence[F32], /) -> None: ...
    def altup_expand(self, e: F32, y: F32, /) -> None: ...
    def ple_combine(
        self, projection: F32, raw: F32, weight: F32, eps: float, out: F32, /
    ) -> None: ...
    def altup_predict(self, layer: Any, x: F32, predictions: F32, normed: F32, /) -> None: ...
    def attention(
        self,
        layer: Any,
        normed: F32,
        active: F32,
        table: Any,
        sequences: I32,
        positions: I32,
        cos: F32,
        sin: F32,
        write_kv: bool,
        hidden: F32,
        /,
    ) -> None: ...
    def write_kv(
        self,
        layer: Any,
        normed: F32,
        table: Any,
        sequences: I32,
        positions: I32,
        cos: F32,
        sin: F32,
        /,
    ) -> None: ...
    def feed_forward(self, layer: Any, hidden: F32, width: int, out: F32, /) -> None: ...
    def altup_correct(
        self, layer: Any, predictions: F32, active_out: F32, ple_inputs: F32, x: F32, /
    ) -> None: ...
    def altup_merge(self, x: F32, y: F32, weight: F32, eps: float, out: F32, /) -> None: ...
    def logits(self, head: Any, hidden: F32, softcap: float, out: F32, /) -> None: ...
