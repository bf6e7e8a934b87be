"""Freed memory goes back to the system, so that a tokenizer's temporary values do not stay."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import psutil
from matryo.inputs.allocator import return_freed_memory

process = psutil.Process()
kept = []
pieces = [bytearray(900) for _ in range(100_000)]  # 90 MB of small blocks
kept = pieces[::500]  # a few survivors keep the heap from shrinking by itself
full = process.memory_info().rss
del pieces
asked = return_freed_memory()
print(int(asked), full - process.memory_info().rss)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked")
def test_small_blocks_are_returned() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    asked, returned = map(int, done.stdout.split())
    assert asked == 1
    assert returned > 40e6
