"""Writing a directory of large safetensors files so that it can be stopped at any moment and
continued.

In: tensors that can give their bytes block by block, from any block on. Out: the files, and their
checksums. Work in progress is `NAME.partial` beside `NAME.progress`, which says how many bytes of
it are known to be on the disk and their checksum. Continuing reads those bytes again and compares;
anything odd means beginning that file anew. A directory with the file UNFINISHED in it is no
checkpoint, whatever else it holds.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from matryo.checkpoint.atomic import (
    TEMPORARY,
    UNFINISHED,
    alone,
    check_space,
    replace_text,
    sync_directory,
)
from matryo.checkpoint.safetensors import write_header
from matryo.errors import CapacityError, CheckpointError, MatryoError

Array = npt.NDArray[Any]
Progress = Callable[[int, int, str], None]  # bytes done, bytes in all, what

PARTIAL, PROGRESS = ".partial", ".progress"
COMMIT_BYTES = 64 << 20  # written between two moments that a stopped run continues from
_READ_BYTES = 4 << 20
_SLACK_BYTES = 16 << 20  # for the small files
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Tensor(Protocol):
    """What can be written: name, safetensors dtype and shape, bytes in blocks of any size."""

    @property
    def name(self) -> str: ...
    @property
    def stored(self) -> tuple[str, tuple[int, ...]]: ...
    def blocks(self, first: int = 0) -> Iterator[Array]: ...


@dataclass(frozen=True, slots=True)
class Written:
    """A finished file."""

    num_bytes: int
    sha256: str
    header_sha256: str


@dataclass(frozen=True, slots=True)
class _Mark:
    """The first `offset` bytes have this checksum.

    The next block is `block` of tensor number `tensor`.
    """

    tensor: int
    block: int
    offset: int
    sha256: str


@contextmanager
def unfinished(target: Path, key: str, num_bytes: int) -> Iterator[None]:
    """An existing directory that is being written: inside the block it is marked as unfinished.

    key: what is being written, from what; work that an earlier run with another key left behind is
    thrown away
    num_bytes: what all of it will take
    Raises CheckpointError if there is something else in the directory, CapacityError if the disk
    has no room for what is missing, or becomes full: what was written stays, and the same call
    continues. After another error of ours the work is thrown away, since the error would come
    again.
    """
    marker = target / UNFINISHED
    try:
        if not marker.exists() and any(target.iterdir()):
            raise CheckpointError(
                "the directory is not empty: choose another one", file=str(target)
            )
        if marker.exists() and marker.read_text(encoding="utf-8", errors="replace") != key:
            _throw_away(target)
        there = sum(path.stat().st_size for path in target.iterdir())
        check_space(target, max(num_bytes - there, 0) + _SLACK_BYTES)
        replace_text(marker, key)
        try:
            yield
        except CapacityError:
            raise
        except MatryoError:
            _throw_away(target)
            raise
        _finish(target)
    except OSError as error:
        raise _translated(error, target) from error


@contextmanager
def own_directory(target: Path, *, wait: bool) -> Iterator[None]:
    """A directory, made if there is none, that no other process writes; if nothing gets into it, it
    goes again.

    Raises CheckpointError if it cannot be made, or if another process is in it and `wait` is false.
    """
    if target.exists() and not target.is_dir():
        raise CheckpointError("is a file; expected a directory, or a new name", file=str(target))
    try:
        target.mkdir(parents=True, exist_ok=True)
        with alone(target, wait=wait):
            try:
                yield
            finally:
                if not any(target.iterdir()):
                    target.rmdir()
    except OSError as error:
        raise _translated(error, target) from error


def write_tensors(
    path: Path,
    tensors: Sequence[Tensor],
    metadata: Mapping[str, str],
    progress: Callable[[int, str], None] | None = None,
) -> Written:
    """Writes one file inside an `unfinished` directory, or what is missing of it.

    progress: called with (bytes of tensors done, tensor). Raises OSError, and what the tensors
    raise.
    """
    header, _, size = write_header({tensor.name: tensor.stored for tensor in tensors}, metadata)
    partial, state = (path.with_name(path.name + ending) for ending in (PARTIAL, PROGRESS))
    if path.exists():  # finished by an earlier run, which then stopped: checked like a partial one
        os.replace(path, partial)
    with partial.open("r+b" if partial.exists() else "w+b") as file:
        writer = _Writer(file, state, progress)
        tensor, block = writer.resume(header, size)
        for number in range(tensor, len(tensors)):
            for data in tensors[number].blocks(block):
                block += 1
                writer.write(data, tensors[number].name, _Mark(number, block, 0, ""))
            block = 0
        if writer.offset != size:
            raise CheckpointError(f"wrote {writer.offset} bytes of {size}", file=str(path))
        writer.commit(_Mark(len(tensors), 0, 0, ""))
    os.replace(partial, path)
    sync_directory(path.parent)
    return Written(size, writer.digest.hexdigest(), hashlib.sha256(header[8:]).hexdigest())


class _Writer:
    """A growing file, its running checksum, and the moments to which a stopped run can return."""

    def __init__(
        self, file: BinaryIO, state: Path, progress: Callable[[int, str], None] | None
    ) -> None:
        self.file, self.state, self.progress = file, state, progress
        self.digest = hashlib.sha256()
        self.offset = self.committed = self.header_bytes = 0

    def resume(self, header: bytes, size: int) -> tuple[int, int]:
        """Where to go on: number of the tensor, number of its block.

        Cuts off what is not known to be right.
        """
        self.header_bytes = len(header)
        mark = _read_mark(self.state)
        if mark is not None and len(header) <= mark.offset <= size and self._matches(header, mark):
            self.offset = self.committed = mark.offset
            self.file.truncate(mark.offset)
            self.file.seek(mark.offset)
            return mark.tensor, mark.block
        self.digest = hashlib.sha256(header)
        self.file.seek(0)
        self.file.truncate()
        self.file.write(header)
        self.offset = len(header)
        return 0, 0

    def write(self, data: Array, name: str, mark: _Mark) -> None:
        view = memoryview(np.ascontiguousarray(data)).cast("B")  # type: ignore[arg-type]
        self.file.write(view)
        self.digest.update(view)
        self.offset += len(view)
        if self.offset - self.committed >= COMMIT_BYTES:
            self.commit(mark)
        if self.progress is not None:
            self.progress(self.offset - self.header_bytes, name)

    def commit(self, mark: _Mark) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        known = _Mark(mark.tensor, mark.block, self.offset, self.digest.hexdigest())
        replace_text(self.state, json.dumps(asdict(known)))
        self.committed = self.offset

    def _matches(self, header: bytes, mark: _Mark) -> bool:
        self.file.seek(0)
        if self.file.read(len(header)) != header:
            return False
        self.digest = hashlib.sha256(header)
        left = mark.offset - len(header)
        while left:
            part = self.file.read(min(left, _READ_BYTES))
            if not part:
                return False
            self.digest.update(part)
            left -= len(part)
        return self.digest.hexdigest() == mark.sha256


def _read_mark(path: Path) -> _Mark | None:
    """What an earlier run noted; None if there is nothing that can be used."""
    try:
        mark = _Mark(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError, RecursionError):
        return None
    counts = (mark.tensor, mark.block, mark.offset)
    return mark if all(type(count) is int and count >= 0 for count in counts) else None


def _throw_away(target: Path) -> None:
    """Removes everything an unfinished directory holds, the marker last."""
    marker = target / UNFINISHED
    for path in target.iterdir():
        if path != marker and path.is_file():
            path.unlink()
    marker.unlink(missing_ok=True)


def _finish(target: Path) -> None:
    """Removes what only an unfinished directory has."""
    for path in target.iterdir():
        if path.name.endswith((PARTIAL, PROGRESS, TEMPORARY)):
            path.unlink()
    (target / UNFINISHED).unlink()
    sync_directory(target)


@contextmanager
def room(place: Path, hint: str) -> Iterator[None]:
    """Raises CapacityError if the disk of `place` becomes full inside the block, whoever says so:
    the system, torch or safetensors. hint: what to do once there is space.
    """
    try:
        yield
    except MatryoError:
        raise
    except Exception as error:
        reason = _full(error)
        if reason is None:
            raise
        raise _no_room(place, reason, hint) from error


def _full(error: BaseException | None) -> str | None:
    """The system's words for a full disk, if one is behind an error. torch raises an error of its
    own behind the system's; safetensors writes the system's number into a text.
    """
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (found := re.search(r"\(os error (\d+)\)", str(error))):
            number = int(found[1])
        if number in _FULL:
            return os.strerror(number)
        error = error.__cause__ or error.__context__
    return None


def _no_room(place: Path, reason: str, hint: str) -> CapacityError:
    return CapacityError(f"{place}: {reason}: free some space and {hint}")


def _translated(error: OSError, target: Path) -> MatryoError:
    reason = _full(error)
    if reason is not None:
        return _no_room(target, reason, "run the same again, it continues where it stopped")
    return CheckpointError(f"failed: {error.strerror or error}", file=str(error.filename or target))


def part_of(
    progress: Progress | None, before: int, total: int
) -> Callable[[int, str], None] | None:
    """What `write_tensors` reports to for one file of several, `before` bytes after the first."""
    if progress is None:
        return None
    return lambda done, tensor: progress(before + done, total, tensor)
