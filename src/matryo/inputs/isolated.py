"""The loaders of pictures, sound and video in a process of their own, for files of strangers.

In and out: those of `load_image`, `load_sound`, `sound_pieces` and `video_frames`. The decoders are
C code that a crafted file may crash, hang or make swallow memory; here that ends a child process
and becomes an InputError. The child gets an open file and limits, never a path, and sends arrays
whose shapes are checked, never objects. See docs/decisions/0006-decoders-in-a-child-process.md.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from matryo.errors import InputError
from matryo.inputs.image import Pixels, Size, load_image, to_pixels
from matryo.inputs.limits import DEFAULT_LIMITS, MediaLimits
from matryo.inputs.sound import Samples
from matryo.inputs.sound import load_sound as load_sound_here
from matryo.inputs.sound import sound_pieces as sound_pieces_here
from matryo.inputs.source import PIECE_BYTES, Source
from matryo.inputs.video import Frame

MAX_HEAD_BYTES = 4096
_PICTURE = (np.dtype(np.uint8), 3)
_SOUND = (np.dtype(np.float32), 1)
_KEPT_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LANG", "LC_ALL")

Array = npt.NDArray[Any]
Form = tuple[np.dtype[Any], int]  # type and number of axes


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What a child process may use: address space (bytes), processor time and the time that the
    caller waits for each of its answers (seconds).
    """

    memory_bytes: int = 3 << 30
    cpu_seconds: int = 600
    wait_seconds: float = 30.0


DEFAULT_ISOLATION = Isolation()


def load_image_isolated(
    source: object,
    size: Size | None = None,
    *,
    frame: int = 0,
    limits: MediaLimits = DEFAULT_LIMITS,
    allow_urls: bool = False,
    isolation: Isolation = DEFAULT_ISOLATION,
) -> Pixels:
    """As `image.load_image`; also raises InputError if the decoder crashes, hangs or takes too much
    memory.
    """
    opened = Source.of(source, limits=limits, allow_urls=allow_urls)
    if opened.array is not None:
        return load_image(opened, size, limits=limits)
    request = {"call": "load_rgb", "size": size, "frame": frame}
    rgb = _first(_run(opened, request, limits, isolation, _PICTURE, 3 * limits.max_pixels))
    return to_pixels(rgb)


def load_sound_isolated(
    source: object,
    *,
    rate: int = 16_000,
    limits: MediaLimits = DEFAULT_LIMITS,
    allow_urls: bool = False,
    isolation: Isolation = DEFAULT_ISOLATION,
) -> Samples:
    """As `sound.load_sound`; also raises InputError as `load_image_isolated` does."""
    opened = Source.of(source, limits=limits, allow_urls=allow_urls)
    if opened.array is not None:
        return load_sound_here(opened, rate=rate, limits=limits)
    most = int(limits.max_sound_seconds * 16_000 * 4) + 4
    return _first(_run(opened, {"call": "load_sound"}, limits, isolation, _SOUND, most))


def sound_pieces_isolated(
    source: object,
    seconds: float = 1.0,
    *,
    rate: int = 16_000,
    limits: MediaLimits = DEFAULT_LIMITS,
    allow_urls: bool = False,
    isolation: Isolation = DEFAULT_ISOLATION,
) -> Iterator[Samples]:
    """As `sound.sound_pieces`; also raises InputError as `load_image_isolated` does."""
    opened = Source.of(source, limits=limits, allow_urls=allow_urls)
    if opened.array is not None:
        return sound_pieces_here(opened, seconds, rate=rate, limits=limits)
    most = int(seconds * 16_000 * 4) + 4
    request = {"call": "sound_pieces", "seconds": seconds}
    return (piece for _, piece in _run(opened, request, limits, isolation, _SOUND, most))


