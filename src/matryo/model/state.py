"""Activation buffers of a forward pass, made once and used again.

Decoding touches only the cached views of a few rows; prefill uses one large set. A state serves one
forward pass at a time; sequences are not kept here but in their caches.

T tokens · d model · A altup streams · L layers · P per-layer dim · Dh head dim
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matryo.config import NUM_STREAMS, TextConfig

F32 = npt.NDArray[np.float32]
# rows: at most this many keep their buffers for good (decoding, batched decoding, the last rows of
# a prompt)
_SMALL = 16


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """Buffers of exactly T rows, contiguous. Streams others and active are views into the buffers
    before them.
    """

    streams: F32  # (A, T, d)
    embedding: F32  # (T, d) = streams[0]
    others: F32  # (A-1, T, d) = streams[1:]
    each_other: tuple[F32, ...]  # A-1 of (T, d)
    predictions: F32  # (A, T, d)
    active: F32  # (T, d) = predictions[0]
    unembedded: F32  # (A-1, T, d) = predictions[1:], free after the last layer
    each_unembedded: tuple[F32, ...]
    normed: F32  # (T, d)
    hidden: F32  # (T, d)
    active_out: F32  # (T, d)
    ple: F32  # (L, T, P) projections, then the per-layer inputs
    each_ple: tuple[F32, ...]  # L of (T, P)
    ple_raw: F32  # (L, T, P)
    angles: tuple[tuple[F32, F32], ...]  # cos, sin (T, Dh/2) for each RoPE base


class State:
    """Buffers for up to `max_tokens` rows of the model's shape; larger passes are refused by the
    model.
    """

    def __init__(self, config: TextConfig, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._config = config
        self._num_bases = len(set(config.rope_theta))
        self._small: dict[int, Views] = {}
        self._large: tuple[int, Views] | None = None
        self._logits: F32 | None = None

    def views(self, num_tokens: int) -> Views:
        """Buffers of `num_tokens` rows; their content is not defined."""
        if num_tokens <= _SMALL:
            if num_tokens not in self._small:
                self._small[num_tokens] = self._made(num_tokens)
            return self._small[num_tokens]
        if self._large is None or self._large[0] != num_tokens:
            self._large = None  # freed before the next is made
            self._large = num_tokens, self._made(num_tokens)
        return self._large[1]

    def spare_views(self, num_tokens: int) -> Views:
        """Like `views`, but never the large set in use: for the rows of a prompt whose logits are
        wanted.
        """
        return self.views(num_tokens) if num_tokens <= _SMALL else self._made(num_tokens)

    def logits(self, num_rows: int, vocab_size: int) -> F32:
        """(rows, V); a few rows share one buffer, which the next pass overwrites."""
        if num_rows > _SMALL:
            return np.empty((num_rows, vocab_size), np.float32)
        if self._logits is None or len(self._logits) < num_rows:
            self._logits = np.empty((num_rows, vocab_size), np.float32)
        return self._logits[:num_rows]

    def release(self) -> None:
        """Gives the large buffers back, as after a prompt."""
        self._large = None

    def _made(self, num_tokens: int) -> Views:
        config, rows = self._config, (num_tokens, self._config.hidden_size)
        streams = np.empty((NUM_STREAMS, *rows), np.float32)
        predictions = np.empty((NUM_STREAMS, *rows), np.float32)
        ple = np.empty((config.num_layers, num_tokens, config.ple_dim), np.float32)
        half = (num_tokens, config.head_dim // 2)
        return Views(
            streams=streams,
            embedding=streams[0],
            others=streams[1:],
            each_other=tuple(streams[1:]),
            predictions=predictions,
            active=predictions[0],
            unembedded=predictions[1:],
            each_unembedded=tuple(predictions[1:]),
            normed=np.empty(rows, np.float32),
            hidden=np.empty(rows, np.float32),
            active_out=np.empty(rows, np.float32),
            ple=ple,
            each_ple=tuple(ple),
            ple_raw=np.empty_like(ple),
            angles=tuple(
                (np.empty(half, np.float32), np.empty(half, np.float32))
                for _ in range(self._num_bases)
            ),
        )
