"""Measure how many frames a second a model can take in on this machine, stage by stage.

In: an open model with an encoder of pictures, a video. Out: a `VideoReport`. For each input size:
what a frame costs to decode as it is, to decode at that size, to compare with the one before and to
encode, each alone; and how many frames a second go through the pipeline with all of them at work,
with near-duplicates reused and without. Rounds are interleaved over the sizes.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np

from matryo.cli.contention import Contention
from matryo.cli.spread import Spread
from matryo.inputs.changes import mark_changes, similarity, thumbnail
from matryo.inputs.image import Rgb, resized, to_pixels
from matryo.inputs.video import HIGHEST_RATE, Frame, video_frames
from matryo.loading import Model
from matryo.media.encode import MediaEncoder
from matryo.media.parts import MediaPart
from matryo.pipeline import Pipeline
from matryo.video.frames import DECODED_AHEAD, FrameCounts, encoded_frames

REAL_TIME = 60.0  # frames a second
STILL_FRAMES = 6  # of the synthetic video: every sixth frame is new
NEVER_SAME = 2.0  # a threshold that no similarity reaches
STAGES = ("decode", "decode_resize", "compare", "encode")

Progress = Callable[[float, float | None, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoTask:
    """What to run. seconds: of each measurement · threshold: of near-duplicates"""

    video: bytes | str
    sizes: tuple[int, ...]
    rounds: int
    seconds: float
    threshold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSize:
    """One input size; everything in frames a second.

    stages: each alone · front: decoding, resizing and comparing in one thread, as the pipeline
    does · reusing, encoding_all: through the whole pipeline · reused: share of the frames that
    reused tokens
    """

    stages: dict[str, Spread]
    front: Spread
    reusing: Spread
    encoding_all: Spread
    reused: float

    @property
    def new_share_for_real_time(self) -> float:
        """The share of 60 frames a second that may be new before encoding falls behind."""
        return min(1.0, self.stages["encode"].median / REAL_TIME)

    def to_json(self) -> dict[str, Any]:
        """Plain values, with what holds 60 frames a second."""
        return {
            "stage_frames_per_s": {name: one.to_json() for name, one in self.stages.items()},
            "front_frames_per_s": self.front.to_json(),
            "frames_per_s": {
                "reusing": self.reusing.to_json(),
                "encoding_all": self.encoding_all.to_json(),
            },
            "share_reused": self.reused,
            "holds_60": {
                "front": self.front.median >= REAL_TIME,
                "encode": self.stages["encode"].median >= REAL_TIME,
                "reusing": self.reusing.median >= REAL_TIME,
                "encoding_all": self.encoding_all.median >= REAL_TIME,
            },
            "share_of_new_frames_at_60": self.new_share_for_real_time,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoReport:
    """All that was measured; others: share of the processors that other programs used."""

    task: VideoTask
    sizes: dict[int, FrameSize]
    rounds: int
    others: float

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "rounds": self.rounds,
            "threshold": self.task.threshold,
            "sizes": {str(size): one.to_json() for size, one in self.sizes.items()},
            "share_of_processors_used_by_others": self.others,
        }


def synthetic_video(seconds: float = 4.0, rate: int = 60) -> bytes:
    """A 1280 x 720 MP4 of 60 frames a second in which a picture moves ten times a second."""
    import av

    height, width = 720, 1280
    y, x = np.mgrid[:height, : 2 * width]
    wide = np.stack([x % 256, (x // 2 + y) % 256, (255 * y) // height], axis=-1).astype(np.uint8)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream: Any = output.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 8e6
        shift = 0
        for number in range(round(seconds * rate)):
            if number % STILL_FRAMES == 0:
                shift = (shift + 16) % width
            picture = np.ascontiguousarray(wide[:, shift : shift + width])
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))
    return file.getvalue()


def measure_video(model: Model, task: VideoTask, progress: Progress) -> VideoReport:
    """Run the task. Raises InputError for a file that is no video."""
    rows: dict[int, list[dict[str, float]]] = {size: [] for size in task.sizes}
    with Contention() as contention:
        pictures = [frame.rgb for frame in islice(_frames(task, None), 32)]
        for size in task.sizes:  # the first picture of a size pages weights in
            model.library.encoder.image(to_pixels(resized(pictures[0], (size, size))))
        for number in range(task.rounds):
            for place, size in enumerate(task.sizes):
                done = number * len(task.sizes) + place
                progress(done, task.rounds * len(task.sizes), f"{size} pixels")
                rows[size].append(_measure_size(model, task, size, pictures))
    return VideoReport(
        task=task,
        sizes={size: _figures(found) for size, found in rows.items()},
        rounds=task.rounds,
        others=contention.share_of_others,
    )


def _figures(rows: list[dict[str, float]]) -> FrameSize:
    def spread(name: str) -> Spread:
        return Spread.of([row[name] for row in rows])

    return FrameSize(
        stages={name: spread(name) for name in STAGES},
        front=spread("front"),
        reusing=spread("reusing"),
        encoding_all=spread("encoding_all"),
        reused=spread("reused").median,
    )


def _measure_size(
    model: Model, task: VideoTask, size: int, pictures: list[Rgb]
) -> dict[str, float]:
    encoder = model.library.encoder
    small = [resized(rgb, (size, size)) for rgb in pictures[:8]]
    thumbs = [thumbnail(rgb) for rgb in small]
    row = {
        "decode": _rate(_frames(task, None), task.seconds),
        "decode_resize": _rate(_frames(task, size), task.seconds),
        "compare": _rate(
            (similarity(thumbnail(rgb), thumbs[0]) for rgb in cycle(small)), task.seconds
        ),
        "encode": _rate((encoder.image(to_pixels(rgb)) for rgb in cycle(small)), task.seconds),
        "front": _rate(mark_changes(_frames(task, size), task.threshold), task.seconds),
    }
    row["encoding_all"], _ = _sustained(model, task, size, NEVER_SAME)
    row["reusing"], counts = _sustained(model, task, size, task.threshold)
    row["reused"] = counts.reused / max(counts.seen, 1)
    return row


def _frames(task: VideoTask, size: int | None) -> Iterator[Frame]:
    """The frames of the video, again and again."""
    while True:
        yield from video_frames(task.video, HIGHEST_RATE, size, fast=True)


def _rate(items: Iterator[Any], seconds: float, at_least: int = 1) -> float:
    """Items a second; the first one, which opens files, does not count."""
    next(items)
    started, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < seconds or count < at_least:
        next(items)
        count += 1
    return count / spent if spent > 0 else 0.0


class _Encoder:
    """Encodes every picture it is given: a library would remember the frames of the last round."""

    def __init__(self, encoder: MediaEncoder) -> None:
        self._encoder = encoder

    def soft(self, part: MediaPart, cancel: object = None) -> object:
        return self._encoder.soft(part.tower, part.data())


def _sustained(
    model: Model, task: VideoTask, size: int, threshold: float
) -> tuple[float, FrameCounts]:
    counts = FrameCounts()
    tokens = model.library.towers.require("vision").ids.count
    with Pipeline() as line:
        marked = line.stage(
            "decode", mark_changes(_frames(task, size), threshold), capacity=DECODED_AHEAD
        )
        encoded = line.stage(
            "encode",
            encoded_frames(marked, _Encoder(model.library.encoder), tokens=tokens),
            capacity=2,
        )

        def counted() -> Iterator[None]:
            for frame in encoded:
                counts.add(frame)
                yield None

        # Whole runs of frames that stand still, however slow the encoder is.
        at_least = 1 if threshold > 1 else 2 * STILL_FRAMES
        return _rate(counted(), 2 * task.seconds, at_least), counts
