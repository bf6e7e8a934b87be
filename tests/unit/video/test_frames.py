"""Frames through the pipeline: order, reuse, bounds, errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from helpers.media import picture, video_file
from matryo.errors import CancelledError, ConfigError, InputError
from matryo.media.parts import MediaPart
from matryo.pipeline import Pipeline
from matryo.video.frames import FrameCounts, SeenFrame, encoded_clips, seen_frames

BLACK, WHITE = np.zeros((48, 64, 3), np.uint8), np.full((48, 64, 3), 255, np.uint8)
SCENES = video_file([BLACK] * 5 + [WHITE] * 5 + [picture(48, 64)] * 5, fps=10)


class Library:
    """Notes what was encoded."""

    def __init__(self, on_encode: Callable[[MediaPart], None] = lambda part: None) -> None:
        self.encoded: list[MediaPart] = []
        self._on_encode = on_encode

    def soft(self, part: MediaPart, cancel: Any = None) -> object:
        if cancel is not None and cancel.is_set():
            raise CancelledError("cancelled")
        self._on_encode(part)
        self.encoded.append(part)
        return None


def frames_of(library: Library, **options: Any) -> list[SeenFrame]:
    settings: dict[str, Any] = {"tokens": 16, "size": 32, "rate": 10.0, **options}
    with Pipeline() as line:
        return list(seen_frames(line, library, SCENES, **settings))


def test_only_what_is_new_is_encoded_and_the_order_stays() -> None:
    library, counts = Library(), FrameCounts()
    frames = frames_of(library)
    for frame in frames:
        counts.add(frame)
    assert [round(frame.time, 1) for frame in frames] == [n / 10 for n in range(15)]
    assert [n for n, frame in enumerate(frames) if frame.is_new] == [0, 5, 10]
    assert (counts.seen, counts.encoded, counts.reused) == (15, 3, 12)
    assert len(library.encoded) == 3
    assert [frame.part for frame in frames] == [part for part in library.encoded for _ in range(5)]


def test_a_threshold_that_is_never_reached_encodes_all() -> None:
    library = Library()
    assert all(frame.is_new for frame in frames_of(library, threshold=2.0))
    assert len(library.encoded) == 15


def test_parts_are_pictures_of_the_frame() -> None:
    first = frames_of(Library())[5].part
    assert (first.tower, first.count) == ("vision", 16)
    pixels = first.data()
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == (3, 32, 32) and pixels.dtype == np.float32
    assert pixels.min() > 0.95
    again = frames_of(Library())[5].part
    assert again.digest == first.digest
    assert len({frame.part.digest for frame in frames_of(Library())}) == 3


def test_times_and_number_are_those_asked_for() -> None:
    assert [f.time for f in frames_of(Library(), times=[0.25, 1.05])] == [0.2, 1.0]
    assert len(frames_of(Library(), max_frames=4)) == 4


def test_no_more_frames_are_encoded_than_are_wanted_ahead() -> None:
    library = Library()
    with Pipeline() as line:
        frames = seen_frames(
            line, library, SCENES, tokens=16, size=32, rate=10.0, threshold=2.0, ahead=2
        )
        next(frames)
        deadline = time.monotonic() + 10
        while len(library.encoded) < 4 and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05)
        assert len(library.encoded) == 4  # one taken, two ahead, one in hand


def test_decoding_goes_on_while_a_frame_is_encoded() -> None:
    seen_ahead = threading.Event()
    figures: list[int] = []

    def encode(part: MediaPart) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            decoded = line.figures()["decode"].items
            if decoded >= 3:
                figures.append(decoded)
                seen_ahead.set()
                return
            time.sleep(0.002)

    with Pipeline() as line:
        next(seen_frames(line, Library(encode), SCENES, tokens=16, size=32, rate=10.0))
    assert seen_ahead.is_set() and figures[0] >= 3


def test_errors_of_decoding_and_encoding_reach_the_reader() -> None:
    def fail(part: MediaPart) -> None:
        raise InputError("the second picture is too much")

    with pytest.raises(InputError, match="too much"):
        frames_of(Library(fail))
    with Pipeline() as line, pytest.raises(InputError, match="cut off"):
        list(seen_frames(line, Library(), SCENES[:-200], tokens=16, size=32))


def test_cancelling_stops_the_encoder() -> None:
    cancel = threading.Event()
    library = Library(lambda part: cancel.set())
    with pytest.raises(CancelledError):
        frames_of(library, cancel=cancel)
    assert len(library.encoded) == 1


def test_bad_options_are_refused_at_once() -> None:
    with Pipeline() as line:
        with pytest.raises(ConfigError, match="threshold"):
            seen_frames(line, Library(), SCENES, tokens=16, size=32, threshold=-1.0)
        with pytest.raises(InputError, match="rate"):
            seen_frames(line, Library(), SCENES, tokens=16, size=32, rate=0.0)


def test_clips_are_encoded_and_a_rest_too_short_is_none() -> None:
    library = Library()
    pieces = [np.ones(1600, np.float32), np.ones(100, np.float32)]
    first, rest = encoded_clips(pieces, library, tokens=12)
    assert rest is None and first is not None
    assert (first.tower, first.count, len(library.encoded)) == ("audio", 12, 1)
    np.testing.assert_array_equal(first.data(), pieces[0])
