"""A picture to the pixels that the vision encoder takes.

In: a source (file, bytes, URL, array). Out: pixels (3, H, W) f32 in [0, 1], RGB.
Source: the resizing of the checkpoint's image processor: to a square whatever the shape of the
picture, bilinear with antialiasing, on 8 bits with rounding, then / 255 and no normalisation.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from matryo.errors import InputError
from matryo.inputs.limits import DEFAULT_LIMITS, MediaLimits
from matryo.inputs.sniff import PICTURES, WEBP, Kind
from matryo.inputs.source import Source

if TYPE_CHECKING:
    from PIL import Image

Pixels = npt.NDArray[np.float32]
Rgb = npt.NDArray[np.uint8]
Size = int | tuple[int, int]

MAX_ANIMATED_PIXELS = 1 << 30  # frames before the wanted one are decoded too: about 5 s of work
MAX_JPEG_SCANS = 100  # encoders write about 10; each scan visits every pixel again

_ORIENTATION = 0x0112  # the EXIF tag


def load_image(
    source: object,
    size: Size | None = None,
    *,
    frame: int = 0,
    limits: MediaLimits = DEFAULT_LIMITS,
    allow_urls: bool = False,
) -> Pixels:
    """Pixels (3, H, W) f32 in [0, 1].

    `size`: side of a square or (height, width), both without keeping the aspect ratio; None keeps
    the picture's own. `frame`: which picture of an animated GIF or WebP.
    Files are turned as their EXIF data says; transparent pixels lie over white; 16-bit channels
    keep their upper 8 bits. Arrays: (H, W) or (H, W, 1, 3 or 4) of uint8 or uint16, or (H, W, 3)
    or (3, H, W) of floats in [0, 1].
    Raises InputError if the source holds no picture, a damaged one, or one beyond the limits.
    """
    opened = Source.of(source, limits=limits, allow_urls=allow_urls)
    shape = checked_size(size, limits)
    if opened.array is not None:
        if (pixels := _ready(opened.array, shape, limits)) is not None:
            return pixels
    return to_pixels(load_rgb(opened, size, frame=frame, limits=limits))


def load_rgb(
    source: object,
    size: Size | None = None,
    *,
    frame: int = 0,
    limits: MediaLimits = DEFAULT_LIMITS,
    allow_urls: bool = False,
) -> Rgb:
    """The same as (H, W, 3) uint8: a quarter of the memory."""
    opened = Source.of(source, limits=limits, allow_urls=allow_urls)
    shape = checked_size(size, limits)
    if opened.array is not None:
        return resized(_rgb_of_array(opened.array, limits), shape)
    return resized(_decode(opened, frame, limits), shape)


def load_rgba(source: object, size: Size | None = None) -> Rgb:
    """The same as (H, W, 4) uint8, transparency kept, of a file."""
    shape = checked_size(size)
    return resized(_decode(Source.of(source), 0, DEFAULT_LIMITS, _rgba), shape)


def checked_size(size: Size | None, limits: MediaLimits = DEFAULT_LIMITS) -> tuple[int, int] | None:
    """(height, width) of what `size` means. Raises InputError if it is not positive or too
    large.
    """
    if size is None:
        return None
    shape = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    _check_shape("size", shape[1], shape[0], limits)
    return shape


def resized(rgb: Rgb, shape: tuple[int, int] | None) -> Rgb:
    """(h, w, 3) uint8 to (H, W, 3) uint8 as the reference resizes; `shape` is (H, W)."""
    if shape is None or rgb.shape[:2] == shape:
        return rgb
    from PIL import Image

    # Pillow's bilinear filter widens with the reduction: this is the antialiased one.
    image = Image.fromarray(rgb).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(image)


def to_pixels(rgb: Rgb) -> Pixels:
    """(H, W, 3) uint8 to (3, H, W) f32 in [0, 1], contiguous."""
    return np.ascontiguousarray(rgb.transpose(2, 0, 1), dtype=np.float32) * np.float32(1 / 255)


def _decode(
    source: Source,
    frame: int,
    limits: MediaLimits,
    convert: Callable[[Image.Image], Rgb] | None = None,
) -> Rgb:
    from PIL import Image

    kind = source.require(("picture",), f"a picture ({PICTURES})")
    if source.num_bytes > limits.max_image_bytes:
        raise InputError(
            f"{source.name}: expected at most {limits.max_image_bytes} bytes of picture, got "
            f"{source.num_bytes}"
        )
    with source.open() as file:
        data = file.read(limits.max_image_bytes + 1)
    _check_bytes(source.name, kind, data, limits)
    try:
        with Image.open(io.BytesIO(data), formats=[kind.decoder]) as image:
            _check_shape(source.name, *image.size, limits)
            _seek(source.name, image, frame, limits)
            image.load()
            _check_shape(source.name, *image.size, limits)
            return _upright((convert or _rgb)(image), _orientation(image))
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(f"{source.name}: needs more memory than there is") from error
    except Exception as error:
        # Pillow's decoders raise whatever the damage leads them to; all of it is the file's fault.
        raise InputError(
            f"{source.name}: not a readable {kind.name} picture, it may be damaged or cut off: "
            f"{error or type(error).__name__}"
        ) from error


def _check_shape(name: str, width: int, height: int, limits: MediaLimits) -> None:
    if min(width, height) < 1:
        raise InputError(f"{name}: expected at least 1 x 1 pixels, got {width} x {height}")
    if max(width, height) > limits.max_side or width * height > limits.max_pixels:
        raise InputError(
            f"{name}: expected at most {limits.max_pixels} pixels and sides of {limits.max_side}, "
            f"got {width} x {height}; make the picture smaller or raise the limits"
        )


def _check_bytes(name: str, kind: Kind, data: bytes, limits: MediaLimits) -> None:
    """What must be known before Pillow sees the bytes."""
    if kind is WEBP and (size := webp_size(data)):
        # Opening a WebP file allocates its whole canvas twice.
        _check_shape(name, *size, limits)
    scans = data.count(b"\xff\xda") if kind.name == "JPEG" else 0
    if scans > MAX_JPEG_SCANS:
        raise InputError(f"{name}: expected at most {MAX_JPEG_SCANS} JPEG scans, got {scans}")


def webp_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in the header of a WebP file, None if it is not whole.

    Source: RFC 9649, sections 2.5 to 2.7.
    """
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if chunk == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = int.from_bytes(body[6:8], "little"), int.from_bytes(body[8:10], "little")
    return width & 0x3FFF, height & 0x3FFF


