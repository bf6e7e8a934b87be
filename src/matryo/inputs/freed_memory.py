"""Memory that the C library keeps after it was freed.

Reading Gemma's tokenizer.json needs 300 MB for a moment, in small pieces; glibc keeps them for
later allocations of this kind, of which there are none, and they would count as resident for good.
"""

from __future__ import annotations

import ctypes


def return_freed_memory() -> None:
    """Give freed pages back to the operating system; nothing happens where that is not possible."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
