"""Whether a sound or video file is as long as its own structure says.

In: a source and its kind. Out: nothing, or InputError. FFmpeg's demuxers read a file that was cut
off as far as it goes and call that its end: half a question would be answered as if it were whole.
Sources: the RIFF and ISO BMFF (ISO/IEC 14496-12) box headers; RFC 8794 for the sizes of EBML.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from matryo.errors import InputError
from matryo.inputs.sniff import AVI, MATROSKA, MP4, WAV, Kind
from matryo.inputs.source import Source

MAX_BOXES = 100_000  # a fragmented MP4 has two for every second or so

_UNKNOWN_SIZE = 0x7FFF_0000  # programs that write WAV into a pipe state a size around 2 or 4 GiB
_SEGMENT = b"\x18\x53\x80\x67"


def check_whole(source: Source, kind: Kind) -> None:
    """Raises InputError if a WAV, AVI, MP4 or Matroska file states more bytes than it has. Other
    kinds, and files written by a stream, state none.
    """
    with source.open() as file:
        if kind in (WAV, AVI):
            stated = _riff_end(file)
        elif kind is MP4:
            stated = _last_box_end(source.name, file, source.num_bytes)
        elif kind is MATROSKA:
            stated = _segment_end(file)
        else:
            return
    if stated is not None and stated > source.num_bytes:
        raise InputError(
            f"{source.name}: cut off: it states {stated} bytes and holds {source.num_bytes}; copy "
            "or record it again"
        )


def _riff_end(file: BinaryIO) -> int | None:
    size = int.from_bytes(file.read(8)[4:8], "little")
    # Writers disagree about whether the padding of an odd last chunk counts.
    return size + 7 if size < _UNKNOWN_SIZE else None


def _last_box_end(name: str, file: BinaryIO, num_bytes: int) -> int | None:
    at = 0
    for _ in range(MAX_BOXES):
        if at >= num_bytes:
            return at
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return None  # a few bytes behind the last box
        size = int.from_bytes(head[:4], "big")
        if size == 0:  # the last box, up to the end whatever that is
            return None
        if size == 1:  # 64 bits follow
            size = int.from_bytes(head[8:16], "big")
        if size < 8:
            return None  # no box: FFmpeg will say what it thinks of it
        at += size
    raise InputError(f"{name}: expected at most {MAX_BOXES} boxes in an MP4 file, got more")


def _segment_end(file: BinaryIO) -> int | None:
    """An EBML header, then one segment that holds everything."""
    file.seek(4)
    header = _element_size(file)
    if header is None:
        return None
    file.seek(header, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return None
    size = _element_size(file)
    return None if size is None else file.tell() + size


def _element_size(file: BinaryIO) -> int | None:
    """A size of 1 to 8 bytes: as many as there are zeros before the first one bit, and one. All
    ones mean unknown.
    """
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    length = 9 - first[0].bit_length()
    value = int.from_bytes(
        bytes([first[0] & (1 << (8 - length)) - 1]) + file.read(length - 1), "big"
    )
    return None if value == (1 << 7 * length) - 1 else value
