"""Where media comes from: a path, a URL, bytes, an open file or an array, behind one interface.

In: whatever a user passes as a picture, sound or video. Out: a `Source` that can be opened any
number of times, with its size known and bounded and its kind told by its bytes.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import stat
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from matryo.errors import InputError
from matryo.inputs.limits import DEFAULT_LIMITS, MediaLimits
from matryo.inputs.sniff import HEAD_BYTES, Kind, Medium, describe, sniff

PIECE_BYTES = 1 << 20
MEMORY_BYTES = 32 << 20  # downloads and copied files above it go to a temporary file

Array = npt.NDArray[Any]


class Readable(Protocol):
    """A file opened for reading bytes."""

    def read(self, size: int, /) -> bytes: ...


MediaInput = "Source | str | os.PathLike[str] | bytes | bytearray | memoryview | Readable | Array"


class Source:
    """Bytes or an array that a decoder can read. Made by `Source.of`.

    `name` is for messages; `array` is set instead of bytes when the user passed one.
    """

    __slots__ = ("__weakref__", "_data", "_path", "array", "kind", "name", "num_bytes")

    def __init__(
        self,
        name: str,
        *,
        data: bytes | None = None,
        path: Path | None = None,
        array: Array | None = None,
    ) -> None:
        self.name, self.array = name, array
        self._data, self._path = data, path
        self.kind: Kind | None = None
        self.num_bytes = 0
        if array is None:
            with self.open() as file:
                self.num_bytes = file.seek(0, os.SEEK_END)
                file.seek(0)
                head = file.read(HEAD_BYTES)
            self.kind = sniff(head)

    @classmethod
    def of(
        cls,
        value: object,
        *,
        limits: MediaLimits = DEFAULT_LIMITS,
        allow_urls: bool = False,
        allow_private: bool = False,
    ) -> Source:
        """Make a source of a path, `http(s)://` or `data:` URL, bytes, open file or array.

        URLs are read only with `allow_urls`, and from addresses inside a network only with
        `allow_private` too; they are downloaded here, up to `limits.max_bytes` and within
        `limits.download_seconds`.
        Raises InputError if there is nothing to read, or too much.
        """
        if isinstance(value, Source):
            return value
        if isinstance(value, np.ndarray):
            return cls("array", array=value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return cls("bytes", data=_bounded(bytes(value), limits))
        if isinstance(value, str) and value.startswith("data:"):
            return cls("data URL", data=_data_url(value, limits))
        if isinstance(value, str) and "://" in value[:16]:
            return _download(value, limits, allow_urls, allow_private)
        if isinstance(value, (str, os.PathLike)):
            return cls(str(value), path=_checked_path(value, limits))
        if callable(getattr(value, "read", None)):
            return _kept("open file", _read_pieces(value, limits))
        raise InputError(
            "expected a path, a URL, bytes, an open file or a numpy array as picture, sound or "
            f"video, got {type(value).__name__}"
        )

    def open(self) -> BinaryIO:
        """A new file object at the first byte, independent of all others. Raises InputError."""
        if self._data is not None:
            return io.BytesIO(self._data)
        if self._path is None:
            raise InputError(f"{self.name}: expected bytes, got an array")
        try:
            return self._path.open("rb")
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read: {error.strerror}") from error

    def require(self, media: tuple[Medium, ...], expected: str) -> Kind:
        """The kind of the bytes, if its medium is among `media`. Raises InputError otherwise."""
        if self.kind is not None and self.kind.medium in media:
            return self.kind
        with self.open() as file:
            head = file.read(HEAD_BYTES)
        got = describe(head) if self.kind is None else f"{self.kind.name} ({self.kind.medium})"
        raise InputError(
            f"{self.name}: expected {expected} by its first bytes, got {got}; the file's name "
            "plays no part, convert it if it is something else"
        )


def _bounded(data: bytes, limits: MediaLimits) -> bytes:
    _check_size("bytes", len(data), limits.max_bytes)
    return data


def _check_size(name: str, num_bytes: int, allowed: int) -> None:
    if num_bytes > allowed:
        raise InputError(
            f"{name}: expected at most {allowed} bytes, got {num_bytes}; raise the limit or make "
            "the file smaller"
        )


def _data_url(url: str, limits: MediaLimits) -> bytes:
    head, comma, body = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise InputError(f"data URL: expected data:TYPE;base64,..., got {head[:40]!r}")
    _check_size("data URL", len(body) * 3 // 4, limits.max_bytes)
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"data URL: not valid base64: {error}") from error


def _checked_path(value: str | os.PathLike[str], limits: MediaLimits) -> Path:
    """A path of a regular file: opening a pipe or device could block or never end."""
    path = Path(value)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{value!s}: cannot be read: {reason}") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{value!s}: expected a file, got a directory, pipe or device")
    _check_size(str(value), status.st_size, limits.max_bytes)
    return path


def _read_pieces(file: Any, limits: MediaLimits) -> Iterator[bytes]:
    num_bytes = 0
    while piece := file.read(PIECE_BYTES):
        if not isinstance(piece, bytes):
            raise InputError(
                f"open file: expected bytes from read(), got {type(piece).__name__}; open it in "
                "binary mode"
            )
        num_bytes += len(piece)
        _check_size("open file", num_bytes, limits.max_bytes)
        yield piece


def _download(url: str, limits: MediaLimits, allow_urls: bool, allow_private: bool) -> Source:
    from matryo.inputs.download import download

    if not allow_urls:
        raise InputError(
            f"{url[:100]}: reading from the network is off; allow URLs or download the file first"
        )
    pieces = download(
        url,
        max_bytes=limits.max_bytes,
        timeout_s=limits.download_seconds,
        allow_private=allow_private,
    )
    return _kept(url, pieces)


def _kept(name: str, pieces: Iterator[bytes]) -> Source:
    """Collect pieces in memory, or in a temporary file that lives as long as the source."""
    with tempfile.SpooledTemporaryFile(max_size=MEMORY_BYTES) as spool:
        for piece in pieces:
            spool.write(piece)
        num_bytes = spool.tell()
        spool.seek(0)
        if num_bytes <= MEMORY_BYTES:
            return Source(name, data=spool.read())
        with tempfile.NamedTemporaryFile(prefix="matryo-", delete=False) as kept:
            path = Path(kept.name)
            while piece := spool.read(PIECE_BYTES):
                kept.write(piece)
    source = Source(name, path=path)
    weakref.finalize(source, path.unlink, missing_ok=True)
    return source
