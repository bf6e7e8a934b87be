"""Pictures and sounds of training rows, decoded once and kept beside the ids.

In: files, or what one holds. Out: pixels (3, S, S) f32 and log-mel (T, bins) f32, as at run time or
changed a little (`changes.py`). Pictures are kept as bytes: at the size of the model, or, to be
changed later, half as large again and with their transparency. Log-mel is kept in 16 bits.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from matryo.checkpoint.packed import hash_file
from matryo.errors import InputError
from matryo.train.changes import changed_pixels, changed_sound

F32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Medium = Path | bytes  # a file, or what one holds
Status = tuple[int | None, int | None]  # size and time of a file, None = it is missing

PICTURES, SOUNDS = "pictures.bin", "sounds.bin"


@dataclass(frozen=True, slots=True)
class MediaShape:
    """What the encoders take.

    image_size: side of a picture, 0 = none · num_mels: bins of a frame, 0 = no sound
    clip_samples: of the longest clip at 16 kHz · picture_changes, sound_changes: how strongly they
    are changed while training, 0 to 1
    """

    image_size: int = 0
    num_mels: int = 0
    clip_samples: int = 0
    picture_changes: float = 0.0
    sound_changes: float = 0.0

    @property
    def stored(self) -> tuple[int, int, int]:
        """Shape of a picture as it is kept."""
        if self.picture_changes:
            return (self.image_size * 3 // 2, self.image_size * 3 // 2, 4)
        return (self.image_size, self.image_size, 3)


NO_MEDIA = MediaShape()


class MediaWriter:
    """Decodes files, each once; `add` gives its number among those of its kind."""

    def __init__(self, shape: MediaShape, pictures: BinaryIO, sounds: BinaryIO) -> None:
        self.shape, self._pictures, self._sounds = shape, pictures, sounds
        self._known: dict[tuple[str, str], int] = {}
        self._files: dict[str, Status] = {}
        self.num_pictures = 0
        self.frames: list[tuple[int, int]] = []  # of each sound: all, and those that are sound
        self.digests: list[str] = []  # SHA-256 of each medium, in the order of decoding

    @property
    def files(self) -> list[tuple[str, int | None, int | None]]:
        """What was asked for, used or not, as `unchanged` takes it."""
        return [(path, *status) for path, status in self._files.items()]

    def add(self, tower: str, medium: Medium) -> int:
        """Raises InputError for a medium that is missing, broken or too long."""
        name = str(medium) if isinstance(medium, Path) else hashlib.sha256(medium).hexdigest()
        if (tower, name) not in self._known:
            if isinstance(medium, Path):
                self._remember(medium)
            number = self._picture(medium) if tower == "vision" else self._sound(medium)
            self.digests.append(hash_file(medium) if isinstance(medium, Path) else name)
            self._known[tower, name] = number
        return self._known[tower, name]

    def _remember(self, path: Path) -> None:
        """Before it is decoded: what cannot be used now may be supplied later."""
        self._files[str(path)] = (None, None)
        try:
            status = path.stat()
        except (OSError, ValueError) as error:  # ValueError: of a NUL in it
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path}: cannot be read: {reason}") from error
        self._files[str(path)] = (status.st_size, status.st_mtime_ns)

    def _picture(self, medium: Medium) -> int:
        from matryo.inputs.image import load_rgb, load_rgba

        side = self.shape.stored[0]
        load = load_rgba if self.shape.picture_changes else load_rgb
        self._pictures.write(np.ascontiguousarray(load(medium, side)).tobytes())
        self.num_pictures += 1
        return self.num_pictures - 1

    def _sound(self, medium: Medium) -> int:
        from matryo.inputs.mel import MelFilters
        from matryo.inputs.sound import RATE, load_sound

        samples, longest = load_sound(medium), self.shape.clip_samples
        if len(samples) > longest:
            name = medium if isinstance(medium, Path) else "bytes"
            raise InputError(
                f"{name}: {len(samples) / RATE:.1f} s of sound; a clip has at most "
                f"{longest / RATE:.1f} s: cut it into pieces"
            )
        mel, mask = MelFilters(self.shape.num_mels).clip(samples)
        self._sounds.write(mel.astype("<f2").tobytes())
        self.frames.append((len(mel), int(mask.sum())))
        return len(self.frames) - 1


class MediaStore:
    """What a `MediaWriter` has written."""

    def __init__(
        self, directory: Path, shape: MediaShape, num_pictures: int, frames: Sequence[Sequence[int]]
    ) -> None:
        """Raises OSError or ValueError if the files are not those that were written."""
        self.shape = shape
        self._frames = [(int(total), int(valid)) for total, valid in frames]
        self._starts = np.cumsum([0, *(total for total, _ in self._frames)])
        self._pictures = _mapped(directory / PICTURES, "u1", (num_pictures, *shape.stored))
        self._sounds = _mapped(directory / SOUNDS, "<f2", (int(self._starts[-1]), shape.num_mels))

    def pixels(self, index: int, rng: np.random.Generator | None = None) -> F32:
        """Pixels (3, S, S) of a picture, changed as `rng` draws if it is given."""
        from matryo.inputs.image import resized, to_pixels

        side = self.shape.image_size
        stored = np.asarray(self._pictures[index])
        if self.shape.picture_changes and rng is not None:
            return changed_pixels(stored, side, self.shape.picture_changes, rng)
        if stored.shape[2] == 4:
            alpha = stored[..., 3:].astype(np.float32) / 255
            stored = np.rint(stored[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
        return to_pixels(resized(stored, (side, side)))

    def mel(self, index: int, rng: np.random.Generator | None = None) -> tuple[F32, int]:
        """Log-mel (T, bins) of a sound and how many of its frames are sound; changed as above."""
        start = self._starts[index]
        total, valid = self._frames[index]
        mel = np.asarray(self._sounds[start : start + total], np.float32)
        if self.shape.sound_changes and rng is not None:
            longest = self.shape.clip_samples // 160
            return changed_sound(mel, valid, longest, self.shape.sound_changes, rng)
        return mel, valid


def unchanged(files: Sequence[Sequence[Any]]) -> bool:
    """Whether media files are as they were, by size and time; what was missing is still missing."""
    return all(_status(path) == (size, time) for path, size, time in files)


def _status(path: str) -> Status:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return (None, None)
    return (status.st_size, status.st_mtime_ns)


def _mapped(path: Path, kind: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if not int(np.prod(shape)):
        return np.empty(shape, kind)
    return np.memmap(path, kind, "r", shape=shape)
