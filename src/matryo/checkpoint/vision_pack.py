"""The picture encoder of a Hugging Face checkpoint as packed tensors.

In: an open source of tensors under timm's names, the weights kind of the packed checkpoint. Out:
tensors of docs/architecture.md section 5: dense filters (Co, kh, kw, Ci), because channels are what
the kernels run along; depthwise filters (k, k, C); vectors. `q8` and `q4` store dense filters as
int8 with one float32 scale per output channel: 4 bits are too few for weights that are read once a
picture. What hurts most in int8 is int16 then, with such scales too (`_rounded_finely`; figures in
docs/pictures.md), or bf16 where the kernels have a faster way than integers.
The stem, depthwise filters and vectors are float32 everywhere; they are 0.5 % of the bytes.
Source: timm `mobilenetv5.py` (names).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from matryo.checkpoint.safetensors import DTYPES
from matryo.errors import CheckpointError, ConfigError
from matryo.kernels.reference_pack import bf16_bits
from matryo.kernels.reference_vision import quantize_filter, quantize_finely
from matryo.tower_config import VisionConfig
from matryo.vision_structure import Attention, Bottleneck, Shape, VisionStructure, vision_structure

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]

PREFIX = "model.vision_tower.timm_model."
FILTER_KINDS: Mapping[str, str] = {"f32": "f32", "bf16": "bf16", "q8": "i8", "q4": "i8"}
_DTYPES = {"f32": "F32", "bf16": "BF16", "i8": "I8", "i16": "I16"}
_TRANSFORMED_WIDTHS = range(16, 321)  # channels read; native/blocks/vision_winograd.cpp
_QUANTIZE: Mapping[str, Callable[[F32], tuple[Array, F32]]] = {
    "i8": quantize_filter, "i16": quantize_finely,
}  # fmt: skip

_OUTSIDE = {
    "conv_stem.conv.weight": "stem.filter",
    "conv_stem.conv.bias": "stem.bias",
    "conv_stem.bn.weight": "stem.norm",
    "msfa.norm.weight": "fusion.norm",
}
_INVERTED = {  # blocks, and the fusion
    "dw_start.conv.weight": "start",
    "dw_start.bn.weight": "start_norm",
    "pw_exp.conv.weight": "expand",
    "pw_exp.bn.weight": "expand_norm",
    "dw_mid.conv.weight": "middle",
    "dw_mid.bn.weight": "middle_norm",
    "pw_proj.conv.weight": "project",
    "pw_proj.bn.weight": "project_norm",
    "layer_scale.gamma": "gamma",
}
_EDGE = {
    "conv_exp.weight": "expand",
    "bn1.weight": "expand_norm",
    "conv_pwl.weight": "project",
    "bn2.weight": "project_norm",
}
_ATTENTION = {
    "norm.weight": "norm",
    "attn.query.proj.weight": "query",
    "attn.key.down_conv.weight": "key_down",
    "attn.key.norm.weight": "key_down_norm",
    "attn.key.proj.weight": "key",
    "attn.value.down_conv.weight": "value_down",
    "attn.value.norm.weight": "value_down_norm",
    "attn.value.proj.weight": "value",
    "attn.output.proj.weight": "output",
    "layer_scale.gamma": "gamma",
}
_PARTS = re.compile(r"blocks\.(\d{1,4})\.(\d{1,4})\.(.+)|msfa\.ffn\.(.+)")
DEPTHWISE = ("start", "middle", "key_down", "value_down")


class Source(Protocol):
    """What is read of a `TowerSource`: tensors under timm's names."""

    @property
    def shapes(self) -> Mapping[str, Shape]: ...
    def full_name(self, name: str, /) -> str: ...
    def read(self, name: str, /) -> F32: ...
    def forget(self, name: str, /) -> None: ...


@dataclass(frozen=True, slots=True)
class VisionTensor:
    """One packed tensor of the encoder.

    kind: of the stored numbers: f32, bf16, i8, i16
    """

    name: str
    kind: str
    shape: Shape
    read: Callable[[], Array]  # as it is stored

    @property
    def stored(self) -> tuple[str, Shape]:
        """Safetensors dtype and shape."""
        return _DTYPES[self.kind], self.shape

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * DTYPES[_DTYPES[self.kind]].itemsize

    def blocks(self, first: int = 0) -> Iterator[Array]:
        """The stored array, in one block."""
        if first == 0:
            yield np.ascontiguousarray(self.read())


def vision_tensors(source: Source, config: VisionConfig, weights: str) -> list[VisionTensor]:
    """Every packed tensor of the encoder.

    weights: f32, bf16, q8 or q4, as for the language model. Raises CheckpointError naming a tensor
    that is missing, unknown or misshapen, ConfigError for unknown `weights`. Reading a tensor that
    is not finite raises CheckpointError.
    """
    if weights not in FILTER_KINDS:
        raise ConfigError(f"weights is {weights!r}; allowed: {', '.join(FILTER_KINDS)}")
    names = _names(source)
    shapes = {ours: _packed_shape(ours, source.shapes[theirs]) for ours, theirs in names.items()}

    def label(ours: str) -> str:
        if ours in names:
            return source.full_name(names[ours])
        return PREFIX + _expected_name(ours, names)

    structure = vision_structure(config, shapes, label)
    fine, transformed = _rounded_finely(structure), _transformed(structure)
    tensors: list[VisionTensor] = []
    for ours, shape in structure.shapes().items():
        kind = FILTER_KINDS[weights]
        if kind == "i8" and ours.startswith(fine):
            kind = "bf16" if ours in transformed else "i16"
        tensors += _packed(source, names[ours], ours, shape, kind)
    return tensors


