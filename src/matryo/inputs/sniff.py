"""What a file holds, told by its first bytes; names and extensions are not looked at.

In: the first `HEAD_BYTES` of a file. Out: a `Kind`. A decoder is only ever asked for the kind that
was found here: libraries that guess would also find playlists and scripts, which name other files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HEAD_BYTES = 64

Medium = Literal["picture", "sound", "container"]
"""A container (MP4, WebM, AVI, Ogg) may hold sound, video, or both."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A file format. `decoder` is Pillow's name of a picture format or FFmpeg's of a demuxer."""

    name: str
    medium: Medium
    decoder: str


JPEG = Kind("JPEG", "picture", "JPEG")
PNG = Kind("PNG", "picture", "PNG")
GIF = Kind("GIF", "picture", "GIF")
WEBP = Kind("WebP", "picture", "WEBP")
BMP = Kind("BMP", "picture", "BMP")
WAV = Kind("WAV", "sound", "wav")
MP3 = Kind("MP3", "sound", "mp3")
AAC = Kind("AAC", "sound", "aac")
FLAC = Kind("FLAC", "sound", "flac")
OGG = Kind("Ogg", "container", "ogg")
MP4 = Kind("MP4", "container", "mov")
MATROSKA = Kind("WebM or Matroska", "container", "matroska")
AVI = Kind("AVI", "container", "avi")

PICTURES = "JPEG, PNG, WebP, GIF or BMP"
SOUNDS = "WAV, MP3, M4A, AAC, Ogg, Opus, FLAC, WebM or MP4"
VIDEOS = "MP4, WebM, Matroska, AVI or Ogg"

_PREFIXES = {
    b"\xff\xd8\xff": JPEG,
    b"\x89PNG\r\n\x1a\n": PNG,
    b"GIF87a": GIF,
    b"GIF89a": GIF,
    b"BM": BMP,
    b"ID3": MP3,
    b"fLaC": FLAC,
    b"OggS": OGG,
    b"\x1a\x45\xdf\xa3": MATROSKA,
}
_RIFF = {b"WEBP": WEBP, b"WAVE": WAV, b"AVI ": AVI}
_QUICKTIME_ATOMS = (b"moov", b"mdat", b"wide", b"free", b"skip")
_STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")

# Known by their bytes and not read: better to name them than to call them unknown.
_UNREADABLE = {
    b"II*\0": "a TIFF picture",
    b"MM\0*": "a TIFF picture",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"#EXTM3U": "a playlist",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML document",
    b"<!DOC": "a web page",
    b"<html": "a web page",
    b"\x1f\x8b": "a gzip archive",
}


def sniff(head: bytes) -> Kind | None:
    """The kind of a file that begins with `head`, or None if it is none that matryo reads."""
    if head[:4] in (b"RIFF", b"RF64"):
        return _RIFF.get(head[8:12])
    if head[4:8] == b"ftyp":
        return None if head[8:12] in _STILL_BRANDS else MP4
    if head[4:8] in _QUICKTIME_ATOMS:
        return MP4
    for prefix, kind in _PREFIXES.items():
        if head.startswith(prefix):
            return kind
    return _mpeg_audio(head)


def describe(head: bytes) -> str:
    """What an unreadable file seems to be, for a message."""
    if not head:
        return "an empty file"
    if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:
        return "a HEIC or AVIF picture"
    for prefix, name in _UNREADABLE.items():
        if head.startswith(prefix):
            return name
    return f"unknown bytes ({head[:8].hex(' ')})"


def _mpeg_audio(head: bytes) -> Kind | None:
    """MP3 and raw AAC have no signature but a sync word of 11 or 12 set bits and a layer."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = (head[1] >> 3) & 3, (head[1] >> 1) & 3
    if layer == 0 and head[1] & 0xF0 == 0xF0:  # layer 0 with 12 sync bits: ADTS
        return AAC
    bit_rate, rate = head[2] >> 4, (head[2] >> 2) & 3
    return MP3 if version != 1 and layer == 1 and bit_rate not in (0, 15) and rate != 3 else None
