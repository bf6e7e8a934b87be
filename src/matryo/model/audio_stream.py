"""Sound that is still arriving -> soft tokens, as soon as the encoder can know them.

In: samples (n,) float32 at 16 kHz, in pieces of any size. Out: tokens (m, d), the same bits that
the whole sound would have given. Memory and work for a second of sound are constant: a token is one
pass through the blocks, which can begin 92 ms after the token's first sample.
"""

from __future__ import annotations

import numpy as np

from matryo.errors import InputError
from matryo.inputs.mel import MelFilters, MelStream, check_samples
from matryo.model.audio_forward import F32, AudioForward


class AudioStream:
    """One sound from its beginning to its end; made by `AudioEncoder.stream`."""

    def __init__(self, filters: MelFilters, forward: AudioForward) -> None:
        self._mel, self._forward = MelStream(filters), forward
        self._none = forward.push(np.empty((0, filters.num_mels), np.float32))
        self._finished = False
        self.num_samples = 0  # taken so far
        self.num_tokens = 0  # given so far

    def push(self, samples: F32) -> F32:
        """Takes more samples; returns the tokens (m, d) that are complete now, often none.

        Raises InputError, and takes nothing, for samples that are no mono float32 numbers; after
        `finish`.
        """
        return self._counted([*self._taken(samples), self._forward.complete()])

    def finish(self, samples: F32 | None = None) -> F32:
        """Ends the sound; returns its last tokens (m, d). Raises InputError the second time.

        samples: the last ones, as for `push`; all go through the blocks together then
        """
        tokens = [] if samples is None else self._taken(samples)
        self._check_open()
        self._finished = True
        tokens += [self._forward.take(mel) for mel in self._mel.finish()]
        return self._counted([*tokens, self._forward.finish()])

    def num_bytes(self) -> int:
        """Bytes of the state, samples aside."""
        return self._forward.num_bytes()

    def _taken(self, samples: F32) -> list[F32]:
        samples = check_samples(samples)
        self._check_open()
        self.num_samples += len(samples)
        return [self._forward.take(mel) for mel in self._mel.push(samples)]

    def _check_open(self) -> None:
        if self._finished:
            raise InputError("this sound has ended; open another stream for more")

    def _counted(self, tokens: list[F32]) -> F32:
        joined = np.concatenate([self._none, *tokens])
        self.num_tokens += len(joined)
        return joined
