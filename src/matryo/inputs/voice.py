"""Where in a sound somebody speaks: a gate on its loudness, with hysteresis.

In: samples (N,) f32 at 16 kHz, in pieces of any size. Out: the same samples without the silence, as
utterances that begin and end at pauses and are no longer than a clip of the model. What is decided
never changes later, so a microphone and a file give the same utterances, and a pause is known
`pause_s` after it began.

The level of each 20 ms is compared with the noise floor, which follows the quietest level at once
and rises slowly. A level `open_db` above the floor for `attack_s` begins an utterance; below
`close_db` for `pause_s` ends it. The longer somebody speaks, the shorter a pause is enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields

import numpy as np

from matryo.errors import ConfigError
from matryo.inputs.sound import RATE, Samples

FRAME = 320  # samples: 20 ms
_FRAME_S = FRAME / RATE
_QUIETEST_DB = -120.0
_FLOOR_START_DB, _FLOOR_HIGHEST_DB = -50.0, -30.0
# Decibels a frame: slower while somebody speaks, for speech must not become background.
_RISE_CLOSED_DB, _RISE_OPEN_DB = 3.0 * _FRAME_S, 1.0 * _FRAME_S
_PATIENT_SHARE = 2 / 3  # of the longest utterance; from there on a shorter pause ends it
_SHORTEST_PAUSE_S = 0.06


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceOptions:
    """When an utterance begins and ends; decibels, where 0 is full scale, and seconds.

    open_db, close_db   above the noise floor · quiet_db: nothing below it is voice
    attack_s            how long a level must stay open · pause_s: how long closed
    padding_s           of silence kept at both ends · longest_s: where an utterance is cut
    gate                False takes everything as voice and cuts at `longest_s` alone

    Raises ConfigError for values that make no gate.
    """

    open_db: float = 10.0
    close_db: float = 6.0
    quiet_db: float = -55.0
    attack_s: float = 0.06
    pause_s: float = 0.6
    padding_s: float = 0.2
    longest_s: float = 30.0
    gate: bool = True

    def __post_init__(self) -> None:
        for entry in fields(self):
            if not np.isfinite(getattr(self, entry.name)):
                raise ConfigError(f"{entry.name}: expected a number, got infinity or NaN")
        if not 0 < self.close_db <= self.open_db:
            raise ConfigError(
                f"close_db: expected more than 0 and at most open_db ({self.open_db:g}), got "
                f"{self.close_db:g}"
            )
        if min(self.attack_s, self.padding_s) < 0 or self.pause_s < _FRAME_S:
            raise ConfigError(
                f"expected attack_s and padding_s from 0 and pause_s from {_FRAME_S:g} s, got "
                f"{self.attack_s:g}, {self.padding_s:g} and {self.pause_s:g}"
            )
        if self.longest_s < 1:
            raise ConfigError(f"longest_s: expected at least 1 s, got {self.longest_s:g}")


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Some samples of an utterance, which begin `start` samples into the sound."""

    start: int
    samples: Samples
    is_first: bool
    is_last: bool


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """A whole utterance: samples (N,), which begin `start` samples into the sound."""

    start: int
    samples: Samples

    @property
    def start_s(self) -> float:
        """Seconds."""
        return self.start / RATE

    @property
    def end_s(self) -> float:
        """Seconds."""
        return (self.start + len(self.samples)) / RATE


@dataclass(slots=True)
class _Floor:
    """The level of the background, in decibels."""

    level: float = _FLOOR_START_DB

    def follow(self, level: float, *, is_open: bool) -> None:
        rise = _RISE_OPEN_DB if is_open else _RISE_CLOSED_DB
        self.level = min(level, self.level + rise, _FLOOR_HIGHEST_DB)


@dataclass(slots=True)
class _Held:
    """Samples that are not given yet; `start` is the place of the first one."""

    start: int = 0
    count: int = 0
    parts: list[Samples] = field(default_factory=list)

    def __len__(self) -> int:
        return self.count

    def add(self, samples: Samples) -> None:
        self.parts.append(samples)
        self.count += len(samples)

    def take(self, count: int) -> Samples:
        """The first `count` samples, or all if there are fewer; they are gone then."""
        joined = np.concatenate([np.empty(0, np.float32), *self.parts])
        taken, rest = joined[:count], joined[count:]
        self.start += len(taken)
        self.count = len(rest)
        self.parts = [rest] if len(rest) else []
        return taken