def _transformed(structure: VisionStructure) -> set[str]:
    """Filters of three by three that visit every pixel: floats take a quarter of the products."""
    blocks = [block for stage in structure.stages for block in stage]
    return {
        f"{block.name}.expand"
        for block in blocks
        if isinstance(block, Bottleneck)
        and block.kernel == 3
        and block.strides[1] == 1
        and block.width_in in _TRANSFORMED_WIDTHS
    }


def _rounded_finely(structure: VisionStructure) -> tuple[str, ...]:
    """What is not rounded to int8, as beginnings of names.

    The first block of each stage has no residual connection, so all that follows passes through its
    rounded products; stages before the last two and the fusion cost little and hurt next most. So
    do keys and values, which all queries share, and what widens the first residual blocks of the
    last stage but one: nothing has been added up there yet that their noise would be small beside.
    """
    early = [block for stage in structure.stages[:-2] for block in stage]
    halving = [stage[0] for stage in structure.stages[-2:]]
    blocks = [f"{block.name}." for block in (*early, *halving, structure.fusion)]
    attentions = [b for stage in structure.stages for b in stage if isinstance(b, Attention)]
    shared = [f"{block.name}.{part}" for block in attentions for part in ("key", "value")]
    widening = [f"{block.name}.expand" for block in structure.stages[-2][1:3]]
    return (*blocks, *shared, *widening)


def _packed(
    source: Source, theirs: str, ours: str, shape: Shape, kind: str
) -> Iterable[VisionTensor]:
    """One tensor of the checkpoint: itself, or its int8 weights and their scales."""

    def read() -> F32:
        dense = source.read(theirs)
        source.forget(theirs)
        return _arranged(ours, dense)

    if len(shape) != 4 or ours == "stem.filter" or kind == "f32":
        yield VisionTensor(ours, "f32", shape, read)
    elif kind == "bf16":
        yield VisionTensor(ours, kind, shape, lambda: bf16_bits(read()))
    else:
        quantize = _QUANTIZE[kind]
        yield VisionTensor(ours, kind, shape, lambda: quantize(read())[0])
        scales = (shape[0],)
        yield VisionTensor(f"{ours}.scales", "f32", scales, lambda: quantize(read())[1])


def _names(source: Source) -> dict[str, str]:
    """Our name -> timm's."""
    names: dict[str, str] = {}
    for theirs in source.shapes:
        ours = _canonical(theirs)
        if ours is None:
            raise CheckpointError(
                "unknown tensor: it may change the arithmetic, so it is not ignored",
                tensor=source.full_name(theirs),
            )
        if ours in names:
            raise CheckpointError(
                f"stands for the same weights as {names[ours]}", tensor=source.full_name(theirs)
            )
        names[ours] = theirs
    return names


def _canonical(name: str) -> str | None:
    """`blocks.1.0.pw_exp.conv.weight` -> `stages.1.0.expand`; None if nobody knows it."""
    if match := _PARTS.fullmatch(name):
        stage, index, part, fusion = match.groups()
        if fusion:
            return f"fusion.{_INVERTED[fusion]}" if fusion in _INVERTED else None
        for table in (_INVERTED, _EDGE, _ATTENTION):
            if part in table:
                return f"stages.{int(stage)}.{int(index)}.{table[part]}"
        return None
    return _OUTSIDE.get(name)


def checkpoint_name(ours: str, parts: set[str], wide: bool) -> str:
    """timm's name of a tensor: the inverse of `_canonical`.

    parts: what the tensors of its block are called · wide: whether the block's `expand` is a filter
    of several pixels
    """
    block, _, part = ours.rpartition(".")
    if not block.startswith(("stages.", "fusion")) or ours == "fusion.norm":
        return _inverse(_OUTSIDE)[ours]
    here = block.replace("stages.", "blocks.").replace("fusion", "msfa.ffn") + "."
    table = _ATTENTION if "query" in parts else _EDGE if wide else _INVERTED
    return here + _inverse(table)[part]


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
    return {ours: theirs for theirs, ours in names.items()}


def _expected_name(ours: str, names: Mapping[str, str]) -> str:
    """How the checkpoint would call a tensor that it does not have."""
    block, _, part = ours.rpartition(".")
    here = block.replace("stages.", "blocks.").replace("fusion", "msfa.ffn") + "."
    used = [n.removeprefix(here) for mine, n in names.items() if mine.startswith(block + ".")]
    # Of the three kinds of block, the one whose names are used in this one.
    for table in sorted((_INVERTED, _EDGE, _ATTENTION), key=lambda t: -sum(u in t for u in used)):
        for theirs, mine in [
            *_OUTSIDE.items(),
            *((here + t, f"{block}.{m}") for t, m in table.items()),
        ]:
            if mine == ours:
                return theirs
    return here + part


def _packed_shape(ours: str, shape: Shape) -> Shape:
    """Where the axes go; shapes of another rank are left for the structure to refuse."""
    if len(shape) != 4:
        return shape
    if ours.rpartition(".")[2] in DEPTHWISE:
        return (*shape[2:], shape[0]) if shape[1] == 1 else shape
    return (shape[0], *shape[2:], shape[1])


def _arranged(ours: str, dense: F32) -> F32:
    """(Co, Ci, kh, kw) -> (Co, kh, kw, Ci); depthwise (C, 1, k, k) -> (k, k, C)."""
    if dense.ndim != 4:
        return dense
    if ours.rpartition(".")[2] in DEPTHWISE:
        return dense[:, 0].transpose(1, 2, 0)
    return dense.transpose(0, 2, 3, 1)
