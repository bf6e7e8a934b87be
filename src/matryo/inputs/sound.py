"""Sound of any format, rate and number of channels to 16 kHz mono, whole or piece by piece.

In: a source (file, bytes, URL, array). Out: samples (N,) f32 at 16 kHz, about -1 to 1. Channels
are averaged; rates are converted by FFmpeg's libswresample.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from matryo.errors import InputError
from matryo.inputs.container import DamageCount, opened_container, seconds_of, sound_stream
from matryo.inputs.limits import DEFAULT_LIMITS, MediaLimits
from matryo.inputs.sniff import FLAC, MATROSKA, MP4, SOUNDS, Kind
from matryo.inputs.source import Source

if TYPE_CHECKING:
    from av import AudioFrame
    from av.audio.resampler import AudioResampler

Samples = npt.NDArray[np.float32]

RATE = 16_000
"""Samples a second that the audio encoder takes."""
LOWEST_RATE, HIGHEST_RATE = 4_000, 768_000
"""What is resampled: a file that states 1 Hz would grow to 16,000 times its size."""
MAX_CHANNELS = 32

_PIECE = 1 << 16  # samples of an array that are resampled at a time


def load_sound(
    source: object,
    *,
    rate: int = RATE,
    limits: MediaLimits = DEFAULT_LIMITS,
    allow_urls: bool = False,
) -> Samples:
    """A whole clip: samples (N,) f32 at 16 kHz, mono, N > 0.

    Files: WAV, MP3, M4A, AAC, Ogg, Opus, FLAC, and the sound track of MP4 and WebM. Arrays: (N,)
    or (N, channels) of floats, or of int16 or int32 at full scale, at `rate` samples a second (of
    no meaning for files). Raises InputError if the source holds no sound, a damaged or cut-off one,
    values that are not finite, or more than `max_sound_seconds`.
    """
    pieces: list[Samples] = []
    allowed = limits.max_sound_seconds
    opened = Source.of(source, limits=limits, allow_urls=allow_urls)
    num_samples = 0
    for piece in _samples(opened, rate, limits, allowed):
        num_samples += len(piece)
        if num_samples > allowed * RATE:
            raise _too_long(opened.name, allowed)
        pieces.append(piece)
    return np.concatenate(pieces)


def sound_pieces(
    source: object,
    seconds: float = 1.0,
    *,
    rate: int = RATE,
    limits: MediaLimits = DEFAULT_LIMITS,
    allow_urls: bool = False,
) -> Iterator[Samples]:
    """The samples of `load_sound` in pieces of `seconds`, the last one shorter, in constant memory.

    Joined they equal the whole clip. Raises InputError as `load_sound` does, when the place is
    reached: a file may turn out damaged after pieces of it were given.
    """
    size = round(seconds * RATE)
    if size < 1:
        raise InputError(f"seconds: expected at least one sample, got {seconds:g}")
    opened = Source.of(source, limits=limits, allow_urls=allow_urls)
    return _cut(opened, size, rate, limits)


def _cut(source: Source, size: int, rate: int, limits: MediaLimits) -> Iterator[Samples]:
    kept: list[Samples] = []
    have = total = 0
    for piece in _samples(source, rate, limits, None):
        total += len(piece)
        if total > limits.max_stream_seconds * RATE:
            raise _too_long(source.name, limits.max_stream_seconds)
        kept.append(piece)
        have += len(piece)
        if have >= size:
            joined = np.concatenate(kept)
            whole = have // size * size
            for start in range(0, whole, size):
                yield joined[start : start + size].copy()
            kept, have = [joined[whole:]], have - whole
    if have:
        yield np.concatenate(kept)


def _samples(
    source: Source, rate: int, limits: MediaLimits, allowed_s: float | None
) -> Iterator[Samples]:
    """Mono pieces at 16 kHz, not empty and finite. Raises InputError if there are none."""
    if source.array is not None:
        pieces = _from_array(source.array, rate)
    else:
        pieces = _from_file(source, limits, allowed_s)
    empty = True
    for piece in pieces:
        if len(piece) == 0:
            continue
        if not np.isfinite(piece).all():
            raise InputError(f"{source.name}: expected finite samples, got NaN or infinity")
        empty = False
        yield piece
    if empty:
        raise InputError(f"{source.name}: expected sound, got none (no samples)")


def _from_file(source: Source, limits: MediaLimits, allowed_s: float | None) -> Iterator[Samples]:
    kind = source.require(("sound", "container"), f"sound ({SOUNDS})")
    with opened_container(source, kind, limits) as container:
        stream = sound_stream(container, limits)
        stated = seconds_of(container, stream)
        if allowed_s is not None and stated is not None and stated > allowed_s:
            raise _too_long(source.name, allowed_s, stated)
        mixer, damage, given = _Mixer(), DamageCount(), 0
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except Exception as error:  # a class for every code of FFmpeg
                damage.bad(given / RATE, error)
                continue
            damage.good()
            for frame in frames:
                for piece in mixer.push(frame):
                    given += len(piece)
                    yield piece
        for piece in mixer.finish():
            given += len(piece)
            yield piece
        _check_end(kind, len(container.streams), given / RATE, stated)


def _check_end(kind: Kind, num_streams: int, seconds: float, stated: float | None) -> None:
    """Raises InputError if a file ends long before the length it states. Others state none, or
    one that is an estimate, or that of a longer stream.
    """
    if kind is not MP4 and kind is not FLAC and (kind is not MATROSKA or num_streams > 1):
        return
    if stated is not None and seconds < 0.95 * stated - 0.5:
        raise InputError(f"cut off: it states {stated:.1f} s and holds {seconds:.1f} s")


def _too_long(name: str, allowed_s: float, stated: float | None = None) -> InputError:
    got = "more" if stated is None else f"{stated:.0f} s"
    return InputError(
        f"{name}: expected at most {allowed_s:g} s of sound, got {got}; raise the limit, or read "
        "it piece by piece"
    )


class _Mixer:
    """Frames of any format to mono at 16 kHz. A stream may change its rate or channels midway."""

    def __init__(self) -> None:
        self._resampler: AudioResampler | None = None
        self._shape: tuple[int, int, str, str] | None = None

    def push(self, frame: AudioFrame) -> Iterator[Samples]:
        """The samples that this frame completes. Raises InputError for an unusable rate or number
        of channels.
        """
        from av import AudioResampler

        layout, rate = frame.layout, frame.sample_rate
        shape = (rate, layout.nb_channels, layout.name, frame.format.name)
        if shape != self._shape:
            yield from self.finish()
            _check_rate(rate, layout.nb_channels)
            self._resampler, self._shape = AudioResampler(format="flt", rate=RATE), shape
        assert self._resampler is not None
        frame.pts = None  # times with gaps are not filled: sound is what was sent
        yield from map(_mono, self._resampler.resample(frame))

    def finish(self) -> Iterator[Samples]:
        """The samples that the filter still holds."""
        if self._resampler is not None:
            yield from map(_mono, self._resampler.resample(None))
        self._resampler = self._shape = None


def _mono(frame: AudioFrame) -> Samples:
    # Interleaved on purpose: of planar frames with more than 8 channels PyAV 18 reads planes that
    # are not there, and the process ends.
    values: Any = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
    mixed: Samples = values[:, 0] if values.shape[1] == 1 else values.mean(1, dtype=np.float32)
    return mixed


def _check_rate(rate: int, num_channels: int) -> None:
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise InputError(f"expected {LOWEST_RATE} to {HIGHEST_RATE} samples a second, got {rate}")
    if not 1 <= num_channels <= MAX_CHANNELS:
        raise InputError(f"expected 1 to {MAX_CHANNELS} channels of sound, got {num_channels}")


def _from_array(array: npt.NDArray[Any], rate: int) -> Iterator[Samples]:
    if array.ndim not in (1, 2) or array.dtype.kind not in "fi" or array.dtype.itemsize < 2:
        raise InputError(
            "array: expected (N,) or (N, channels) of floats, int16 or int32 as sound, got "
            f"{array.dtype} {array.shape}"
        )
    if array.dtype.kind == "i" and array.dtype.itemsize > 4:
        raise InputError(f"array: expected floats, int16 or int32 as sound, got {array.dtype}")
    _check_rate(rate, 1 if array.ndim == 1 else array.shape[1])
    scale = 1.0 if array.dtype.kind == "f" else 2.0 ** (1 - 8 * array.dtype.itemsize)
    mixer = _Mixer()
    for start in range(0, len(array), _PIECE):
        part = np.asarray(array[start : start + _PIECE] * scale, np.float32)
        mono: Samples = part if part.ndim == 1 else part.mean(axis=1, dtype=np.float32)
        yield from [mono] if rate == RATE else mixer.push(_frame(mono, rate))
    yield from mixer.finish()


def _frame(mono: Samples, rate: int) -> AudioFrame:
    from av import AudioFrame

    frame = AudioFrame.from_ndarray(mono[None], format="fltp", layout="mono")
    frame.sample_rate = rate
    return frame
