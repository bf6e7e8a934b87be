"""Packed arrays -> typed weights of the sound encoder. Shapes and dtypes are checked, nothing is
computed.

In: an `AudioConfig`, a mapping from the tensor names of docs/sound.md to arrays (usually read-only
views of a mapped file). Out: `AudioWeights`. Large matrices are f32, bf16 or i8, seen in place; the
stem's filters are f32.

d width · F ffn units · C channels · P past frames · K taps · Dh head dim
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.errors import CheckpointError
from matryo.kernels.reference_dense import AnyDenseMatrix, panel_bytes
from matryo.tower_config import AudioConfig
from matryo.weights import PANEL, TensorReader, panel_kind

Array = npt.NDArray[Any]
F32 = npt.NDArray[np.float32]
MakeDense = Callable[[str, int, int, Array], AnyDenseMatrix]  # kind, rows, cols, data

TAPS = 3  # of the stem's convolutions, in time and in frequency; both move by two


def halved(size: int) -> int:
    """Frames or frequency bins after one convolution of the stem."""
    return -(-size // 2)


@dataclass(frozen=True, slots=True, eq=False)
class StemStage:
    """One convolution and its norm.

    filter (C, 9 · C_in), columns ordered time, frequency, channel · norm (bins · C), the channel
    weights once for each bin
    """

    filter: AnyDenseMatrix
    norm: F32


@dataclass(frozen=True, slots=True, eq=False)
class AudioFeedForward:
    """pre_norm (d), up (F, d), down (d, F), post_norm (d)."""

    pre_norm: F32
    up: AnyDenseMatrix
    down: AnyDenseMatrix
    post_norm: F32


@dataclass(frozen=True, slots=True, eq=False)
class AudioAttention:
    """norms (d), q, k, v, o (d, d), query_scale (Dh), position (P + 1, d): row i for a key i frames
    back.
    """

    pre_norm: F32
    q: AnyDenseMatrix
    k: AnyDenseMatrix
    v: AnyDenseMatrix
    o: AnyDenseMatrix
    query_scale: F32
    position: F32
    post_norm: F32


@dataclass(frozen=True, slots=True, eq=False)
class LightConv:
    """pre_norm (d), start (2 d, d), taps (K, d), conv_norm (d), end (d, d)."""

    pre_norm: F32
    start: AnyDenseMatrix
    taps: F32
    conv_norm: F32
    end: AnyDenseMatrix


@dataclass(frozen=True, slots=True, eq=False)
class ConformerBlock:
    """The four modules of a block, and the norm of its output (d)."""

    feed_forward_start: AudioFeedForward
    attention: AudioAttention
    light_conv: LightConv
    feed_forward_end: AudioFeedForward
    norm: F32


@dataclass(frozen=True, slots=True, eq=False)
class AudioWeights:
    """The encoder: two stem stages, input (d, bins · C) to the blocks' width, blocks."""

    stem: tuple[StemStage, StemStage]
    input: AnyDenseMatrix
    blocks: tuple[ConformerBlock, ...]


def build_audio_weights(
    config: AudioConfig, tensors: Mapping[str, Array], make_matrix: MakeDense
) -> AudioWeights:
    """Checks and wraps the packed tensors. `make_matrix` is `kernels.audio.DenseMatrix`.

    Raises CheckpointError naming the tensor that is missing or has the wrong dtype or shape.
    """
    reader = _Reader(tensors, make_matrix)
    first, second = config.stem_channels
    bins = halved(config.num_mels), halved(halved(config.num_mels))
    return AudioWeights(
        stem=(_stage(reader, 0, first, 1, bins[0]), _stage(reader, 1, second, first, bins[1])),
        input=reader.dense("input", config.hidden_size, bins[1] * second),
        blocks=tuple(_block(reader, config, layer) for layer in range(config.num_layers)),
    )


def _stage(reader: _Reader, index: int, channels: int, channels_in: int, bins: int) -> StemStage:
    name = f"stem.{index}.filter"
    filters = reader.dense(name, channels, TAPS * TAPS * channels_in)
    if filters.kind != "f32":
        raise CheckpointError(f"tensor {name}: expected kind f32, got {filters.kind}")
    norm = reader.vector(f"stem.{index}.norm", (channels,))
    return StemStage(filters, np.tile(norm, bins))


def _block(reader: _Reader, config: AudioConfig, layer: int) -> ConformerBlock:
    prefix, width = f"blocks.{layer}.", config.hidden_size
    return ConformerBlock(
        feed_forward_start=_feed_forward(reader, prefix + "ffn_start.", width),
        attention=_attention(reader, config, prefix + "attention."),
        light_conv=_light_conv(reader, config, prefix + "conv."),
        feed_forward_end=_feed_forward(reader, prefix + "ffn_end.", width),
        norm=reader.vector(prefix + "norm", (width,)),
    )


def _feed_forward(reader: _Reader, prefix: str, width: int) -> AudioFeedForward:
    return AudioFeedForward(
        pre_norm=reader.vector(prefix + "pre_norm", (width,)),
        up=reader.dense(prefix + "up", 4 * width, width),
        down=reader.dense(prefix + "down", width, 4 * width),
        post_norm=reader.vector(prefix + "post_norm", (width,)),
    )


def _attention(reader: _Reader, config: AudioConfig, prefix: str) -> AudioAttention:
    width = config.hidden_size
    return AudioAttention(
        pre_norm=reader.vector(prefix + "pre_norm", (width,)),
        q=reader.dense(prefix + "q", width, width),
        k=reader.dense(prefix + "k", width, width),
        v=reader.dense(prefix + "v", width, width),
        o=reader.dense(prefix + "o", width, width),
        query_scale=reader.vector(prefix + "query_scale", (config.head_dim,)),
        position=reader.vector(prefix + "position", (config.past_frames + 1, width)),
        post_norm=reader.vector(prefix + "post_norm", (width,)),
    )


def _light_conv(reader: _Reader, config: AudioConfig, prefix: str) -> LightConv:
    width = config.hidden_size
    return LightConv(
        pre_norm=reader.vector(prefix + "pre_norm", (width,)),
        start=reader.dense(prefix + "start", 2 * width, width),
        taps=reader.vector(prefix + "taps", (config.conv_kernel, width)),
        conv_norm=reader.vector(prefix + "conv_norm", (width,)),
        end=reader.dense(prefix + "end", width, width),
    )


class _Reader(TensorReader):
    """Makes matrices for many rows of stored ones."""

    def __init__(self, tensors: Mapping[str, Array], make_matrix: MakeDense) -> None:
        super().__init__(tensors)
        self._make_matrix = make_matrix

    def dense(self, name: str, rows: int, cols: int) -> AnyDenseMatrix:
        array = self.array(name)
        kind = panel_kind(array, rows, cols)
        if kind in ("f32", "bf16"):
            return self._make_matrix(kind, rows, cols, array)
        if kind is not None:
            raise CheckpointError(
                f"tensor {name}: {kind} as an earlier version of Matryo stored sound encoders. "
                "Convert the checkpoint again"
            )
        if array.dtype == np.uint8 and array.shape == (-(-rows // PANEL), panel_bytes(cols)):
            return self._make_matrix("i8", rows, cols, array)
        raise CheckpointError(
            f"tensor {name}: expected a matrix of {rows} x {cols} as f32, bf16 or i8, "
            f"got {array.dtype} {array.shape}"
        )
