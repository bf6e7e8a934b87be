"""One picture or one clip to the embeddings that take the places of its soft ids.

In: pixels (3, H, W) f32 in [0, 1]; samples (N,) f32 at 16 kHz, or log-mel (T, bins) f32 with or
without a mask of its frames (T,) bool. Out: embeddings (count, d) f32, as many as one picture or
clip has soft ids. A clip shorter than that is filled with the row of the last id of sound, as in
training; see docs/decisions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.engine import Cancel
from matryo.errors import InputError
from matryo.media.towers import Towers
from matryo.tower_config import AudioConfig

F32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class SoundTokens:
    """Sound that was encoded already, such as by a stream: `values` (n, C) float32, n from 1. It
    takes n soft ids, with nothing filled up.
    """

    values: F32

    def __post_init__(self) -> None:
        values = self.values
        if not isinstance(values, np.ndarray) or values.ndim != 2 or not len(values):
            got = getattr(values, "shape", type(values).__name__)
            raise InputError(f"sound tokens: expected an array (n, C) with n from 1, got {got}")


Sound = F32 | tuple[F32, Bools] | SoundTokens
"""Samples (N,), log-mel (T, bins), log-mel and which of its frames are sound, or tokens."""


class MediaEncoder:
    """Encoder and embedder of each kind. `padding` (d) stands where a clip has no sound."""

    def __init__(self, towers: Towers, padding: F32 | None) -> None:
        self.towers, self._padding = towers, padding

    def count(self, tower: str, data: Any) -> int:
        """How many soft ids a picture or clip takes."""
        count = self.towers.require(tower).ids.count
        return len(data.values) if isinstance(data, SoundTokens) else count

    def soft(self, tower: str, data: Any, cancel: Cancel | None = None) -> F32:
        """`image` for vision, `clip` for audio."""
        return self.image(data, cancel) if tower == "vision" else self.clip(data, cancel)

    def image(self, pixels: F32, cancel: Cancel | None = None) -> F32:
        """Embeddings of a picture.

        Raises InputError or ShapeError for an array that is no picture, InputError if there is no
        encoder of pictures.
        """
        features = self.towers.encoder("vision", cancel).encode(pixels)
        return self.towers.embedder("vision").soft(features)

    def clip(self, sound: Sound, cancel: Cancel | None = None) -> F32:
        """Embeddings of a clip, filled up to the length of every clip.

        Raises InputError for an array that is no sound, a clip that is too long, or if there is no
        encoder of sound.
        """
        if isinstance(sound, SoundTokens):
            return self.towers.embedder("audio").soft(sound.values)
        return self.filled(self.clip_features(sound, cancel))

    def filled(self, features: F32) -> F32:
        """Embeddings (n, d) of a sound, filled up to the length of every clip.

        Raises InputError if they are more.
        """
        config = self.towers.require("audio")
        assert isinstance(config, AudioConfig)
        if len(features) > config.ids.count:
            seconds = config.ids.count * config.frames_per_token // 100
            raise InputError(
                f"a clip of {len(features)} tokens; expected at most {config.ids.count}, about "
                f"{seconds} s: cut it into pieces"
            )
        if len(features) == config.ids.count:
            return features
        if self._padding is None:
            raise InputError("this checkpoint has no row for silence: it was packed incompletely")
        out = np.empty((config.ids.count, features.shape[1]), np.float32)
        out[: len(features)], out[len(features) :] = features, self._padding
        return out

    def clip_features(self, sound: F32 | tuple[F32, Bools], cancel: Cancel | None = None) -> F32:
        """Embeddings of the sound alone, one for every token; frames outside the mask give the row
        of the last id of sound.
        """
        config = self.towers.require("audio")
        assert isinstance(config, AudioConfig)
        samples, mel, mask = checked_sound(sound, config)
        encoder = self.towers.encoder("audio", cancel)
        features = encoder.encode(samples, mel=mel, mask=mask)
        out = self.towers.embedder("audio").soft(features)
        if mask is not None and self._padding is not None:
            out[~encoder.valid_tokens(mask)] = self._padding
        return out


def checked_sound(
    sound: F32 | tuple[F32, Bools], config: AudioConfig
) -> tuple[F32 | None, F32 | None, Bools | None]:
    """Samples, or mel and its mask; what is not given is None. The encoder checks the numbers.

    Raises InputError for an array that is neither.
    """
    values, mask = sound if isinstance(sound, tuple) else (sound, None)
    if not isinstance(values, np.ndarray):
        raise InputError(f"sound: expected a float32 array, got {type(values).__name__}")
    if values.ndim == 1:
        if mask is not None:
            raise InputError("sound: a mask belongs to log-mel frames, not to samples")
        return values, None, None
    if values.ndim != 2 or values.shape[1] != config.num_mels:
        raise InputError(
            f"sound: expected samples (N,) or log-mel (T, {config.num_mels}), got {values.shape}"
        )
    if mask is not None and (
        not isinstance(mask, np.ndarray) or mask.shape != values.shape[:1] or mask.dtype != bool
    ):
        got = f"{getattr(mask, 'dtype', type(mask).__name__)} {getattr(mask, 'shape', '')}"
        raise InputError(f"sound: expected a mask of bool {values.shape[:1]}, got {got}")
    return None, values, mask
