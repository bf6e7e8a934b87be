"""From the features of an encoder to inputs of the language model.

In: features (n, C) of one picture or clip, packed tensors. Out: embeddings (n, d), which take the
places of soft ids and are not scaled. Hard ids have rows of their own in the packed table
`multimodal`, projected when the checkpoint was packed.
Source: transformers `modeling_gemma3n.py`: rms(W · rms(x; norm)), the outer one without a weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from matryo.checkpoint.towers import EMBEDDER_NORM, EMBEDDER_PROJECTION
from matryo.errors import ShapeError
from matryo.kernels.layer import Matrix
from matryo.weights import MakeMatrix, MatrixReader

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]


class EmbedderOps(Protocol):
    """What the embedder needs of a kernel library."""

    def rms_norm(self, x: F32, weight: F32 | None, eps: float, out: F32, /) -> None: ...
    def matmul(self, w: Any, x: F32, out: F32, /) -> None: ...


class Embedder:
    """The embedder of one encoder."""

    def __init__(
        self, norm: F32, projection: Matrix, ops: EmbedderOps, *, eps: float, scale: float = 1.0
    ) -> None:
        """norm (C) · projection (d, C) · scale: of the features before the first norm, where it
        weakens eps and does nothing else.
        """
        self._norm, self._projection, self._ops = norm, projection, ops
        self._eps, self._scale = eps, scale
        self.hidden_size, self.width = projection.rows, projection.cols

    @classmethod
    def of(
        cls,
        tensors: Mapping[str, Array],
        make_matrix: MakeMatrix,
        ops: EmbedderOps,
        *,
        width: int,
        hidden_size: int,
        eps: float,
        scale: float = 1.0,
    ) -> Embedder:
        """From packed tensors. Raises CheckpointError naming one that is missing or misshapen."""
        reader = MatrixReader(tensors, make_matrix)
        return cls(
            reader.vector(EMBEDDER_NORM, (width,)),
            reader.panel(EMBEDDER_PROJECTION, hidden_size, width),
            ops,
            eps=eps,
            scale=scale,
        )

    def soft(self, features: F32) -> F32:
        """Embeddings (n, d) of features (n, C).

        Raises ShapeError for features of another width or dtype.
        """
        if features.ndim != 2 or features.shape[1] != self.width or features.dtype != np.float32:
            raise ShapeError(
                f"features: expected float32 (n, {self.width}), got {features.dtype} "
                f"{features.shape}"
            )
        out = np.empty((len(features), self.hidden_size), np.float32)
        if len(features):
            normed = np.empty(features.shape, np.float32)
            scaled = np.ascontiguousarray(features * np.float32(self._scale))
            self._ops.rms_norm(scaled, self._norm, self._eps, normed)
            self._ops.matmul(self._projection, normed, out)
            self._ops.rms_norm(out, None, self._eps, out)
        return out
