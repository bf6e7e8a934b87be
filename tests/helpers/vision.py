"""The picture encoder of a state under timm's names, packed and built by our code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from helpers.mobilenet import vision_config
from matryo.checkpoint.vision_pack import PREFIX, vision_tensors
from matryo.kernels import reference_vision
from matryo.model.vision import VisionEncoder
from matryo.model.vision_weights import vision_weights
from matryo.tower_config import VisionConfig

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]


class Source:
    """Stands for the open encoder of a Hugging Face checkpoint."""

    def __init__(self, state: Mapping[str, F32]) -> None:
        self.state = state
        self.forgotten: set[str] = set()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: value.shape for name, value in self.state.items()}

    def full_name(self, name: str) -> str:
        return PREFIX + name

    def read(self, name: str) -> F32:
        return self.state[name].copy()

    def forget(self, name: str) -> None:
        self.forgotten.add(name)


def packed(
    state: Mapping[str, F32], weights: str = "f32", config: VisionConfig | None = None
) -> dict[str, Array]:
    """Packed tensors by name, read-only as those of a mapped file."""
    found: dict[str, Array] = {}
    for tensor in vision_tensors(Source(state), config or vision_config(), weights):
        (array,) = tensor.blocks()
        array.flags.writeable = False
        found[tensor.name] = array
    return found


def encoder(
    state: Mapping[str, F32], weights: str = "f32", side: int = 4, ops: Any = reference_vision
) -> VisionEncoder:
    config = vision_config(side)
    tensors = packed(state, weights, config)
    return VisionEncoder(config, vision_weights(config, tensors, ops.Filter), ops)


def cosines(one: F32, other: F32) -> F32:
    """The cosine of each row of one with the same row of other."""
    products = (one * other).sum(axis=1)
    result: F32 = products / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    return result
