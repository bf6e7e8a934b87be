"""Which tensors the encoders of Gemma 3n hold, how large they are and how their random values are
spread.

In: nothing, or fewer blocks for tests. Out: `vision_tensors()` (MobileNet-V5-300M),
`audio_tensors()` (USM conformer) and `embedder_tensors(...)`, lists of `TowerTensor` under the
names of `Gemma3nForConditionalGeneration`. Products keep the magnitude of their input, norm weights
are near 1 and layer scales 0.3 to 1, so that activations stay of magnitude 1 through all blocks.
Source: timm `mobilenetv5.py`, transformers `modeling_gemma3n.py` (names and shapes).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .shapes import TensorSpec

VISION = "model.vision_tower.timm_model."
AUDIO = "model.audio_tower."
MEDIA_IDS = 128
"""Ids of each kind of media, behind the text's."""


@dataclass(frozen=True)
class TowerTensor:
    """One tensor: mean + spread · N(0, 1)."""

    name: str
    shape: tuple[int, ...]
    mean: float
    spread: float

    @property
    def spec(self) -> TensorSpec:
        """The same numbers as a matrix: a row for each output channel."""
        rows, columns = self.shape[0], math.prod(self.shape[1:])
        shape = (rows,) if len(self.shape) == 1 else (rows, columns)
        return TensorSpec(self.name, shape, self.mean, self.spread)

    @property
    def num_values(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Inverted:
    """Blocks with 1x1 convolutions: [depthwise `start`] expand [depthwise `middle`] project."""

    start: int
    middle: int
    expansion: int
    repeat: int = 1


@dataclass(frozen=True)
class Attention:
    """An attention block and the inverted bottleneck behind it, several times."""

    heads: int
    head_dim: int
    downsamples: bool
    repeat: int


@dataclass(frozen=True)
class Stage:
    channels: int
    blocks: tuple[Inverted | Attention, ...]


STEM, EDGE, EDGE_BLOCKS = 64, 128, 3
STAGES = (
    Stage(256, (Inverted(3, 5, 6), *(Inverted(k, 0, 4) for k in (5, 3, 5, 3)))),
    Stage(640, (Inverted(5, 5, 6), Inverted(5, 0, 4, 7), Inverted(0, 0, 1),
                Attention(12, 64, True, 14))),
    Stage(1280, (Inverted(5, 5, 6), Attention(16, 96, False, 19))),
)  # fmt: skip
FUSED = 2048


def filters(name: str, out: int, into: int, kernel: int = 1) -> TowerTensor:
    return TowerTensor(
        name, (out, into, kernel, kernel), 0.0, 1 / math.sqrt(into * kernel * kernel)
    )


def depthwise(name: str, channels: int, kernel: int) -> TowerTensor:
    return filters(name, channels, 1, kernel)


def norm(name: str, width: int) -> TowerTensor:
    return TowerTensor(name, (width,), 1.0, 0.1)


def layer_scale(name: str, width: int) -> TowerTensor:
    return TowerTensor(name, (width,), 0.5, 0.1)


def vision_tensors(stages: Sequence[Stage] = STAGES) -> list[TowerTensor]:
    """The picture encoder in the order of its blocks."""
    p = VISION
    found = [
        TowerTensor(p + "conv_stem.conv.weight", (STEM, 3, 3, 3), 0.0, 2 / math.sqrt(27)),
        TowerTensor(p + "conv_stem.conv.bias", (STEM,), 0.0, 0.1),
        norm(p + "conv_stem.bn.weight", STEM),
    ]
    width = STEM
    for number in range(EDGE_BLOCKS):
        name = f"{p}blocks.0.{number}."
        found += [
            filters(name + "conv_exp.weight", 4 * width, width, 3),
            norm(name + "bn1.weight", 4 * width),
            filters(name + "conv_pwl.weight", EDGE, 4 * width),
            norm(name + "bn2.weight", EDGE),
        ]
        width = EDGE
    for index, stage in enumerate(stages, start=1):
        for number, block in enumerate(expanded(stage)):
            name = f"{p}blocks.{index}.{number}."
            if isinstance(block, Attention):
                found += attention(name, block, width)
            else:
                found += inverted(name, block, width, stage.channels)
                found.append(layer_scale(name + "layer_scale.gamma", stage.channels))
            width = stage.channels
    both = sum(stage.channels for stage in stages[-2:])
    found += inverted(p + "msfa.ffn.", Inverted(0, 0, 2), both, FUSED)
    return [*found, norm(p + "msfa.norm.weight", FUSED)]


def expanded(stage: Stage) -> Iterator[Inverted | Attention]:
    """The blocks one by one."""
    for block in stage.blocks:
        for _ in range(block.repeat):
            yield block
            if isinstance(block, Attention):
                yield Inverted(0, 0, 2)


def inverted(name: str, block: Inverted, width: int, out: int) -> list[TowerTensor]:
    wide = block.expansion * width
    found = []
    if block.start:
        found += [
            depthwise(name + "dw_start.conv.weight", width, block.start),
            norm(name + "dw_start.bn.weight", width),
        ]
    found += [
        filters(name + "pw_exp.conv.weight", wide, width),
        norm(name + "pw_exp.bn.weight", wide),
    ]
    if block.middle:
        found += [
            depthwise(name + "dw_mid.conv.weight", wide, block.middle),
            norm(name + "dw_mid.bn.weight", wide),
        ]
    return [
        *found,
        filters(name + "pw_proj.conv.weight", out, wide),
        norm(name + "pw_proj.bn.weight", out),
    ]


def attention(name: str, block: Attention, width: int) -> list[TowerTensor]:
    queries = block.heads * block.head_dim
    found = [
        norm(name + "norm.weight", width),
        filters(name + "attn.query.proj.weight", queries, width),
    ]
    for role in ("key", "value"):
        if block.downsamples:
            found += [
                depthwise(f"{name}attn.{role}.down_conv.weight", width, 3),
                norm(f"{name}attn.{role}.norm.weight", width),
            ]
        found.append(filters(f"{name}attn.{role}.proj.weight", block.head_dim, width))
    return [
        *found,
        filters(name + "attn.output.proj.weight", width, queries),
        layer_scale(name + "layer_scale.gamma", width),
    ]


AUDIO_WIDTH, AUDIO_BLOCKS, AUDIO_HEADS, AUDIO_STEM = 1536, 12, 8, (128, 32)
MEL_BINS, CONV_TAPS = 128, 5


def audio_tensors(
    blocks: int = AUDIO_BLOCKS, width: int = AUDIO_WIDTH, stem: tuple[int, int] = AUDIO_STEM
) -> list[TowerTensor]:
    """The sound encoder in the order of its blocks."""
    p = AUDIO + "subsample_conv_projection."
    first, second = stem
    found = [
        filters(p + "conv_0.conv.weight", first, 1, 3),
        norm(p + "conv_0.norm.weight", first),
        filters(p + "conv_1.conv.weight", second, first, 3),
        norm(p + "conv_1.norm.weight", second),
        matrix(p + "input_proj_linear.weight", width, second * MEL_BINS // 4),
    ]
    for number in range(blocks):
        found += conformer(f"{AUDIO}conformer.{number}.", width)
    return found


def matrix(name: str, rows: int, columns: int) -> TowerTensor:
    return TowerTensor(name, (rows, columns), 0.0, 1 / math.sqrt(columns))


def conformer(name: str, width: int) -> list[TowerTensor]:
    found = []
    for part in ("ffw_layer_start.", "ffw_layer_end."):
        found += [
            norm(name + part + "pre_layer_norm.weight", width),
            matrix(name + part + "ffw_layer_1.weight", 4 * width, width),
            matrix(name + part + "ffw_layer_2.weight", width, 4 * width),
            norm(name + part + "post_layer_norm.weight", width),
        ]
    a, c = name + "attention.", name + "lconv1d."
    found += [matrix(f"{a}attn.{role}_proj.weight", width, width) for role in "qkv"]
    return [
        *found,
        TowerTensor(a + "attn.per_dim_scale", (width // AUDIO_HEADS,), 0.0, 0.2),
        matrix(a + "attn.relative_position_embedding.pos_proj.weight", width, width),
        norm(a + "pre_attn_norm.weight", width),
        matrix(a + "post.weight", width, width),
        norm(a + "post_norm.weight", width),
        norm(c + "pre_layer_norm.weight", width),
        matrix(c + "linear_start.weight", 2 * width, width),
        TowerTensor(
            c + "depthwise_conv1d.weight", (width, 1, CONV_TAPS), 0.0, 1 / math.sqrt(CONV_TAPS)
        ),
        norm(c + "conv_norm.weight", width),
        matrix(c + "linear_end.weight", width, width),
        norm(name + "norm.weight", width),
    ]


def embedder_tensors(hidden: int, tower: str, width: int) -> list[TowerTensor]:
    """From an encoder's features to the language model. tower: vision or audio."""
    p = f"model.embed_{tower}."
    return [
        TowerTensor(p + "embedding.weight", (MEDIA_IDS, width), 0.0, 1.0),
        norm(p + "hard_embedding_norm.weight", width),
        norm(p + "soft_embedding_norm.weight", width),
        matrix(p + "embedding_projection.weight", hidden, width),
    ]
