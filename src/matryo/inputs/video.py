"""A video as the few pictures of it that a model looks at, each with its time.

In: a source (file, bytes, URL) and a rate or times. Out: `Frame`s in order, decoded one at a time.
The sound track of the same source is read with `sound.load_sound` or `sound.sound_pieces`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from matryo.errors import InputError
from matryo.inputs.container import (
    DamageCount,
    check_frame,
    opened_container,
    seconds_of,
    video_stream,
)
from matryo.inputs.image import Pixels, Rgb, Size, checked_size, resized, to_pixels
from matryo.inputs.limits import DEFAULT_LIMITS, MediaLimits
from matryo.inputs.sniff import VIDEOS
from matryo.inputs.source import Source

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

HIGHEST_RATE = 1000.0
_THREADS = 2  # more of them hold more frames in memory
_SHORTEST = 1e-3  # seconds that the last frame is on screen, in a file that states no duration


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a video: `rgb` (H, W, 3) uint8, shown from `time` on, in seconds."""

    time: float
    rgb: Rgb

    @property
    def pixels(self) -> Pixels:
        """What the vision encoder takes: (3, H, W) f32 in [0, 1]."""
        return to_pixels(self.rgb)


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video's header states; `seconds` and `rate` (frames a second) are None if it does not.
    Width and height are those before a rotation.
    """

    width: int
    height: int
    seconds: float | None
    rate: float | None
    has_sound: bool


def video_info(
    source: object, *, limits: MediaLimits = DEFAULT_LIMITS, allow_urls: bool = False
) -> VideoInfo:
    """Read a header, without decoding. Raises InputError if the source is no video within the
    limits.
    """
    opened, kind = _opened(source, limits, allow_urls)
    with opened_container(opened, kind, limits) as container:
        stream = video_stream(container, limits)
        rate = stream.average_rate
        return VideoInfo(
            width=stream.codec_context.width,
            height=stream.codec_context.height,
            seconds=seconds_of(container, stream),
            rate=float(rate) if rate else None,
            has_sound=bool(container.streams.audio),
        )


def frame_times(seconds: float, num_frames: int, rate: float = 1.0) -> tuple[float, ...]:
    """When to look at a video of `seconds`: at most `num_frames` times and at most `rate` times a
    second, evenly, each in the middle of its share of the video.

    Raises InputError if an argument is not positive and finite.
    """
    for name, value in (("seconds", seconds), ("num_frames", num_frames), ("rate", rate)):
        if not 0 < value < math.inf:
            raise InputError(f"{name}: expected more than 0, got {value}")
    count = min(int(num_frames), max(1, round(seconds * rate)))
    return tuple((k + 0.5) * seconds / count for k in range(count))


def frame_budget(context: int, reserved: int, tokens_per_frame: int) -> int:
    """How many pictures fit into `context` tokens beside `reserved` ones. Raises InputError if not
    one does.
    """
    fitting = (context - reserved) // tokens_per_frame
    if fitting < 1:
        raise InputError(
            f"video: expected room for at least one frame of {tokens_per_frame} tokens, got "
            f"{max(context - reserved, 0)} of {context}; use a longer context"
        )
    return fitting


def video_frames(
    source: object,
    rate: float = 1.0,
    size: Size | None = 768,
    *,
    times: Sequence[float] | None = None,
    max_frames: int | None = None,
    fast: bool = False,
    limits: MediaLimits = DEFAULT_LIMITS,
    allow_urls: bool = False,
) -> Iterator[Frame]:
    """The frames that are on screen `rate` times a second, or at `times` (ascending, in seconds).

    A frame is given once, however long it stands: a video of 5 frames a second has no more than
    that. Frames are turned upright and resized like pictures (`load_image`), or with `fast` by
    FFmpeg before the conversion to RGB, which is many times faster and differs by a few grey
    levels. `max_frames`: stop after so many. Two decoded frames are held in memory at most, beside
    those the codec keeps.
    Raises InputError for a bad argument at once; for a source that is no video, has no frames, is
    damaged or cut off, or exceeds a limit, when the place is reached.
    """
    shape = checked_size(size, limits)
    if times is None and not 0 < rate <= HIGHEST_RATE:
        raise InputError(f"rate: expected up to {HIGHEST_RATE:g} frames a second, got {rate:g}")
    if times is not None and not _ascending(times):
        raise InputError("times: expected seconds from 0 in ascending order")
    if max_frames is not None and max_frames < 1:
        raise InputError(f"max_frames: expected at least 1, got {max_frames}")
    opened, kind = _opened(source, limits, allow_urls)
    wanted = _Wanted(rate, None if times is None else list(times))

    def frames() -> Iterator[Frame]:
        with opened_container(opened, kind, limits) as container:
            stream = video_stream(container, limits)
            for number, (time, frame) in enumerate(_on_screen(container, stream, wanted, limits)):
                rgb = _upright(frame, shape) if fast else resized(_upright(frame), shape)
                yield Frame(time, rgb)
                if max_frames is not None and number + 1 >= max_frames:
                    return

    return frames()


def _opened(source: object, limits: MediaLimits, allow_urls: bool) -> tuple[Source, Any]:
    opened = Source.of(source, limits=limits, allow_urls=allow_urls)
    if opened.array is not None:
        raise InputError("array: expected a video file, pass single pictures of an array instead")
    return opened, opened.require(("container",), f"a video ({VIDEOS})")


def _ascending(times: Sequence[float]) -> bool:
    pairs = zip([0.0, *times], times, strict=False)
    return bool(times) and all(a <= b < math.inf for a, b in pairs)


class _Wanted:
    """Which times are still to be shown: those of a list, or every multiple of 1 / rate."""

    def __init__(self, rate: float, times: list[float] | None) -> None:
        self._rate, self._times, self._next = rate, times, 0

    def take(self, until: float) -> bool:
        """Whether any is before `until`; they are gone then."""
        if self._times is None:
            # A frame that is shown at a multiple, give or take rounding, is the one of this time.
            first_after = math.ceil(until * self._rate - 1e-6)
            found, self._next = first_after > self._next, max(first_after, self._next)
            return found
        found = False
        while self._next < len(self._times) and self._times[self._next] < until:
            found, self._next = True, self._next + 1
        return found

    @property
    def done(self) -> bool:
        return self._times is not None and self._next >= len(self._times)


def _on_screen(
    container: InputContainer, stream: VideoStream, wanted: _Wanted, limits: MediaLimits
) -> Iterator[tuple[float, VideoFrame]]:
    """Each frame that is shown at a wanted time. How long one is shown is known from the next."""
    shown: tuple[float, VideoFrame] | None = None
    decoded = 0
    for time, frame in _decoded(container, stream, limits):
        decoded += 1
        if shown is not None:
            if time <= shown[0]:
                continue  # out of order: keep to the clock
            if wanted.take(time):
                yield shown
                if wanted.done:
                    return
        shown = (time, frame)
    if shown is None:
        raise InputError("expected frames, the video has none that can be decoded")
    if stream.frames and decoded < 0.9 * stream.frames - 2:
        raise InputError(f"cut off: it states {stream.frames} frames and holds {decoded}")
    end = max(seconds_of(container, stream) or 0.0, shown[0] + _SHORTEST)
    if wanted.take(math.nextafter(end, math.inf)):
        yield shown


def _decoded(
    container: InputContainer, stream: VideoStream, limits: MediaLimits
) -> Iterator[tuple[float, VideoFrame]]:
    """All readable frames with their seconds from the first one on."""
    stream.thread_type, stream.codec_context.thread_count = "AUTO", _THREADS
    damage, start, time = DamageCount(), None, 0.0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except Exception as error:  # a class for every code of FFmpeg
            damage.bad(time, error)
            continue
        damage.good()
        for frame in frames:
            check_frame(frame.width, frame.height, limits)
            if frame.is_corrupt:
                damage.bad(time, "a frame is incomplete")
                continue
            seconds = _time(frame, time, stream)
            start = seconds if start is None else start
            time = seconds - start
            if time > limits.max_stream_seconds:
                raise InputError(f"expected at most {limits.max_stream_seconds:g} s of video")
            yield time, frame


def _time(frame: VideoFrame, before: float, stream: VideoStream) -> float:
    """Streams without time stamps run at the rate they state."""
    if frame.pts is not None and frame.time_base:
        return float(frame.pts * frame.time_base)
    return before + 1 / float(stream.average_rate or 25)


def _upright(frame: VideoFrame, shape: tuple[int, int] | None = None) -> Rgb:
    """(H, W, 3) uint8, turned by the quarters that the file asks for; resized first to what will be
    `shape` then.
    """
    quarters = round(frame.rotation / 90) % 4
    if shape is not None:
        height, width = shape if quarters % 2 == 0 else shape[::-1]
        frame = frame.reformat(width, height, "rgb24", interpolation="BILINEAR")
    rgb: Any = frame.to_ndarray(format="rgb24")
    turned: Rgb = np.ascontiguousarray(np.rot90(rgb, quarters))
    return turned
