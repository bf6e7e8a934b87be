"""Files that appear whole or not at all, and directories that one process writes at a time.

In: a path and what goes into it. Out: the file, complete, synced and renamed into place; after a
crash at any moment there is the old file or the new one, and perhaps a temporary one whose name
ends in `.tmp`. Errors are OSError, as the system says it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from matryo.errors import CapacityError, CheckpointError

TEMPORARY = ".tmp"
UNFINISHED = "matryo.unfinished"
"""A directory with a file of this name is still being written; nothing in it is believed."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file, open for writing; it takes the place of `path` if the block raises nothing."""
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def replace_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def copy_file(source: Path, target: Path) -> None:
    """Copies the bytes of `source`; links are followed."""
    with source.open("rb") as reading, replacing(target) as writing:
        shutil.copyfileobj(reading, writing)


def sync_directory(directory: Path) -> None:
    """Makes renames inside a directory durable."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_space(directory: Path, needed: int) -> None:
    """Raises CapacityError if the disk of a directory has less than `needed` bytes left."""
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise CapacityError(
            f"{directory}: {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free: "
            "free some space or choose another disk",
            needed=needed,
            available=free,
        )


@contextmanager
def alone(directory: Path, *, wait: bool) -> Iterator[None]:
    """Keeps other processes that ask the same out of a directory, until the block ends or the
    process does.

    Raises CheckpointError if another process is in it and `wait` is false.
    """
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise CheckpointError(
                "another process is writing here; wait for it", file=str(directory)
            ) from None
        yield
    finally:
        os.close(handle)