class VoiceGate:
    """Utterances of one sound while it arrives."""

    def __init__(self, options: VoiceOptions | None = None) -> None:
        self.options = options or VoiceOptions()
        self._floor = _Floor()
        self._incoming = _Held()  # less than a frame
        self._held = _Held()  # padding before an utterance, or a pause that may not be one
        self._is_open = False
        self._is_first = False
        self._given = 0  # samples of the utterance
        self._loud = self._quiet = 0  # frames in a row
        self._padding = round(self.options.padding_s * RATE)
        self._longest = round(self.options.longest_s * RATE)

    @property
    def is_open(self) -> bool:
        """Whether somebody is speaking."""
        return self._is_open

    def push(self, samples: Samples) -> list[Piece]:
        """Take more samples; returns what is certain to be voice."""
        self._incoming.add(samples)
        if len(self._incoming) < FRAME:
            return []
        whole = len(self._incoming) // FRAME * FRAME
        frames = self._incoming.take(whole).reshape(-1, FRAME)
        pieces: list[Piece] = []
        for frame, level in zip(frames, levels(frames), strict=True):
            pieces += self._frame(frame, float(level))
        return joined_pieces(pieces)

    def finish(self) -> list[Piece]:
        """The sound ends here; returns the last piece of the utterance, if one is open."""
        rest = self._incoming.take(FRAME)
        if not self.options.gate and len(rest) and not self._is_open:
            self._open()
        if not self._is_open:
            return []
        if self._quiet:
            return self._close()
        self._held.add(rest)
        return joined_pieces(self._give(len(self._held), is_last=True))

    def _frame(self, frame: Samples, level: float) -> list[Piece]:
        options = self.options
        self._floor.follow(level, is_open=self._is_open)
        above = level - self._floor.level if level > options.quiet_db else -1.0
        self._held.add(frame)
        if self._is_open:
            return self._while_open(above)
        self._loud = self._loud + 1 if above >= options.open_db or not options.gate else 0
        attack = max(1, round(options.attack_s / _FRAME_S)) if options.gate else 1
        if self._loud < attack:
            # What came before the first loud frame is padding of an utterance that may follow.
            spare = len(self._held) - self._loud * FRAME - self._padding
            if spare > 0:
                self._held.take(spare)
            return []
        self._open()
        return self._give(len(self._held))

    def _open(self) -> None:
        self._is_open = self._is_first = True
        self._quiet = self._given = 0

    def _close(self) -> list[Piece]:
        """End the utterance in a pause; after a cut there may be nothing left of it."""
        pieces = self._give(self._padding, is_last=True) if self._given else []
        self._is_open, self._loud, self._quiet = False, 0, 0
        return pieces

    def _while_open(self, above: float) -> list[Piece]:
        if above >= self.options.close_db or not self.options.gate:
            self._quiet = 0
            return self._give(len(self._held))
        self._quiet += 1
        if self._quiet * _FRAME_S >= self._pause_s():
            return self._close()
        return []

    def _pause_s(self) -> float:
        """How long a pause must be to end the utterance."""
        patient = _PATIENT_SHARE * self._longest
        beyond = max(0.0, (self._given - patient) / (self._longest - patient))
        return max(_SHORTEST_PAUSE_S, self.options.pause_s * (1 - beyond))

    def _give(self, count: int, *, is_last: bool = False) -> list[Piece]:
        """Give the first `count` held samples, cut where the utterance is too long."""
        pieces = []
        count = min(count, len(self._held))
        while count and self._given + count >= self._longest:
            cut = self._longest - self._given
            pieces.append(self._piece(cut, is_last=True))
            count -= cut
            self._is_first, self._given = True, 0
        if count or (is_last and not self._is_first):
            pieces.append(self._piece(count, is_last=is_last))
        return pieces

    def _piece(self, count: int, *, is_last: bool) -> Piece:
        start = self._held.start
        piece = Piece(start, self._held.take(count), self._is_first, is_last)
        self._is_first = False
        self._given += count
        return piece


def levels(frames: Samples) -> Samples:
    """Decibels (n,) of frames (n, FRAME), their constant part left out."""
    power = np.square(frames - frames.mean(axis=1, keepdims=True)).mean(axis=1)
    found: Samples = 10 * np.log10(np.maximum(power, 10 ** (_QUIETEST_DB / 10)))
    return np.maximum(found, _QUIETEST_DB)  # numpy's logarithm of it may be a rounding below


def joined_pieces(pieces: Iterable[Piece]) -> list[Piece]:
    """The pieces with those of one utterance joined."""
    runs: list[list[Piece]] = []
    for piece in pieces:
        if runs and not piece.is_first and not runs[-1][-1].is_last:
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return [
        Piece(
            run[0].start,
            np.concatenate([piece.samples for piece in run]),
            run[0].is_first,
            run[-1].is_last,
        )
        for run in runs
    ]


def utterances(
    pieces: Iterable[Samples], options: VoiceOptions | None = None
) -> Iterator[Utterance]:
    """Whole utterances of a sound that comes in pieces, each as soon as it has ended."""
    gate = VoiceGate(options)
    open_pieces: list[Piece] = []

    def ended(found: Iterable[Piece]) -> Iterator[Utterance]:
        for piece in found:
            open_pieces.append(piece)
            if piece.is_last:
                samples = np.concatenate([one.samples for one in open_pieces])
                yield Utterance(open_pieces[0].start, samples)
                open_pieces.clear()

    for samples in pieces:
        yield from ended(gate.push(samples))
    yield from ended(gate.finish())
