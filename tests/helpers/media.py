"""Small media files, encoded in memory: tests ship none."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Rgb = npt.NDArray[np.uint8]


def picture(height: int = 24, width: int = 32) -> Rgb:
    """(H, W, 3) uint8 in which no two rows, columns or channels are alike, smooth and with an
    edge.
    """
    y, x = np.mgrid[:height, :width].astype(np.float64)
    red = 255 * x / max(width - 1, 1)
    green = 255 * y / max(height - 1, 1)
    blue = np.where(x + 2 * y < width, 230, 20)
    rgb: Rgb = np.rint(np.stack([red, green, blue], axis=-1)).astype(np.uint8)
    return rgb


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """A picture file as Pillow writes it."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def tone(seconds: float, rate: int = 16000, hertz: float = 440.0, channels: int = 1) -> Any:
    """A sine of amplitude 0.5, (channels, N) f32; every further channel is half as loud."""
    wave = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    loudness = 0.5 ** np.arange(channels)
    return (loudness[:, None] * wave).astype(np.float32)


LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def sound_file(
    samples: npt.NDArray[np.float32], rate: int, container: str, codec: str, **options: Any
) -> bytes:
    """(channels, N) f32 as a file of any container and codec that PyAV writes."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=rate, layout=LAYOUTS[len(samples)], **options)
        for start in range(0, samples.shape[1], 4096):
            piece = np.ascontiguousarray(samples[:, start : start + 4096])
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=LAYOUTS[len(samples)])
            frame.rate, frame.pts = rate, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def video_file(
    frames: list[Rgb],
    fps: int = 10,
    container: str = "mp4",
    codec: str = "mpeg4",
    *,
    sound: npt.NDArray[np.float32] | None = None,
    rotation: int = 0,
    times: list[int] | None = None,
) -> bytes:
    """(H, W, 3) uint8 frames as a video file; `sound` (channels, N) f32 at 16 kHz becomes AAC.
    `times`: the frame number at which each frame is shown.
    """
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        if rotation:
            stream.set_display_rotation(rotation)
        track: Any = None
        if sound is not None:
            track = output.add_stream("aac", rate=16000, layout=LAYOUTS[len(sound)])
        for number, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts = times[number] if times else number
            frame.time_base = Fraction(1, fps)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if track is not None and sound is not None:
            for start in range(0, sound.shape[1], 1024):
                part = np.ascontiguousarray(sound[:, start : start + 1024])
                piece = av.AudioFrame.from_ndarray(part, format="fltp", layout=LAYOUTS[len(sound)])
                piece.rate, piece.pts = 16000, start
                output.mux(track.encode(piece))
            output.mux(track.encode(None))
    return file.getvalue()
