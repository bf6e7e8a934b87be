"""What a media file may ask of this machine; every limit is checked before the work it bounds.

In: nothing. Out: `MediaLimits`, passed to every loader of this package. The defaults suit a user's
own files; a server lowers them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from matryo.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """Bounds on sizes (bytes, pixels) and times (seconds); all positive.

    max_image_bytes     size of a picture's file, which is read into memory whole
    max_pixels          width x height of a picture, 67 million: 200 MB as RGB
    max_side            width and height of a picture
    max_bytes           size of a sound or video file, which is read piece by piece
    max_sound_seconds   of a clip that is loaded whole; one hour is 230 MB
    max_stream_seconds  of a sound or video that is read piece by piece
    max_frame_pixels    width x height of a video, 33 million: 8192 x 4096
    download_seconds    for a whole download, from the first name look-up to the last byte

    Raises ConfigError if a value is not positive.
    """

    max_image_bytes: int = 128 << 20
    max_pixels: int = 1 << 26
    max_side: int = 1 << 15
    max_bytes: int = 16 << 30
    max_sound_seconds: float = 3600.0
    max_stream_seconds: float = 24 * 3600.0
    max_frame_pixels: int = 1 << 25
    download_seconds: float = 60.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ConfigError(f"MediaLimits.{field.name}: expected more than 0, got {value}")


DEFAULT_LIMITS = MediaLimits()
