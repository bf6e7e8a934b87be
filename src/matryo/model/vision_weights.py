"""Packed tensors of the picture encoder -> prepared weights, block by block.

In: a `VisionConfig`, the tensors of docs/architecture.md section 5 (usually read-only views of a
mapped file), and the kernels' `Filter`, which rearranges dense filters and keeps no reference to
them. Out: `VisionWeights`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.errors import CheckpointError
from matryo.tower_config import VisionConfig
from matryo.vision_structure import (
    Attention,
    Block,
    Bottleneck,
    VisionStructure,
    vision_structure,
)

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]
# weights (Co, kh, kw, Ci) float32, bf16 as uint16, or int8 or int16 with scales (Co,)
MakeFilter = Callable[[Array, F32 | None], Any]

_SCALES = ".scales"


@dataclass(frozen=True, slots=True, eq=False)
class BottleneckWeights:
    """Depthwise filters (k, k, C), prepared dense filters, vectors (C,)."""

    shape: Bottleneck
    start: F32 | None
    start_norm: F32 | None
    expand: Any
    expand_norm: F32
    middle: F32 | None
    middle_norm: F32 | None
    project: Any
    project_norm: F32
    gamma: F32 | None


@dataclass(frozen=True, slots=True, eq=False)
class AttentionWeights:
    """Depthwise filters (k, k, C), prepared dense filters, vectors (C,)."""

    shape: Attention
    norm: F32
    query: Any
    key_down: F32 | None
    key_down_norm: F32 | None
    key: Any
    value_down: F32 | None
    value_down_norm: F32 | None
    value: Any
    output: Any
    gamma: F32 | None


BlockWeights = BottleneckWeights | AttentionWeights


@dataclass(frozen=True, slots=True, eq=False)
class FusionWeights:
    """Prepared dense filters, vectors (C,). The widening filter is in two parts: of the channels of
    the stage before the last one, and of those of the last.
    """

    fine: Any
    coarse: Any
    expand_norm: F32
    project: Any
    project_norm: F32
    gamma: F32 | None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class VisionWeights:
    """All weights of the encoder; `stages` in the order of the forward pass."""

    stem: Any
    stem_bias: F32 | None
    stem_norm: F32
    stages: tuple[tuple[BlockWeights, ...], ...]
    fusion: FusionWeights
    final_norm: F32


def vision_weights(
    config: VisionConfig, tensors: Mapping[str, Array], make_filter: MakeFilter
) -> VisionWeights:
    """Checks and prepares the tensors. `make_filter(weights, scales)` is `kernels.vision.Filter`.

    Raises CheckpointError naming the tensor that is missing, unknown, or of the wrong dtype or
    shape, or a vector that is not finite.
    """
    shapes = {name: array.shape for name, array in tensors.items() if not name.endswith(_SCALES)}
    structure = vision_structure(config, shapes)
    reader = _Reader(tensors, make_filter)
    weights = VisionWeights(
        stem=reader.filter("stem.filter"),
        stem_bias=reader.optional("stem.bias"),
        stem_norm=reader.floats("stem.norm"),
        stages=tuple(tuple(_block(reader, block) for block in stage) for stage in structure.stages),
        fusion=_fusion(reader, structure),
        final_norm=reader.floats("fusion.norm"),
    )
    reader.refuse_unused()
    return weights


def _block(reader: _Reader, shape: Block) -> BlockWeights:
    if isinstance(shape, Attention):
        return _attention(reader, shape)
    return _bottleneck(reader, shape)


def _bottleneck(reader: _Reader, shape: Bottleneck) -> BottleneckWeights:
    name = shape.name
    return BottleneckWeights(
        shape=shape,
        start=reader.optional(f"{name}.start"),
        start_norm=reader.optional(f"{name}.start_norm"),
        expand=reader.filter(f"{name}.expand"),
        expand_norm=reader.floats(f"{name}.expand_norm"),
        middle=reader.optional(f"{name}.middle"),
        middle_norm=reader.optional(f"{name}.middle_norm"),
        project=reader.filter(f"{name}.project"),
        project_norm=reader.floats(f"{name}.project_norm"),
        gamma=reader.optional(f"{name}.gamma"),
    )


def _attention(reader: _Reader, shape: Attention) -> AttentionWeights:
    name = shape.name
    return AttentionWeights(
        shape=shape,
        norm=reader.floats(f"{name}.norm"),
        query=reader.filter(f"{name}.query"),
        key_down=reader.optional(f"{name}.key_down"),
        key_down_norm=reader.optional(f"{name}.key_down_norm"),
        key=reader.filter(f"{name}.key"),
        value_down=reader.optional(f"{name}.value_down"),
        value_down_norm=reader.optional(f"{name}.value_down_norm"),
        value=reader.filter(f"{name}.value"),
        output=reader.filter(f"{name}.output"),
        gamma=reader.optional(f"{name}.gamma"),
    )


def _fusion(reader: _Reader, structure: VisionStructure) -> FusionWeights:
    name, width = structure.fusion.name, structure.stages[-2][-1].width
    return FusionWeights(
        fine=reader.filter(f"{name}.expand", slice(width)),
        coarse=reader.filter(f"{name}.expand", slice(width, None)),
        expand_norm=reader.floats(f"{name}.expand_norm"),
        project=reader.filter(f"{name}.project"),
        project_norm=reader.floats(f"{name}.project_norm"),
        gamma=reader.optional(f"{name}.gamma"),
    )


class _Reader:
    """Looks tensors up by name; the structure has checked names and shapes."""

    def __init__(self, tensors: Mapping[str, Array], make_filter: MakeFilter) -> None:
        self._tensors, self._make_filter = tensors, make_filter
        self._scales = {name for name in tensors if name.endswith(_SCALES)}

    def floats(self, name: str) -> F32:
        """A vector or a depthwise filter."""
        array = self._tensors[name]
        if array.dtype != np.float32:
            raise _wrong_dtype(name, "float32", array)
        if not np.isfinite(array).all():
            raise CheckpointError("holds NaN or infinity", tensor=name)
        return np.ascontiguousarray(array)

    def optional(self, name: str) -> F32 | None:
        return self.floats(name) if name in self._tensors else None

    def filter(self, name: str, channels: slice = slice(None)) -> Any:
        """A dense filter, prepared; channels: of those that it reads."""
        array = np.ascontiguousarray(self._tensors[name][..., channels])
        match array.dtype:
            case np.float32 | np.uint16:
                return self._make_filter(array, None)
            case np.int8 | np.int16:
                return self._made(name, array)
        raise _wrong_dtype(name, "float32, bfloat16, int8 or int16", array)

    def _made(self, name: str, array: Array) -> Any:
        """Of integers, which a file may have put together as no conversion does."""
        scales = self._filter_scales(name, len(array))
        try:
            return self._make_filter(array, scales)
        except ValueError as error:
            raise CheckpointError(str(error), tensor=name) from error

    def _filter_scales(self, name: str, channels: int) -> F32:
        scales = name + _SCALES
        if scales not in self._tensors:
            raise CheckpointError("tensor is missing", tensor=scales)
        self._scales.discard(scales)
        array = self.floats(scales)
        if array.shape != (channels,):
            raise CheckpointError(
                "wrong shape", tensor=scales, expected=str((channels,)), got=str(array.shape)
            )
        return array

    def refuse_unused(self) -> None:
        """Scales that belong to no filter of integers."""
        for name in sorted(self._scales):
            raise CheckpointError(
                "unknown tensor: no filter of integers has these scales", tensor=name
            )


def _wrong_dtype(name: str, expected: str, array: Array) -> CheckpointError:
    return CheckpointError("wrong dtype", tensor=name, expected=expected, got=str(array.dtype))
