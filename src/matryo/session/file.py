"""A saved session: one file, checked from the first byte to the last before anything in it is
believed.

Layout, little endian: magic (8 bytes, ends with the format's version) · length of the header (u64)
· header (JSON: plain values
and a table of arrays) · the arrays' bytes, in the table's order, without gaps · SHA-256 of
everything before it (32 bytes).
Written to a temporary file beside the target and renamed, so that a file of that name is always
whole.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from matryo.checkpoint.atomic import replacing
from matryo.errors import CheckpointError

Arrays = Mapping[str, npt.NDArray[Any]]

MAGIC = b"MATRYOS1"
MAX_HEADER_BYTES = 64 << 20
_DIGEST_BYTES = 32
_PREFIX = struct.Struct("<8sQ")
_CHUNK_BYTES = 4 << 20
_DTYPES: dict[str, np.dtype[Any]] = {
    "u8": np.dtype(np.uint8),
    "i32": np.dtype(np.int32),
    "f32": np.dtype(np.float32),
}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


@dataclass(frozen=True, slots=True)
class SessionFile:
    """What a session file holds: `values` are plain JSON, `arrays` uint8, int32 or float32."""

    values: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]


def write_session(path: Path, values: Mapping[str, Any], arrays: Arrays) -> None:
    """Write a file that `read_session` gives back. Raises OSError if it cannot; then `path` is as
    it was before.
    """
    table = [[name, _DTYPE_NAMES[array.dtype], list(array.shape)] for name, array in arrays.items()]
    header = json.dumps({"values": dict(values), "arrays": table}, allow_nan=False).encode()
    with replacing(path) as file:
        _write_parts(file, header, arrays)


def _write_parts(file: BinaryIO, header: bytes, arrays: Arrays) -> None:
    digest = hashlib.sha256()

    def put(part: bytes | memoryview) -> None:
        digest.update(part)
        file.write(part)

    put(_PREFIX.pack(MAGIC, len(header)))
    put(header)
    for array in arrays.values():
        if array.size:
            put(np.ascontiguousarray(array).data.cast("B"))
    file.write(digest.digest())


def read_session(path: Path) -> SessionFile:
    """Read and check a session file; memory in use never exceeds the file's size by much.

    Raises CheckpointError if it is not a session file of this version or any byte of it was
    changed; OSError if it cannot be opened.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        header_bytes = _check_prefix(path, file, size)
        _check_digest(path, file, size)
        file.seek(_PREFIX.size)
        values, table = _read_header(path, file.read(header_bytes))
        expected = (
            _PREFIX.size + header_bytes + sum(_num_bytes(entry) for entry in table) + _DIGEST_BYTES
        )
        if expected != size:
            raise CheckpointError(f"{path}: the arrays need a file of {expected} bytes, got {size}")
        arrays = {name: _read_array(path, file, dtype, shape) for name, dtype, shape in table}
    return SessionFile(values, arrays)


_Entry = tuple[str, np.dtype[Any], tuple[int, ...]]


def _check_prefix(path: Path, file: BinaryIO, size: int) -> int:
    prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size or prefix[:7] != MAGIC[:7]:
        raise CheckpointError(f"{path}: not a Matryo session file")
    magic, header_bytes = _PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise CheckpointError(
            f"{path}: a session file of version {magic[7:]!r}, this program reads {MAGIC[7:]!r}; "
            "start a new session from its text"
        )
    if header_bytes > min(MAX_HEADER_BYTES, size - _PREFIX.size - _DIGEST_BYTES):
        raise CheckpointError(
            f"{path}: a header of {header_bytes} bytes does not fit into {size} bytes"
        )
    return int(header_bytes)


def _check_digest(path: Path, file: BinaryIO, size: int) -> None:
    file.seek(0)
    digest = hashlib.sha256()
    left = size - _DIGEST_BYTES
    while left > 0:
        part = file.read(min(left, _CHUNK_BYTES))
        if not part:
            raise CheckpointError(f"{path}: the file became shorter while it was read")
        digest.update(part)
        left -= len(part)
    if file.read(_DIGEST_BYTES) != digest.digest():
        raise CheckpointError(
            f"{path}: the checksum does not match; the file is damaged or incomplete"
        )


def _read_header(path: Path, header: bytes) -> tuple[dict[str, Any], list[_Entry]]:
    try:
        document = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the header is not JSON: {error}") from error
    if not isinstance(document, dict) or set(document) != {"values", "arrays"}:
        raise CheckpointError(f"{path}: expected a header with values and arrays")
    values, table = document["values"], document["arrays"]
    if not isinstance(values, dict) or not isinstance(table, list):
        raise CheckpointError(f"{path}: expected values to be an object and arrays a list")
    entries = [_checked_entry(path, entry) for entry in table]
    if len({name for name, _, _ in entries}) != len(entries):
        raise CheckpointError(f"{path}: an array is named twice")
    return values, entries


def _checked_entry(path: Path, entry: object) -> _Entry:
    if isinstance(entry, list) and len(entry) == 3:
        name, dtype, shape = entry
        known = _DTYPES.get(dtype) if isinstance(dtype, str) else None
        if isinstance(name, str) and known is not None and _is_shape(shape):
            return name, known, tuple(shape)
    raise CheckpointError(f"{path}: expected arrays as [name, dtype, shape], got {str(entry)[:80]}")


def _is_shape(shape: object) -> bool:
    """A list of at most four sizes whose product fits into 160 bits."""
    return (
        isinstance(shape, list)
        and len(shape) <= 4
        and all(type(size) is int and 0 <= size < 1 << 40 for size in shape)
    )


def _num_bytes(entry: _Entry) -> int:
    _, dtype, shape = entry
    return math.prod(shape) * dtype.itemsize


def _read_array(
    path: Path, file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    array = np.empty(shape, dtype)
    if array.size and file.readinto(array.data.cast("B")) != array.nbytes:  # type: ignore[attr-defined]
        raise CheckpointError(f"{path}: the file became shorter while it was read")
    return array
