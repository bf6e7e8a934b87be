"""Embeddings of pictures and clips, computed once and kept while there is room.

In: `MediaPart`s. Out: their embeddings (count, d). What was encoded lately is found again by the
digest of its content, in whichever session or turn it comes; the oldest goes first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from matryo.engine import Cancel
from matryo.inputs.limits import DEFAULT_LIMITS, MediaLimits
from matryo.media.encode import MediaEncoder
from matryo.media.parts import MediaPart, PartReader
from matryo.media.towers import Towers
from matryo.tower_config import NO_TOWERS

F32 = npt.NDArray[np.float32]

CACHE_BYTES = 256 << 20  # 128 pictures of Gemma 3n
IMAGE_SIZE = 768  # of a checkpoint whose files name no other
NO_TENSORS = Towers(NO_TOWERS, 0, {}, {})


class MediaLibrary:
    """Encoders, and what they computed. One for each model; sessions of all threads share it."""

    def __init__(
        self,
        encoder: MediaEncoder,
        *,
        image_size: int = IMAGE_SIZE,
        max_bytes: int = CACHE_BYTES,
    ) -> None:
        self._encoder, self._image_size, self._max_bytes = encoder, image_size, max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], F32] = OrderedDict()
        self._num_bytes = 0

    @property
    def encoder(self) -> MediaEncoder:
        """Computes without remembering."""
        return self._encoder

    @property
    def towers(self) -> Towers:
        """The encoders."""
        return self._encoder.towers

    @property
    def image_size(self) -> int:
        """Side of the pictures that the checkpoint was made for."""
        return self._image_size

    @property
    def num_bytes(self) -> int:
        """Bytes of the embeddings that are kept."""
        return self._num_bytes

    def reader(
        self, *, limits: MediaLimits = DEFAULT_LIMITS, allow_urls: bool = False
    ) -> PartReader:
        """Reads content items; pictures that are known are not decoded."""
        return PartReader(
            self.towers,
            image_size=self._image_size,
            known=lambda part: self.find(part) is not None,
            limits=limits,
            allow_urls=allow_urls,
        )

    def find(self, part: MediaPart) -> F32 | None:
        """Embeddings that are kept; None if they have to be computed."""
        key = (part.tower, part.digest)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def soft(self, part: MediaPart, cancel: Cancel | None = None) -> F32:
        """Embeddings (count, d) of a part.

        Raises CancelledError if `cancel` says so while it is encoded, InputError if it cannot be.
        """
        found = self.find(part)
        if found is None and part.embeddings is not None:
            return part.embeddings
        if found is None:
            found = self._encoder.soft(part.tower, part.data(), cancel)
            found.flags.writeable = False
            self.keep(part, found)
        part.release()
        return found

    def keep(self, part: MediaPart, values: F32) -> None:
        """Remember embeddings, and forget the oldest if they are too many."""
        key = (part.tower, part.digest)
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = values
            self._num_bytes += values.nbytes
            while self._num_bytes > self._max_bytes and self._kept:
                _, oldest = self._kept.popitem(last=False)
                self._num_bytes -= oldest.nbytes

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self._num_bytes = 0
