"""Freed memory kept for the next step, instead of given back and zeroed again by the system.

In: nothing. Out: a setting of the C library for the rest of the process. A pass frees and asks for
the same large blocks over and over; by default every one of them is fresh pages, each of which the
kernel clears at the first touch.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of mallopt(3)
_LARGEST = 1 << 30  # bytes; larger blocks are still given back
_PAD = 1 << 26


def keep_freed() -> bool:
    """Whether the C library can be told (glibc); otherwise nothing changes."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, _PAD))
    return all([mallopt(key, value) == 1 for key, value in settings])
