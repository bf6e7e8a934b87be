"""Pictures of every kind become the right pixels; those that cannot say why."""

from __future__ import annotations

import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers.media import encoded, picture
from matryo.errors import InputError
from matryo.inputs.image import load_image, webp_size
from matryo.inputs.limits import MediaLimits

RGB = picture()
LOSSLESS = [("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True})]


def grey_levels(pixels: np.ndarray) -> np.ndarray:
    """(3, H, W) f32 back to (H, W, 3) integers; they must be whole grey levels."""
    levels = pixels.transpose(1, 2, 0) * 255
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    return np.asarray(np.rint(levels).astype(int))


@pytest.mark.parametrize(("kind", "options"), LOSSLESS)
def test_a_lossless_file_gives_its_pixels(kind: str, options: dict[str, bool]) -> None:
    pixels = load_image(encoded(Image.fromarray(RGB), kind, **options))
    assert pixels.dtype == np.float32 and pixels.flags.c_contiguous
    assert pixels.min() >= 0 and pixels.max() <= 1
    np.testing.assert_array_equal(grey_levels(pixels), RGB)


def test_a_jpeg_file_gives_about_its_pixels() -> None:
    data = encoded(Image.fromarray(RGB), "JPEG", quality=95, subsampling=0)
    assert np.abs(grey_levels(load_image(data)) - RGB).mean() < 4


@pytest.mark.parametrize("size", [16, 768, (40, 10), (24, 32)])
def test_resizing_is_bilinear_with_antialiasing_on_8_bits(size: int | tuple[int, int]) -> None:
    """Against the filter written out: triangles as wide as the reduction, rows after columns,
    rounded to 8 bits after each.
    """
    height, width = (size, size) if isinstance(size, int) else size
    pixels = load_image(encoded(Image.fromarray(RGB), "PNG"), size)
    assert pixels.shape == (3, height, width)

    def weights(before: int, after: int) -> np.ndarray:
        scale = before / after
        support = max(scale, 1.0)
        centres = (np.arange(after) + 0.5) * scale
        distance = np.abs(np.arange(before) + 0.5 - centres[:, None]) / support
        triangle = np.maximum(1 - distance, 0)
        return np.asarray(triangle / triangle.sum(1, keepdims=True))

    rows = np.floor(np.einsum("xw,hwc->hxc", weights(32, width), RGB.astype(float)) + 0.5)
    both = np.floor(np.einsum("yh,hxc->yxc", weights(24, height), rows) + 0.5)
    assert np.abs(grey_levels(pixels) - both).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_exif_rotation_is_undone(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(RGB), kind, exif=exif, lossless=True)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    np.testing.assert_array_equal(grey_levels(load_image(data)), expected)


def test_a_broken_exif_block_does_not_hide_the_picture() -> None:
    data = encoded(Image.fromarray(RGB), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    np.testing.assert_array_equal(grey_levels(load_image(data)), RGB)


def test_transparent_pixels_lie_over_white() -> None:
    alpha = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (24, 1))
    layered = np.dstack([RGB, alpha])
    share = alpha[..., None] / 255
    expected = RGB * share + 255 * (1 - share)
    for source in (encoded(Image.fromarray(layered), "PNG"), layered):
        assert np.abs(grey_levels(load_image(source)) - expected).max() <= 1


def test_a_transparent_palette_entry_lies_over_white() -> None:
    image = Image.fromarray(np.tile(np.array([0, 1], np.uint8), (4, 2)), "L").convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    levels = grey_levels(load_image(encoded(image, "PNG", transparency=0)))
    np.testing.assert_array_equal(levels[0, :2], [[255, 255, 255], [200, 100, 50]])


def test_a_palette_gives_its_colours() -> None:
    image = Image.fromarray(RGB).quantize(16)
    levels = grey_levels(load_image(encoded(image, "PNG")))
    np.testing.assert_array_equal(levels, np.asarray(image.convert("RGB")))


def test_grey_and_16_bit_grey_keep_their_upper_8_bits() -> None:
    deep = (np.arange(24 * 32).reshape(24, 32) * 85).astype(np.uint16)
    for source in (encoded(Image.fromarray(deep), "PNG"), deep):
        levels = grey_levels(load_image(source))
        np.testing.assert_array_equal(levels, np.repeat((deep >> 8)[..., None], 3, axis=2))
    shallow = load_image(encoded(Image.fromarray(RGB[..., 0]), "PNG"))
    np.testing.assert_array_equal(grey_levels(shallow), np.repeat(RGB[..., :1], 3, axis=2))


def test_16_bit_colours_keep_their_upper_8_bits() -> None:
    deep = (RGB.astype(np.uint16) << 8) + 77
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    levels = grey_levels(load_image(png(32, 24, zlib.compress(rows), depth=16)))
    np.testing.assert_array_equal(levels, RGB)


def test_cmyk_is_converted() -> None:
    image = Image.fromarray(RGB).convert("CMYK")
    data = encoded(image, "JPEG", quality=100, subsampling=0)
    assert np.abs(grey_levels(load_image(data)) - RGB).mean() < 4


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_one_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (8, 6), (80 * n, 10, 200 - 50 * n)) for n in range(3)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
    for number in range(3):
        levels = grey_levels(load_image(data, frame=number))
        np.testing.assert_array_equal(levels, np.asarray(frames[number]))
    with pytest.raises(InputError, match="frame 3"):
        load_image(data, frame=3)
    with pytest.raises(InputError, match="frame number"):
        load_image(data, frame=-1)


def test_float_pixels_that_fit_are_passed_through(rng: np.random.Generator) -> None:
    pixels = rng.random((3, 20, 30), dtype=np.float32)
    np.testing.assert_array_equal(load_image(pixels, (20, 30)), pixels)
    np.testing.assert_array_equal(load_image(pixels.transpose(1, 2, 0)), pixels)
    assert load_image(pixels, 16).shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((3, 4, 4), np.nan, np.float32), "from 0 to 1"),
        (np.full((3, 4, 4), np.inf, np.float32), "from 0 to 1"),
        (np.full((4, 4, 3), 255.0, np.float32), "divide values"),
        (np.zeros((4, 4), np.float32), r"\(3, H, W\)"),
        (np.zeros((4, 4, 2), np.uint8), "1, 3 or 4"),
        (np.zeros((0, 4, 3), np.uint8), "at least 1 x 1"),
        (np.zeros((3, 0, 4), np.float32), "at least 1 x 1"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((1, 100_000, 3), np.uint8), "100000 x 1"),
        (np.zeros((4, 4, 3), object), "object"),
    ],
)
def test_arrays_that_are_no_pictures(array: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_image(array)


def png(width: int, height: int, data: bytes, depth: int = 8) -> bytes:
    """A PNG file of RGB with a header and data that need not fit together."""

    def chunk(name: bytes, body: bytes) -> bytes:
        checksum = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def huge_webp(width: int, height: int) -> bytes:
    body = struct.pack("<B3x", 2) + (width - 1).to_bytes(3, "little")
    body += (height - 1).to_bytes(3, "little")
    anim = b"ANIM" + struct.pack("<IIH", 6, 0, 0)
    chunks = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + body + anim
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def huge_gif() -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + bytes(9) + b"\2\0;"


HOSTILE = {
    "a bomb": png(60_000, 60_000, zlib.compress(bytes(1 << 20))),
    "a long side": png(100_000, 1, zlib.compress(bytes(300_001))),
    "a high side": png(1, 100_000, zlib.compress(bytes(400_000))),
    "no pixels": png(0, 5, b""),
    "a size and no data": png(8000, 8000, b""),
    "a webp canvas": huge_webp(1 << 16, (1 << 16) - 1),
    "a gif canvas": huge_gif(),
    "many jpeg scans": encoded(Image.fromarray(RGB), "JPEG")[:-2] + b"\xff\xda\0\x08" * 200,
    "nothing": b"",
    "a text": b"just some words",
    "a sound": b"RIFF\0\0\0\0WAVEfmt ",
    "a playlist": b"#EXTM3U\nfile:///etc/passwd",
    "a drawing": b"<svg xmlns='x'/>",
    "a heic picture": b"\0\0\0\x18ftypheic\0\0\0\0",
    "only a signature": b"\x89PNG\r\n\x1a\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_at_once(name: str) -> None:
    before = time.monotonic()
    with pytest.raises(InputError) as caught:
        load_image(HOSTILE[name], 768)
    assert time.monotonic() - before < 1
    assert str(caught.value).startswith("bytes: ")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_truncated_file_is_refused(kind: str, share: float, rng: np.random.Generator) -> None:
    noise = Image.fromarray(rng.integers(0, 256, (60, 60, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    with pytest.raises(InputError, match="damaged or cut off"):
        load_image(data[: int(share * len(data))])


def test_the_name_of_a_file_plays_no_part(tmp_path: Path) -> None:
    path = tmp_path / "picture.gif"
    path.write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    np.testing.assert_array_equal(grey_levels(load_image(path)), RGB)
    path.write_bytes(b"fLaC" + bytes(80))
    with pytest.raises(InputError, match=r"picture\.gif: expected a picture .* got FLAC"):
        load_image(str(path))


def test_limits_are_the_users() -> None:
    data = encoded(Image.fromarray(RGB), "PNG")
    for limits in (
        MediaLimits(max_pixels=767),
        MediaLimits(max_side=31),
        MediaLimits(max_image_bytes=len(data) - 1),
        MediaLimits(max_bytes=len(data) - 1),
    ):
        with pytest.raises(InputError, match="at most"):
            load_image(data, limits=limits)
    exact = MediaLimits(max_pixels=768, max_side=32, max_image_bytes=len(data))
    assert load_image(data, limits=exact).shape == (3, 24, 32)


@pytest.mark.parametrize("size", [0, -1, (0, 4), (4, 100_000)])
def test_a_size_that_no_picture_has(size: int | tuple[int, int]) -> None:
    with pytest.raises(InputError, match="size: expected"):
        load_image(RGB, size)


@pytest.mark.parametrize("lossless", [True, False])
def test_the_size_in_a_webp_header(lossless: bool) -> None:
    image = Image.fromarray(RGB)
    assert webp_size(encoded(image, "WEBP", lossless=lossless)) == (32, 24)
    image.putalpha(200)
    assert webp_size(encoded(image, "WEBP", lossless=lossless)) == (32, 24)
    assert webp_size(b"RIFF\0\0\0\0WEBPVP8X") is None
