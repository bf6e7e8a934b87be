"""Memory of processes and page cache of files, from /proc and posix_fadvise."""

from __future__ import annotations

import os
from pathlib import Path


def parse_status(text: str) -> tuple[int, int]:
    """(resident bytes, peak resident bytes) from the text of /proc/PID/status."""
    values = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key in ("VmRSS", "VmHWM"):
            values[key] = int(value.split()[0]) * 1024
    return values.get("VmRSS", 0), values.get("VmHWM", 0)


def memory_of(process: int) -> tuple[int, int]:
    """(resident bytes, peak resident bytes) of a process now."""
    return parse_status(Path(f"/proc/{process}/status").read_text())


def drop_from_page_cache(path: Path) -> None:
    """Evict a file, or every file below a directory, so that the next read comes from the disk."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
