"""Safetensors files: a strict, zero-copy reader, and the header of a file to be written.

In: a path, untrusted. Out: read-only numpy views into the mapped file; nothing is copied and
nothing is executed. The header is validated completely before any tensor is touched: sizes, dtypes,
and offsets that cover the data area exactly, without holes or overlaps. numpy has no bfloat16: BF16
tensors are given as their uint16 bits.
Format: 8 bytes little-endian header length, a JSON object, the data.
A mapped file that somebody shortens while it is in use ends the process (SIGBUS); replace files,
never edit them.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matryo.errors import CheckpointError

Array = npt.NDArray[Any]

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
}
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_MAX_RANK, _MAX_DIMENSION = 8, 1 << 48
_ALIGNMENT = 4096  # of the data of a file that we write: its pages are pages of memory


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies: dtype tag, shape, and its byte range in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class SafetensorsFile:
    """One mapped file. Views stay valid while they live, whatever else is gone.

    Raises CheckpointError, naming file and tensor, for anything that is not a complete, consistent
    safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map, header, data_start = _map_file(path)
        self.header_sha256 = hashlib.sha256(header).hexdigest()
        document = _parse_header(path, header)
        self.metadata = _metadata(path, document.pop("__metadata__", {}))
        self.tensors: Mapping[str, TensorInfo] = {
            name: _tensor_info(path, name, entry, data_start) for name, entry in document.items()
        }
        _check_cover(path, self.tensors, data_start, len(self._map))

    def array(self, name: str) -> Array:
        """A read-only view of tensor `name`. Raises CheckpointError if the file has none."""
        info = self.info(name)
        flat = np.frombuffer(
            self._map, DTYPES[info.dtype], prod(info.shape), info.start if prod(info.shape) else 0
        )
        return flat.reshape(info.shape)

    def info(self, name: str) -> TensorInfo:
        """Dtype, shape and place of tensor `name`. Raises CheckpointError if the file has none."""
        try:
            return self.tensors[name]
        except KeyError:
            raise CheckpointError("no such tensor", file=str(self.path), tensor=name) from None

    @property
    def num_bytes(self) -> int:
        return len(self._map)

    def forget(self, name: str, first: int = 0, last: int | None = None) -> None:
        """Tells the system that bytes [first, last) of a tensor are not needed in memory now."""
        info = self.info(name)
        start = -(-(info.start + first) // mmap.PAGESIZE) * mmap.PAGESIZE
        end = info.end if last is None else min(info.start + last, info.end)
        end = end // mmap.PAGESIZE * mmap.PAGESIZE
        if hasattr(self._map, "madvise") and end > start:
            self._map.madvise(mmap.MADV_DONTNEED, start, end - start)


def write_header(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, int], int]:
    """The header of a file that holds `tensors` (name -> dtype tag, shape) in this order.

    Returns the bytes before the data (padded with spaces to 4 KiB), each tensor's offset in the
    file, and its size.
    """
    document: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset, places = 0, {}
    for name, (dtype, shape) in tensors.items():
        end = offset + prod(shape) * DTYPES[dtype].itemsize
        document[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        places[name] = offset
        offset = end
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    start = len(text) + 8
    return (
        len(text).to_bytes(8, "little") + text,
        {name: start + place for name, place in places.items()},
        start + offset,
    )


def _map_file(path: Path) -> tuple[mmap.mmap, bytes, int]:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 8:
                raise _broken(path, "too short for a header", "at least 8 bytes", f"{size} bytes")
            mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    except OSError as error:
        raise CheckpointError(f"cannot open: {error.strerror or error}", file=str(path)) from error
    length = int.from_bytes(mapped[:8], "little")
    if length > MAX_HEADER_BYTES or 8 + length > size:
        limit = min(MAX_HEADER_BYTES, size - 8)
        raise _broken(path, "header length beyond the file", f"at most {limit}", str(length))
    return mapped, mapped[8 : 8 + length], 8 + length


def _parse_header(path: Path, header: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key appears twice")
        return found

    try:
        document = json.loads(header.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise _broken(path, f"the header is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise _broken(path, "the header is not a JSON object", "an object", type(document).__name__)
    return document


def _metadata(path: Path, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise _broken(path, "__metadata__ must map strings to strings")
    return value


def _tensor_info(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    def fail(message: str, expected: str | None = None, got: Any = None) -> CheckpointError:
        shown = None if got is None else repr(got)[:80]
        return CheckpointError(
            message, file=str(path), tensor=name[:200], expected=expected, got=shown
        )

    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise fail("malformed entry", "dtype, shape and data_offsets", entry)
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise fail("unknown dtype", ", ".join(DTYPES), dtype)
    if not _is_sizes(shape) or len(shape) > _MAX_RANK:
        raise fail("bad shape", f"up to {_MAX_RANK} sizes", shape)
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise fail("bad data_offsets", "[start, end]", offsets)
    num_bytes = prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != num_bytes:
        raise fail("size and shape disagree", f"{num_bytes} bytes", offsets[1] - offsets[0])
    return TensorInfo(dtype, tuple(shape), data_start + offsets[0], data_start + offsets[1])


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(size) is int and 0 <= size < _MAX_DIMENSION for size in value
    )


def _check_cover(path: Path, tensors: Mapping[str, TensorInfo], start: int, end: int) -> None:
    """The data area is covered exactly once."""
    position = start
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != position:
            raise CheckpointError(
                "data overlaps or leaves a hole", file=str(path), tensor=name[:200],
                expected=f"start at byte {position}", got=str(info.start),
            )  # fmt: skip
        position = info.end
    if position != end:
        raise _broken(
            path, "the file does not end where its tensors end", f"{position} bytes", f"{end} bytes"
        )


def _broken(
    path: Path, message: str, expected: str | None = None, got: str | None = None
) -> CheckpointError:
    return CheckpointError(message, file=str(path), expected=expected, got=got)
