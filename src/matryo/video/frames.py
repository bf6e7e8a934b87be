"""Frames of a video on their way to the model: decoded and encoded ahead of the reader.

In: a source. Out: `SeenFrame`s in order. One thread decodes, resizes and compares; a second one
encodes what is new. A frame that looks like the last new one shares its embeddings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from matryo.engine import Cancel
from matryo.inputs.changes import DEFAULT_THRESHOLD, mark_changes
from matryo.inputs.image import to_pixels
from matryo.inputs.limits import DEFAULT_LIMITS, MediaLimits
from matryo.inputs.sound import Samples
from matryo.inputs.video import Frame, video_frames
from matryo.media.parts import SHORTEST_SAMPLES, MediaPart
from matryo.pipeline import Pipeline

DECODE, ENCODE = "decode", "encode"
DECODED_AHEAD = 4  # 7 MB at 768 pixels


class Encodes(Protocol):
    """A media library, as far as frames need one."""

    def soft(self, part: MediaPart, cancel: Cancel | None = None, /) -> object: ...


@dataclass(frozen=True, slots=True)
class SeenFrame:
    """A frame whose embeddings are at hand.

    time: seconds from the start · part: for a content item {"type": "image", "image": part}, that
    of the last new frame if this one is not new
    """

    time: float
    part: MediaPart
    is_new: bool


@dataclass(slots=True)
class FrameCounts:
    """Frames so far; encoded + reused = seen."""

    seen: int = 0
    encoded: int = 0

    @property
    def reused(self) -> int:
        """Frames that were near-duplicates of one before."""
        return self.seen - self.encoded

    def add(self, frame: SeenFrame) -> None:
        """Count one."""
        self.seen += 1
        self.encoded += frame.is_new


def seen_frames(
    line: Pipeline,
    library: Encodes,
    source: object,
    *,
    tokens: int,
    size: int,
    rate: float = 1.0,
    times: Sequence[float] | None = None,
    max_frames: int | None = None,
    threshold: float = DEFAULT_THRESHOLD,
    ahead: int = 8,
    cancel: Cancel | None = None,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> Iterator[SeenFrame]:
    """Frames of a video file, at most `ahead` of them encoded before they are asked for.

    tokens: of one picture · size: side in pixels · rate, times, max_frames: as in `video_frames`
    threshold: similarity from which a frame is a near-duplicate, more than 1 for never
    Raises InputError or ConfigError for bad arguments at once; whatever decoding or encoding raises
    when the place is reached.
    """
    frames = video_frames(
        source, rate, size, times=times, max_frames=max_frames, fast=True, limits=limits
    )
    marked = line.stage(DECODE, mark_changes(frames, threshold), capacity=DECODED_AHEAD)
    encoded = encoded_frames(marked, library, tokens=tokens, cancel=cancel)
    return line.stage(ENCODE, encoded, capacity=ahead)


def encoded_frames(
    marked: Iterable[tuple[Frame, bool]],
    library: Encodes,
    *,
    tokens: int,
    cancel: Cancel | None = None,
) -> Iterator[SeenFrame]:
    """Encode the new ones of frames that `mark_changes` has compared."""
    part: MediaPart | None = None
    for frame, is_new in marked:
        if is_new or part is None:
            part = frame_part(frame, tokens)
            library.soft(part, cancel)
        yield SeenFrame(frame.time, part, is_new)


def frame_part(frame: Frame, tokens: int) -> MediaPart:
    """A frame as a picture of a prompt; equal frames have equal digests."""
    digest = hashlib.sha256(f"frame {frame.rgb.shape} ".encode())
    digest.update(np.ascontiguousarray(frame.rgb).data)
    return MediaPart("vision", digest.hexdigest(), tokens, partial(to_pixels, frame.rgb))


def encoded_clips(
    pieces: Iterable[Samples],
    library: Encodes,
    *,
    tokens: int,
    cancel: Cancel | None = None,
) -> Iterator[MediaPart | None]:
    """Encode clips of sound; None for a rest too short to be heard."""
    for samples in pieces:
        if len(samples) < SHORTEST_SAMPLES:
            yield None
            continue
        digest = hashlib.sha256(b"clip " + np.ascontiguousarray(samples).tobytes()).hexdigest()
        part = MediaPart("audio", digest, tokens, partial(_same, samples))
        library.soft(part, cancel)
        yield part


def _same(samples: Samples) -> Samples:
    return samples
