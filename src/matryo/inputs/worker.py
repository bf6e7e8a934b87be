"""The child process that `isolated` starts: decodes the file on its standard input.

In: one JSON argument. Out, on standard output: for each array a line of JSON and its bytes, then a
line with `end` or `error`. It limits itself before it looks at the file.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterator
from typing import IO, Any, BinaryIO

from matryo.errors import MatryoError
from matryo.inputs.limits import MediaLimits
from matryo.inputs.source import Source

MAX_FILES = 64


class InheritedSource(Source):
    """The file that is open as standard input; its users read one after another."""

    __slots__ = ()

    def open(self) -> BinaryIO:
        """The file from its first byte."""
        file = os.fdopen(os.dup(0), "rb")
        file.seek(0)
        return file


def main(argument: str) -> None:
    """Answer one request."""
    request: dict[str, Any] = json.loads(argument)
    answers = os.fdopen(os.dup(1), "wb", buffering=1 << 16)
    os.dup2(2, 1)  # whatever a library prints is no answer
    _limit(**request.pop("isolation"))
    try:
        source = InheritedSource(request.pop("name"))
        for seconds, array in _arrays(source, request):
            _send(answers, {"time": seconds, "shape": array.shape})
            answers.write(array.data if array.flags.c_contiguous else array.tobytes())
            answers.flush()
        _send(answers, {"end": True})
    except MatryoError as error:
        _send(answers, {"error": str(error)[:1000]})
    except MemoryError:
        _send(answers, {"error": f"{source.name}: needs more memory than there is"})


def _limit(memory_bytes: int, cpu_seconds: int, wait_seconds: float) -> None:
    """Less than the process has, never more. `wait_seconds` is the parent's."""
    for what, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, MAX_FILES),
    ):
        _, most = resource.getrlimit(what)
        if most == resource.RLIM_INFINITY or value < most:
            resource.setrlimit(what, (value, value))


def _arrays(source: Source, request: dict[str, Any]) -> Iterator[tuple[float, Any]]:
    limits = MediaLimits(**request.pop("limits"))
    call = request.pop("call")
    if "size" in request and isinstance(request["size"], list):
        request["size"] = tuple(request["size"])
    if call == "load_rgb":
        from matryo.inputs.image import load_rgb

        yield 0.0, load_rgb(source, limits=limits, **request)
    elif call == "load_sound":
        from matryo.inputs.sound import load_sound

        yield 0.0, load_sound(source, limits=limits)
    elif call == "sound_pieces":
        from matryo.inputs.sound import sound_pieces

        for piece in sound_pieces(source, limits=limits, **request):
            yield 0.0, piece
    else:
        from matryo.inputs.video import video_frames

        for frame in video_frames(source, limits=limits, **request):
            yield frame.time, frame.rgb


def _send(answers: IO[bytes], head: dict[str, Any]) -> None:
    answers.write(json.dumps(head).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
