"""The sound encoder of a Hugging Face checkpoint as packed tensors.

In: a source of tensors under their names below `audio_tower.`, the encoder's config, the weights
kind of the packed checkpoint. Out: the `PackedTensor`s of docs/sound.md. What does not depend on
the sound is computed here once: the projected position signal, the scale of queries. Filters of the
stem, taps and norms stay float32; the large matrices take the kind, but i8 (`reference_dense`)
where the language model has 8 or 4 bits: of features that went through 12 blocks of 4 bits a third
is noise (docs/sound.md).
Source: transformers `modeling_gemma3n.py` (names, the position signal).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from matryo.checkpoint.pack import PackedTensor
from matryo.errors import CheckpointError, ConfigError
from matryo.tower_config import AudioConfig

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Shape = tuple[int, ...]

_LONGEST_PERIOD = 1e4  # of the position signal, in frames per radian
TAPS = 3  # of the stem's convolutions

MATRICES = {  # in a block: packed name -> name in the checkpoint
    "ffn_start.up": "ffw_layer_start.ffw_layer_1.weight",
    "ffn_start.down": "ffw_layer_start.ffw_layer_2.weight",
    "attention.q": "attention.attn.q_proj.weight",
    "attention.k": "attention.attn.k_proj.weight",
    "attention.v": "attention.attn.v_proj.weight",
    "attention.o": "attention.post.weight",
    "conv.start": "lconv1d.linear_start.weight",
    "conv.end": "lconv1d.linear_end.weight",
    "ffn_end.up": "ffw_layer_end.ffw_layer_1.weight",
    "ffn_end.down": "ffw_layer_end.ffw_layer_2.weight",
}
NORMS = {
    "ffn_start.pre_norm": "ffw_layer_start.pre_layer_norm.weight",
    "ffn_start.post_norm": "ffw_layer_start.post_layer_norm.weight",
    "attention.pre_norm": "attention.pre_attn_norm.weight",
    "attention.post_norm": "attention.post_norm.weight",
    "conv.pre_norm": "lconv1d.pre_layer_norm.weight",
    "conv.conv_norm": "lconv1d.conv_norm.weight",
    "ffn_end.pre_norm": "ffw_layer_end.pre_layer_norm.weight",
    "ffn_end.post_norm": "ffw_layer_end.post_layer_norm.weight",
    "norm": "norm.weight",
}
QUERY_SCALE = "attention.attn.per_dim_scale"
POSITION = "attention.attn.relative_position_embedding.pos_proj.weight"
DEPTHWISE = "lconv1d.depthwise_conv1d.weight"
STEM = "subsample_conv_projection."
MATRIX_KINDS: Mapping[str, str] = {"f32": "f32", "bf16": "bf16", "q8": "i8", "q4": "i8"}


class AudioSource(Protocol):
    """Tensors by their names below `audio_tower.`; `TowerSource` is one."""

    @property
    def shapes(self) -> Mapping[str, Shape]: ...
    def read(self, name: str, rows: slice = ..., /) -> F32: ...
    def forget(self, name: str, rows: slice = ..., /) -> None: ...


def audio_shapes(config: AudioConfig) -> dict[str, Shape]:
    """Every tensor of the encoder in a checkpoint, and its shape."""
    width, (first, second) = config.hidden_size, config.stem_channels
    bins = -(-config.num_mels // 4)
    shapes: dict[str, Shape] = {
        f"{STEM}conv_0.conv.weight": (first, 1, TAPS, TAPS),
        f"{STEM}conv_0.norm.weight": (first,),
        f"{STEM}conv_1.conv.weight": (second, first, TAPS, TAPS),
        f"{STEM}conv_1.norm.weight": (second,),
        f"{STEM}input_proj_linear.weight": (width, bins * second),
    }
    sizes = {"up": (4 * width, width), "down": (width, 4 * width), "start": (2 * width, width)}
    block: dict[str, Shape] = {
        name: sizes.get(ours.rpartition(".")[2], (width, width)) for ours, name in MATRICES.items()
    }
    block |= dict.fromkeys(NORMS.values(), (width,))
    block[QUERY_SCALE] = (config.head_dim,)
    block[POSITION] = (width, width)
    block[DEPTHWISE] = (width, 1, config.conv_kernel)
    for layer in range(config.num_layers):
        shapes |= {f"conformer.{layer}.{name}": shape for name, shape in block.items()}
    return shapes


def audio_tensors(source: AudioSource, config: AudioConfig, weights: str) -> list[PackedTensor]:
    """Every packed tensor of the encoder, large ones first.

    weights: f32, bf16, q8 or q4, as for the language model. Raises CheckpointError naming a tensor
    that is missing, unknown or misshapen, ConfigError for unknown `weights`.
    """
    if weights not in MATRIX_KINDS:
        raise ConfigError(f"weights is {weights!r}; allowed: {', '.join(MATRIX_KINDS)}")
    _check(source.shapes, audio_shapes(config))
    packer = _Packer(source, config, MATRIX_KINDS[weights])
    tensors = [*packer.stem(), *(t for n in range(config.num_layers) for t in packer.block(n))]
    return sorted(tensors, key=lambda tensor: tensor.kind is None)


def _check(got: Mapping[str, Shape], expected: Mapping[str, Shape]) -> None:
    for name, shape in expected.items():
        if name not in got:
            raise CheckpointError("tensor is missing", tensor=f"audio_tower.{name}")
        if tuple(got[name]) != shape:
            raise CheckpointError(
                "wrong shape", tensor=f"audio_tower.{name}", expected=str(shape), got=str(got[name])
            )
    for name in got:
        if name not in expected:
            raise CheckpointError(
                "unknown tensor: it may change the arithmetic, so it is not ignored",
                tensor=f"audio_tower.{name}",
            )


class _Packer:
    def __init__(self, source: AudioSource, config: AudioConfig, kind: str) -> None:
        self._source, self._config, self._kind = source, config, kind

    def stem(self) -> Iterator[PackedTensor]:
        channels_in = 1
        for index, channels in enumerate(self._config.stem_channels):
            name = f"{STEM}conv_{index}."
            shape = (channels, TAPS * TAPS * channels_in)
            read = self._whole(name + "conv.weight", _filter_rows)
            yield PackedTensor(0, f"stem.{index}.filter", "f32", "panel", shape, read)
            yield self._vector(f"stem.{index}.norm", name + "norm.weight", (channels,))
            channels_in = channels
        yield self._matrix("input", f"{STEM}input_proj_linear.weight")

    def block(self, layer: int) -> Iterator[PackedTensor]:
        ours, theirs = f"blocks.{layer}.", f"conformer.{layer}."
        config, width = self._config, self._config.hidden_size
        for name, full in MATRICES.items():
            yield self._matrix(ours + name, theirs + full)
        for name, full in NORMS.items():
            yield self._vector(ours + name, theirs + full, (width,))
        yield self._vector(
            f"{ours}attention.query_scale", theirs + QUERY_SCALE, (config.head_dim,), _query_scale
        )
        yield self._vector(
            f"{ours}attention.position", theirs + POSITION, (config.past_frames + 1, width),
            lambda dense: _position_rows(dense, config.past_frames),
        )  # fmt: skip
        yield self._vector(
            f"{ours}conv.taps", theirs + DEPTHWISE, (config.conv_kernel, width),
            lambda dense: dense[:, 0].T,
        )  # fmt: skip

    def _matrix(self, ours: str, name: str) -> PackedTensor:
        rows, cols = self._source.shapes[name]

        def read(first: int, last: int) -> F32:
            dense = self._source.read(name, slice(first, last))
            self._source.forget(name, slice(first, last))
            return dense

        return PackedTensor(0, ours, self._kind, "panel", (rows, cols), read)

    def _vector(
        self, ours: str, name: str, shape: Shape, change: Callable[[F32], F32] = lambda dense: dense
    ) -> PackedTensor:
        return PackedTensor(0, ours, None, "", shape, self._whole(name, change))

    def _whole(self, name: str, change: Callable[[F32], F32]) -> Callable[[int, int], F32]:
        def read(first: int, last: int) -> F32:
            dense = self._source.read(name)
            self._source.forget(name)
            return np.ascontiguousarray(change(dense)[first:last], np.float32)

        return read


def _filter_rows(dense: F32) -> F32:
    """(C, C_in, time, frequency) -> (C, time · frequency · C_in): channels lie side by side."""
    rows: F32 = dense.transpose(0, 2, 3, 1).reshape(len(dense), -1)
    return rows


def _query_scale(per_dim_scale: F32) -> F32:
    """What queries are multiplied by: 1 / sqrt(Dh) where the learnt scale is zero."""
    softplus = np.logaddexp(0.0, per_dim_scale.astype(np.float64))
    scale: F32 = (softplus / math.log(2.0) / math.sqrt(len(per_dim_scale))).astype(np.float32)
    return scale


def _position_rows(projection: F32, past_frames: int) -> F32:
    """projection (d, d) -> (past_frames + 1, d): the projected signal of each distance, 0 first."""
    signal = position_signal(projection.shape[1], past_frames)
    rows: F32 = (signal @ projection.astype(np.float64).T).astype(np.float32)
    return rows


def position_signal(width: int, past_frames: int) -> F64:
    """(past_frames + 1, width): sines and cosines of each distance, 0 first."""
    count = width // 2
    # The reference computes the angles in float32: so far from zero it shows.
    steps = np.arange(count, dtype=np.float32) * np.float32(
        -math.log(_LONGEST_PERIOD) / max(count - 1, 1)
    )
    distance = np.arange(past_frames + 1, dtype=np.float32)
    angle = (distance[:, None] * np.exp(steps)).astype(np.float64)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
