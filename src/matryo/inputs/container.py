"""Opening sound and video files for FFmpeg's libraries (through PyAV) without trusting them.

In: a source of bytes. Out: an open container and the stream in it to decode, checked against the
limits. FFmpeg is given a file object, the demuxer that `sniff` found and lists of decoders: it
neither guesses formats nor opens anything that the file names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from matryo.errors import InputError, MatryoError
from matryo.inputs.cut_off import check_whole
from matryo.inputs.limits import MediaLimits
from matryo.inputs.sniff import Kind
from matryo.inputs.source import Source

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

SOUND_CODECS = frozenset(
    "aac ac3 alac flac libopus libvorbis mp3 mp3float opus vorbis pcm_alaw pcm_f32be pcm_f32le "
    "pcm_f64be pcm_f64le pcm_mulaw pcm_s16be pcm_s16le pcm_s24be pcm_s24le pcm_s32be pcm_s32le "
    "pcm_s8 pcm_u8".split()
)
VIDEO_CODECS = frozenset(
    "av1 h264 hevc libdav1d libvpx libvpx-vp9 mjpeg mpeg1video mpeg2video mpeg4 theora vp8 "
    "vp9".split()
)

MAX_STREAMS = 32
DAMAGED_PACKETS = 4  # tags behind an MP3 look like damage
DAMAGED_SHARE = 0.01
_BUFFER_BYTES = 1 << 16
_REREADS = 4  # demuxers go back to indices; one that reads a file this often goes in circles


class _GuardedFile:
    """A file object for FFmpeg that ends a demuxer which reads in circles."""

    def __init__(self, file: BinaryIO, num_bytes: int) -> None:
        self._file = file
        self._left = _REREADS * num_bytes + (1 << 24)
        self._calls = num_bytes // 256 + 100_000

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        self._count()
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._count()
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def _count(self) -> None:
        self._calls -= 1
        if self._left < 0 or self._calls < 0:
            raise InputError("the file leads its reader in circles")


@contextmanager
def opened_container(source: Source, kind: Kind, limits: MediaLimits) -> Iterator[InputContainer]:
    """FFmpeg's view of a source, closed afterwards. Raises InputError for whatever FFmpeg raises,
    inside the block too.
    """
    import av

    if source.num_bytes > limits.max_bytes:
        raise InputError(
            f"{source.name}: expected at most {limits.max_bytes} bytes, got {source.num_bytes}"
        )
    check_whole(source, kind)
    options = {
        "max_streams": str(MAX_STREAMS),
        "max_pixels": str(limits.max_frame_pixels),
        "codec_whitelist": ",".join(sorted(SOUND_CODECS | VIDEO_CODECS)),
        "protocol_whitelist": "none",
        "probesize": str(1 << 22),
    }
    try:
        with (
            source.open() as file,
            av.open(
                _GuardedFile(file, source.num_bytes),
                "r",
                format=kind.decoder,
                options=options,
                metadata_errors="replace",
                buffer_size=_BUFFER_BYTES,
            ) as container,
        ):
            yield container
    except MatryoError as error:
        if str(error).startswith(source.name):
            raise
        raise type(error)(f"{source.name}: {error}") from error
    except MemoryError as error:
        raise InputError(f"{source.name}: needs more memory than there is") from error
    except Exception as error:
        # PyAV raises FFmpeg's codes as many classes; all of them are the file's fault.
        raise InputError(
            f"{source.name}: not a readable {kind.name} file, it may be damaged or cut off: "
            f"{reason(error)}"
        ) from error


def reason(error: Exception) -> str:
    """What FFmpeg says, without the code and the place that PyAV adds."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def sound_stream(container: InputContainer, limits: MediaLimits) -> AudioStream:
    """The first stream of sound. Raises InputError if there is none, of an unknown codec, or
    longer than `max_stream_seconds`.
    """
    if not container.streams.audio:
        raise InputError("expected sound, the file holds none")
    stream = container.streams.audio[0]
    _check_codec(stream, SOUND_CODECS)
    _check_seconds(seconds_of(container, stream), limits)
    _leave_out_others(container, stream)
    stream.codec_context.thread_count = 1
    return stream


def video_stream(container: InputContainer, limits: MediaLimits) -> VideoStream:
    """The first stream of video that is no cover picture. Raises InputError as `sound_stream` does
    and if a frame has more than `max_frame_pixels`.
    """
    import av.stream

    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover]
    if not streams:
        raise InputError("expected video, the file holds none")
    stream = streams[0]
    _check_codec(stream, VIDEO_CODECS)
    _check_seconds(seconds_of(container, stream), limits)
    check_frame(stream.codec_context.width, stream.codec_context.height, limits)
    _leave_out_others(container, stream)
    # Also for a stream whose frames grow on the way: FFmpeg refuses before it allocates them.
    stream.codec_context.options = {"max_pixels": str(limits.max_frame_pixels)}
    return stream


def check_frame(width: int, height: int, limits: MediaLimits) -> None:
    """Raises InputError if a video frame is too large, or has no size.

    FFmpeg tells none if the data is damaged, or if they state one beyond its own limits.
    """
    if min(width, height) < 1:
        raise InputError(
            "the size of the frames cannot be told: they are damaged, or have more than "
            f"{limits.max_frame_pixels} pixels"
        )
    if max(width, height) > limits.max_side:
        raise InputError(
            f"expected frames of at most {limits.max_side} pixels a side, got {width} x {height}"
        )
    if width * height > limits.max_frame_pixels:
        raise InputError(
            f"expected frames of at most {limits.max_frame_pixels} pixels, got {width} x {height}"
        )


def seconds_of(container: InputContainer, stream: Any) -> float | None:
    """The length that the file states, if it states one."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


class DamageCount:
    """Lets a few packets be unreadable, and says where a file is damaged when more are."""

    def __init__(self) -> None:
        self._good = self._bad = 0

    def good(self) -> None:
        """One packet was decoded."""
        self._good += 1

    def bad(self, seconds: float, error: Exception | str) -> None:
        """One was not, `seconds` from the start. Raises InputError if these are too many."""
        self._bad += 1
        if self._bad > DAMAGED_PACKETS + DAMAGED_SHARE * self._good:
            detail = error if isinstance(error, str) else reason(error)
            raise InputError(f"damaged near {seconds:.1f} s: {detail}")


def _check_codec(stream: Any, allowed: frozenset[str]) -> None:
    context = stream.codec_context
    if context is None or context.name not in allowed:
        name = "an unknown codec" if context is None else context.name
        raise InputError(f"expected one of {', '.join(sorted(allowed))}, got {name}; convert it")


def _check_seconds(seconds: float | None, limits: MediaLimits) -> None:
    if seconds is not None and seconds > limits.max_stream_seconds:
        raise InputError(
            f"expected at most {limits.max_stream_seconds:g} s, the file states {seconds:g} s"
        )


def _leave_out_others(container: InputContainer, wanted: Any) -> None:
    import av.stream

    for stream in container.streams:
        if stream.index != wanted.index:
            stream.discard = av.stream.Discard.all
