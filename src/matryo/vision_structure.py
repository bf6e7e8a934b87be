"""What blocks a MobileNet-V5 encoder is made of, read off the shapes of its tensors.

In: tensor names and shapes of docs/architecture.md section 5, untrusted, and a `VisionConfig`. Out:
a frozen `VisionStructure`; every tensor is accounted for and has the one shape that its place
allows.

What shapes do not say follows from the architecture: the first block of a stage halves the picture,
all others keep its size; the two last stages are fused; keys and values that are convolved before
their projection are taken at every second pixel; a residual connection exists where a block keeps
size and width; all query heads share one head of keys and values, whose width their count follows
from.
Source: timm `mobilenetv5.py`, `_efficientnet_builder.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from matryo.errors import CheckpointError, ConfigError
from matryo.tower_config import VisionConfig

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Label = Callable[[str], str]  # our name of a tensor -> the one to show in errors

CHANNELS = 3
KV_STRIDE = 2
RELEASED_BLOCKS = [3, 5, 37, 39]  # per stage, of the released encoder
_BLOCK_TENSOR = re.compile(r"(stages\.(\d{1,4})\.(\d{1,4}))\.([a-z_]+)")


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """[depthwise] -> convolution to a wide middle -> [depthwise] -> 1x1 back, each with a norm.

    start, middle: kernels of the depthwise convolutions, 0 = none · kernel: of the widening one
    stride: 2 in the first block of a stage · scaled: whether it ends with a factor per channel
    """

    name: str
    width_in: int
    wide: int
    width: int
    start: int
    kernel: int
    middle: int
    stride: int
    scaled: bool

    @property
    def skip(self) -> bool:
        """Whether the input is added to the output."""
        return self.stride == 1 and self.width_in == self.width

    @property
    def strides(self) -> tuple[int, int, int]:
        """Strides of the first depthwise, the widening and the second depthwise convolution."""
        if self.middle:
            return 1, 1, self.stride
        return (self.stride, 1, 1) if self.start else (1, self.stride, 1)

    def shapes(self) -> dict[str, Shape]:
        """Every tensor of the block."""
        shapes: dict[str, Shape] = {
            "expand": (self.wide, self.kernel, self.kernel, self.width_in),
            "expand_norm": (self.wide,),
            "project": (self.width, 1, 1, self.wide),
            "project_norm": (self.width,),
        }
        if self.start:
            shapes |= _depthwise("start", self.start, self.width_in)
        if self.middle:
            shapes |= _depthwise("middle", self.middle, self.wide)
        if self.scaled:
            shapes["gamma"] = (self.width,)
        return {f"{self.name}.{name}": shape for name, shape in shapes.items()}


@dataclass(frozen=True, slots=True)
class Attention:
    """Every pixel attends to all pixels; the heads share one head of keys and values.

    kv_kernel: of the depthwise convolution, stride 2, before keys and values, 0 = none
    """

    name: str
    width: int
    heads: int
    head_dim: int
    kv_kernel: int
    scaled: bool

    def shapes(self) -> dict[str, Shape]:
        """Every tensor of the block."""
        inner = self.heads * self.head_dim
        shapes: dict[str, Shape] = {
            "norm": (self.width,),
            "query": (inner, 1, 1, self.width),
            "key": (self.head_dim, 1, 1, self.width),
            "value": (self.head_dim, 1, 1, self.width),
            "output": (self.width, 1, 1, inner),
        }
        if self.kv_kernel:
            for name in ("key_down", "value_down"):
                shapes |= _depthwise(name, self.kv_kernel, self.width)
        if self.scaled:
            shapes["gamma"] = (self.width,)
        return {f"{self.name}.{name}": shape for name, shape in shapes.items()}


Block = Bottleneck | Attention


@dataclass(frozen=True, slots=True)
class VisionStructure:
    """The whole encoder: stem, stages, and the fusion of the two last stages."""

    stem_kernel: int
    stem_width: int
    stem_bias: bool
    stages: tuple[tuple[Block, ...], ...]
    fusion: Bottleneck

    def shapes(self) -> dict[str, Shape]:
        """Every tensor of the encoder."""
        side = self.stem_kernel
        shapes: dict[str, Shape] = {
            "stem.filter": (self.stem_width, side, side, CHANNELS),
            "stem.norm": (self.stem_width,),
        }
        if self.stem_bias:
            shapes["stem.bias"] = (self.stem_width,)
        for block in (block for stage in self.stages for block in stage):
            shapes |= block.shapes()
        return shapes | self.fusion.shapes() | {"fusion.norm": (self.fusion.width,)}


def vision_structure(config: VisionConfig, shapes: Shapes, label: Label = str) -> VisionStructure:
    """Raises CheckpointError naming the tensor that is missing, unknown or misshapen, ConfigError
    for strides in the config that are not those of the architecture.
    """
    reader = _Reader(shapes, label)
    stem = reader.dims("stem.filter", 4)
    width, stages = stem[0], []
    for number, count in enumerate(_count_blocks(reader)):
        blocks: list[Block] = []
        for index in range(count):
            blocks.append(_block(reader, f"stages.{number}.{index}", width, 1 if index else 2))
            width = blocks[-1].width
        stages.append(tuple(blocks))
    _check_config(config, [len(stage) for stage in stages], label)
    fused = sum(stage[-1].width for stage in stages[-2:])
    fusion = _bottleneck(reader, "fusion", fused, stride=1)
    if fusion.start or fusion.middle or fusion.kernel != 1:
        raise CheckpointError(
            "the fusion of the last stages only has 1x1 convolutions", tensor=label("fusion.expand")
        )
    structure = VisionStructure(stem[1], stem[0], "stem.bias" in shapes, tuple(stages), fusion)
    reader.compare(structure.shapes())
    if fusion.width != config.hidden_size:
        raise CheckpointError(
            "the width of the features is not the config's hidden_size",
            tensor=label("fusion.project"), expected=str(config.hidden_size), got=str(fusion.width),
        )  # fmt: skip
    return structure


class _Reader:
    def __init__(self, shapes: Shapes, label: Label) -> None:
        self.shapes, self.label = shapes, label

    def has(self, name: str) -> bool:
        return name in self.shapes

    def dims(self, name: str, rank: int) -> Shape:
        """The shape of a tensor that has to exist."""
        if name not in self.shapes:
            raise CheckpointError("tensor is missing", tensor=self.label(name))
        shape = self.shapes[name]
        if len(shape) != rank or 0 in shape:
            raise CheckpointError(
                "wrong shape", tensor=self.label(name), expected=f"{rank} sizes above 0",
                got=str(shape),
            )  # fmt: skip
        return shape

    def compare(self, expected: Shapes) -> None:
        """Nothing missing, nothing else, every shape as expected."""
        for name in self.shapes:
            if name not in expected:
                raise CheckpointError(
                    "unknown tensor: it may change the arithmetic, so it is not ignored",
                    tensor=self.label(name),
                )
        for name, shape in expected.items():
            if self.dims(name, len(shape)) != shape:
                raise CheckpointError(
                    "wrong shape", tensor=self.label(name), expected=str(shape),
                    got=str(self.shapes[name]),
                )  # fmt: skip


def _count_blocks(reader: _Reader) -> list[int]:
    """Blocks of each stage. Raises CheckpointError if one is left out."""
    found: dict[int, set[int]] = {}
    for name in reader.shapes:
        if match := _BLOCK_TENSOR.fullmatch(name):
            found.setdefault(int(match[2]), set()).add(int(match[3]))
    for number in range(max(len(found), 2)):
        blocks = found.get(number, set())
        for index in range(max(len(blocks), 1)):
            if index not in blocks:
                raise CheckpointError(
                    f"block {index} of stage {number} of the picture encoder is missing",
                    tensor=reader.label(f"stages.{number}.{index}.expand"),
                )
    return [len(found[number]) for number in range(len(found))]


def _block(reader: _Reader, name: str, width_in: int, stride: int) -> Block:
    if reader.has(f"{name}.query"):
        if stride != 1:
            raise CheckpointError(
                "the first block of a stage halves the picture; attention cannot",
                tensor=reader.label(f"{name}.query"),
            )
        return _attention(reader, name, width_in)
    block = _bottleneck(reader, name, width_in, stride)
    if stride != 1 and max(block.start, block.kernel, block.middle) == 1:
        raise CheckpointError(
            "the first block of a stage halves the picture; this one only has 1x1 convolutions",
            tensor=reader.label(f"{name}.expand"),
        )
    return block


def _bottleneck(reader: _Reader, name: str, width_in: int, stride: int) -> Bottleneck:
    wide, kernel = reader.dims(f"{name}.expand", 4)[:2]
    return Bottleneck(
        name=name,
        width_in=width_in,
        wide=wide,
        width=reader.dims(f"{name}.project", 4)[0],
        start=_kernel(reader, f"{name}.start"),
        kernel=kernel,
        middle=_kernel(reader, f"{name}.middle"),
        stride=stride,
        scaled=reader.has(f"{name}.gamma"),
    )


def _attention(reader: _Reader, name: str, width: int) -> Attention:
    inner, head_dim = reader.dims(f"{name}.query", 4)[0], reader.dims(f"{name}.key", 4)[0]
    if inner % head_dim:
        raise CheckpointError(
            "does not split into heads of the width of the keys",
            tensor=reader.label(f"{name}.query"),
            expected=f"a multiple of {head_dim} rows",
            got=str(inner),
        )
    kv_kernel, scaled = _kernel(reader, f"{name}.key_down"), reader.has(f"{name}.gamma")
    return Attention(name, width, inner // head_dim, head_dim, kv_kernel, scaled)


def _kernel(reader: _Reader, name: str) -> int:
    return reader.dims(name, 3)[0] if reader.has(name) else 0


def _depthwise(name: str, kernel: int, width: int) -> dict[str, Shape]:
    return {name: (kernel, kernel, width), f"{name}_norm": (width,)}


def _check_config(config: VisionConfig, counts: list[int], label: Label) -> None:
    """What the config says of blocks agrees with the tensors."""
    if config.stage_strides is None:
        if counts != RELEASED_BLOCKS:
            raise CheckpointError(
                f"stages of {counts} blocks; the config describes {RELEASED_BLOCKS}, since "
                "model_args has no block_args",
                tensor=label("stages.0.0.expand"),
            )
    elif config.stage_strides != (2,) * len(counts):
        raise ConfigError(
            f"block_args of model_args give the stages strides {config.stage_strides}; this "
            f"encoder has {len(counts)} stages, each of which halves the picture"
        )