def _seek(name: str, image: Image.Image, frame: int, limits: MediaLimits) -> None:
    if frame < 0:
        raise InputError(f"{name}: expected a frame number from 0, got {frame}")
    if frame == 0:
        return
    if (frame + 1) * image.width * image.height > MAX_ANIMATED_PIXELS:
        raise InputError(f"{name}: frame {frame} is too far from the start for a picture this size")
    try:
        # One by one, so that a frame that enlarges the canvas is noticed before it is drawn.
        for number in range(1, frame + 1):
            image.seek(number)
            _check_shape(name, *image.size, limits)
    except EOFError:
        raise InputError(f"{name}: expected a picture with frame {frame}, got fewer") from None


def _orientation(image: Image.Image) -> int:
    """1 to 8 as EXIF counts them; broken EXIF data does not make a picture unreadable."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow's parser raises whatever the damage leads it to
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(rgb: Rgb, orientation: int) -> Rgb:
    """Undo an EXIF orientation: 5 to 8 swap the axes, then rows or columns are reversed."""
    if orientation >= 5:
        rgb = rgb.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        rgb = rgb[::-1]
    if orientation in (2, 3, 6, 7):
        rgb = rgb[:, ::-1]
    return np.ascontiguousarray(rgb)


def _rgb(image: Image.Image) -> Rgb:
    """(H, W, 3) uint8 of any mode that Pillow decodes to."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise InputError(f"expected 8 or 16 bits a channel, got a picture of mode {image.mode}")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, layer)
    return np.asarray(image.convert("RGB"))


def _rgba(image: Image.Image) -> Rgb:
    """(H, W, 4) uint8 of any mode that Pillow decodes to."""
    if image.has_transparency_data:
        return np.asarray(image.convert("RGBA"))
    rgb = _rgb(image)
    return np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], 2)


def _ready(
    array: npt.NDArray[Any], shape: tuple[int, int] | None, limits: MediaLimits
) -> Pixels | None:
    """Float pixels that need no resizing keep every bit."""
    if array.dtype.kind != "f":
        return None
    pixels = _channels_first(array, limits)
    return pixels if shape in (None, pixels.shape[1:]) else None


def _channels_first(array: npt.NDArray[Any], limits: MediaLimits) -> Pixels:
    if array.ndim != 3 or 3 not in (array.shape[0], array.shape[2]):
        raise InputError(
            f"array: expected floats of shape (3, H, W) or (H, W, 3), got {array.shape}"
        )
    first = array if array.shape[0] == 3 else array.transpose(2, 0, 1)
    _check_shape("array", first.shape[2], first.shape[1], limits)
    if not (np.min(first) >= 0 and np.max(first) <= 1):
        raise InputError(
            "array: expected floats from 0 to 1, got "
            f"{np.min(first):g} to {np.max(first):g}; divide values up to 255 by 255"
        )
    return np.ascontiguousarray(first, dtype=np.float32)


def _rgb_of_array(array: npt.NDArray[Any], limits: MediaLimits) -> Rgb:
    """(H, W, 3) uint8 of a user's array."""
    if array.dtype.kind == "f":
        return np.rint(_channels_first(array, limits).transpose(1, 2, 0) * 255).astype(np.uint8)
    if array.dtype not in (np.uint8, np.uint16):
        raise InputError(f"array: expected uint8, uint16 or floats as a picture, got {array.dtype}")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise InputError(
            f"array: expected shape (H, W) or (H, W, 1, 3 or 4) as a picture, got {array.shape}"
        )
    _check_shape("array", array.shape[1], array.shape[0], limits)
    narrow = (array >> 8 if array.dtype == np.uint16 else array).astype(np.uint8)
    if narrow.shape[2] == 4:
        from PIL import Image

        return _rgb(Image.fromarray(narrow))
    return np.ascontiguousarray(np.broadcast_to(narrow[..., :3], (*narrow.shape[:2], 3)))
