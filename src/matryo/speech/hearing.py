"""Speech encoded while it is being spoken.

In: samples as they arrive. Out: `Heard`: for the utterance that is open, the embeddings of its soft
tokens until now. The encoder never waits for an utterance to end: it goes through an `AudioStream`,
and what comes out is, bit for bit, what the whole utterance would have given.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from matryo.inputs.sound import RATE, Samples
from matryo.inputs.voice import Piece, VoiceGate, VoiceOptions

F32 = npt.NDArray[np.float32]

_MARKS = 1024  # arrivals that are remembered: minutes


class Stream(Protocol):
    """An `AudioStream`."""

    def push(self, samples: F32, /) -> F32: ...
    def finish(self) -> F32: ...


@dataclass(frozen=True, slots=True, eq=False)
class Arrived:
    """Samples, and `time.perf_counter` when they were there."""

    samples: Samples
    at: float


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """An utterance as far as it is known.

    number: of the utterance, from 0 · start_s, end_s: seconds from the start of the sound
    embeddings: (n, d) of its soft tokens · spoken_at: when its last sample arrived
    is_whole: whether it has ended
    """

    number: int
    start_s: float
    end_s: float
    embeddings: F32
    spoken_at: float
    is_whole: bool


def paced(
    pieces: Iterable[Samples],
    *,
    now: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Samples]:
    """Pieces of a recording at the times at which they would have been spoken."""
    began, samples_done = now(), 0
    for samples in pieces:
        samples_done += len(samples)
        wait = began + samples_done / RATE - now()
        if wait > 0:
            sleep(wait)
        yield samples


def arrivals(
    pieces: Iterable[Samples], is_stopped: Callable[[], bool] = lambda: False
) -> Iterator[Arrived]:
    """Pieces with the times of their arrival, until somebody stops it."""
    iterator = iter(pieces)
    try:
        for samples in iterator:
            if is_stopped():
                return
            yield Arrived(samples, time.perf_counter())
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def hear(
    arrived: Iterable[Arrived],
    new_stream: Callable[[], Stream],
    embed: Callable[[F32], F32],
    voice: VoiceOptions | None = None,
) -> Iterator[Heard]:
    """What is heard, after each arrival that brings new soft tokens or ends an utterance.

    new_stream: gives the encoder's stream for an utterance · embed: features (n, C) to embeddings
    """
    ear = _Ear(new_stream, embed, voice)
    for one in arrived:
        yield from ear.take(one)
    yield from ear.finish()


class _Ear:
    def __init__(
        self,
        new_stream: Callable[[], Stream],
        embed: Callable[[F32], F32],
        voice: VoiceOptions | None,
    ) -> None:
        self._gate, self._new_stream, self._embed = VoiceGate(voice), new_stream, embed
        self._stream: Stream | None = None
        self._parts: list[F32] = []
        self._start = self._end = self._samples = 0
        self._number = -1
        self._marks: deque[tuple[int, float]] = deque(maxlen=_MARKS)

    def take(self, arrived: Arrived) -> Iterator[Heard]:
        self._samples += len(arrived.samples)
        self._marks.append((self._samples, arrived.at))
        for piece in self._gate.push(arrived.samples):
            yield from self._piece(piece)

    def finish(self) -> Iterator[Heard]:
        for piece in self._gate.finish():
            yield from self._piece(piece)

    def _piece(self, piece: Piece) -> Iterator[Heard]:
        if piece.is_first or self._stream is None:
            self._stream, self._parts = self._new_stream(), []
            self._start = piece.start
            self._number += 1
        self._end = piece.start + len(piece.samples)
        features = self._stream.push(piece.samples)
        if piece.is_last:
            features = np.concatenate([features, self._stream.finish()])
            self._stream = None
        if len(features):
            self._parts.append(self._embed(features))
        if self._parts and (len(features) or piece.is_last):
            yield Heard(
                self._number,
                self._start / RATE,
                self._end / RATE,
                np.concatenate(self._parts),
                self._spoken_at(),
                piece.is_last,
            )

    def _spoken_at(self) -> float:
        """When the last sample of the utterance arrived, which was before the pause behind it."""
        return next((at for count, at in self._marks if count >= self._end), 0.0)