def video_frames_isolated(
    source: object,
    rate: float = 1.0,
    size: Size | None = 768,
    *,
    times: Sequence[float] | None = None,
    max_frames: int | None = None,
    fast: bool = False,
    limits: MediaLimits = DEFAULT_LIMITS,
    allow_urls: bool = False,
    isolation: Isolation = DEFAULT_ISOLATION,
) -> Iterator[Frame]:
    """As `video.video_frames`; also raises InputError as `load_image_isolated` does, and for bad
    arguments when the first frame is asked for.
    """
    opened = Source.of(source, limits=limits, allow_urls=allow_urls)
    if opened.array is not None:
        raise InputError("array: expected a video file, pass single pictures of an array instead")
    request = {
        "call": "video_frames",
        "rate": rate,
        "size": size,
        "times": None if times is None else list(times),
        "max_frames": max_frames,
        "fast": fast,
    }
    most = 3 * max(limits.max_pixels, limits.max_frame_pixels)
    answers = _run(opened, request, limits, isolation, _PICTURE, most)
    return (Frame(time, rgb) for time, rgb in answers)


def _first(answers: Generator[tuple[float, Array], None, None]) -> Array:
    with contextlib.closing(answers):
        return next(answers)[1]


def _run(
    source: Source,
    request: dict[str, Any],
    limits: MediaLimits,
    isolation: Isolation,
    form: Form,
    most_bytes: int,
) -> Generator[tuple[float, Array], None, None]:
    """The answers of a child: (time, array). Raises InputError for its error or its end."""
    request |= {"name": source.name, "limits": asdict(limits), "isolation": asdict(isolation)}
    environment = {k: v for k, v in os.environ.items() if k in _KEPT_ENVIRONMENT}
    # Its libraries would otherwise start a thread, and reserve memory, for every processor.
    environment["OPENBLAS_NUM_THREADS"] = environment["OMP_NUM_THREADS"] = "1"
    with _as_file(source) as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "matryo.inputs.worker", json.dumps(request)],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    assert child.stdout is not None
    try:
        yield from _answers(source.name, child, child.stdout, isolation, form, most_bytes)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@contextlib.contextmanager
def _as_file(source: Source) -> Iterator[IO[bytes]]:
    """The source as a file that another process can read."""
    with source.open() as file:
        try:
            file.fileno()
        except OSError:  # in memory
            with tempfile.TemporaryFile() as copy:
                while piece := file.read(PIECE_BYTES):
                    copy.write(piece)
                copy.flush()
                yield copy
        else:
            yield file


def _answers(
    name: str,
    child: subprocess.Popen[bytes],
    pipe: IO[bytes],
    isolation: Isolation,
    form: Form,
    most_bytes: int,
) -> Iterator[tuple[float, Array]]:
    while True:
        deadline = time.monotonic() + isolation.wait_seconds
        line = bytearray()
        while not line.endswith(b"\n") and len(line) < MAX_HEAD_BYTES:
            piece = _read(name, child, pipe, 1, deadline)
            line += piece
        try:
            head = json.loads(line)
            if "error" in head:
                raise InputError(str(head["error"]))
            if "end" in head:
                return
            shape, seconds = tuple(map(int, head["shape"])), float(head["time"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{name}: the decoder gave no readable answer") from error
        num_bytes = form[0].itemsize * math.prod(shape)
        if len(shape) != form[1] or min(shape) < 1 or num_bytes > most_bytes:
            raise InputError(f"{name}: the decoder gave an array of impossible shape {shape}")
        data = bytearray(num_bytes)
        at = 0
        while at < num_bytes:
            piece = _read(name, child, pipe, min(num_bytes - at, PIECE_BYTES), deadline)
            data[at : at + len(piece)] = piece
            at += len(piece)
        yield seconds, np.frombuffer(data, form[0]).reshape(shape)


def _read(
    name: str, child: subprocess.Popen[bytes], pipe: IO[bytes], size: int, deadline: float
) -> bytes:
    """Up to `size` bytes, at least one. Raises InputError if the child ended or takes too long."""
    ready, _, _ = select.select([pipe], [], [], max(deadline - time.monotonic(), 0))
    if not ready:
        raise InputError(f"{name}: decoding takes too long; it was stopped")
    piece = os.read(pipe.fileno(), size)
    if piece:
        return piece
    code = child.wait()
    if code == -signal.SIGXCPU:
        raise InputError(f"{name}: decoding takes too much processor time; it was stopped")
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    raise InputError(f"{name}: the decoder crashed on it ({how}); the file is damaged or hostile")
