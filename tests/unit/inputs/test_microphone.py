"""The microphone, played by a module of the name and calls that matryo uses of sounddevice."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from matryo.errors import InputError
from matryo.inputs import microphone as module
from matryo.inputs.microphone import microphone


class FakeStream:
    """Delivers `pieces` when it starts; as many `status` values go with them."""

    pieces: ClassVar[list[np.ndarray]]
    status: ClassVar[list[str]]
    opened: ClassVar[dict[str, Any]]
    closed = False

    def __init__(self, *, callback: Any, **options: Any) -> None:
        FakeStream.opened, FakeStream.closed = options, False
        self._callback = callback
        if options["device"] == "none":
            raise ValueError("No input device matching 'none'")

    def __enter__(self) -> None:
        for piece, status in zip(FakeStream.pieces, FakeStream.status, strict=True):
            self._callback(piece[:, None], len(piece), None, status)
            piece[:] = 9  # the device uses its buffer again

    def __exit__(self, *_: object) -> None:
        FakeStream.closed = True


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = ModuleType("sounddevice")
    fake.InputStream = FakeStream
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.05)
    FakeStream.pieces = [np.full(1600, n, np.float32) for n in (1, 2, 3)]
    FakeStream.status = [""] * 3


def test_pieces_come_in_order_and_closing_stops_the_device() -> None:
    pieces = microphone(seconds=0.1)
    taken = [next(pieces), next(pieces)]
    np.testing.assert_array_equal(taken, np.repeat([[1], [2]], 1600, axis=1))
    assert FakeStream.opened["samplerate"] == 16000 and FakeStream.opened["blocksize"] == 1600
    assert not FakeStream.closed
    pieces.close()  # type: ignore[attr-defined]
    assert FakeStream.closed


def test_a_silent_device_is_gone() -> None:
    with pytest.raises(InputError, match="still there"):
        list(microphone(seconds=0.1))
    assert FakeStream.closed


def test_lost_sound_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeStream.status = ["", "input overflow", ""]
    with pytest.raises(InputError, match="lost: the device reports input overflow"):
        list(microphone(seconds=0.1))
    monkeypatch.setattr(module, "WAITING_SECONDS", 0.2)
    FakeStream.status = [""] * 3
    with pytest.raises(InputError, match="are waiting"):
        list(microphone(seconds=0.1))


def test_a_missing_device_or_package_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="python -m sounddevice"):
        next(microphone(device="none"))
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(InputError, match="pip install sounddevice"):
        next(microphone())


def test_a_missing_library_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> ModuleType:
        raise OSError("PortAudio library not found")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(InputError, match="libportaudio2"):
        next(microphone())


def test_a_piece_has_a_length() -> None:
    with pytest.raises(InputError, match="at least one sample"):
        microphone(seconds=0)
