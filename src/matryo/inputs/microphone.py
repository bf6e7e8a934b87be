"""Sound from the microphone, as it comes.

In: nothing. Out: an iterator of samples (n,) f32 at 16 kHz, mono, until the caller stops.
"""

from __future__ import annotations

import importlib
import queue
from collections.abc import Iterator
from typing import Any

import numpy as np

from matryo.errors import InputError
from matryo.inputs.sound import RATE, Samples

WAITING_SECONDS = 30.0  # sound that may wait for a caller who is busy; 2 MB
SILENT_SECONDS = 5.0  # a device that sends nothing for so long is gone


def microphone(
    rate: int = RATE, seconds: float = 0.16, *, device: int | str | None = None
) -> Iterator[Samples]:
    """Pieces of `seconds` at `rate` samples a second, recorded from the first `next()` on.

    Close the iterator to stop. Raises InputError if `sounddevice` or a microphone is missing, if
    the device stops, or if the caller falls behind so far that sound would be lost.
    """
    size = round(seconds * rate)
    if size < 1:
        raise InputError(f"seconds: expected at least one sample, got {seconds:g}")
    return _record(rate, size, device)


def _record(rate: int, size: int, device: int | str | None) -> Iterator[Samples]:
    sounddevice = _sounddevice()
    waiting: queue.Queue[Samples] = queue.Queue(max(2, round(WAITING_SECONDS * rate / size)))
    lost: list[str] = []

    def receive(samples: Any, num_frames: int, times: Any, status: Any) -> None:
        # Called from the thread of the device, which must not wait.
        if status:
            lost.append(f"the device reports {status}")
        try:
            waiting.put_nowait(np.array(samples[:, 0], np.float32))
        except queue.Full:
            lost.append(f"more than {WAITING_SECONDS:g} s of sound are waiting")

    try:
        stream = sounddevice.InputStream(
            samplerate=rate,
            blocksize=size,
            device=device,
            channels=1,
            dtype="float32",
            callback=receive,
        )
    except Exception as error:  # PortAudioError, or ValueError for a name of no device
        raise InputError(
            f"microphone: cannot be opened: {error}; list the devices with "
            "`python -m sounddevice` and choose one"
        ) from error
    with stream:
        while True:
            try:
                yield waiting.get(timeout=SILENT_SECONDS)
            except queue.Empty:
                raise InputError(
                    f"microphone: no sound for {SILENT_SECONDS:g} s, is it still there?"
                ) from None
            if lost:
                raise InputError(f"microphone: sound was lost: {lost[0]}")


def _sounddevice() -> Any:
    try:
        # By name: it is no dependency, so type checkers may or may not find it.
        return importlib.import_module("sounddevice")
    except ImportError as error:
        raise InputError(
            "microphone: needs the package sounddevice: pip install sounddevice"
        ) from error
    except OSError as error:
        raise InputError(
            "microphone: sounddevice needs the PortAudio library, for example "
            "`apt install libportaudio2` or `brew install portaudio`"
        ) from error
