"""Loaders in a process of their own: the same results, and whatever happens to the child is an
InputError.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.media import encoded, picture, sound_file, tone, video_file
from matryo.errors import InputError
from matryo.inputs.image import load_image
from matryo.inputs.isolated import (
    Isolation,
    load_image_isolated,
    load_sound_isolated,
    sound_pieces_isolated,
    video_frames_isolated,
)
from matryo.inputs.limits import MediaLimits
from matryo.inputs.sound import load_sound
from matryo.inputs.video import video_frames

PNG = encoded(Image.fromarray(picture()), "PNG")


def test_results_are_those_of_the_loaders(tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(PNG)
    np.testing.assert_array_equal(load_image_isolated(path, (20, 30)), load_image(PNG, (20, 30)))
    wav = sound_file(tone(1.0), 16000, "wav", "pcm_s16le")
    np.testing.assert_array_equal(load_sound_isolated(wav), load_sound(wav))
    pieces = list(sound_pieces_isolated(wav, 0.3))
    assert [len(piece) for piece in pieces] == [4800] * 3 + [1600]
    np.testing.assert_array_equal(np.concatenate(pieces), load_sound(wav))
    video = video_file([picture(48, 64)] * 20)
    frames = list(video_frames_isolated(video, 2, 32))
    for one, other in zip(frames, video_frames(video, 2, 32), strict=True):
        assert one.time == other.time
        np.testing.assert_array_equal(one.rgb, other.rgb)


def test_arrays_need_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    assert load_image_isolated(picture(), 16).shape == (3, 16, 16)
    assert len(load_sound_isolated(tone(0.1)[0])) == 1600
    assert len(list(sound_pieces_isolated(tone(0.1)[0], 0.05))) == 2


def test_errors_and_limits_are_those_of_the_loaders() -> None:
    with pytest.raises(InputError, match="bytes: not a readable PNG picture"):
        load_image_isolated(PNG[:60])
    with pytest.raises(InputError, match="at most 100 pixels"):
        load_image_isolated(PNG, limits=MediaLimits(max_pixels=100))
    with pytest.raises(InputError, match="size: expected"):
        load_image_isolated(PNG, 0)


def test_memory_is_limited() -> None:
    """A header of 64 million pixels and nothing behind it: 256 MB before the end is noticed."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 8000, 8000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\xff\xffIDAT\x78\x9c"
    with pytest.raises(InputError, match="damaged or cut off"):
        load_image_isolated(data, 32)
    with pytest.raises(InputError, match="needs more memory than there is"):
        load_image_isolated(data, 32, isolation=Isolation(memory_bytes=320 << 20))


def replaced(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """The child runs `code` instead of a decoder."""
    start = subprocess.Popen

    def popen(arguments: list[str], **options: Any) -> object:
        return start([sys.executable, "-c", "import os, signal, sys, time\n" + code], **options)

    monkeypatch.setattr(subprocess, "Popen", popen)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed on it .SIGSEGV"),
        ("os.abort()", "crashed on it .SIGABRT"),
        ("sys.exit(3)", "crashed on it .exit code 3"),
        ("pass", "crashed on it .exit code 0"),
        ("os.kill(os.getpid(), signal.SIGXCPU)", "processor time"),
        ("time.sleep(60)", "too long"),
        ("print('{\"time\": 0')", "no readable answer"),
        ("print('[]')", "no readable answer"),
        ('print(\'{"time": 0, "shape": [1, -1, 3]}\')', "impossible shape"),
        ('print(\'{"time": 0, "shape": [99999, 99999, 3]}\')', "impossible shape"),
        ('print(\'{"time": 0, "shape": [4]}\')', "impossible shape"),
        ("print('{\"time\": 0, \"shape\": [2, 2, 3]}\\nabc', end='')", "exit code 0"),
        ("print('x' * 100000)", "no readable answer"),
    ],
)
def test_whatever_the_child_does_is_an_error(
    monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    replaced(monkeypatch, code)
    before = time.monotonic()
    with pytest.raises(InputError, match=message):
        load_image_isolated(PNG, isolation=Isolation(wait_seconds=1))
    assert time.monotonic() - before < 2


def test_a_child_ends_with_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    children = []
    start = subprocess.Popen

    def popen(*arguments: Any, **options: Any) -> object:
        children.append(start(*arguments, **options))
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    wav = sound_file(tone(30.0), 16000, "wav", "pcm_s16le")
    pieces = sound_pieces_isolated(wav, 0.1)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    del pieces
    assert children[0].returncode is not None


def test_the_child_limits_itself() -> None:
    """Run with the worker's own function, in a process that does not matter."""
    code = (
        "from matryo.inputs import worker\n"
        "import resource\n"
        "worker._limit(1 << 30, 5, 1.0)\n"
        "for name in ('AS', 'CPU', 'FSIZE', 'CORE'):\n"
        "    print(resource.getrlimit(getattr(resource, 'RLIMIT_' + name))[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True
    )
    assert [int(line) for line in done.stdout.split()] == [1 << 30, 5, 0, 0]
