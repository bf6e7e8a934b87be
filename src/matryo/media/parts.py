"""Content items to pictures and clips that are ready for an encoder.

In: items such as {"type": "image", "image": source}, or sources alone (path, bytes, array, Pillow
image), whose kind is then told by their bytes or their shape. Out: `MediaPart`s in order, each with
the number of its soft ids and a digest of what it was made from. Everything is decoded here, within
limits, so that what cannot be used is refused before anything else has changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.errors import InputError
from matryo.inputs.limits import DEFAULT_LIMITS, MediaLimits
from matryo.inputs.source import Source
from matryo.media.encode import SoundTokens
from matryo.media.towers import Towers
from matryo.tower_config import AudioConfig

F32 = npt.NDArray[np.float32]
Load = Callable[[], F32]
Known = Callable[["MediaPart"], bool]

CLIP_SAMPLES = 480_000  # 30 s at 16 kHz: the longest clip of the training
SHORTEST_SAMPLES = 513  # one frame; a rest shorter than that is not heard
_PIECE_BYTES = 1 << 20
_COMMON_KEYS = frozenset({"type", "path", "url"})
_OWN_KEYS: Mapping[str, frozenset[str]] = {
    "image": frozenset({"image", "size"}),
    "audio": frozenset({"audio", "rate"}),
    "video": frozenset({"video", "size", "rate", "max_frames", "sound"}),
}


class MediaPart:
    """One picture or clip of a prompt.

    tower: vision or audio · count: its soft ids · digest: of what it was made from, with every
    setting that changes the result · growing: (key, rows) of sound that is still arriving: the
    first rows are those of every part with this key
    """

    __slots__ = ("_data", "_load", "count", "digest", "embeddings", "growing", "tower")

    def __init__(
        self,
        tower: str,
        digest: str,
        count: int,
        load: Load | None,
        data: F32 | SoundTokens | None = None,
        growing: tuple[str, int] | None = None,
    ) -> None:
        """load: gives pixels or samples, None if they cannot be had again · data: decoded ones."""
        self.embeddings: F32 | None = None  # of a restored session, trusted for no other one
        self.tower, self.digest, self.count = tower, digest, count
        self._load, self._data, self.growing = load, data, growing

    def __repr__(self) -> str:
        return f"<MediaPart {self.tower} {self.digest[:12]} {self.count} tokens>"

    def data(self) -> F32 | SoundTokens:
        """Pixels (3, H, W), samples (N,) or tokens. Raises InputError if they are no longer to be
        had.
        """
        if self._data is None and self._load is not None:
            self._data = self._load()
        if self._data is None:
            word = "picture" if self.tower == "vision" else "clip"
            raise InputError(
                f"a {word} of this session has to be computed again, and what it was made from is "
                "not here: give the whole conversation again, as messages"
            )
        return self._data

    def release(self) -> None:
        """Forget decoded data that can be had again."""
        if self._load is not None:
            self._data = None


class PartReader:
    """Reads the pictures and sounds of prompts for one checkpoint."""

    def __init__(
        self,
        towers: Towers,
        *,
        image_size: int,
        known: Known = lambda part: False,
        limits: MediaLimits = DEFAULT_LIMITS,
        allow_urls: bool = False,
    ) -> None:
        """image_size: of pictures that say no other · known: whether a part needs no decoding."""
        self._towers, self._image_size, self._known = towers, image_size, known
        self._limits, self._allow_urls = limits, allow_urls

    def item(self, item: Mapping[str, Any], where: str) -> list[MediaPart]:
        """Parts of a content item of type image, audio or video.

        Raises InputError, which names `where`, for an item that cannot be used, or if the
        checkpoint has no encoder for it.
        """
        kind = item.get("type")
        if not isinstance(kind, str) or kind not in _OWN_KEYS:
            raise InputError(f"{where}: expected an item of type image, audio or video: {kind!r}")
        unknown = set(item) - _COMMON_KEYS - _OWN_KEYS[kind]
        sources = [item[key] for key in (kind, "path", "url") if item.get(key) is not None]
        if unknown or len(sources) != 1:
            allowed = ", ".join(sorted(_OWN_KEYS[kind] - {kind}))
            raise InputError(
                f"{where}: expected an item of type {kind} with one source under {kind}, path or "
                f"url, and maybe {allowed}; got the keys {', '.join(map(str, item))}"
            )
        if isinstance(sources[0], MediaPart):
            return [self._ready(sources[0], kind, where)]
        try:
            if kind == "audio" and isinstance(sources[0], SoundTokens):
                return [self._tokens(sources[0])]
            options = {key: item[key] for key in item if key in _OWN_KEYS[kind] - {kind}}
            return self._read(kind, self._source(sources[0]), options)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error

    def raw(self, value: object, where: str) -> list[MediaPart]:
        """Parts of a source alone. Raises as `item`."""
        try:
            if isinstance(value, SoundTokens):
                return [self._tokens(value)]
            source = self._source(value)
            return self._read(kind_of(source, self._limits), source, {})
        except InputError as error:
            raise InputError(f"{where}: {error}") from error

    def _ready(self, part: MediaPart, kind: str, where: str) -> MediaPart:
        """A part that was made elsewhere, such as a frame of a pipeline or sound of a stream."""
        tower = "vision" if kind == "image" else "audio"
        if kind == "video" or part.tower != tower:
            raise InputError(f"{where}: expected a part of type {kind}, got one of {part.tower}")
        self._towers.require(tower)
        return part

    def _read(self, kind: str, source: Source, options: Mapping[str, Any]) -> list[MediaPart]:
        match kind:
            case "image":
                return [self._image(source, options.get("size"))]
            case "audio":
                return self._clips(source, options.get("rate"))
        return list(self._video(source, options))

    def _source(self, value: object) -> Source:
        return Source.of(_without_pillow(value), limits=self._limits, allow_urls=self._allow_urls)

    def _image(self, source: Source, size: object) -> MediaPart:
        from matryo.inputs.image import load_image

        config = self._towers.require("vision")
        side = _whole("size", self._image_size if size is None else size, 1, 1 << 13)

        def decode() -> F32:
            return load_image(source, side, limits=self._limits)

        digest = _digest(source, f"image {side}")
        part = MediaPart("vision", digest, config.ids.count, _again(source, digest, side, decode))
        if not self._known(part):
            part._data = decode()
        return part

    def _clips(self, source: Source, rate: object) -> list[MediaPart]:
        """The sound in pieces of at most 30 s: longer clips were never part of the training."""
        from matryo.inputs.sound import RATE, load_sound

        config = self._towers.require("audio")
        assert isinstance(config, AudioConfig)
        hertz = _whole("rate", RATE if rate is None else rate, 1, 1 << 20)

        def decode() -> F32:
            return load_sound(source, rate=hertz, limits=self._limits)

        digest = _digest(source, f"audio {hertz}")
        samples = decode()
        if len(samples) < SHORTEST_SAMPLES:
            raise InputError(
                f"{source.name}: expected at least 32 ms of sound, got {len(samples)} samples"
            )
        length = clip_samples(config)
        parts = []
        for number, start in enumerate(range(0, len(samples), length)):
            piece = samples[start : start + length]
            if len(piece) >= SHORTEST_SAMPLES:
                own = hashlib.sha256(f"{digest} {number} {length}".encode()).hexdigest()
                load = _again(source, digest, hertz, decode, slice(start, start + length))
                parts.append(MediaPart("audio", own, config.ids.count, load, piece))
        return parts

    def _tokens(self, tokens: SoundTokens) -> MediaPart:
        """Sound that was encoded already."""
        width, values = self._towers.require("audio").hidden_size, tokens.values
        if values.shape[1] != width or values.dtype != np.float32 or not np.isfinite(values).all():
            raise InputError(
                f"sound tokens: expected finite float32 (n, {width}), got {values.dtype} "
                f"{values.shape}"
            )
        own = SoundTokens(values.copy())
        digest = hashlib.sha256(f"tokens {values.shape} ".encode() + own.values.tobytes())
        return MediaPart("audio", digest.hexdigest(), len(values), None, own)

    def _video(self, source: Source, options: Mapping[str, Any]) -> Iterator[MediaPart]:
        """Frames, evenly over the whole video, then the sound track."""
        from matryo.inputs.image import to_pixels
        from matryo.inputs.video import frame_times, video_frames, video_info

        config = self._towers.require("vision")
        side = _whole("size", options.get("size", self._image_size), 1, 1 << 13)
        most = _whole("max_frames", options.get("max_frames", 16), 1, 4096)
        rate = options.get("rate", 1.0)
        if isinstance(rate, bool) or not isinstance(rate, int | float):
            raise InputError(f"rate: expected frames a second, got {rate!r}")
        info = video_info(source, limits=self._limits)
        times = None if info.seconds is None else frame_times(info.seconds, most, float(rate))
        for frame in video_frames(
            source, float(rate), side, times=times, max_frames=most, limits=self._limits
        ):
            content = hashlib.sha256(f"frame {side} {frame.rgb.shape} ".encode())
            content.update(np.ascontiguousarray(frame.rgb).data)
            load = partial(to_pixels, frame.rgb)
            yield MediaPart("vision", content.hexdigest(), config.ids.count, load)
        if options.get("sound", True) and info.has_sound:
            yield from self._clips(source, None)


def clip_samples(config: AudioConfig) -> int:
    """Samples of the longest clip: 30 s, or what its soft ids hold."""
    return min(CLIP_SAMPLES, config.ids.count * config.frames_per_token * 160)


def _without_pillow(value: object) -> object:
    """A Pillow image as an array, turned as its EXIF data says; anything else as it is."""
    if not _is_pillow(value):
        return value
    from PIL import Image, ImageOps

    assert isinstance(value, Image.Image)
    upright = ImageOps.exif_transpose(value)
    return np.asarray(upright.convert("RGBA" if upright.has_transparency_data else "RGB"))


def kind_of(source: Source, limits: MediaLimits) -> str:
    """image, audio or video, by shape or by content."""
    if source.array is not None:
        return "audio" if source.array.ndim == 1 else "image"
    medium = None if source.kind is None else source.kind.medium
    if medium == "picture":
        return "image"
    if medium == "container":
        from matryo.inputs.video import video_info

        try:
            video_info(source, limits=limits)
        except InputError:
            return "audio"
        return "video"
    return "audio" if medium == "sound" else "image"  # the decoder says what is wrong with it


def _digest(source: Source, settings: str) -> str:
    """SHA-256 of the content and what will be made of it."""
    digest = hashlib.sha256(settings.encode())
    if source.array is not None:
        array = np.ascontiguousarray(source.array)
        digest.update(f" {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
        return digest.hexdigest()
    with source.open() as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _again(
    source: Source, digest: str, setting: int, decode: Load, part: slice = slice(None)
) -> Load:
    """Decodes once more, if the source is still what it was."""
    kind = "audio" if part != slice(None) else "image"

    def load() -> F32:
        if _digest(source, f"{kind} {setting}") != digest:
            raise InputError(f"{source.name}: changed since it was given: give it again")
        return decode()[part]

    return load


def _whole(name: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{name}: expected a whole number from {low} to {high}, got {value!r}")
    return value


def is_source(value: object) -> bool:
    """Whether a value can only be a picture or sound: no text, no id, no mapping."""
    kinds = (os.PathLike, bytes, bytearray, memoryview, np.ndarray, Source, SoundTokens)
    return isinstance(value, kinds) or _is_pillow(value)


def _is_pillow(value: object) -> bool:
    """Without importing Pillow."""
    return any(base.__module__ == "PIL.Image" for base in type(value).__mro__)
