"""Read bandwidth of the machine right now, by a small C program compiled on first use.

In: number of threads. Out: `Probe.measure()` in GB/s, the median of a few passes over 512 MB (a few
tens of ms), cheap enough to take beside every repetition.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

BUFFER_BYTES = 512 << 20
PASSES = 5
SOURCE = Path(__file__).with_name("bandwidth.c")


def compiled() -> Path:
    """The shared library for this source and this machine, built if it is not there.

    Raises RuntimeError with the compiler's words if it cannot be built.
    """
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    library = Path(tempfile.gettempdir()) / f"matryo-bandwidth-{os.getuid()}-{digest}.so"
    if library.exists():
        return library
    partial = library.with_suffix(f".{os.getpid()}")
    compiler = os.environ.get("CC", "cc")
    command = [
        compiler,
        "-O3",
        "-march=native",
        "-shared",
        "-fPIC",
        "-pthread",
        "-o",
        str(partial),
        str(SOURCE),
    ]
    built = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if built.returncode != 0:
        raise RuntimeError(f"cannot compile {SOURCE.name}: {built.stderr.strip()}")
    partial.replace(library)
    return library


class Probe:
    """Holds the buffer; one per process."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.function = ctypes.CDLL(str(compiled())).read_bandwidth
        self.function.restype = ctypes.c_double
        self.function.argtypes = [
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.POINTER(ctypes.c_int64),
        ]
        self.buffer = mmap.mmap(-1, BUFFER_BYTES)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self.buffer.madvise(mmap.MADV_HUGEPAGE)
        self.buffer.write(b"\x01" * BUFFER_BYTES)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.buffer))

    def measure(self) -> float:
        """GB/s, the median of a few passes. Raises RuntimeError if a thread cannot be started."""
        total = ctypes.c_int64()
        passes: list[float] = [
            self.function(self.address, BUFFER_BYTES, self.threads, ctypes.byref(total))
            for _ in range(PASSES)
        ]
        if min(passes) < 0:
            raise RuntimeError(f"cannot read memory with {self.threads} threads")
        return statistics.median(passes)
