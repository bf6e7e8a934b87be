"""Whatever the bytes of a media file are, a loader gives an array that keeps its promises or an
InputError, soon.

Small valid files of every format are changed blindly: bytes replaced, cut off, put in. Sizes inside
the files are also set to extremes.
"""

from __future__ import annotations

import itertools
import resource
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.media import encoded, picture, sound_file, tone, video_file
from matryo.errors import InputError
from matryo.inputs.image import load_image
from matryo.inputs.limits import MediaLimits
from matryo.inputs.sound import sound_pieces
from matryo.inputs.video import video_frames

FEW = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LIMITS = MediaLimits(max_pixels=1 << 20, max_frame_pixels=1 << 18, max_stream_seconds=60)
MOST_SECONDS = 2.0  # a second, and as much again for a machine that is busy with other tests
MOST_MEMORY = 512 << 20  # that the process may have grown by, after hundreds of files

FRAMES = [np.roll(picture(32, 48), 5 * n, axis=1) for n in range(6)]

PICTURES: dict[str, Callable[[], bytes]] = {
    "png": lambda: encoded(Image.fromarray(picture()), "PNG"),
    "palette": lambda: encoded(Image.fromarray(picture()).quantize(9), "PNG", transparency=3),
    "jpeg": lambda: encoded(Image.fromarray(picture()), "JPEG", exif=orientation()),
    "progressive": lambda: encoded(Image.fromarray(picture()), "JPEG", progressive=True),
    "cmyk": lambda: encoded(Image.fromarray(picture()).convert("CMYK"), "JPEG"),
    "webp": lambda: encoded(Image.fromarray(picture()), "WEBP", exif=orientation()),
    "lossless": lambda: encoded(Image.fromarray(picture()), "WEBP", lossless=True),
    "animated": lambda: animated("WEBP"),
    "gif": lambda: animated("GIF"),
    "bmp": lambda: encoded(Image.fromarray(picture()), "BMP"),
}
SOUNDS: dict[str, Callable[[], bytes]] = {
    "wav": lambda: sound_file(tone(0.2, channels=2), 16000, "wav", "pcm_s16le"),
    "floats": lambda: sound_file(tone(0.2), 16000, "wav", "pcm_f32le"),
    "mp3": lambda: sound_file(tone(0.3, 44100), 44100, "mp3", "libmp3lame"),
    "m4a": lambda: sound_file(tone(0.3, 44100), 44100, "ipod", "aac"),
    "aac": lambda: sound_file(tone(0.3, 44100), 44100, "adts", "aac"),
    "flac": lambda: sound_file(tone(0.3), 16000, "flac", "flac"),
    "opus": lambda: sound_file(tone(0.3, 48000), 48000, "ogg", "libopus"),
    "webm": lambda: sound_file(tone(0.3, 48000), 48000, "webm", "libopus"),
}
VIDEOS: dict[str, Callable[[], bytes]] = {
    "mp4": lambda: video_file(FRAMES, codec="libx264", sound=tone(0.5)),
    "mpeg4": lambda: video_file(FRAMES, codec="mpeg4", rotation=90),
    "vp8": lambda: video_file(FRAMES, container="webm", codec="libvpx"),
    "vp9": lambda: video_file(FRAMES, container="webm", codec="libvpx-vp9"),
    "matroska": lambda: video_file(FRAMES, container="matroska", codec="libx264"),
    "avi": lambda: video_file(FRAMES, container="avi", codec="mpeg4"),
}


def orientation() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def animated(kind: str) -> bytes:
    frames = [Image.fromarray(rgb) for rgb in FRAMES[:3]]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


@cache
def made(kind: str) -> bytes:
    return {**PICTURES, **SOUNDS, **VIDEOS}[kind]()


@st.composite
def changed(draw: st.DrawFn, kind: str) -> bytes:
    """A small file of a kind with one to six changes, more of them near its start."""
    data = bytearray(made(kind))
    for _ in range(draw(st.integers(1, 6))):
        most = draw(st.sampled_from([64, 256, len(data)]))
        at = draw(st.integers(0, max(0, min(most, len(data)) - 1)))
        change = draw(st.sampled_from(["byte", "number", "cut", "put in", "swap"]))
        if change == "byte":
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif change == "number":
            extreme = draw(st.sampled_from([0, 1, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF]))
            data[at : at + 4] = extreme.to_bytes(4, draw(st.sampled_from(["big", "little"])))
        elif change == "cut":
            del data[at + draw(st.integers(0, 40)) :]
        elif change == "put in":
            data[at:at] = draw(st.binary(min_size=1, max_size=20))
        else:
            other = draw(st.integers(0, max(0, len(data) - 1)))
            data[at : at + 16], data[other : other + 16] = (
                data[other : other + 16],
                data[at : at + 16],
            )
    return bytes(data)


def memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def soon(load: Callable[[], None]) -> None:
    """Runs a loader; it may refuse. It may not take long, nor much memory, nor raise another
    error.
    """
    before, start = memory(), time.monotonic()
    try:
        load()
    except InputError as error:
        assert len(str(error)) < 2000
    assert time.monotonic() - start < MOST_SECONDS
    assert memory() - before < MOST_MEMORY


@pytest.mark.parametrize("kind", PICTURES)
def test_any_picture_file(kind: str) -> None:
    @FEW
    @given(data=changed(kind), frame=st.sampled_from([0, 0, 2]))
    def check(data: bytes, frame: int) -> None:
        def load() -> None:
            pixels = load_image(data, 32, frame=frame, limits=LIMITS)
            assert pixels.shape == (3, 32, 32) and pixels.dtype == np.float32
            assert pixels.min() >= 0 and pixels.max() <= 1

        soon(load)

    check()


@pytest.mark.parametrize("kind", [*SOUNDS, "mp4"])
def test_any_sound_file(kind: str) -> None:
    @FEW
    @given(data=changed(kind))
    def check(data: bytes) -> None:
        def load() -> None:
            pieces = list(sound_pieces(data, 0.1, limits=LIMITS))
            assert pieces and all(np.isfinite(piece).all() for piece in pieces)

        soon(load)

    check()


@pytest.mark.parametrize("kind", VIDEOS)
def test_any_video_file(kind: str) -> None:
    @FEW
    @given(data=changed(kind))
    def check(data: bytes) -> None:
        def load() -> None:
            frames = list(itertools.islice(video_frames(data, 30, 32, limits=LIMITS), 50))
            assert frames
            assert all(frame.rgb.shape == (32, 32, 3) for frame in frames)
            times = [frame.time for frame in frames]
            assert times == sorted(times) and times[0] >= 0

        soon(load)

    check()


@pytest.mark.parametrize("kind", ["png", "wav", "mp4", "vp8"])
def test_a_file_of_one_kind_given_as_another(kind: str) -> None:
    wrong: Any = sound_pieces if kind == "png" else load_image
    with pytest.raises(InputError, match="by its first bytes"):
        list(wrong(made(kind)))
