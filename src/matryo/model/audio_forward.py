"""The forward pass of the sound encoder, for one sound, in pieces: stem, conformer blocks,
reduction.

In: log-mel frames (n, num_mels) float32 with a mask (n,), any number at a time. Out: tokens
(m, d) as soon as their last frame is there. What a frame needs of the past is kept in a bounded
state: two rows before each convolution of the stem and the sums of its norm, in each block the keys
and values of P frames and K - 1 frames before the light convolution, and the frames behind the last
token. Every row is computed by itself in a fixed order, so the bits of a token do not depend on how
the frames were cut.

T frames of a piece (10 ms each at the input, 40 ms in the blocks) · d width · P past frames
K taps · F frequency bins · C channels
Source: transformers `modeling_gemma3n.py`, `Gemma3nAudioEncoder`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from matryo.model.audio_weights import (
    TAPS,
    AudioAttention,
    AudioFeedForward,
    AudioWeights,
    ConformerBlock,
    LightConv,
    StemStage,
    halved,
)
from matryo.tower_config import AudioConfig

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_MOST_MEL_FRAMES = 1024  # of one call of the stem: bounds its memory to some 50 MB
_MOST_FRAMES = 768  # of one pass through the blocks
_UNCLIPPED = float(np.finfo(np.float32).max)
_STEM_FRAMES = 4  # mel frames of one frame of the blocks


class AudioOps(Protocol):
    """What the encoder needs of a kernel library: `matryo.kernels.audio` or its numpy twin."""

    def audio_project(
        self, ws: Sequence[Any], norm: F32 | None, clip: float, eps: float, x: F32,
        outs: Sequence[F32], /
    ) -> None: ...  # fmt: skip
    def audio_add(
        self, w: Any, norm: F32 | None, clip: float, eps: float, x: F32, residual: F32, out: F32, /
    ) -> None: ...
    def audio_stem_conv(self, filter: Any, rows: F32, out: F32, /) -> None: ...
    def audio_group_norm(self, x: F32, weight: F32, sums: F64, eps: float, out: F32, /) -> None: ...
    def audio_feed_forward(
        self,
        up: Any,
        down: Any,
        pre_norm: F32,
        post_norm: F32,
        end_norm: F32 | None,
        gain: float,
        clip: float,
        eps: float,
        x: F32,
        out: F32,
        /,
    ) -> None: ...
    def audio_attend(
        self, q: F32, k: F32, v: F32, valid: U8, position: F32, scale: F32, cap: float, out: F32, /
    ) -> None: ...
    def audio_light_conv(
        self, gates: F32, past: F32, taps: F32, norm: F32, clip: float, eps: float, out: F32, /
    ) -> None: ...


class _Stage:
    """One convolution of the stem and the part of the sound it still needs."""

    def __init__(
        self, ops: AudioOps, weights: StemStage, bins: int, channels: int, eps: float
    ) -> None:
        self._ops, self._weights, self._eps = ops, weights, eps
        self._bins = bins  # at the input
        self._rows = np.empty((0, bins, channels), np.float32)  # begins where the next output does
        self._sums = np.zeros(3)

    def push(self, rows: F32) -> F32:
        """rows (n, F, C_in) -> the outputs (m, ceil(F / 2), C) whose three rows are there."""
        rows = np.concatenate([self._rows, rows]) if len(self._rows) else rows
        count = max(0, (len(rows) - TAPS) // 2 + 1)
        out = self._convolve(rows, count)
        self._rows = rows[2 * count :].copy()
        return out

    def finish(self) -> F32:
        """The outputs that reach beyond the end, where zeros stand."""
        return self.push(np.zeros((TAPS - 1, *self._rows.shape[1:]), np.float32))

    def _convolve(self, rows: F32, count: int) -> F32:
        bins, channels = halved(self._bins), self._weights.filter.rows
        if count == 0:
            return np.empty((0, bins, channels), np.float32)
        out = np.empty((count, bins, channels), np.float32)
        self._ops.audio_stem_conv(self._weights.filter, rows, out)
        flat = out.reshape(count, -1)
        self._ops.audio_group_norm(flat, self._weights.norm, self._sums, self._eps, flat)
        return out


class _BlockState:
    """What a block keeps: keys and values (P, d), inputs of the light convolution (K - 1, d)."""

    def __init__(self, config: AudioConfig) -> None:
        past = (config.past_frames, config.hidden_size)
        self.keys, self.values = np.zeros(past, np.float32), np.zeros(past, np.float32)
        self.conv = np.zeros((config.conv_kernel - 1, config.hidden_size), np.float32)


class AudioForward:
    """One sound on its way through the encoder."""

    def __init__(self, config: AudioConfig, weights: AudioWeights, ops: AudioOps) -> None:
        self._config, self._weights, self._ops = config, weights, ops
        first, _ = config.stem_channels
        sizes = ((config.num_mels, 1), (halved(config.num_mels), first))
        self._stem = [
            _Stage(ops, stage, bins, channels, config.group_norm_eps)
            for stage, (bins, channels) in zip(weights.stem, sizes, strict=True)
        ]
        self._blocks = [_BlockState(config) for _ in weights.blocks]
        self._seen = np.zeros(config.past_frames, np.uint8)  # whether the past frames are valid
        self._frames = np.empty((0, config.hidden_size), np.float32)  # behind the last token
        self._valid = np.empty(0, np.bool_)  # of those frames, and of frames still in the stem
        self._num_mel = self._num_frames = 0  # mel frames taken, frames through the blocks

    def push(self, mel: F32, mask: Mask | None = None) -> F32:
        """Takes frames (n, num_mels); returns the tokens (m, d) that are complete now."""
        return self._joined([self.take(mel, mask), self.complete()])

    def take(self, mel: F32, mask: Mask | None = None) -> F32:
        """As `push`, but frames may wait for more: many at a time are faster."""
        tokens = []
        for i in range(0, len(mel), _MOST_MEL_FRAMES):
            rows = slice(i, i + _MOST_MEL_FRAMES)
            self._through_stem(mel[rows], None if mask is None else mask[rows])
            if len(self._frames) >= _MOST_FRAMES:
                tokens.append(self.complete())
        return self._joined(tokens)

    def complete(self) -> F32:
        """Takes the frames up to the last one that is a token through the blocks: no earlier than
        that, so that weights are read once a token however small the pieces are.
        """
        count = len(self._frames)
        first = -self._num_frames % self._config.reduction  # the first frame that is a token
        if count <= first:
            return self._joined([])
        ready = (count - 1 - first) // self._config.reduction * self._config.reduction + first + 1
        tokens = [
            self._pass(self._frames[i : i + _MOST_FRAMES][: ready - i], self._valid[i:])
            for i in range(0, ready, _MOST_FRAMES)
        ]
        self._frames, self._valid = self._frames[ready:].copy(), self._valid[ready:].copy()
        return self._joined(tokens)

    def finish(self) -> F32:
        """The last tokens, which lack frames that will never come."""
        first, second = self._stem
        self._keep(second.push(first.finish()))
        self._keep(second.finish())
        return self.complete()

    def num_bytes(self) -> int:
        """Bytes of the state."""
        kept = [self._frames, self._valid, self._seen, *(stage._rows for stage in self._stem)]
        for state in self._blocks:
            kept += [state.keys, state.values, state.conv]
        return sum(array.nbytes for array in kept)

    def _joined(self, tokens: Sequence[F32]) -> F32:
        none = np.empty((0, self._config.hidden_size), np.float32)
        return np.concatenate([none, *tokens])

    def _through_stem(self, mel: F32, mask: Mask | None) -> None:
        """Brings mel frames through the stem."""
        if mask is None:
            mask = np.ones(len(mel), np.bool_)
        self._valid = np.concatenate([self._valid, mask[-self._num_mel % _STEM_FRAMES :: 4]])
        self._num_mel += len(mel)
        rows = mel[:, :, None]
        for stage in self._stem:
            rows = stage.push(rows)
        self._keep(rows)

    def _keep(self, rows: F32) -> None:
        """rows (n, F, C) out of the stem -> frames that wait for the blocks."""
        frames = np.empty((len(rows), self._config.hidden_size), np.float32)
        flat = rows.reshape(len(rows), self._weights.input.cols)
        config = self._config
        self._ops.audio_project(
            (self._weights.input,), None, config.clip, config.eps, flat, (frames,)
        )
        self._frames = np.concatenate([self._frames, frames])

    def _pass(self, x: F32, valid: Mask) -> F32:
        """x (T, d) -> its tokens (m, d)."""
        valid = valid[: len(x)]
        seen = np.concatenate([self._seen, valid.astype(np.uint8)])
        reduction = self._config.reduction
        tokens = slice(-self._num_frames % reduction, None, reduction)
        # The last block's second half is computed only where there is a token.
        kept = [slice(None)] * (len(self._blocks) - 1) + [tokens]
        for weights, state, rows in zip(self._weights.blocks, self._blocks, kept, strict=True):
            x = self._block(weights, state, x, seen, rows)
        self._seen = seen[len(valid) :]
        self._num_frames += len(valid)
        x[~valid[tokens]] = 0.0
        return x

    def _block(
        self, weights: ConformerBlock, state: _BlockState, x: F32, seen: U8, kept: slice
    ) -> F32:
        x = self._feed_forward(weights.feed_forward_start, None, x)
        self._add_attention(weights.attention, state, x, seen)
        x[seen[len(state.keys) :] == 0] = 0.0
        x = self._add_light_conv(weights.light_conv, state, x, kept)
        return self._feed_forward(weights.feed_forward_end, weights.norm, x)

    def _feed_forward(self, weights: AudioFeedForward, end_norm: F32 | None, x: F32) -> F32:
        config, out = self._config, np.empty_like(x)
        self._ops.audio_feed_forward(
            weights.up, weights.down, weights.pre_norm, weights.post_norm, end_norm,
            config.residual_weight, config.clip, config.eps, x, out,
        )  # fmt: skip
        return out

    def _add_attention(self, weights: AudioAttention, state: _BlockState, x: F32, seen: U8) -> None:
        config, past = self._config, len(state.keys)
        queries, mixed = np.empty_like(x), np.empty_like(x)
        keys, values = (np.empty((past + len(x), x.shape[1]), np.float32) for _ in range(2))
        keys[:past], values[:past] = state.keys, state.values
        self._ops.audio_project(
            (weights.q, weights.k, weights.v), weights.pre_norm, config.clip, config.eps, x,
            (queries, keys[past:], values[past:]),
        )  # fmt: skip
        self._ops.audio_attend(
            queries, keys, values, seen, weights.position, weights.query_scale, config.logit_cap,
            mixed,
        )  # fmt: skip
        state.keys[:], state.values[:] = keys[len(x) :], values[len(x) :]
        self._ops.audio_add(weights.o, weights.post_norm, config.clip, config.eps, mixed, x, x)

    def _add_light_conv(self, weights: LightConv, state: _BlockState, x: F32, kept: slice) -> F32:
        """The module's output for the rows `kept`."""
        config = self._config
        gates, mixed = np.empty((len(x), weights.start.rows), np.float32), np.empty_like(x)
        self._ops.audio_project(
            (weights.start,), weights.pre_norm, _UNCLIPPED, config.eps, x, (gates,)
        )
        self._ops.audio_light_conv(
            gates, state.conv, weights.taps, weights.conv_norm, config.clip, config.eps, mixed
        )
        x, mixed = np.ascontiguousarray(x[kept]), np.ascontiguousarray(mixed[kept])
        out = np.empty_like(mixed)
        self._ops.audio_add(weights.end, None, _UNCLIPPED, config.eps, mixed, x, out)
        return out
